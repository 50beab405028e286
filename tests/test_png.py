"""The short cut for MNIST's PNGs gives what a library gives, or leaves the file to it."""
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from mnist_scratch.data import DataError, images_to_tensor
from mnist_scratch.files import png_paths
from mnist_scratch.png import scanlines, unfiltered


def paeth(left, above, corner):
    "As the PNG standard writes it, for one pixel."
    guess = left + above - corner
    return min((left, above, corner), key=lambda value: abs(guess - value))


def encoded(pixels: np.ndarray, filters: list[int]) -> bytes:
    "A PNG whose row y uses filter `filters[y]`; slow, and pixel by pixel."
    values, rows = pixels.astype(int), b""
    for y, number in enumerate(filters):
        line = []
        for x in range(28):
            left, above = values[y, x - 1] if x else 0, values[y - 1, x] if y else 0
            corner = values[y - 1, x - 1] if x and y else 0
            expected = [0, left, above, (left + above) // 2, paeth(left, above, corner)][number]
            line.append((values[y, x] - expected) % 256)
        rows += bytes([number, *line])
    return packed(zlib.compress(rows))


def packed(compressed: bytes) -> bytes:
    "A 28 x 28 8-bit grey PNG with right checksums around any data."
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


def decoded(*pngs: bytes) -> np.ndarray:
    rows = b"".join(scanlines(png) for png in pngs)
    return unfiltered(np.frombuffer(rows, np.uint8).reshape(-1, 28, 29))


def saved(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_filter_is_undone(seed):
    chance = np.random.default_rng(seed)
    pictures = chance.integers(0, 256, (3, 28, 28), dtype=np.uint8)
    pngs = [encoded(picture, chance.integers(0, 5, 28).tolist()) for picture in pictures]
    assert (decoded(*pngs) == pictures).all()
    assert all((np.array(Image.open(io.BytesIO(png))) == picture).all() for png, picture in zip(pngs, pictures))


def test_a_filter_that_does_not_exist_is_an_error():
    rows = np.frombuffer(scanlines(encoded(NOISE, [0] * 28)), np.uint8).reshape(1, 28, 29).copy()
    rows[0, 5, 0] = 5
    with pytest.raises(ValueError, match="a PNG has filters 0 to 4, got 5"):
        unfiltered(rows)


def test_nothing_at_all():
    assert scanlines(b"") is None and unfiltered(np.zeros((0, 28, 29), np.uint8)).shape == (0, 28, 28)


@pytest.mark.parametrize("image", [
    Image.fromarray(NOISE[:27]), Image.fromarray(NOISE).convert("RGB"), Image.fromarray(NOISE > 127),
    Image.fromarray(NOISE.astype(np.uint16) * 256), Image.fromarray(NOISE).convert("P"),
], ids=["size", "colour", "one bit", "16 bits", "palette"])
def test_other_kinds_are_left_to_a_library(image):
    assert scanlines(saved(image)) is None


@pytest.mark.parametrize("compressed", [
    zlib.compress(bytes(28 * 29 + 1)), zlib.compress(bytes(28 * 29 - 1)), zlib.compress(bytes(28 * 29))[:-1], b"noise",
], ids=["too much", "too little", "no end", "no zlib"])
def test_other_data_behind_right_checksums_are_left_to_a_library(compressed):
    assert scanlines(packed(zlib.compress(bytes(28 * 29)))) == bytes(28 * 29)
    assert scanlines(packed(compressed)) is None


@pytest.mark.parametrize("png", [
    packed(zlib.compress(bytes([5] + [7] * 28) * 28)), packed(zlib.compress(bytes(28 * 29 - 1))), packed(b"noise"),
    encoded(NOISE, [0] * 28)[:60] + b"\0\0" + encoded(NOISE, [0] * 28)[62:],
], ids=["filter 5", "too little", "no zlib", "changed bytes"])
def test_a_damaged_picture_is_named(tmp_path, png):
    "And does not end Python, as torchvision 0.29 does."
    (tmp_path / "bad.png").write_bytes(png)
    with pytest.raises(DataError, match=r"bad\.png is not a readable PNG"):
        images_to_tensor(tmp_path)


def test_a_small_file_that_unpacks_to_much_takes_no_memory():
    bomb = packed(zlib.compress(bytes(50_000_000)))
    tracemalloc.start()
    try:
        assert scanlines(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_byte_that_changed_is_never_read_as_another_picture():
    png = encoded(NOISE, [0, 1, 2, 3, 4] * 5 + [0, 1, 2])
    for position in range(len(png)):
        damaged = bytearray(png)
        damaged[position] ^= 0x10
        assert scanlines(bytes(damaged)) is None, position
        assert scanlines(png[:position]) is None


def test_a_folder_of_both_kinds(tmp_path):
    "A text inside the file makes it another kind, with the same pixels."
    text = PngImagePlugin.PngInfo()
    text.add_text("author", "me")
    (tmp_path / "a.png").write_bytes(encoded(NOISE, [4] * 28))
    (tmp_path / "b.png").write_bytes(saved(Image.fromarray(NOISE.T.copy()), pnginfo=text))
    assert scanlines((tmp_path / "b.png").read_bytes()) is None
    assert images_to_tensor(tmp_path).equal(torch.from_numpy(np.stack([NOISE, NOISE.T])))
    (tmp_path / "c.png").write_bytes(encoded(NOISE, [4] * 28)[:-20])
    with pytest.raises(DataError, match="c.png is not a readable PNG"):
        images_to_tensor(tmp_path)


def test_the_sample_is_read_as_pil_reads_it(sample_folder):
    for digit in "05":
        folder = sample_folder / "training" / digit
        by_pil = np.stack([np.array(Image.open(file)) for file in png_paths(folder)])
        assert images_to_tensor(folder).equal(torch.from_numpy(by_pil))


def test_the_full_set_is_read_as_pil_reads_it(full_folder):
    for digit in "18":
        folder = full_folder / "testing" / digit
        by_pil = np.stack([np.array(Image.open(file)) for file in png_paths(folder)])
        assert images_to_tensor(folder).equal(torch.from_numpy(by_pil))
