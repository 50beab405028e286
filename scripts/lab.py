"""Open JupyterLab: on working copies of the series in lab/, or with --edit on the sources. Flags go on to Jupyter:

    python scripts/lab.py -- --no-browser --port 8899

The first lesson is opened. Copies have no outputs, so that a prediction is one; with --outputs they have those of the
source. A copy is made anew when its source has changed, unless you have changed the copy: that is never overwritten."""
import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import series

COPIES = series.ROOT / "lab"
MADE = COPIES / ".made.json"  # what every copy was like when it was made
BESIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results.png", "LICENSE", "constraints.txt",
          "benchmarks")  # what the notebooks link to, and what these link to


def content(notebook: nbformat.NotebookNode) -> str:
    "A hash of what a reader changes: cells and outputs. JupyterLab changes metadata when it only opens a notebook."
    cells = [(cell.cell_type, cell.source, cell.get("outputs", [])) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()


def working_copy(source: Path, outputs: bool) -> nbformat.NotebookNode:
    "With JupyterLab's own metadata, so that opening changes nothing."
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and not outputs:
            cell.outputs, cell.execution_count = [], None
    version = ".".join(map(str, sys.version_info[:3]))
    notebook.metadata["kernelspec"] = {"display_name": "mnist_scratch", "language": "python", "name": "mnist_scratch"}
    notebook.metadata["language_info"] = {
        "codemirror_mode": {"name": "ipython", "version": 3}, "file_extension": ".py", "mimetype": "text/x-python",
        "name": "python", "nbconvert_exporter": "python", "pygments_lexer": "ipython3", "version": version}
    return notebook


def refresh(outputs: bool) -> list[Path]:
    "Bring the working copies up to date; returns those that were left as they are although their source has changed."
    made = json.loads(MADE.read_text(encoding="utf-8")) if MADE.exists() else {}
    kept = []
    for source in series.notebooks():
        name = source.relative_to(series.ROOT).as_posix()
        copy, fresh = COPIES / name, working_copy(source, outputs)
        if copy.exists():
            try:
                is_mine = content(nbformat.read(copy, as_version=4)) != made.get(name)
            except Exception:  # no notebook any more: certainly changed
                is_mine = True
            if is_mine:
                if made.get(name) != content(fresh):
                    kept.append(copy)
                continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(fresh, copy)
        made[name] = content(fresh)
    for path in [*(series.ROOT / "nbs").glob("*.md"), *(series.ROOT / name for name in BESIDE)]:
        copy = COPIES / path.relative_to(series.ROOT)
        if path.is_dir():
            shutil.copytree(path, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.exists():
            shutil.copy(path, copy)
    MADE.write_text(json.dumps(made, indent=1), encoding="utf-8")
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edit", action="store_true", help="open the sources in place of copies")
    parser.add_argument("--outputs", action="store_true", help="copies with the outputs of their sources")
    parser.add_argument("flags", nargs="*", help="for jupyter lab")
    arguments = parser.parse_args()
    series.use_own_kernel()
    folder = series.ROOT if arguments.edit else COPIES
    for copy in [] if arguments.edit else refresh(arguments.outputs):
        print(f"Kept as you left it: {copy.relative_to(series.ROOT)}. There is a newer one; delete yours to get it.")
    (quiet := series.BUILD / "jupyter/lab/overrides.json").parent.mkdir(parents=True, exist_ok=True)
    quiet.write_text('{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}', encoding="utf-8")
    as_root = ["--allow-root"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    settings = [f"--ServerApp.root_dir={folder}", "--LabApp.default_url=/lab/tree/nbs/01_tensors.ipynb",
                f"--LabApp.app_settings_dir={quiet.parent}"]  # nobody who came to learn is asked about Jupyter's news
    command = [sys.executable, "-m", "jupyter", "lab", *settings, *as_root, *arguments.flags]
    if os.name == "nt":  # there execv splits paths with a space
        sys.exit(subprocess.call(command))
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
