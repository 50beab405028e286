"""Write the results into README.md, as a table and a picture, from the ledger and the outputs of the last full run.

Run it after `python scripts/run_notebooks.py --inplace`, which leaves the ledger in _build/ and the outputs in nbs/."""
import os
import platform
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import torch

from mnist_scratch.report import ledger

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "results.png"


def test_accuracy() -> str:
    "What notebook 06 shows last: the accuracy of the ResNet on the test images, with its standard error."
    cells = nbformat.read(ROOT / "nbs" / "06_resnet.ipynb", as_version=4).cells
    shown = [output.data["text/plain"] for cell in cells for output in cell.get("outputs", []) if "data" in output]
    (line,) = (text.strip("'") for text in shown if "test accuracy" in text)
    return line.replace(":", "")


def draw(rows):
    _, ax = plt.subplots(figsize=(7, 3.2), dpi=100, layout="constrained")
    for row, marker in zip(rows, "osD^vP", strict=True):
        ax.plot(row.seconds, row.valid_accuracy, marker, label=row.model)
    ax.set(xscale="log", xlabel="seconds of learning", ylabel="validation accuracy")
    ax.legend(fontsize=8)
    plt.savefig(PICTURE)


def main():
    os.environ["MNIST_SCRATCH_LEDGER"] = str(ROOT / "_build" / "ledger")
    rows = ledger()
    draw(rows)
    (data,) = {row.data for row in rows}
    (device,) = {row.device for row in rows}
    block = "\n\n".join([
        f"![Validation accuracy against seconds of learning, one point for each model]({PICTURE.name})",
        rows._repr_markdown_(),
        f"Data: MNIST ({data}), accuracy on the validation images, one run of each model with seed 0. Machine: "
        f"{platform.machine()} {device}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, "
        f"torch {torch.__version__.split('+')[0]}. Read once, at the end of the series: {test_accuracy()}.",
    ])
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    marks = re.compile(r"(<!-- results -->\n).*?(\n<!-- end -->)", re.S)
    new, count = marks.subn(lambda found: found[1] + block + found[2], text)
    if count != 1:
        raise ValueError(f"README.md should hold one block of results between its two marks, got {count}")
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
