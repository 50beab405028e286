"""Make a website of what `make run` left in _build/: the executed lessons, with the README as the first page.

    python scripts/website.py FOLDER

`make site` does both."""
import re
import shutil
import sys
from html import escape
from pathlib import Path

import series
from nbconvert.filters import markdown2html
from series import ROOT

FILES = ("results.png", "constraints.txt", "LICENSE")  # that the pages show or link to
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
    html = re.sub(r'href="nbs/(deeper|tools)"', r'href="#\1"', html)
    folders = r"(?:\.\./|nbs/|deeper/|tools/|benchmarks/|results/)*"
    html = re.sub(rf'href="{folders}(\w+)\.(?:ipynb|md)"', r'href="\1.html"', html)
    names = "|".join(re.escape(Path(name).name) for name in FILES)
    return re.sub(rf'(href|src)="{folders}({names})"', r'\1="\2"', html)


def website(built: Path, folder: Path):
    "Write the pages of all executed notebooks, of the Markdown beside them and of the benchmarks, and the front page."
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    pages, lists = {}, ""
    for room in series.ROOMS:
        paths = sorted((ROOT / room).glob("*.ipynb"))
        pages |= {path.stem: (built / room / f"{path.stem}.html").read_text(encoding="utf-8") for path in paths}
        links = "".join(f'<li><a href="{path.stem}.html">{path.stem}</a></li>' for path in paths)
        lists += f'<h2 id="{Path(room).name}">{Path(room).name}</h2><ul>{links}</ul>'
    front = page(ROOT / "README.md").replace("</body>", f"{lists}</body>")
    parts = ("nbs", "benchmarks", "benchmarks/results")
    texts = [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
    texts += [path for part in parts for path in (ROOT / part).glob("*.md")]
    pages |= {"index": front, **{path.stem: page(path).replace("<body>", BACK) for path in texts}}
    for name, html in pages.items():
        (folder / f"{name}.html").write_text(links_within(html), encoding="utf-8")


if __name__ == "__main__":
    website(series.BUILD, Path(sys.argv[1]))
