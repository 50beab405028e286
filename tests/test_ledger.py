"""One table of results, in one file."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mnist_scratch.ledger import COLUMNS, ledger, record
from mnist_scratch.training import Evaluation


class Two:
    "A model with two parameters."
    def parameters(self):
        return [torch.zeros(2)]


GUESSES = Evaluation(torch.arange(9), torch.zeros(9, dtype=torch.int64), torch.full((9,), 0.1))


def add(name="two", seconds=1.0, data="full"):
    return record(name, Two(), GUESSES, seconds, data)


def test_a_row_says_what_was_measured():
    add("one model", 0.01234)
    assert ledger().values.tolist() == [["one model", "full", 2, 0.1111, 0.01, "cpu"]]
    assert list(ledger().columns) == COLUMNS


def test_rows_keep_the_order_of_first_appearance_and_the_same_model_on_other_data_is_another_row():
    add("b"), add("a"), add("b", data="sample"), add("b", seconds=7.0)
    table = add("c, with + and ü")
    assert table[["model", "data", "seconds"]].values.tolist() == [
        ["b", "full", 7.0], ["a", "full", 1.0], ["b", "sample", 1.0], ["c, with + and ü", "full", 1.0]]
    assert ledger().equals(table) or ledger().values.tolist() == table.values.tolist()


def test_an_empty_ledger():
    assert len(ledger()) == 0 and list(ledger().columns) == COLUMNS


@pytest.mark.parametrize("content", ["{", '[{"model": "x"}]', "null"])
def test_a_damaged_file_is_named(content):
    file = Path(os.environ["MNIST_SCRATCH_LEDGER"])
    file.write_text(content)
    for work in (ledger, add):
        with pytest.raises(ValueError, match=f"{file.name} is not a ledger. Delete that file"):
            work()
    assert file.read_text() == content


def test_a_ledger_that_cannot_be_written_is_said_and_the_work_goes_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("MNIST_SCRATCH_LEDGER", str(tmp_path / "taken" / "ledger.json"))
    assert add("one")["model"].tolist() == ["one"]
    assert "Not kept: " in (said := capsys.readouterr().out) and "set MNIST_SCRATCH_LEDGER to a file" in said
    assert said.count("\n") == 1 and len(ledger()) == 0


def test_it_lies_in_the_cache_unless_said_otherwise(monkeypatch, own_folders):
    monkeypatch.delenv("MNIST_SCRATCH_LEDGER")
    add()
    assert json.loads((own_folders / "cache" / "ledger.json").read_text())[0]["model"] == "two"


def test_two_processes_at_once_lose_nothing():
    program = """
import sys, torch
from mnist_scratch.ledger import record
from mnist_scratch.training import Evaluation
class Model:
    def parameters(self): return [torch.zeros(2)]
guesses = Evaluation(torch.arange(9), torch.zeros(9, dtype=torch.int64), torch.full((9,), 0.1))
for index in range(40): record(f"{sys.argv[1]} {index}", Model(), guesses, 1.0, "full")
"""
    both = [subprocess.Popen([sys.executable, "-c", program, name]) for name in "ab"]
    assert [one.wait(120) for one in both] == [0, 0]
    assert set(ledger()["model"]) == {f"{name} {index}" for name in "ab" for index in range(40)}
    assert {path.suffix for path in Path(os.environ["MNIST_SCRATCH_LEDGER"]).parent.iterdir()} <= {"", ".lock"}
