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
import series
from conftest import LESSONS, NOTEBOOKS, ROOT, read_notebook

from mnist_scratch.ledger import ledger

NAMES = [str(path.relative_to(ROOT)) for path in NOTEBOOKS]
MODELS = [
    "nearest mean", *(f"linear, {loss}" for loss in ("sigmoid + MSE", "softmax + MSE", "cross-entropy")),
    "two-layer net", "two-layer net, one-cycle", "ResNet18", "convolutional net, fast",
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
        if file.name not in ("__init__.py", "_modidx.py"):
            file.unlink()  # a module that no notebook exports any more must not survive
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
        assert cell["execution_count"] is None and not source.startswith("#|"), "directives stand in the metadata"
        assert path.parent.name == "tools" or sum(bool(line.strip()) for line in source.splitlines()) <= 20, source
        for output in cell["outputs"]:
            assert output.get("name") != "stderr" and output["output_type"] != "error", output
            text = "".join(output.get("text", [])) + "".join(output.get("data", {}).get("text/plain", []))
            absolute_path = r"(?<![\w.~:/<])/\w[\w.-]*/\w|[A-Z]:\\"
            assert not re.search(rf"{absolute_path}|site-packages|0x[0-9a-f]{{6}}", text), text
            assert len(output.get("data", {}).get("image/png", "")) < 150_000
    for text in ("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"):
        assert all(len(paragraph.split()) <= 120 for paragraph in text.split("\n\n"))
        for target in re.findall(r"\]\(([^)#]+)", text):
            assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_anatomy(path):
    cells = read_notebook(path)["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    parts = ["\n> ", "**You will**", "**You need:**", "## Recap", "**Words** (all of them: [glossary](glossary.md))",
             "**Exercises**", "<details>", "**Next:**"]
    assert text.startswith("# ") and [part for part in parts if part not in text] == []
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    if path.stem != "bug_clinic":  # whose errors are planted and make no noise
        assert sum(bool(re.search(r"^except .*Error as error: print", source, re.M)) for source in sources) >= 1


def test_glossary_is_in_step_and_no_word_is_introduced_twice():
    assert glossary.PAGE.read_text(encoding="utf-8") == glossary.page(), "run scripts/glossary.py and commit the result"
    terms = {path.stem: [term.lower() for term, _ in glossary.words(path)] for path in LESSONS}
    assert [lesson for lesson, found in terms.items() if not found] == []
    assert len(set(sum(terms.values(), []))) == len(sum(terms.values(), []))


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "nbs").glob("*.md"),
                                  ROOT / "benchmarks" / "README.md", ROOT / "tests" / "README.md"], ids=str)
def test_links_of_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_departures_name_headings_that_exist():
    page = (ROOT / "nbs" / "departures.md").read_text(encoding="utf-8")
    named = re.findall(r'\]\(([\w/]+\.ipynb)\), "([^"]+)"', page)
    assert len(named) > 15
    for notebook, heading in named:
        cells = read_notebook(ROOT / "nbs" / notebook)["cells"]
        assert any(re.search(f"^## {re.escape(heading)}$", "".join(cell["source"]), re.M) for cell in cells), heading


@pytest.fixture
def tree(tmp_path, monkeypatch):
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
def test_the_series_runs_on_the_sample_and_ends_with_the_ledger(tree, monkeypatch):
    "With settings and a kernel of the surroundings that would spoil it."
    folder, run = tree
    monkeypatch.setenv("MPLBACKEND", "Agg")  # no pictures in notebooks, if it were obeyed
    other = folder / "elsewhere" / "kernels" / "python3" / "kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"argv": ["false"], "display_name": "other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "elsewhere"))
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    order = [done.stdout.index(f"] {path.stem} ... ") for path in series.notebooks()]
    assert order == sorted(order) and len(order) == len(NOTEBOOKS), "the path first, the tools last"
    for path in NOTEBOOKS:
        executed = read_notebook(folder / "_build" / path.relative_to(ROOT))
        outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
        assert [output for output in outputs if output.get("name") == "stderr"] == []
        assert (folder / "_build" / path.relative_to(ROOT)).with_suffix(".html").stat().st_size > 10_000
    monkeypatch.setenv("MNIST_SCRATCH_LEDGER", str(folder / "_build" / "ledger.json"))
    assert ledger()["model"].tolist() == MODELS and set(ledger()["data"]) == {"sample"}
    assert done.stdout.rstrip().endswith(ledger().to_string(index=False))


@pytest.mark.notebooks
def test_a_cell_that_fails_or_shows_no_picture_stops_the_run_and_is_shown(tree):
    folder, run = tree
    picture = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "AAAA"}}
    for source, outputs in (("raise ValueError('planted')", []), ("6*7", [picture])):
        cells = [nbformat.v4.new_code_cell("1"), nbformat.v4.new_code_cell(source, outputs=outputs)]
        for name in ("one", "two"):
            nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "nbs" / f"{name}.ipynb")
        before, around = (folder / "nbs" / "one.ipynb").read_bytes(), set((folder / "nbs").iterdir())
        done = run("--inplace", "nbs/one.ipynb", "nbs/two.ipynb")
        copy = folder / "_build" / "nbs" / "one.ipynb"
        assert done.returncode == 1 and source in done.stdout and str(copy) in done.stdout
        assert "] two" not in done.stdout
        assert (folder / "nbs" / "one.ipynb").read_bytes() == before, "a notebook that fails stays as it was"
        assert read_notebook(copy)["cells"][0]["outputs"], "the copy is executed up to there"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("6*7")]), folder / "nbs" / "one.ipynb")
    assert run("--inplace", "nbs/one.ipynb").returncode == 0
    cells = read_notebook(folder / "nbs" / "one.ipynb")["cells"]
    assert cells[0]["outputs"][0]["data"]["text/plain"] == ["42"] and set((folder / "nbs").iterdir()) == around
