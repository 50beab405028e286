"""The package as others install it: imports, layers, wheel."""
import ast
import email
import re
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from conftest import NOTEBOOKS, ROOT
from packaging.requirements import Requirement
from packaging.version import Version

import mnist_scratch

MODULES = ["autograd", "checks", "files", "exercise_table", "exercises", "data", "training", "plot", "ledger"]
MODULES += ["baseline", "linear", "losses", "nets", "resnet", "convnet"]
MODULES += ["pictures", "digits", "pad", "cli"]
IN_A_NOTEBOOK = {"pad"}  # modules that need what settings.ini lists under notebooks
SOURCES = {path.stem: path.read_text("utf-8") for path in (ROOT / "mnist_scratch").glob("*.py") if path.stem[0] != "_"}
HEAVY = {"fastai", "torchvision", "mlxtend", "matplotlib", "pandas", "sklearn"}  # slow to import
LIGHT = "autograd checks files data baseline linear losses nets training convnet exercises pictures digits cli".split()
NOT_FOR_THE_LIBRARY = ["fastbook", "nbdev", "jupyter_client", "IPython", "ipywidgets", "nbclient", "notebook", "pytest"]
(SETTINGS := ConfigParser()).read(ROOT / "settings.ini", encoding="utf-8")
RUNTIME = [Requirement(line) for line in SETTINGS["dependencies"]["runtime"].split()]


def run(*command, **options) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_every_module_is_listed_and_short():
    sizes = {name: len(source.splitlines()) for name, source in SOURCES.items()}
    assert set(sizes) == set(MODULES) and sizes.pop("exercise_table") < 330, sizes  # which is a table
    assert sum(sizes.values()) <= 2_200 and max(sizes.values()) < 230, sizes


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_what_is_before_it_or_declared(name):
    nodes = list(ast.walk(ast.parse(SOURCES[name])))
    froms = {(node.level, (node.module or node.names[0].name).split(".")[0])
             for node in nodes if isinstance(node, ast.ImportFrom)}
    plain = {part.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for part in node.names}
    assert {module for level, module in froms if level} <= set(MODULES[: MODULES.index(name)])
    declared = {requirement.name.replace("pillow", "PIL") for requirement in RUNTIME} | sys.stdlib_module_names
    declared |= {"anywidget", "traitlets"} if name in IN_A_NOTEBOOK else set()
    assert plain | {module for level, module in froms if not level} <= declared - {"__future__"}


def test_importing_the_light_modules_imports_nothing_heavy():
    imports = "; ".join(f"import mnist_scratch.{name}" for name in LIGHT)
    run("-c", f"import sys; {imports}; assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)")


def test_sdist_holds_the_notebooks_and_its_wheel_learns_and_predicts_without_our_tools(tmp_path):
    run("-m", "build", "--outdir", tmp_path, ROOT)
    (sdist,), (wheel,) = tmp_path.glob("*.gz"), tmp_path.glob("*.whl")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {path.relative_to(ROOT).as_posix() for path in NOTEBOOKS} | {"Makefile", "LICENSE", "scripts/series.py"}
    assert wanted | {"README.md", "CHANGELOG.md", "settings.ini"} < names
    assert not re.search("checkpoint|__pycache__|_build", " ".join(names))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (email.message_from_bytes(archive.read(name)) for name in names if name.endswith("METADATA"))
        archive.extractall(tmp_path)
    inside = [*ROOT.glob("mnist_scratch/*.*"), *ROOT.glob("mnist_scratch/web/*")]
    assert {path.relative_to(ROOT).as_posix() for path in inside} < set(names)
    assert {re.split("[/-]", name)[0] for name in names} == {"mnist_scratch"} and "licenses/LICENSE" in " ".join(names)
    facts = {"Name": "mnist_scratch", "Version": mnist_scratch.__version__, "License-Expression": "Apache-2.0",
             "Requires-Python": ">=3.10", "Description-Content-Type": "text/markdown"}
    assert facts.items() <= dict(metadata).items()
    assert metadata["Summary"] and "# mnist_scratch" in metadata.get_payload()
    required = map(Requirement, metadata.get_all("Requires-Dist"))
    assert {str(one) for one in required if not one.marker} == {str(one) for one in RUNTIME}
    assert set(metadata.get_all("Provides-Extra")) == {"notebooks", "dev"}
    as_if_they_were_not_installed = f"sys.modules |= dict.fromkeys({NOT_FOR_THE_LIBRARY})"
    out = run("-I", "-c", f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); {as_if_they_were_not_installed}; "
              f"sys.argv = ['', *{NOT_FOR_THE_LIBRARY}]; runpy.run_path({str(ROOT / 'tests/smoke.py')!r}); "
              "print(sys.modules['mnist_scratch'].__file__)", cwd=tmp_path)
    assert "linear" in out and Path(out.splitlines()[-1]).is_relative_to(tmp_path)


def pins(name: str, python: str) -> dict[str, Version]:
    "The exact versions that one file of constraints gives to one Python, by package."
    found = [Requirement(line) for line in (ROOT / name).read_text("utf-8").splitlines() if line[:1] not in ("", "#")]
    own = [pin for pin in found if not pin.marker or pin.marker.evaluate({"python_version": python})]
    assert len({pin.name for pin in own}) == len(own)
    return {pin.name: Version(str(pin.specifier).removeprefix("==")) for pin in own}


def test_constraints_pin_what_settings_declare_within_its_range_and_the_oldest_its_lower_ends():
    lists = (SETTINGS["dependencies"]["runtime"], *SETTINGS["extras"].values())
    for declared in (Requirement(line) for lines in lists for line in lines.split()):
        for python in ("3.10", "3.11", "3.12", "3.13"):
            assert declared.specifier.contains(pins("constraints.txt", python)[declared.name]), declared
    lowest = {one.name: Version(part.version) for one in RUNTIME for part in one.specifier if part.operator == ">="}
    assert pins("constraints-oldest.txt", "3.10") == lowest
