"""The package as others install it: imports, layers, wheel."""
import ast
import os
import subprocess
import sys
import zipfile
from configparser import ConfigParser

import pytest
from conftest import ROOT

MODULES = ["shapes", "files", "exercises", "data", "plot", "training", "report"]
MODULES += ["baseline", "linear", "losses", "nets", "resnet"]
SOURCES = {path.stem: path for path in (ROOT / "mnist_scratch").glob("*.py") if not path.name.startswith("_")}
NOT_FOR_THE_LIBRARY = ("fastbook", "nbdev", "jupyter_client", "IPython", "ipywidgets", "nbclient", "notebook", "pytest")


def imported_modules(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def test_every_module_is_listed():
    assert set(SOURCES) == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_module_is_short_and_imports_only_backwards(name):
    source = SOURCES[name].read_text(encoding="utf-8")
    assert len(source.splitlines()) < 200
    own = {module.split(".")[1] for module in imported_modules(source) if module.startswith("mnist_scratch.")}
    assert own <= set(MODULES[: MODULES.index(name)])
    assert not imported_modules(source) & set(NOT_FOR_THE_LIBRARY)
    assert "from __future__ import annotations" not in source


def test_no_function_writes_a_global():
    for path in SOURCES.values():
        assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Global)], path


def test_works_without_notebook_packages(tmp_path):
    "Trains, measures, draws and records in a Python that refuses to import what only notebooks need."
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {NOT_FOR_THE_LIBRARY!r}: raise ImportError(f"{{name}} is not for the library")
sys.meta_path.insert(0, Refuse())
import matplotlib
matplotlib.use("Agg")
from mnist_scratch.data import load_mnist
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy
from mnist_scratch.report import panel, record
from mnist_scratch.resnet import resnet_learner
from mnist_scratch.training import evaluate, fit
mnist = load_mnist("sample", device="cpu")
model = LinearModel.random()
history = fit(model, mnist.train, mnist.valid, loss=cross_entropy, epochs=5, lr=0.1)
evaluation = evaluate(model, mnist.valid)
panel(evaluation, mnist.valid, history)
print(record("linear", model, evaluation, history.seconds, mnist.name))
assert evaluation.accuracy > 0.8, evaluation.accuracy
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "linear" in done.stdout


def test_wheel_from_sdist_is_complete_and_imports_elsewhere(tmp_path):
    build = [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("METADATA"))
    assert {f"mnist_scratch/{name}.py" for name in MODULES} < set(names) and "mnist_scratch/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    settings = ConfigParser()
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    for requirement in settings["dependencies"]["runtime"].split():
        name = requirement.split(">=")[0]
        assert f"Requires-Dist: {name}" in metadata
    assert "Provides-Extra: notebooks" in metadata and "Provides-Extra: dev" in metadata
    # Installed beside the dependencies of this environment, out of reach of the source tree.
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    where = "import mnist_scratch, mnist_scratch.data; print(mnist_scratch.__file__, mnist_scratch.__version__)"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    out = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.startswith(str(target))


def test_constraints_pin_what_settings_declare():
    settings = ConfigParser()
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    declared = {
        line.split(">=")[0]
        for lines in (settings["dependencies"]["runtime"], *settings["extras"].values()) for line in lines.split()
    }
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in pins if line and not line.startswith("#")}
    assert declared <= pinned
