"""Gather the Words of all lessons, which are their source, into nbs/glossary.md."""
import re
from pathlib import Path

import nbformat
import series

PAGE = series.ROOT / "nbs" / "glossary.md"
WORD = re.compile(r"^- \*\*(?P<term>[^*]+)\*\*: (?P<meaning>.+)$", re.M)


def words(notebook: Path) -> list[tuple[str, str]]:
    "Terms of one lesson with their meanings, in the order in which the lesson lists them."
    cells = nbformat.read(notebook, as_version=4).cells
    lists = [cell.source for cell in cells if cell.cell_type == "markdown" and "**Words**" in cell.source]
    return [(found["term"], found["meaning"]) for text in lists for found in WORD.finditer(text)]


def page() -> str:
    "The glossary as Markdown, in alphabetical order, each term with a link to the lesson that introduces it."
    entries = [
        (term, f"- **{term}**: {meaning} ([{lesson.stem}]({lesson.relative_to(PAGE.parent).as_posix()}))")
        for lesson in series.notebooks()
        for term, meaning in words(lesson)
    ]
    entries.sort(key=lambda entry: entry[0].lower())
    head = "# Glossary\n\nEvery term of the series, with the lesson that introduces it.\n\n"
    return head + "\n".join(line for _, line in entries) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
