"""The package as others install it: imports, layers, wheel."""
import ast
import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from importlib.metadata import distribution
from pathlib import Path

import pytest
from conftest import NOTEBOOKS, ROOT
from packaging.requirements import Requirement
from packaging.version import Version

import mnist_scratch

MODULES = ["checks", "files", "exercises", "data", "training", "plot", "ledger"]
MODULES += ["baseline", "linear", "losses", "nets", "resnet", "convnet"]
SOURCES = {path.stem: path for path in (ROOT / "mnist_scratch").glob("*.py") if not path.name.startswith("_")}
HEAVY = ("fastai", "torchvision", "mlxtend", "matplotlib", "pandas")  # seconds to import; only where they are used
NOT_FOR_THE_LIBRARY = ("fastbook", "nbdev", "jupyter_client", "IPython", "ipywidgets", "nbclient", "notebook", "pytest")


def settings() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser


def pins(name: str, python: str) -> dict[str, Version]:
    "The exact versions that one file of constraints gives to one Python, by package."
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = [(pin.name, Version(part.version)) for pin in pins for part in pin.specifier
                if part.operator == "==" and (not pin.marker or pin.marker.evaluate({"python_version": python}))]
    assert len(dict(versions)) == len(versions)
    return dict(versions)


RUNTIME = [Requirement(line) for line in settings()["dependencies"]["runtime"].split()]


def imported_modules(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def test_every_module_is_listed_and_the_library_stays_small():
    assert set(SOURCES) == set(MODULES)
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES.values()) < 1400


@pytest.mark.parametrize("name", MODULES)
def test_module_is_short_and_imports_only_backwards(name):
    source = SOURCES[name].read_text(encoding="utf-8")
    assert len(source.splitlines()) < 240
    own = {module.split(".")[1] for module in imported_modules(source) if module.startswith("mnist_scratch.")}
    assert own <= set(MODULES[: MODULES.index(name)])
    assert not imported_modules(source) & set(NOT_FOR_THE_LIBRARY)
    assert "from __future__ import annotations" not in source


def test_importing_the_light_modules_imports_nothing_heavy():
    program = f"""
import sys
from importlib import import_module
light = "checks files data baseline linear losses nets training convnet exercises"
for name in light.split():
    import_module("mnist_scratch." + name)
    assert not set({HEAVY!r}) & set(sys.modules), name
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    "An sdist of this tree and the wheel that is made from the sdist, by suffix."
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {path.suffix: path for path in folder.iterdir()}


def test_sdist_holds_the_source_which_is_the_notebooks(built):
    with tarfile.open(built[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {path.relative_to(ROOT).as_posix() for path in NOTEBOOKS} < names
    assert {"Makefile", "README.md", "LICENSE", "CHANGELOG.md", "settings.ini", "scripts/series.py"} < names
    assert [name for name in names if "checkpoint" in name or "__pycache__" in name or name.startswith("_build")] == []


def test_wheel_holds_the_library_and_says_what_it_is(built):
    with zipfile.ZipFile(built[".whl"]) as archive:
        names = archive.namelist()
        (metadata,) = (email.message_from_bytes(archive.read(name)) for name in names if name.endswith("METADATA"))
    assert {f"mnist_scratch/{name}.py" for name in [*MODULES, "__init__"]} < set(names)
    assert "mnist_scratch/py.typed" in names and any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"mnist_scratch"}
    assert (metadata["Name"], metadata["Version"]) == ("mnist_scratch", mnist_scratch.__version__)
    assert (metadata["License-Expression"], metadata["Requires-Python"]) == ("Apache-2.0", ">=3.10")
    assert metadata["Summary"] and metadata["Author"] and metadata["Keywords"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip().startswith("# mnist_scratch")
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    assert {str(one) for one in required if not one.marker} == {str(one) for one in RUNTIME}
    assert set(metadata.get_all("Provides-Extra")) == {"notebooks", "dev"}


def with_dependencies(requirements: list[Requirement]) -> set[str]:
    "Names of all packages that these requirements bring, their own requirements included, on this machine."
    found, queue = set(), [(requirement, "") for requirement in requirements]
    while queue:
        requirement, extra = queue.pop()
        applies = not requirement.marker or requirement.marker.evaluate({"extra": extra})
        for extra in {"", *requirement.extras} if applies else ():
            if (requirement.name, extra) not in found:
                found.add((requirement.name, extra))
                queue += [(Requirement(line), extra) for line in distribution(requirement.name).requires or []]
    return {name for name, _ in found}


@pytest.fixture
def clean_python(built, tmp_path) -> Path:
    """The interpreter of a new environment that holds the wheel and what it requires, and nothing else.

    The requirements are links to those of this environment: to install PyTorch again would take minutes and 6 GB.
    The nightly workflow does install them."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "clean")], check=True)
    python = tmp_path / "clean" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*install, str(built[".whl"])], check=True, capture_output=True)
    links = tmp_path / "links"
    links.mkdir()
    for name in with_dependencies(RUNTIME):
        package = distribution(name)
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            link = links / top
            if not link.exists():  # several packages share the folder nvidia
                link.symlink_to(package.locate_file(top))
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    (Path(site) / "links.pth").write_text(str(links), encoding="utf-8")
    return python


def test_wheel_learns_and_predicts_with_its_requirements_alone(clean_python, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(ROOT / "tests" / "smoke.py", elsewhere)
    command = [clean_python, "-I", "smoke.py", *NOT_FOR_THE_LIBRARY]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "linear" in done.stdout
    where = [clean_python, "-I", "-c", "import mnist_scratch; print(mnist_scratch.__file__)"]
    out = subprocess.run(where, cwd=elsewhere, check=True, capture_output=True, text=True).stdout
    assert Path(out).is_relative_to(tmp_path / "clean")


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_constraints_pin_what_settings_declare_within_its_range(python):
    lists = (settings()["dependencies"]["runtime"], *settings()["extras"].values())
    pinned = pins("constraints.txt", python)
    for declared in (Requirement(line) for lines in lists for line in lines.split()):
        assert declared.specifier.contains(pinned[declared.name]), declared


def test_oldest_constraints_are_the_lower_ends_of_the_ranges():
    lowest = {one.name: Version(part.version) for one in RUNTIME for part in one.specifier if part.operator == ">="}
    assert pins("constraints-oldest.txt", "3.10") == lowest
