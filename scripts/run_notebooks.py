"""Execute the series in a real Jupyter kernel, one notebook after the other, and print the ledger at the end.

Executed copies and readable pages go to _build/nbs. With --inplace a notebook that ran to its end replaces its source,
which is how the committed outputs are made, and there are no pages. The first cell that fails stops the run, and so
does one that shows no picture where its source has one."""
import argparse
import base64
import io
import json
import os
import sys
import time
from pathlib import Path

import nbformat
import series
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from PIL import Image

from mnist_scratch.ledger import ledger
from mnist_scratch.plot import widget


def pictures(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]


def shrink_pictures(notebook: nbformat.NotebookNode):
    "Store plots with 256 colours of their own: a third of the bytes, and no eye sees the difference."
    for output in (output for cell in notebook.cells for output in pictures(cell)):
        small = io.BytesIO()
        picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
        colours = {"colors": 256, "method": Image.Quantize.MAXCOVERAGE, "kmeans": 1, "dither": Image.Dither.NONE}
        picture.convert("RGB").quantize(**colours).save(small, "PNG", optimize=True)
        output.data["image/png"] = base64.b64encode(small.getvalue()).decode()


def execute(source: Path, target: Path) -> float:
    "Execute `source` and write it to `target`, also when a cell fails; returns seconds."
    notebook = nbformat.read(source, as_version=4)
    expected = [bool(pictures(cell)) for cell in notebook.cells]
    client = NotebookClient(notebook, timeout=None, kernel_name="mnist_scratch",
                            resources={"metadata": {"path": str(source.parent)}})
    start = time.perf_counter()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        client.execute()
    finally:
        shrink_pictures(notebook)
        notebook.metadata.kernelspec = {"display_name": "python3", "language": "python", "name": "python3"}
        nbformat.write(notebook, target)
    for cell, wanted in zip(notebook.cells, expected, strict=True):
        if wanted and not pictures(cell):
            raise CellExecutionError(f"This cell should show a picture and shows none:\n\n{cell.source}", "", "")
    return time.perf_counter() - start


def write_page(path: Path):
    "With the widgets in the places of their pictures, since a page can be moved with the mouse."
    notebook = nbformat.read(path, as_version=4)
    for output in (output for cell in notebook.cells for output in pictures(cell)):
        about = output.metadata.get("image/png", {})
        if "widget" in about:
            output.data = {"text/html": widget(about["widget"], about["alt"], about["data"])}
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    path.with_suffix(".html").write_text(page, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: the whole series")
    parser.add_argument("--inplace", action="store_true", help="write the outputs back into the notebooks")
    arguments = parser.parse_args()
    series.use_own_kernel()
    os.environ["MNIST_SCRATCH_STILL"] = "1"  # pictures in the place of what is moved with the mouse
    os.environ["MNIST_SCRATCH_LEDGER"] = str(series.BUILD / "ledger.json")
    if not arguments.notebooks:
        (series.BUILD / "ledger.json").unlink(missing_ok=True)

    chosen, seconds = [path.resolve() for path in arguments.notebooks] or series.notebooks(), {}
    for number, notebook in enumerate(chosen, 1):
        target = series.BUILD / notebook.relative_to(series.ROOT)
        print(f"[{number}/{len(chosen)}] {notebook.stem} ... ", end="", flush=True)
        try:
            seconds[notebook.stem] = execute(notebook, target)
            print(f"{seconds[notebook.stem]:.0f} s", flush=True)
        except (CellExecutionError, DeadKernelError) as error:
            print(f"failed\n\n{error}\nThe executed copy up to the failing cell: {target}")
            return 1
        if arguments.inplace:
            os.replace(target, notebook)
        else:
            write_page(target)
    if arguments.inplace:  # the last time of each; scripts/readme_results.py shows them
        times = series.BUILD / "seconds.json"
        earlier = json.loads(times.read_text(encoding="utf-8")) if times.exists() else {}
        times.write_text(json.dumps(earlier | seconds), encoding="utf-8")
    else:
        print(f"\nExecuted notebooks and pages: {series.BUILD / 'nbs'}")
    print(f"\n{ledger().to_string(index=False)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
