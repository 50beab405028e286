"""The scripts and the workflows that call them: working copies, commands, the website, results in the README."""
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import accuracy_floors
import lab
import nbformat
import pandas as pd
import pytest
import readme_results
import series
import website
import yaml
from conftest import NOTEBOOKS, ROOT, read_notebook
from run_notebooks import write_page

from mnist_scratch.ledger import COLUMNS

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github" / "workflows").iterdir())}
WORKFLOWS = {name: yaml.safe_load(text) for name, text in TEXTS.items()}

# Working copies


@pytest.fixture
def house(tmp_path, monkeypatch):
    "A small series with its working copies, where nobody else works."
    for room, name in (("nbs", "01_one"), ("nbs/tools", "two")):
        (tmp_path / room).mkdir(parents=True, exist_ok=True)
        outputs = [nbformat.v4.new_output("stream", text="42")]
        cell = nbformat.v4.new_code_cell("6*7", outputs=outputs, execution_count=3)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / room / f"{name}.ipynb")
    (tmp_path / "nbs" / "glossary.md").write_text("words")
    (tmp_path / "README.md").write_text("readme")
    monkeypatch.setattr(series, "ROOT", tmp_path)
    monkeypatch.setattr(series, "notebooks", lambda root=tmp_path, found=series.notebooks: found(root))
    monkeypatch.setattr(lab, "COPIES", tmp_path / "lab")
    monkeypatch.setattr(lab, "MADE", tmp_path / "lab" / ".made.json")
    return tmp_path


def change(path: Path, edit):
    notebook = nbformat.read(path, as_version=4)
    edit(notebook)
    nbformat.write(notebook, path)


def test_copies_have_no_outputs_a_kernel_of_their_own_and_what_they_link_to(house):
    assert lab.refresh() == []
    copy = read_notebook(house / "lab" / "nbs" / "01_one.ipynb")
    assert copy["cells"][0]["outputs"] == [] and copy["cells"][0]["execution_count"] is None
    assert copy["metadata"]["kernelspec"] == {"display_name": "mnist_scratch", "language": "python",
                                              "name": "mnist_scratch"}
    assert copy["metadata"]["language_info"]["version"] == sys.version.split()[0]
    assert (house / "lab" / "nbs" / "tools" / "two.ipynb").exists()
    assert [(house / "lab" / name).read_text() for name in ("README.md", "nbs/glossary.md")] == ["readme", "words"]
    assert read_notebook(house / "nbs" / "01_one.ipynb")["cells"][0]["outputs"], "the source stays as it is"


@pytest.mark.parametrize("edit, is_mine", [
    (lambda notebook: notebook.cells[0].update(source="6*8"), True),
    (lambda notebook: notebook.cells[0].outputs.append(nbformat.v4.new_output("stream", text="42")), True),
    (lambda notebook: notebook.cells.append(nbformat.v4.new_markdown_cell("mine")), True),
    (lambda notebook: notebook.metadata["kernelspec"].update(display_name="opened"), False),
], ids=["code", "output", "new cell", "only opened"])
def test_a_copy_that_was_changed_is_never_overwritten(house, edit, is_mine):
    lab.refresh()
    source, copy = house / "nbs" / "01_one.ipynb", house / "lab" / "nbs" / "01_one.ipynb"
    change(copy, edit)
    mine = copy.read_bytes()
    assert lab.refresh() == [] and copy.read_bytes() == mine or not is_mine
    change(source, lambda notebook: notebook.cells[0].update(source="a new edition"))
    assert lab.refresh() == ([copy] if is_mine else [])
    assert (copy.read_bytes() == mine) == is_mine
    assert ("a new edition" in copy.read_text()) == (not is_mine)
    copy.unlink()
    assert lab.refresh() == [] and "a new edition" in copy.read_text()


def test_something_that_is_no_notebook_any_more_is_left_alone(house):
    lab.refresh()
    copy = house / "lab" / "nbs" / "01_one.ipynb"
    copy.write_text("{")
    change(house / "nbs" / "01_one.ipynb", lambda notebook: notebook.cells[0].update(source="a new edition"))
    assert lab.refresh() == [copy] and copy.read_text() == "{"


@pytest.mark.parametrize("uid, wanted", [(0, True), (1000, False)])
def test_lab_starts_jupyter_on_the_copies_also_as_root_and_hands_flags_on(house, monkeypatch, uid, wanted):
    started = {}
    monkeypatch.setattr(os, "execv", lambda program, command: started.update(program=program, command=command))
    monkeypatch.setattr(os, "geteuid", lambda: uid, raising=False)
    monkeypatch.setattr(sys, "argv", ["lab.py", "--", "--no-browser", "--port", "8899"])
    monkeypatch.setattr(series, "use_own_kernel", lambda: None)
    lab.main()
    assert started["program"] == sys.executable and started["command"][:4] == [sys.executable, "-m", "jupyter", "lab"]
    assert f"--ServerApp.root_dir={house / 'lab'}" in started["command"]
    assert ("--allow-root" in started["command"]) == wanted
    assert started["command"][-3:] == ["--no-browser", "--port", "8899"]
    monkeypatch.setattr(sys, "argv", ["lab.py", "--edit"])
    lab.main()
    assert f"--ServerApp.root_dir={house}" in started["command"]


def test_the_kernel_is_this_python_before_all_others(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "others")
    series.use_own_kernel(tmp_path)
    assert os.environ["JUPYTER_PATH"].split(os.pathsep) == [str(tmp_path), "others"]
    for name in ("python3", "mnist_scratch"):
        spec = json.loads((tmp_path / "kernels" / name / "kernel.json").read_text())
        assert spec["argv"][0] == sys.executable and "inline" in spec["env"]["MPLBACKEND"]


def test_make_installs_where_it_should_whatever_pip_is_told(tmp_path):
    "PIP_USER=1 and others would put the packages elsewhere, or fail."
    if not shutil.which("make"):
        pytest.skip("needs make")
    (tmp_path / "python").write_text("#!/bin/sh\necho user=$PIP_USER target=$PIP_TARGET path=$PYTHONPATH "
                                     "home=$PYTHONHOME\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    environment = {**os.environ, "PIP_USER": "1", "PIP_TARGET": "there", "PYTHONPATH": "there", "PYTHONHOME": "there"}
    command = ["make", "-f", ROOT / "Makefile", f"PYTHON={tmp_path / 'python'}", f"VENV={tmp_path / 'venv'}", "run"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "user=0 target= path= home=" in done.stdout and "there" not in done.stdout.replace(str(tmp_path), "")


# Workflows


@pytest.mark.parametrize("schema, files", [
    ("github-workflows", [f"workflows/{name}" for name in WORKFLOWS]), ("dependabot", ["dependabot.yml"])])
def test_they_follow_the_public_schema(schema, files):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, *files], cwd=ROOT / ".github", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", WORKFLOWS)
def test_they_are_pinned_and_may_do_no_more_than_they_need(name):
    uses = re.findall(r"uses:(.*)", TEXTS[name])
    assert [use for use in uses if not re.fullmatch(r" actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)] == []
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"} and "concurrency" in WORKFLOWS[name]
    own = {key: job["permissions"] for key, job in WORKFLOWS[name]["jobs"].items() if "permissions" in job}
    assert own == ({"deploy": {"pages": "write", "id-token": "write"}} if name == "pages.yml" else {})
    assert "pull_request_target" not in TEXTS[name] and "secrets." not in TEXTS[name]
    for job in WORKFLOWS[name]["jobs"].values():
        assert job["timeout-minutes"] <= 120
        assert all("${{" not in step.get("run", "") for step in job["steps"])


def test_pythons_files_and_targets_that_they_name_exist():
    pythons = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    matrix = WORKFLOWS["pull-request.yml"]["jobs"]["library"]["strategy"]["matrix"]
    assert matrix["python"] == pythons and len(matrix["system"]) == 3
    steps = "\n".join(step.get("run", "") for one in WORKFLOWS.values() for job in one["jobs"].values()
                      for step in job["steps"])
    files = set(re.findall(r"(?<![\w/-])(?:scripts|tests|\.ci)/[\w./]+|constraints[\w-]*\.txt", steps))
    assert len(files) >= 5 and [file for file in files if not (ROOT / file).exists()] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in re.findall(r"^make (\w+)$", steps, re.M))


# Results


def table(*rows) -> pd.DataFrame:
    return pd.DataFrame([(model, data, 10, accuracy, 1.0, "cpu") for model, accuracy, data in rows], columns=COLUMNS)


def test_floors_name_the_model_that_is_missing_or_below(monkeypatch):
    rows = {model: (model, floor, "full") for model, floor in accuracy_floors.FLOORS.items()}
    monkeypatch.setattr(accuracy_floors, "ledger", lambda: table(*rows.values()))
    assert accuracy_floors.below() == []
    rows |= {"nearest mean": ("nearest mean", 0.79, "full"), "ResNet18": ("ResNet18", 0.99, "sample")}
    assert [line.partition(":")[0] for line in accuracy_floors.below()] == ["nearest mean", "ResNet18"]


@pytest.mark.parametrize("rows", [[], [("one", 0.9, "full"), ("two", 0.9, "sample")]], ids=["empty", "mixed"])
def test_results_of_a_ledger_that_is_empty_or_mixed_are_refused(monkeypatch, rows):
    monkeypatch.setattr(readme_results, "ledger", lambda: table(*rows))
    with pytest.raises(ValueError, match="of one data set on one device, got .*Run `python scripts/run_notebooks.py"):
        readme_results.results()


class Links(HTMLParser):
    "Collects the targets of links and pictures, and the names that links may end on."

    def __init__(self, html: str):
        super().__init__()
        self.targets, self.names = [], set()
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.names.add(attributes.get("id"))
        if target := attributes.get("href" if tag == "a" else "src" if tag == "img" else ""):
            self.targets.append(target)


def test_website_has_every_page_and_no_broken_link(tmp_path):
    built, folder = tmp_path / "built", tmp_path / "website"
    for path in NOTEBOOKS:
        copy = built / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_page(Path(shutil.copy(path, copy)))
    website.website(built, folder)
    pages = {path.name for path in folder.glob("*.html")}
    texts = [*(ROOT / "nbs").glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    assert pages == {"index.html", *(f"{path.stem}.html" for path in [*NOTEBOOKS, *texts])}
    for page in pages:
        links = Links((folder / page).read_text(encoding="utf-8"))
        for target in links.targets:
            file, _, name = target.partition("#")
            assert re.match("https://|data:", target) or (folder / (file or page)).exists(), (page, target)
            assert file or not name or name in links.names, (page, target)
    assert pages - {"index.html"} <= set(Links((folder / "index.html").read_text(encoding="utf-8")).targets)
