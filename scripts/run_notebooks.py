"""Execute the series in a real Jupyter kernel, one notebook after the other, and print the ledger at the end.

Executed copies and readable pages go to _build/. With --inplace a notebook that ran to its end replaces its source,
which is how the committed outputs are made, and there are no pages. The first cell that fails stops the run."""
import argparse
import base64
import io
import json
import os
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"


def shrink_pictures(notebook: nbformat.NotebookNode):
    "Store plots with 256 colours of their own: a third of the bytes, and no eye sees the difference."
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if "image/png" in output.get("data", {}):
            small = io.BytesIO()
            picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
            colours = {"colors": 256, "method": Image.Quantize.MAXCOVERAGE, "kmeans": 1, "dither": Image.Dither.NONE}
            picture.convert("RGB").quantize(**colours).save(small, "PNG", optimize=True)
            output.data["image/png"] = base64.b64encode(small.getvalue()).decode()


def execute(source: Path, target: Path) -> float:
    "Execute `source` and write it to `target`, also when a cell fails; returns seconds."
    notebook = nbformat.read(source, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # a notice about local sockets helps no reader
        resources={"metadata": {"path": str(source.parent)}},
    )
    start = time.perf_counter()
    try:
        client.execute()
    finally:
        shrink_pictures(notebook)
        nbformat.write(notebook, target)
    return time.perf_counter() - start


def write_page(notebook: Path):
    page, _ = HTMLExporter(template_name="lab").from_filename(str(notebook))
    notebook.with_suffix(".html").write_text(page, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: every notebook of nbs/")
    parser.add_argument("--inplace", action="store_true", help="write the outputs back into the notebooks")
    arguments = parser.parse_args()
    notebooks = arguments.notebooks or [
        notebook for folder in ("nbs/tools", "nbs") for notebook in sorted((ROOT / folder).glob("*.ipynb"))
    ]

    BUILD.mkdir(exist_ok=True)
    ledger = BUILD / "ledger"
    if not arguments.notebooks:
        shutil.rmtree(ledger, ignore_errors=True)
    os.environ["MNIST_SCRATCH_LEDGER"] = str(ledger)
    # A kernel of this interpreter, whatever kernels the user has installed.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    seconds = {}
    for number, notebook in enumerate(notebooks, 1):
        target = BUILD / notebook.name
        print(f"[{number}/{len(notebooks)}] {notebook.stem} ... ", end="", flush=True)
        try:
            seconds[notebook.stem] = execute(notebook, target)
            print(f"{seconds[notebook.stem]:.0f} s", flush=True)
        except (CellExecutionError, DeadKernelError) as error:
            print(f"failed\n\n{error}\nThe executed copy up to the failing cell: {target}")
            return 1
        if arguments.inplace:
            os.replace(shutil.copy(target, notebook.with_suffix(".fresh")), notebook)
        else:
            write_page(target)

    if arguments.inplace:  # the last time of each; scripts/readme_results.py shows them
        times = BUILD / "seconds.json"
        earlier = json.loads(times.read_text(encoding="utf-8")) if times.exists() else {}
        times.write_text(json.dumps(earlier | seconds), encoding="utf-8")

    from mnist_scratch.report import ledger as show

    if not arguments.inplace:
        print(f"\nExecuted notebooks and pages: {BUILD}")
    print(f"\n{show()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
