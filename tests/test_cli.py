"""The command: digits of files from a shell."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mnist_scratch import cli
from mnist_scratch.cli import load_net, main, save_net
from mnist_scratch.convnet import RECIPES, ConvNet
from mnist_scratch.files import DataError, cache_home
from mnist_scratch.pictures import drawn


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    "Pictures of a 2, a 7 and nothing, and a text; every net is trained on the sample."
    monkeypatch.setenv("MNIST_SCRATCH_DATA", "sample")
    for digit in (2, 7):
        drawn(digit).save(tmp_path / f"{digit}.png")
    Image.new("L", (50, 50), 255).save(tmp_path / "blank.png")
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def kept(recipe: str = "balanced") -> Path:
    "A net that has learned nothing, where the command looks for one."
    save_net(ConvNet(RECIPES[recipe].channels, seed=3), file := cache_home() / "net.safetensors", recipe, "full")
    return file


def test_the_first_call_trains_and_keeps_the_net_and_the_next_uses_it(folder, capsys, monkeypatch):
    files = [str(folder / name) for name in ("2.png", "7.png")]
    assert main(["predict", *files]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0:2] for line in out.splitlines()] == [[f"{files[0]}:", "2"], [f"{files[1]}:", "7"]]
    assert "Training a net by the recipe 'balanced'" in err and "4,000 training and 1,000 testing images" in err
    monkeypatch.setattr(cli, "load_mnist", None)  # nothing is loaded any more
    assert main(["predict", *files]) == 0
    again, err = capsys.readouterr()
    assert again == out and err == "The net has learned from: sample. `mnist-scratch train` tries again.\n"


def test_a_bad_file_is_one_line_and_the_rest_go_on(folder, capsys):
    kept()
    names = ["text.png", "2.png", "blank.png", "nobody.png"]
    assert main(["predict", *(str(folder / name) for name in names)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 and out.startswith(f"{folder / '2.png'}: ")
    for line, name in zip(err.splitlines(), ["text.png", "blank.png", "nobody.png"], strict=True):
        assert line.startswith(f"{folder / name}: ")
    assert main(["predict", "--json", *(str(folder / name) for name in names)]) == 1
    answers = json.loads(capsys.readouterr().out)
    assert [Path(answer["file"]).name for answer in answers] == names and "no ink" in answers[2]["error"]
    shares = answers[1]["probabilities"]
    assert len(shares) == 10 and sum(shares) == pytest.approx(1, abs=1e-5)
    assert answers[1]["probability"] == max(shares) == shares[answers[1]["digit"]]


def test_explain_saves_the_steps_of_every_file(folder, capsys):
    kept()
    target = folder / "steps.png"
    assert main(["predict", str(folder / "2.png"), str(folder / "7.png"), "--explain", str(target)]) == 0
    assert Image.open(target).width > 2*Image.open(target).height
    assert main(["predict", str(folder / "2.png"), "--explain", str(folder / "2.png")]) == 1
    assert "would overwrite" in capsys.readouterr().err and Image.open(folder / "2.png").size == (280, 280)
    assert main(["predict", str(folder / "2.png"), "--explain", str(folder / "2")]) == 1
    assert "should end in .png" in capsys.readouterr().err and Image.open(folder / "2.png").size == (280, 280)
    assert main(["predict", str(folder / "2.png"), "--explain", str(folder / "no/steps.png")]) == 1
    assert "steps.png cannot be written" in capsys.readouterr().err


def test_evaluate_counts_a_folder(folder, capsys):
    kept()
    for digit in (2, 7):
        (folder / f"mine/{digit}").mkdir(parents=True)
        (folder / f"{digit}.png").rename(folder / f"mine/{digit}/a.png")
    says, _ = load_net(cache_home() / "net.safetensors")
    assert main(["evaluate", str(folder / "mine")]) == 0
    images = torch.stack([cli.as_mnist(drawn(digit)) for digit in (2, 7)])
    read = (says(images).argmax(1) == torch.tensor([2, 7])).sum().item()
    assert capsys.readouterr().out.startswith(f"{read} of 2 read: {read/2:.4f} ± ")
    (folder / "blank.png").rename(folder / "mine/7/blank.png")
    (folder / "mine/7/gone.png").symlink_to("nowhere")
    assert main(["evaluate", "--json", str(folder / "mine")]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["pictures"], told["read"], len(told["unusable"])) == (2, read, 2)
    assert main(["evaluate", str(folder / "mine/7")]) == 1 and "folders 0 to 9" in capsys.readouterr().err


def test_train_keeps_the_net_of_a_recipe_where_it_should(folder, capsys):
    file = folder / "mine.safetensors"
    (folder / "dir.safetensors").mkdir()
    assert main(["train", "--recipe", "fast", "--weights", str(file)]) == 0
    assert "of the validation images read; kept in" in capsys.readouterr().out
    net, data = load_net(file)
    assert data == "sample" and not net.training and net(torch.zeros(1, 28, 28)).shape == (1, 10)
    assert main(["predict", "--weights", str(file), str(folder / "2.png")]) == 0
    for name, words in (("no/net", "no such folder"), ("2.png", "no file called .safetensors"),
                        ("dir.safetensors", "no file called .safetensors")):
        assert main(["train", "--recipe", "fast", "--weights", str(folder / name)]) == 1
        assert words in capsys.readouterr().err and not list(folder.glob("*.safetensors.*"))
    assert Image.open(folder / "2.png").size == (280, 280)


def test_a_net_that_is_damaged_or_of_another_recipe_is_neither_used_nor_replaced(folder, capsys, monkeypatch):
    file = kept("fast")
    before = file.read_bytes()
    file.write_bytes(before[:300])
    assert main(["predict", str(folder / "2.png")]) == 1 and file.read_bytes() == before[:300]
    assert "`mnist-scratch train` makes a new one" in capsys.readouterr().err
    for bad, words in ((before[:300], "no net that can be used"), (b"", "no net that can be used")):
        file.write_bytes(bad)
        with pytest.raises(DataError, match=words):
            load_net(file)
    file.write_bytes(before)
    monkeypatch.setitem(RECIPES, "fast", RECIPES["balanced"])
    with pytest.raises(DataError, match="belongs to no recipe of this version"):
        load_net(file)
    with pytest.raises(DataError, match="there is no such file"):
        load_net(folder / "none")


def test_an_interrupt_ends_it_and_keeps_nothing(folder, capsys, monkeypatch):
    def interrupted(*args, **settings):
        net = ConvNet()
        net.history = type("History", (), {"train_loss": []})
        return net
    monkeypatch.setattr(cli, "train", interrupted)
    assert main(["predict", str(folder / "2.png")]) == 130
    assert "stopped" in capsys.readouterr().err and not (cache_home() / "net.safetensors").exists()


def test_the_command_is_installed_and_helps():
    command = Path(sys.executable).with_name("mnist-scratch")
    done = subprocess.run([command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "examples:" in done.stdout
    assert subprocess.run([command], capture_output=True).returncode == 2
