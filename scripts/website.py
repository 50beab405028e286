"""Make the website: the notebooks as they are committed, README, benchmarks and the library's reference, by Sphinx.

    python scripts/website.py NETS FOLDER

NETS is what scripts/playground.py writes, for the first page. `make site` does both, in _build/website."""
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path

import nbformat
import series
from series import ROOT
from sphinx.cmd.build import build_main

from mnist_scratch.plot import widget

TEXTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "nbs/*.md", "benchmarks/*.md", "benchmarks/results/*.md")
FILES = ("results.png", "constraints.txt", "LICENSE")  # that the texts show or link to
ROOMS = {"nbs/deeper": ("Deeper", "One further question a notebook, at any time after the lesson that links to it."),
         "nbs/tools": ("Tools", "The plumbing. You can read the lessons without it.")}
MORE = ("clinic", "nbs/deeper/index", "nbs/glossary", "nbs/departures", "benchmarks/README", "reference/index",
        "nbs/tools/index", "CONTRIBUTING", "CHANGELOG")
BEGIN = "\n**[Begin with 01](nbs/01_tensors.ipynb)**: what did they see in your drawing?\n"
EXECUTED = "*You are reading an executed copy. [Start](/index.md) says how to run it, and change it, yourself.*"


def live(name: str, *scripts: str) -> str:
    "A place in a page where the last of some scripts draws something to play with."
    whole = ("engine", "playground_data", "site", *scripts)
    lines = "".join(f'<script defer src="_static/{one}.js"></script>\n' for one in whole)
    words = "<p>Here is something to play with, once JavaScript is allowed.</p>"
    return f'\n```{{raw}} html\n<div id="{name}" class="play">{words}</div>\n{lines}```\n'


def prepared(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    "With what is moved with the mouse in the place of its picture, with alt text, and with folded cells folded."
    for before, cell in zip([None, *notebook.cells], list(notebook.cells)):
        if re.search(r"^drawing_pad\(", cell.source, re.M):  # which needs Python
            text = "*Here the sheet is only a picture. [The first page](/index.md) has one to draw on.*"
            notebook.cells.insert(notebook.cells.index(cell) + 1, nbformat.v4.new_markdown_cell(text))
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            only_imports = all(re.match(r"(from|import) |[ )#]|$", line) for line in cell.source.splitlines())
            cell.metadata.tags = ["remove-input" if only_imports else "hide-input"]
        if before and "<summary>Look after" in before.source:
            cell.metadata.tags = [*cell.metadata.get("tags", []), "hide-output"]
        for output in cell.get("outputs", []):
            about = output.get("metadata", {}).get("image/png", {})
            if "widget" in about:
                output.data = {"text/html": widget(about["widget"], about["alt"], about["data"])}
            elif "alt" in about:
                cell.metadata.mystnb = {"image": {"alt": about["alt"]}}
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(EXECUTED))
    return notebook


def contents(entries: list[str], caption: str = "") -> str:
    "A part of the navigation."
    options = [f":caption: {caption}"]*bool(caption) + [":hidden:"]
    return "\n".join(["\n```{toctree}", *options, "", *entries, "```\n"])


def room_page(room: str, heads: dict[Path, tuple[str, str]]) -> str:
    "What the room is for, and each of its notebooks with its first sentences."
    name, about = ROOMS[room]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")  # whose order is that of the lessons
    own = {path: heads[path] for path in sorted(heads, key=lambda path: readme.find(path.name))
           if path.parent == ROOT / room}
    lines = "".join(f"- [{title}]({path.name}): {begins}\n" for path, (title, begins) in own.items())
    return f"# {name}\n\n{about}\n\n{lines}" + contents([f"{title.partition(':')[0]} <{path.stem}>"
                                                        for path, (title, _) in own.items()])


def front_page(readme: str, heads: dict[Path, tuple[str, str]]) -> str:
    "The README with a sheet to draw on, and the navigation."
    readme = re.sub(r"\]\((nbs/(?:deeper|tools))\)", r"](\1/index.md)", readme)
    text, picture, rest = readme.partition("\n![")
    lessons = []
    for path, (title, _) in heads.items():
        if path.parent == ROOT / "nbs":
            number = path.stem[:3].replace("_", " ") if path.stem[0].isdigit() else ""
            lessons.append(f"{number}{re.split('[:,]', title)[0]} <nbs/{path.stem}>")
    readme = text + live("playground", "digits", "pad", "playground") + BEGIN + picture + rest
    return readme + contents(lessons, "The path") + contents(list(MORE), "And")


def lay_out(source: Path, nets: Path):
    "Write to `source` what Sphinx makes the website of: a tree like the repository's own, so that links hold."
    def write(name: str, text: str):
        (page := source / name).parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    shutil.rmtree(source, ignore_errors=True)
    heads = {path: series.head(path) for path in series.notebooks()}
    for path in heads:
        write(path.relative_to(ROOT).as_posix(), nbformat.writes(prepared(nbformat.read(path, as_version=4))))
    for path in (path for pattern in TEXTS for path in ROOT.glob(pattern)):
        text = path.read_text(encoding="utf-8")
        if path.name == "README.md" and path.parent == ROOT:
            write("index.md", front_page(text, heads))
        else:
            write(path.relative_to(ROOT).as_posix(), text if text.startswith("# ") else f"# {path.stem}\n\n{text}")
    results = [f"results/{path.stem}" for path in sorted((ROOT / "benchmarks/results").glob("*.md"))]
    with (source / "benchmarks/README.md").open("a", encoding="utf-8") as page:
        page.write(contents(results))
    for room in ROOMS:
        write(f"{room}/index.md", room_page(room, heads))
    modules = sorted(path.stem for path in (ROOT / "mnist_scratch").glob("[a-z]*.py"))
    for name in modules:
        about = f".. automodule:: mnist_scratch.{name}\n   :members:\n"
        write(f"reference/{name}.md", f"# mnist_scratch.{name}\n\n```{{eval-rst}}\n{about}```\n")
    names = {name: " ".join(f"`{one}`" for one in import_module(f"mnist_scratch.{name}").__all__) for name in modules}
    lines = "".join(f"- [{name}]({name}.md): {own}\n" for name, own in names.items())
    write("reference/index.md", f"# Reference\n\n{lines}" + contents(modules))
    text, dash, instruments = (ROOT / "site/clinic.md").read_text(encoding="utf-8").partition("\n- ")
    write("clinic.md", text + live("clinic", "live_clinic") + dash + instruments)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    shutil.copy(ROOT / "site/conf.py", source)
    shutil.copytree(ROOT / "mnist_scratch/web", source / "_static")
    shutil.copy(ROOT / "site/site.css", source / "_static")
    shutil.copy(nets, source / "_static/playground_data.js")
    write("_static/scripts/fontawesome.js", "// 1.5 MB of the theme: its style sheet can draw the same icons.\n")


def website(nets: Path, folder: Path, source: Path = series.BUILD / "pages"):
    "Write the website to `folder`; a warning of Sphinx is an error."
    lay_out(source, nets)
    if status := build_main(["-q", "-W", "--keep-going", "-b", "html", str(source), str(folder)]):
        sys.exit(status)
    for path in [*folder.glob("_static/**/*.map"), *folder.glob("_static/*.html")]:
        path.unlink()  # which no page needs
    for path in folder.rglob("*.html"):  # the theme's arrows that open a part of the navigation have no name
        html = path.read_text(encoding="utf-8")
        path.write_text(html.replace("<summary><span", '<summary aria-label="its pages"><span'), encoding="utf-8")
    listed = (ROOT / "llms.txt").read_text(encoding="utf-8").replace("(README.md)", "(index.html)")
    (folder / "llms.txt").write_text(re.sub(r"\.(ipynb|md)\)", ".html)", listed), encoding="utf-8")
    for path in series.notebooks():  # what the button for downloading gives: without the changes for the page
        shutil.copy(path, folder / "_sources" / path.relative_to(ROOT))


if __name__ == "__main__":
    website(Path(sys.argv[1]), Path(sys.argv[2]))
