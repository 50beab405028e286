"""The notebooks: in step with the library, clean, complete, and running from end to end on the sample."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import glossary
import llms
import measure
import nbformat
import pytest
from conftest import LESSONS, NOTEBOOKS, ROOT, read_notebook

from mnist_scratch.ledger import ledger

MODELS = ["nearest mean", "linear, sigmoid + MSE", "linear, softmax + MSE", "linear, cross-entropy", "two-layer net",
          "ResNet18", "convolutional net, fast"]
PARTS = ["\n> ", "**You will**", "**You need:**", "## Recap", "**Words** (all of them: [glossary](glossary.md))",
         "**Exercises**", "<details>", "**Next:**"]
PAGES = [path for part in (".", "nbs", "benchmarks", "tests") for path in (ROOT / part).glob("*.md")]


def sources(path: Path, kind: str) -> str:
    return "\n".join("".join(cell["source"]) for cell in read_notebook(path)["cells"] if cell["cell_type"] == kind)


@pytest.fixture
def tree(tmp_path) -> Path:
    "A copy of all that nbdev or the scripts may write into."
    mine = shutil.ignore_patterns(".*", "_*build", "__pycache__", "lab", "tests")
    return shutil.copytree(ROOT, tmp_path / "tree", ignore=mine)


@pytest.mark.parametrize("command, files", [("nbdev-export", "mnist_scratch/*.py"), ("nbdev-clean", "nbs/**/*.ipynb")])
def test_exports_are_in_step_and_notebooks_clean(tree, command, files):
    for file in (tree / "mnist_scratch").glob("[a-z]*.py"):
        file.unlink()  # a module that no notebook exports any more must not survive
    subprocess.run([Path(sys.executable).with_name(command)], cwd=tree, check=True)
    before, after = ({path.relative_to(root): path.read_text("utf-8") for path in root.glob(files)
                      if ".ipynb_checkpoints" not in path.parts} for root in (ROOT, tree))
    assert after == before, f"run {command} and commit the result"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_committed_and_show_no_errors_paths_or_addresses(path):
    cells = read_notebook(path)["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert len({cell["id"] for cell in cells}) == len(cells) and outputs
    for output in outputs:
        text = "".join([*output.get("text", []), *output.get("data", {}).get("text/plain", [])])
        assert output.get("name") != "stderr" and output["output_type"] != "error", output
        assert not re.search(r"(?<![\w.~:/<])/\w[\w.-]*/\w|[A-Z]:\\|site-packages|0x[0-9a-f]{6}", text), text
        assert len(output.get("data", {}).get("image/png", "")) < 150_000


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = sources(path, "markdown") if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_anatomy(path):
    text = sources(path, "markdown")
    assert text.startswith("# ") and [part for part in PARTS if part not in text] == []
    if path.stem != "bug_clinic":  # whose errors are planted and make no noise
        assert re.search(r"^except .*Error as error: print", sources(path, "code"), re.M)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_wrong_kernel_is_named_with_its_cure_where_it_fails(path):
    "Python shows the line that fails, with its comment."
    first = next("".join(cell["source"]) for cell in read_notebook(path)["cells"] if cell["cell_type"] == "code")
    assert re.match("(import torch|from mnist_scratch[^#]*)  # not found[?] Choose kernel mnist_scratch\n", first)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_minutes_to_read_are_measured(path):
    minutes, readme = str(measure.measure(path)["minutes"]), (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(rf"^\| \[{path.stem}\].* \| (\d+) \| .*$", readme, re.M) == [minutes]
    assert set(re.findall(r"(\d+) minutes to read", sources(path, "markdown"))) <= {minutes}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_picture_has_alt_text_and_lines_of_code_fit(path):
    outputs = [output for cell in read_notebook(path)["cells"] for output in cell.get("outputs", [])]
    pictures = [output["metadata"] for output in outputs if "image/png" in output.get("data", {})]
    assert all(len(metadata["image/png"]["alt"]) > 10 for metadata in pictures)
    if path in LESSONS:
        assert pictures and max(map(len, sources(path, "code").splitlines())) <= 90


def test_glossary_and_llms_txt_are_in_step_no_word_is_introduced_twice_and_departures_name_headings_that_exist():
    assert glossary.PAGE.read_text(encoding="utf-8") == glossary.page(), "run scripts/glossary.py and commit the result"
    assert llms.PAGE.read_text(encoding="utf-8") == llms.page(), "run scripts/llms.py and commit the result"
    terms = [term.lower() for path in LESSONS for term, _ in glossary.words(path)]
    assert len(set(terms)) == len(terms) > 50
    named = re.findall(r'\]\(([\w/]+\.ipynb)\), "([^"]+)"', (ROOT / "nbs/departures.md").read_text(encoding="utf-8"))
    assert len(named) > 15
    for notebook, heading in named:
        assert f"## {heading}\n" in sources(ROOT / "nbs" / notebook, "markdown"), heading


def execute(tree: Path, *arguments, **variables) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/run_notebooks.py", *arguments]
    environment = {**os.environ, "MNIST_SCRATCH_DATA": "sample", **variables}
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, env=environment)


@pytest.mark.notebooks
def test_the_series_runs_on_the_sample_and_ends_with_the_ledger(tree, monkeypatch):
    "With settings and a kernel of the surroundings that would spoil it."
    (other := tree / "elsewhere/kernels/python3/kernel.json").parent.mkdir(parents=True)
    other.write_text('{"argv": ["false"], "display_name": "other", "language": "python"}')
    done = execute(tree, JUPYTER_PATH=str(tree / "elsewhere"), MPLBACKEND="Agg")  # which would show no pictures
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"\] (\w+) \.\.\. ", done.stdout) == [path.stem for path in NOTEBOOKS]
    for path in (tree / "_build" / path.relative_to(ROOT) for path in NOTEBOOKS):
        assert '"stderr"' not in path.read_text("utf-8") and path.with_suffix(".html").stat().st_size > 10_000
    monkeypatch.setenv("MNIST_SCRATCH_LEDGER", str(tree / "_build/ledger.json"))
    assert ledger()["model"].tolist() == MODELS and set(ledger()["data"]) == {"sample"}
    assert done.stdout.rstrip().endswith(ledger().to_string(index=False))


@pytest.mark.notebooks
@pytest.mark.parametrize("source, kind", [("raise ValueError('planted')", "text/plain"), ("6*7", "image/png")])
def test_a_cell_that_fails_or_shows_no_picture_stops_the_run_and_is_shown(tree, source, kind):
    def write(*cells): nbformat.write(nbformat.v4.new_notebook(cells=cells), one)
    one, copy = tree / "nbs/one.ipynb", tree / "_build/nbs/one.ipynb"
    outputs = [nbformat.v4.new_output("display_data", data={kind: "AAAA"})]
    write(nbformat.v4.new_code_cell("1"), nbformat.v4.new_code_cell(source, outputs=outputs))
    before, around = one.read_bytes(), set((tree / "nbs").iterdir())
    done = execute(tree, "--inplace", one, tree / "nbs/01_tensors.ipynb")
    assert done.returncode == 1 and source in done.stdout and str(copy) in done.stdout and "] 01" not in done.stdout
    assert one.read_bytes() == before, "a notebook that fails stays as it was"
    assert read_notebook(copy)["cells"][0]["outputs"], "the copy is executed up to there"
    write(nbformat.v4.new_code_cell("6*7"))
    assert execute(tree, "--inplace", one).returncode == 0 and set((tree / "nbs").iterdir()) == around
    assert read_notebook(one)["cells"][0]["outputs"][0]["data"]["text/plain"] == ["42"]
