"""One table of results, in one file; two processes at once are played in test_download.py."""
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mnist_scratch.ledger import ledger, record
from mnist_scratch.training import Evaluation

COLUMNS = ["model", "data", "parameters", "validation accuracy", "seconds", "device"]
ROW, PARAMETERS = ["one", "full", 6, 0.1111, 1.23, "meta"], (torch.zeros(2, 2, device="meta"), torch.zeros(2))
GUESSES = Evaluation(torch.arange(9), torch.zeros(9, dtype=torch.int64), torch.full((9,), 0.1))

def add(name="one", data="full", seconds=1.2345, parameters=PARAMETERS):
    return record(name, SimpleNamespace(parameters=lambda: iter(parameters)), GUESSES, seconds, data)

@pytest.mark.parametrize(("own", "file"), [("~/new/folder/mine", "new/folder/mine"), ("", "cache/ledger.json")])
def test_the_same_model_on_the_same_data_is_replaced_where_it_stands(monkeypatch, own_folders, own, file):
    monkeypatch.setenv("HOME", str(own_folders)), monkeypatch.setenv("USERPROFILE", str(own_folders))
    monkeypatch.setenv("MNIST_SCRATCH_LEDGER", own)
    assert len(ledger()) == 0 and list(ledger().columns) == COLUMNS
    add("b"), add(), add("b", "sample", parameters=()), add("b", seconds=7.0)
    assert add("c, with + and ü").values.tolist() == ledger().values.tolist() == [
        ["b", "full", 6, 0.1111, 7.0, "meta"], ROW, ["b", "sample", 0, 0.1111, 1.23, "cpu"],
        ["c, with + and ü", *ROW[1:]]] and list(ledger().columns) == COLUMNS
    assert {path.suffix for path in (own_folders / file).parent.iterdir()} <= {Path(file).suffix, ".lock"}

@pytest.mark.parametrize("content", ["{", '[{"model": "x"}]', "null"])
def test_a_damaged_file_is_named_and_kept(content):
    (file := Path(os.environ["MNIST_SCRATCH_LEDGER"])).write_text(content)
    for work in (ledger, add):
        with pytest.raises(ValueError, match=f"{file.name} is not a ledger. Delete"):
            work()
    assert file.read_text() == content

def test_a_ledger_that_cannot_be_written_is_said_and_the_work_goes_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "taken").touch()
    monkeypatch.setenv("MNIST_SCRATCH_LEDGER", str(tmp_path / "taken" / "ledger.json"))
    assert add().values.tolist() == [ROW] and len(ledger()) == 0
    assert "taken/ledger.json cannot be written" in capsys.readouterr().out.replace(os.sep, "/")
