"""How Sphinx makes the website out of the pages that scripts/website.py lays out for it."""
import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from fastcore.docments import docments
from sphinx import addnodes

project = html_title = "mnist_scratch"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["jupyter_execute"]
html_sourcelink_suffix = ""

nb_execution_mode = "off"  # the committed outputs are shown
nb_ipywidgets_js = {}
nb_code_prompt_show = nb_code_prompt_hide = "{type}"  # source or outputs
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "code"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False
html_math_renderer = "mathml"  # which browsers draw without a script

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_use_index = html_domain_indices = False  # the search finds more
html_show_copyright = html_show_sphinx = html_show_search_summary = False
html_theme_options = {"navbar_persistent": [], "show_toc_level": 2, "use_fullscreen_button": False,
                      "footer_content_items": []}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is


def mathml(self, node):
    "A formula as MathML."
    if re.search(r"frac[^{]", node.astext()):
        raise ValueError(f"A fraction needs its braces: {node.astext()}")
    formula = node.astext().replace("·", r"\cdot ").replace("≈", r"\approx ")
    if node.tagname == "math_block":
        self.body.append(f'<div class="formula" tabindex="0">{tex2mathml(formula, as_block=True)}</div>')
    else:
        self.body.append(tex2mathml(formula))
    raise nodes.SkipNode


def describe_parameters(app, what, name, obj, options, lines):
    "What the source says in a comment beside a parameter: units, range."
    lines[:] = [line.replace("|", r"\|") for line in lines]  # which has a meaning of its own
    if what in ("function", "method"):
        said = {one: text for one, text in docments(obj).items() if text}
        lines += ["", *(f":{'returns' if one == 'return' else f'param {one}'}: {text}" for one, text in said.items())]


def without_wrong_links(app, doctree):
    "A Tensor in a signature is PyTorch's, but for our own autograd, which Sphinx would take for it everywhere."
    for link in doctree.findall(addnodes.pending_xref):
        if link["reftarget"].endswith("Tensor") and app.env.docname != "reference/autograd":
            link.replace_self(link.children)


def setup(app):
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("doctree-read", without_wrong_links)
    app.connect("autodoc-process-docstring", describe_parameters)
