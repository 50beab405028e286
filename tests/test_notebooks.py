"""The notebooks: in step with the library, clean, complete, and running from end to end on the sample."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import glossary
import nbformat
import pytest
from conftest import LESSONS, NOTEBOOKS, ROOT, read_notebook

from mnist_scratch.report import ledger

NAMES = [str(path.relative_to(ROOT)) for path in NOTEBOOKS]
MODELS = [
    "nearest mean",
    *(f"linear, {loss}" for loss in ("sigmoid + MSE", "softmax + MSE", "cross-entropy")),
    "two-layer net",
    "two-layer net, one-cycle",
    "ResNet18",
    "convolutional net, fast",
]


def tool(name: str, folder: Path):
    "Run one of nbdev's commands in `folder`."
    command = [str(Path(sys.executable).with_name(name))]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def copy_of_the_tree(tmp_path) -> Path:
    "Notebooks, library and settings, where nbdev may write."
    for name in ("nbs", "mnist_scratch"):
        shutil.copytree(ROOT / name, tmp_path / "tree" / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb*"))
    for name in ("pyproject.toml", "settings.ini", "README.md"):
        shutil.copy(ROOT / name, tmp_path / "tree")
    return tmp_path / "tree"


def contents(folder: Path, pattern: str) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text(encoding="utf-8")
            for file in sorted(folder.rglob(pattern)) if not {"__pycache__", ".ipynb_checkpoints"} & set(file.parts)}


def test_exports_are_in_step(copy_of_the_tree):
    before = contents(ROOT / "mnist_scratch", "*.py")
    for file in (copy_of_the_tree / "mnist_scratch").glob("*.py"):
        if file.name != "__init__.py":
            file.unlink()  # a module that no notebook exports any more must not survive
    (copy_of_the_tree / "mnist_scratch" / "_modidx.py").write_text((ROOT / "mnist_scratch" / "_modidx.py").read_text())
    tool("nbdev-export", copy_of_the_tree)
    assert contents(copy_of_the_tree / "mnist_scratch", "*.py") == before, "run nbdev-export and commit the result"


def test_notebooks_are_clean(copy_of_the_tree):
    tool("nbdev-clean", copy_of_the_tree)
    assert contents(copy_of_the_tree / "nbs", "*.ipynb") == contents(ROOT / "nbs", "*.ipynb"), "run nbdev-clean"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_hygiene(path):
    notebook = read_notebook(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert any(cell["outputs"] for cell in code), "outputs are committed"
    for cell in code:
        source = "".join(cell["source"])
        assert cell["execution_count"] is None
        longer = path not in LESSONS or re.search(r"\b(plt|axe?s?|figure)\.|^from mnist_scratch", source, re.M)
        assert sum(bool(line.strip()) for line in source.splitlines()) <= (20 if longer else 15), source
        for output in cell["outputs"]:
            assert output.get("name") != "stderr" and output["output_type"] != "error", output
            text = "".join(output.get("text", [])) + "".join(output.get("data", {}).get("text/plain", []))
            absolute_path = r"(?<![\w.~:/<])/\w[\w.-]*/\w|[A-Z]:\\"
            assert not re.search(rf"{absolute_path}|site-packages|0x[0-9a-f]{{6}}", text), text
            assert len(output.get("data", {}).get("image/png", "")) < 150_000
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            assert all(len(paragraph.split()) <= 120 for paragraph in "".join(cell["source"]).split("\n\n"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_anatomy(path):
    cells = read_notebook(path)["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert text.startswith("# ")
    parts = ["\n> ", "**You will**", "**You need:**", "## Recap"]
    parts += ["**Words** (all of them: [glossary](glossary.md))", "**Exercises**", "<details>", "**Next:**"]
    assert [part for part in parts if part not in text] == []
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    exports = [source for source in sources if source.startswith("#| export")]
    assert bool(exports) == sources[0].startswith("#| default_exp ")
    if not exports:  # the bug clinic, whose errors are planted and make no noise
        return
    assert sum("assert " in source for source in sources) >= 3
    assert sum(bool(re.search(r"^except .*Error as error: print", source, re.M)) for source in sources) >= 1


def test_glossary_is_in_step():
    assert glossary.PAGE.read_text(encoding="utf-8") == glossary.page(), "run scripts/glossary.py and commit the result"


def test_every_lesson_has_words_and_no_word_is_introduced_twice():
    terms = {path.stem: [term for term, _ in glossary.words(path)] for path in LESSONS}
    assert [lesson for lesson, found in terms.items() if not found] == []
    everything = [term.lower() for found in terms.values() for term in found]
    assert sorted(set(everything)) == sorted(everything)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_links_lead_somewhere(path):
    markdown = [cell["source"] for cell in read_notebook(path)["cells"] if cell["cell_type"] == "markdown"]
    text = "\n".join("".join(source) for source in markdown)
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.parametrize("page", [ROOT / "README.md", *(ROOT / "nbs").glob("*.md")], ids=lambda page: page.stem)
def test_links_of_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_departures_name_headings_that_exist():
    page = (ROOT / "nbs" / "departures.md").read_text(encoding="utf-8")
    named = re.findall(r'\]\((\w+\.ipynb)\), "([^"]+)"', page)
    assert len(named) > 15
    for notebook, heading in named:
        cells = read_notebook(ROOT / "nbs" / notebook)["cells"]
        assert any(re.search(f"^## {re.escape(heading)}$", "".join(cell["source"]), re.M) for cell in cells), heading


@pytest.fixture
def series(tmp_path, monkeypatch):
    "Run scripts/run_notebooks.py in a copy of the scripts and notebooks, on the sample."
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    monkeypatch.setenv("MNIST_SCRATCH_DATA", "sample")
    def run(*arguments):
        command = [sys.executable, "scripts/run_notebooks.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ.copy())
    return tmp_path, run


@pytest.mark.notebooks
def test_the_series_runs_on_the_sample_and_ends_with_the_ledger(series, monkeypatch):
    folder, run = series
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    for path in NOTEBOOKS:
        assert re.search(rf"{path.stem} \.\.\. \d+ s", done.stdout), path
        executed = json.loads((folder / "_build" / path.name).read_text(encoding="utf-8"))
        outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
        assert [output for output in outputs if output.get("name") == "stderr"] == []
        assert (folder / "_build" / path.with_suffix(".html").name).stat().st_size > 10_000
    monkeypatch.setenv("MNIST_SCRATCH_LEDGER", str(folder / "_build" / "ledger"))
    rows = ledger()
    assert [row.model for row in rows] == MODELS
    assert {row.data for row in rows} == {"sample"}
    assert done.stdout.rstrip().endswith(str(rows))


@pytest.mark.notebooks
def test_a_failing_cell_stops_the_run_and_is_shown(series):
    folder, run = series
    path = folder / "nbs" / "03_linear_model.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["cells"][3]["source"] = "raise ValueError('planted')"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    done = run("nbs/03_linear_model.ipynb", "nbs/02_pixel_baseline.ipynb")
    assert done.returncode == 1
    assert "raise ValueError('planted')" in done.stdout and "02_pixel_baseline" not in done.stdout


@pytest.mark.notebooks
def test_inplace_replaces_a_notebook_only_when_it_ran_to_its_end(series):
    folder, run = series
    path = folder / "nbs" / "tiny.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("6*7"), nbformat.v4.new_code_cell("7/0")])
    nbformat.write(notebook, path)
    before, around = path.read_bytes(), set(path.parent.iterdir())
    done = run("--inplace", "nbs/tiny.ipynb")
    copy = folder / "_build" / "tiny.ipynb"
    assert done.returncode == 1 and str(copy) in done.stdout and path.read_bytes() == before
    assert [len(cell["outputs"]) for cell in read_notebook(copy)["cells"]] == [1, 1]
    nbformat.write(nbformat.v4.new_notebook(cells=notebook.cells[:1]), path)
    done = run("--inplace", "nbs/tiny.ipynb")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [cell["outputs"][0]["data"]["text/plain"] for cell in read_notebook(path)["cells"]] == [["42"]]
    assert set(path.parent.iterdir()) == around
