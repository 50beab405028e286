"""The scripts and the workflows that call them: working copies, commands, what the README says."""
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import accuracy_floors
import folds
import lab
import nbformat
import pandas as pd
import pytest
import readme_results
import series
import torch
import yaml
from conftest import ROOT, read_notebook

from mnist_scratch import cli
from mnist_scratch.data import MNIST, Digits
from mnist_scratch.ledger import COLUMNS

WORKFLOWS = sorted((ROOT / ".github/workflows").iterdir())


@pytest.fixture
def house(tmp_path, monkeypatch):
    "A small series with its working copies, where nobody else works."
    (tmp_path / "nbs").mkdir()
    cell = nbformat.v4.new_code_cell("6*7", outputs=[nbformat.v4.new_output("stream", text="42")])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "nbs/one.ipynb")
    (tmp_path / "nbs/glossary.md").write_text("words")
    monkeypatch.setattr(series, "ROOT", tmp_path)
    monkeypatch.setattr(series, "notebooks", lambda root=tmp_path, found=series.notebooks: found(root))
    monkeypatch.setattr(lab, "COPIES", tmp_path / "lab")
    monkeypatch.setattr(lab, "MADE", tmp_path / "lab/.made.json")
    assert lab.refresh(outputs=False) == [] and (tmp_path / "lab/nbs/glossary.md").exists()
    return tmp_path


@pytest.mark.parametrize("edit, is_mine", [
    (('"6*7"', '"6*8"'), True), (('"cell_type": "code"', '"cell_type": "raw"'), True), (('"cells"', ""), True),
    (('"outputs": []', '"outputs": [{"name": "stdout", "output_type": "stream", "text": "42"}]'), True),
    (('"display_name": "mnist_scratch"', '"display_name": "opened"'), False)],
    ids=["code", "kind", "no notebook any more", "output", "only opened"])
def test_a_copy_has_no_outputs_and_is_never_overwritten_once_it_was_changed(house, edit, is_mine):
    copy, source = house / "lab/nbs/one.ipynb", house / "nbs/one.ipynb"
    assert read_notebook(copy)["cells"][0]["outputs"] == [] != read_notebook(source)["cells"][0]["outputs"]
    assert read_notebook(copy)["metadata"]["kernelspec"]["name"] == "mnist_scratch"
    copy.write_text(mine := copy.read_text().replace(*edit))
    assert lab.refresh(outputs=False) == [] and (copy.read_text() == mine or not is_mine)
    source.write_text(source.read_text().replace("6*7", "a new edition"))
    assert lab.refresh(outputs=False) == [copy]*is_mine
    assert (copy.read_text() == mine) == is_mine == ("a new edition" not in copy.read_text())
    copy.unlink()
    assert lab.refresh(outputs=False) == [] and "a new edition" in copy.read_text()
    assert lab.refresh(outputs=True) == [] and read_notebook(copy)["cells"] == read_notebook(source)["cells"]


@pytest.mark.parametrize("uid, flags, folder", [(0, [], "lab"), (1000, ["--edit"], "")])
def test_lab_starts_jupyter_on_the_copies_also_as_root_with_flags(house, tmp_path, monkeypatch, uid, flags, folder):
    started = []
    monkeypatch.setattr(os, "execv", lambda *command: started.extend(command))
    monkeypatch.setattr(os, "geteuid", lambda: uid, raising=False)
    monkeypatch.setattr(sys, "argv", ["lab.py", *flags, "--", "--port", "8899"])
    monkeypatch.setattr(series, "use_own_kernel", lambda: None)
    monkeypatch.setattr(series, "BUILD", tmp_path)
    lab.main()
    assert "fetchNews" in (tmp_path / "jupyter/lab/overrides.json").read_text()
    options = [f"--ServerApp.root_dir={house / folder}", "--LabApp.default_url=/lab/tree/nbs/01_tensors.ipynb",
               f"--LabApp.app_settings_dir={tmp_path / 'jupyter/lab'}", *["--allow-root"]*(uid == 0), "--port", "8899"]
    assert (ROOT / options[1].partition("/lab/tree/")[2]).exists()
    assert started == [sys.executable, [sys.executable, "-m", "jupyter", "lab", *options]]


def test_the_kernel_is_this_python_before_all_others(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "others")
    series.use_own_kernel(tmp_path)
    assert os.environ["JUPYTER_PATH"].split(os.pathsep) == [str(tmp_path), "others"]
    for name in ("python3", "mnist_scratch"):
        spec = json.loads((tmp_path / f"kernels/{name}/kernel.json").read_text())
        assert spec["argv"][0] == sys.executable and "inline" in spec["env"]["MPLBACKEND"]


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_installs_where_it_should_whatever_pip_is_told(tmp_path):
    python, told = tmp_path / "python", {name: "1" for name in "PIP_TARGET PIP_PREFIX PYTHONPATH PYTHONHOME".split()}
    python.write_text(f"#!/bin/sh\necho user=$PIP_USER others={''.join(f'${name}' for name in told)}.\nexit 1\n")
    python.chmod(0o755)
    command = ["make", "-f", ROOT / "Makefile", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}", "run"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **told, "PIP_USER": "1"}, stdout=subprocess.PIPE)
    assert b"user=0 others=.\n" in done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_pinned_may_do_no_more_than_they_need_and_name_what_exists(path):
    schema, text = ["--builtin-schema", "vendor.github-workflows"], path.read_text(encoding="utf-8")
    subprocess.run([sys.executable, "-m", "check_jsonschema", *schema, path], check=True)
    assert not re.sub(r"uses: actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+\n", "", text).count("uses:")
    assert "\npermissions:\n  contents: read\n" in text and text.count(": write") == 2*(path.name == "pages.yml")
    assert not re.search(r"pull_request_target|secrets\.|\{\{ *(github\.(event\.|head_ref)|inputs)", text)
    files = re.findall(r"(?<![\w/-])(?:scripts|tests|\.ci)/[\w./]+|constraints[\w-]*\.txt", text)
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_what_readme_and_pre_commit_tell_one_to_run_is_there():
    readme, made = (ROOT / "README.md").read_text(encoding="utf-8"), (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^|`)make (?:[A-Z]+=\S+ )*([a-z]+)", readme, re.M))
    assert targets >= {"lab", "run", "site", "test", "bench"} and targets <= set(re.findall(r"^(\w+):", made, re.M))
    for name in set(re.findall(r"mnist-scratch (\w+)", readme)):
        with pytest.raises(SystemExit, match="0"):
            cli.main([name, "--help"])
    for block in re.findall(r"```python\n(.*?)```", readme, re.S):
        compile(block, "README", "exec")
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    for word in " ".join(hook["entry"] for hook in hooks).split():
        if word.startswith(".venv/bin/"):
            assert Path(sys.executable).with_name(word.rpartition("/")[2]).exists(), word
        if "/" in word and not word.startswith("."):
            assert (ROOT / word).exists(), word


def test_results_below_their_floors_are_named(monkeypatch):
    rows = {model: [model, "full", 10, floor, 1.0, "cpu"] for model, floor in accuracy_floors.FLOORS.items()}
    monkeypatch.setattr(accuracy_floors, "ledger", lambda: pd.DataFrame(rows.values(), columns=COLUMNS))
    assert accuracy_floors.below() == []
    rows["nearest mean"][3], rows["ResNet18"][1] = 0.79, "sample"
    assert [line.partition(":")[0] for line in accuracy_floors.below()] == ["nearest mean", "ResNet18"]


def test_the_readme_shows_the_committed_folds_and_no_others():
    assert readme_results.results() in (ROOT / "README.md").read_text(encoding="utf-8")
    runs = json.loads(readme_results.FOLDS.read_text(encoding="utf-8"))
    assert {run["data"] for run in runs} == {"full"} and len({run["machine"] for run in runs}) == 1
    assert set(Counter(run["model"] for run in runs).values()) == {5}


def test_what_the_readme_says_of_the_race_stands_in_its_results():
    text = (ROOT / "benchmarks/results/race.md").read_text(encoding="utf-8")
    ratios, accuracies = {}, {}  # of the last run on each processor
    row = r"(AVX\w+),.* 30 \| ([\w ,]+) \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \|"
    for cpu, name, ratio, accuracy in re.findall(row, text):
        ratios[cpu, name], accuracies[cpu, name] = float(ratio), float(accuracy)
    one, another = ratios["AVX512", "fast"], ratios["AVX2", "fast"]
    assert f"takes {one:.2f} of that recipe's time on one CPU (AVX512), {another:.2f} on another (AVX2)" in (
        ROOT / "README.md").read_text(encoding="utf-8")
    for cpu in ("AVX512", "AVX2"):  # a quarter of a point
        assert 0.002 < accuracies[cpu, "fast"] - accuracies[cpu, "public record"] < 0.003
    assert ratios["AVX2", "contender"] < ratios["AVX2", "fast"]
    assert accuracies["AVX2", "contender"] > accuracies["AVX2", "fast"]


def test_what_08_says_of_strangers_stands_in_the_committed_results():
    text = (ROOT / "benchmarks/results/outside.md").read_text(encoding="utf-8")
    means = {name: list(map(float, re.findall(r"\| ([\d.]+) \(", row)))
             for name, row in re.findall(r"^\| ([\w -]+) (\|.*)$", text, re.M) if "(" in row}
    assert len(means) == 5 and all(resized < prepared < own for own, resized, prepared in means.values())
    own, resized, prepared = means["balanced"]
    assert own > 0.99 and resized < 0.7 and prepared >= 0.93


@pytest.mark.parametrize("number", [0, 4])
def test_a_fold_is_measured_on_a_fifth_that_no_net_of_it_learns_from(number):
    images = torch.arange(150).float()[:, None, None].expand(150, 28, 28)/150
    mnist = MNIST(*(Digits(images[part], torch.arange(150)[part] % 10) for part in torch.arange(150).split(50)), "some")
    parts = [folds.fold(mnist, fold) for fold in range(folds.N_FOLDS)]
    held_out = [part.valid.images[:, 0, 0] for part in parts]
    assert torch.cat(held_out).sort().values.equal(mnist.train.images[:, 0, 0])
    assert [len(one) for one in held_out] == [10]*5
    learns = parts[number].train.images[:, 0, 0]
    assert len(learns) == 90 and not torch.isin(learns, held_out[number]).any()
    assert torch.isin(mnist.valid.images[:, 0, 0], learns).all() and parts[number].test.images.equal(mnist.test.images)
    assert parts[number].valid.labels.equal((held_out[number]*150).round().long() % 10)
