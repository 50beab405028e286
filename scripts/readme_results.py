"""Write the results of the last full run into README.md: the final table and picture of notebook 06, and the minutes.

Run it after `python scripts/run_notebooks.py --inplace`, which leaves the outputs in nbs/ and the times in _build/."""
import base64
import json
import os
import platform
import re
from pathlib import Path

import nbformat
import torch

from mnist_scratch.report import ledger

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "results.png"


def last_output(kind: str, wanted: str) -> str:
    "The last output of notebook 06 of one MIME type, among the cells whose code or output holds `wanted`."
    cells = nbformat.read(ROOT / "nbs" / "06_resnet.ipynb", as_version=4).cells
    found = [output.data[kind] for cell in cells for output in cell.get("outputs", [])
             if kind in output.get("data", {}) and wanted in cell.source + output.data[kind]]
    return found[-1]


def results() -> str:
    "The block between the two marks of the README."
    os.environ["MNIST_SCRATCH_LEDGER"] = str(ROOT / "_build" / "ledger")
    rows = ledger()
    (data,) = {row.data for row in rows}
    (device,) = {row.device for row in rows}
    PICTURE.write_bytes(base64.b64decode(last_output("image/png", "share of test images missed")))
    return "\n\n".join([
        f"![Share of test images missed against seconds of learning, one point for each model]({PICTURE.name})",
        last_output("text/markdown", "validation accuracy ± spread"),
        f"Data: MNIST ({data}); seconds of learning, means over the seeds. Machine: {platform.machine()} {device}, "
        f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__.split('+')[0]}. "
        "Made by notebook [06_resnet](nbs/06_resnet.ipynb), which explains the two kinds of ±.",
    ])


def with_minutes(readme: str) -> str:
    "The README with the last column of the table of lessons filled in."
    seconds = json.loads((ROOT / "_build" / "seconds.json").read_text(encoding="utf-8"))

    def fill(row: re.Match) -> str:
        minutes = seconds[row["name"]] / 60
        return f"{row['start']} {'under 1' if minutes < 1 else f'{minutes:.0f}'} |"

    return re.sub(r"^(?P<start>\| \[(?P<name>\w+)\]\(nbs/.*\|)[^|]*\|$", fill, readme, flags=re.M)


def main():
    readme = ROOT / "README.md"
    marks = re.compile(r"(<!-- results -->\n).*?(\n<!-- end -->)", re.S)
    block = results()
    text, count = marks.subn(lambda found: found[1] + block + found[2], readme.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"README.md should hold one block of results between its two marks, got {count}")
    readme.write_text(with_minutes(text), encoding="utf-8")


if __name__ == "__main__":
    main()
