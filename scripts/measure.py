"""How long the lessons are, without their exercises: words, cells, lines of visible code, pictures, new words, minutes.

    python scripts/measure.py

Minutes to read: words/130 + lines/6 + pictures/2."""
import re
from pathlib import Path

import glossary
import nbformat
import pandas as pd
import series


def measure(lesson: Path) -> dict[str, int]:
    cells = nbformat.read(lesson, as_version=4).cells
    end = next(number for number, cell in enumerate(cells) if cell.source.startswith("## Recap"))
    text = " ".join(cell.source for cell in cells[:end] if cell.cell_type == "markdown")
    code = [cell for cell in cells[:end] if cell.cell_type == "code"]
    lines = [line for cell in code if not cell.metadata.get("jupyter") for line in cell.source.splitlines() if line]
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    words = len(re.findall(r"[\w']+", text))
    return {"words": words, "cells": end, "lines": len(lines), "pictures": len(pictures),
            "new words": len(glossary.words(lesson)),
            "minutes": round(words/130 + len(lines)/6 + len(pictures)/2)}


if __name__ == "__main__":
    lessons = sorted((series.ROOT / "nbs").glob("*.ipynb"))
    print(pd.DataFrame([measure(lesson) for lesson in lessons], [lesson.stem for lesson in lessons]).to_string())
