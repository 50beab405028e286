"""Make a website of what `make run` left in _build/: the executed lessons, with the README as the first page.

    python scripts/website.py FOLDER

`make site` does both."""
import re
import shutil
import sys
from html import escape
from pathlib import Path

from nbconvert.filters import markdown2html

ROOT = Path(__file__).resolve().parent.parent
FILES = ("results.png", "constraints.txt", "LICENSE", "benchmarks/results/growth.png",
         "benchmarks/results/growth.json")  # that the pages show or link to
STYLE = "body{max-width:50rem;margin:2rem auto;padding:0 1rem;font:1rem/1.5 sans-serif}:root{color-scheme:light dark}"
STYLE += ".anchor-link{display:none}pre{overflow:auto}"
STYLE += "img{max-width:100%}table{border-collapse:collapse}td,th{padding:.2rem .6rem;border-bottom:1px solid #8888}"
BACK = '<body><nav><a href="index.html">mnist_scratch</a></nav>'


def page(markdown: Path) -> str:
    "One Markdown file as a page of HTML."
    text = markdown.read_text(encoding="utf-8")
    if not text.startswith("# "):  # a table alone
        text = f"# {markdown.stem}\n\n{text}"
    title = escape(text.partition("\n")[0].removeprefix("# "))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = f"<body>{markdown2html(text)}</body>"
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head>{body}</html>'


def links_within(html: str) -> str:
    "The links of the repository turned into those of the website, where all pages lie in one folder."
    html = html.replace('href="nbs/tools"', 'href="#tools"')
    folders = r"(?:\.\./|nbs/|tools/|benchmarks/|results/)*"
    html = re.sub(rf'href="{folders}(\w+)\.(?:ipynb|md)"', r'href="\1.html"', html)
    names = "|".join(re.escape(Path(name).name) for name in FILES)
    return re.sub(rf'(href|src)="{folders}({names})"', r'\1="\2"', html)


def website(built: Path, folder: Path):
    "Write the pages of all executed notebooks, of the Markdown beside them and of the benchmarks, and the front page."
    notebooks = {part: sorted((ROOT / part).glob("*.ipynb")) for part in ("nbs", "nbs/tools")}
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    pages = {path.stem: (built / f"{path.stem}.html").read_text(encoding="utf-8")
             for paths in notebooks.values() for path in paths}
    tools = "".join(f'<li><a href="{path.stem}.html">{path.stem}</a></li>' for path in notebooks["nbs/tools"])
    front = page(ROOT / "README.md").replace("</body>", f'<h2 id="tools">The plumbing</h2><ul>{tools}</ul></body>')
    texts = [path for part in ("nbs", "benchmarks", "benchmarks/results") for path in (ROOT / part).glob("*.md")]
    pages |= {"index": front, **{path.stem: page(path).replace("<body>", BACK) for path in texts}}
    for name, html in pages.items():
        (folder / f"{name}.html").write_text(links_within(html), encoding="utf-8")


if __name__ == "__main__":
    website(ROOT / "_build", Path(sys.argv[1]))
