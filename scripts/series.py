"""What every script and test knows of the series: its rooms in order, and a kernel that is this very Python."""
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
ROOMS = ("nbs", "nbs/deeper", "nbs/tools")  # the path first, the plumbing last


def notebooks(root: Path = ROOT) -> list[Path]:
    "All notebooks of the series, in the order in which they are executed."
    return [path for room in ROOMS for path in sorted((root / room).glob("*.ipynb"))]


def head(path: Path) -> tuple[str, str]:
    "Title of a notebook, and its first sentences."
    lines = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).splitlines()
    return lines[0].removeprefix("# "), lines[2].removeprefix("> ")


def use_own_kernel(folder: Path = BUILD / "jupyter"):
    """Let Jupyter, started from here, find this Python under the names python3 and mnist_scratch, before any other
    kernel of the machine; with pictures in the notebook, whatever MPLBACKEND says."""
    for name in ("python3", "mnist_scratch"):
        spec = folder / "kernels" / name / "kernel.json"
        spec.parent.mkdir(parents=True, exist_ok=True)
        spec.write_text(json.dumps({
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"],
            "display_name": name, "language": "python", "interrupt_mode": "signal",
            "env": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}}), encoding="utf-8")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("JUPYTER_PATH")]))
