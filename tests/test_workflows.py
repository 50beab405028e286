"""The workflows of GitHub and what they call: valid, pinned, with no more rights than they need."""
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import accuracy_floors
import pytest
import readme_results
import website
import yaml
from conftest import NOTEBOOKS, ROOT
from run_notebooks import write_page

from mnist_scratch.report import Row

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github" / "workflows").iterdir())}
WORKFLOWS = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
JOBS = [pytest.param(job, id=f"{name}: {key}") for name, one in WORKFLOWS.items() for key, job in one["jobs"].items()]
every_workflow = pytest.mark.parametrize("name", WORKFLOWS)


@pytest.mark.parametrize("schema, files", [
    ("github-workflows", [f"workflows/{name}" for name in WORKFLOWS]),
    ("dependabot", ["dependabot.yml"]),
])
def test_they_follow_the_public_schema(schema, files):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, *files], cwd=ROOT / ".github", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@every_workflow
def test_actions_are_pinned_by_commit_and_name_their_version(name):
    uses = re.findall(r"uses:(.*)", TEXTS[name])
    assert [use for use in uses if not re.fullmatch(r" actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)] == []


@every_workflow
def test_rights_are_to_read_and_only_the_deployment_of_pages_may_write(name):
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {"contents": "read"}
    own = {key: job["permissions"] for key, job in workflow["jobs"].items() if "permissions" in job}
    assert own == ({"deploy": {"pages": "write", "id-token": "write"}} if name == "pages.yml" else {})
    assert "concurrency" in workflow
    assert "pull_request_target" not in TEXTS[name] and "secrets." not in TEXTS[name]


@pytest.mark.parametrize("job", JOBS)
def test_jobs_end_and_run_no_text_of_strangers(job):
    assert job["timeout-minutes"] <= 120
    for step in job["steps"]:
        assert "${{" not in step.get("run", "")
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"] == {"persist-credentials": False}


def test_every_python_of_the_metadata_is_tested_on_three_systems():
    pythons = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    matrix = WORKFLOWS["pull-request.yml"]["jobs"]["library"]["strategy"]["matrix"]
    assert matrix["python"] == pythons
    assert {system.partition("-")[0] for system in matrix["system"]} == {"ubuntu", "macos", "windows"}


def test_files_and_make_targets_in_the_steps_exist():
    steps = "\n".join(step.get("run", "") for one in WORKFLOWS.values() for job in one["jobs"].values()
                      for step in job["steps"])
    files = set(re.findall(r"(?<![\w/-])(?:scripts|tests|\.ci)/[\w./]+|constraints[\w-]*\.txt", steps))
    assert len(files) >= 5 and [file for file in files if not (ROOT / file).exists()] == []
    targets = re.findall(r"^make (\w+)$", steps, re.M)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets and all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


def test_the_source_distribution_has_what_this_file_reads():
    lines = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    assert {"graft .ci", "graft .github", "graft scripts", "graft tests"} <= set(lines)


def result(model: str, accuracy: float, data: str = "full") -> Row:
    return Row(1, model, data, 10, accuracy, 1.0, "cpu")


def test_floors_name_the_model_that_is_missing_or_below(monkeypatch):
    reached = [result(model, floor) for model, floor in accuracy_floors.FLOORS.items()]
    monkeypatch.setattr(accuracy_floors, "ledger", lambda: reached)
    assert accuracy_floors.below() == []
    reached[0] = result("nearest mean", 0.79)
    reached[-1] = result("convolutional net, fast", 0.99, "sample")
    assert [line.partition(":")[0] for line in accuracy_floors.below()] == ["nearest mean", "convolutional net, fast"]
    reached[0] = result("nearest mean", float("nan"))
    assert "nearest mean" in accuracy_floors.below()[0]


@pytest.mark.parametrize("rows", [[], [result("one", 0.9), result("two", 0.9, "sample")]], ids=["empty", "mixed"])
def test_results_of_a_ledger_that_is_empty_or_mixed_are_refused(monkeypatch, rows):
    monkeypatch.setattr(readme_results, "ledger", lambda: rows)
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
    built.mkdir()
    for path in NOTEBOOKS:
        write_page(Path(shutil.copy(path, built)))
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
    for path in texts:
        html = (folder / f"{path.stem}.html").read_text(encoding="utf-8")
        assert re.search(r"<title>\w", html) and html.count("<h1") == 1 and "index.html" in Links(html).targets, path
    front = Links((folder / "index.html").read_text(encoding="utf-8"))
    assert pages - {"index.html"} <= set(front.targets)
