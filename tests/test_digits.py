"""Pictures of any kind in the form of MNIST's, and what is done to them afterwards."""
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mnist_scratch.baseline import NearestMean
from mnist_scratch.convnet import ConvNet, train
from mnist_scratch.data import load_mnist
from mnist_scratch.digits import altered, as_mnist, asked, only_resized, predict, steps
from mnist_scratch.files import DataError
from mnist_scratch.pictures import MOST_PIXELS, drawn, photographed, to_grey

SHEET = drawn(3)
INK = SHEET.point(lambda value: 255 - value)
FORM = as_mnist(SHEET)  # what each of the awkward ones should become, nearly


def over(colour: tuple, mask: Image.Image) -> Image.Image:
    (picture := Image.new("RGBA", mask.size, (0, 0, 0, 0))).paste(colour, mask=mask)
    return picture


def saved(picture: Image.Image, **settings) -> bytes:
    picture.save(file := BytesIO(), **settings)
    return file.getvalue()


def turned(picture: Image.Image) -> bytes:
    "As a camera stores it that was held upright: lying, with a note."
    (note := Image.Exif())[0x0112] = 6
    return saved(picture.transpose(Image.Transpose.ROTATE_90), format="JPEG", exif=note)


def ruled() -> Image.Image:
    page = np.array(SHEET.resize((1120, 1120)))
    page[60::110], page[61::110] = np.minimum(page[60::110], 185), np.minimum(page[61::110], 185)
    page[:, 150:154] = np.minimum(page[:, 150:154], 190)
    return Image.fromarray(page)


AWKWARD = {
    "as it is": SHEET, "its bytes": saved(SHEET, format="PNG"), "an array": np.array(SHEET), "a tensor": to_grey(SHEET),
    "chalk": INK, "transparent": over((20, 40, 160, 255), INK), "white on nothing": over((255, 255, 255, 255), INK),
    "cmyk": saved(SHEET.convert("CMYK"), format="JPEG"), "1 bit": saved(SHEET.convert("1"), format="PNG"),
    "16 bits": saved(Image.fromarray(np.array(SHEET).astype(np.uint16)*257), format="PNG"),
    "floats": Image.fromarray(np.array(SHEET, np.float32)*257), "exif": turned(SHEET), "ruled": ruled(),
    "a gif": saved(SHEET, format="GIF", save_all=True, append_images=[drawn(1)]),
    "moved and small": (far := Image.new("L", (900, 700), 255)).paste(SHEET.resize((200, 200)), (650, 30)) or far,
    "pale": SHEET.point(lambda value: 160 + value//3), "thin": drawn(3, 800, pen=0.012), "photo": photographed(3),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_every_kind_of_picture_becomes_the_same_digit(name):
    form = as_mnist(AWKWARD[name])
    assert form.shape == (28, 28) and 0 <= form.min() <= form.max() <= 1
    others = {digit: (form - as_mnist(drawn(digit))).abs().mean().item() for digit in range(10)}
    assert (form - FORM).abs().mean() < 0.05 and min(others, key=others.get) == 3, others


def test_a_photo_of_twelve_million_pixels_with_a_shadow_is_read(full_folder):
    photo, net = photographed(8), train(load_mnist(full_folder, device="cpu"), "fast")
    assert photo.width*photo.height == 12_000_000 and predict(saved(photo, format="JPEG"), net).argmax() == 8


TWO = np.concatenate([np.array(drawn(4)), np.array(drawn(2))], 1)
NOTHING = {"blank": Image.new("L", (300, 300), 255), "black": Image.new("L", (300, 300)), "one pixel": np.zeros((1, 1)),
           "noise": np.random.default_rng(0).normal(0.8, 0.02, (500, 400)).clip(0, 1)}


@pytest.mark.parametrize("picture, words", [
    *((picture, "no ink") for picture in NOTHING.values()), (TWO, "more than one digit"), (b"GIF89a?", "not a picture"),
    (saved(SHEET, format="PNG")[:800], "damaged|not a picture"), ("nobody.png", "nobody.png cannot be read .No such"),
    (None, "should be a file, bytes"), (["a.png"], "a list"), (Image.new("L", (0, 0)), "no pixels"),
    *((np.zeros(shape), "no picture") for shape in ((3, 3, 3, 3), (0, 5), (784,))),
    (np.full((9, 9), 7.0), "floats from 0"),
    (saved(Image.new("1", (MOST_PIXELS//1000 + 1, 1000)), format="PNG"), "million pixels")])
def test_what_is_no_digit_is_one_clear_error(picture, words):
    with pytest.raises(DataError, match=words):
        as_mnist(picture)


def test_what_is_handed_over_stays_as_it_is(tmp_path):
    SHEET.convert("RGB").resize((3000, 3000)).save(tmp_path / "large.jpg")
    with Image.open(tmp_path / "large.jpg") as picture:
        as_mnist(picture)
        assert (picture.size, picture.mode) == ((3000, 3000), "RGB")
    net = ConvNet(seed=1)  # still in training mode
    before = {name: value.clone() for name, value in net.state_dict().items()}
    shares = predict(SHEET, net)
    assert net.training and all(value.equal(before[name]) for name, value in net.state_dict().items())
    assert torch.allclose(shares, predict(SHEET, net.eval()))


def test_images_of_mnist_pass_unchanged(sample_folder):
    images = load_mnist(sample_folder, device="cpu").test.images[::5]
    gaps = (torch.stack([as_mnist(image) for image in images]) - images).abs().mean((1, 2))
    assert (gaps < 0.01).float().mean() > 0.97


def test_the_longest_side_is_20_pixels_and_the_centre_of_mass_in_the_middle():
    for digit in range(10):
        form = as_mnist(drawn(digit))
        sides = [int(form.sum(axis).count_nonzero()) for axis in (0, 1)]
        assert max(sides) == 20
        for axis in (0, 1):
            assert abs((form.sum(axis)*torch.arange(28)).sum()/form.sum() - 14) <= 0.51, digit
    made = steps(SHEET)
    assert list(made) == ["grey", "ink", "cut out", "thick enough", "20 pixels long", "centred"]
    assert made["centred"].equal(FORM) and set(made["ink"].unique().tolist()) == {0.0, 1.0}


def test_a_loose_bar_belongs_to_its_digit_and_a_crumb_does_not():
    page = np.full((200, 200), 255, np.uint8)
    page[60:150, 80:90] = 0
    alone = as_mnist(page)
    page[50:54, 80:120] = 0  # close
    assert not as_mnist(page).equal(alone)
    with_bar = as_mnist(page)
    page[190:194, 5:9] = 0  # far away
    assert as_mnist(page).equal(with_bar)


def test_altered_moves_turns_and_thickens_as_it_says():
    images = torch.zeros(1, 28, 28)
    images[0, 10, 12] = 1
    def place(**how): return divmod(altered(images, **how).argmax().item(), 28)
    assert torch.allclose(altered(images), images, atol=1e-5) and place(right=3, down=-2) == (8, 15)
    images[0, 10, 12], images[0, 13, 20] = 0, 1  # right of the middle; a quarter turn clockwise takes it below
    assert place(turn=90) == (20, 14) and altered(images, thicker=2).sum() == 9
    assert torch.allclose(altered(altered(images, thicker=2), thicker=-2), images, atol=1e-5)


def test_predict_asks_the_model_about_the_prepared_picture():
    net = ConvNet(seed=1).eval()
    assert torch.allclose(predict(SHEET, net), net(FORM[None])[0].softmax(0)) and not predict(SHEET, net).requires_grad
    wrapped = nn.Sequential(nn.Sequential(nn.Dropout(0.5), net)).eval()
    wrapped[0].train()  # a part of it learns, and is not to learn here
    assert asked(wrapped, torch.stack([FORM]*3)).equal(asked(net, torch.stack([FORM]*3))) and wrapped[0].training
    assert only_resized(SHEET).shape == (28, 28) and (only_resized(SHEET) - only_resized(INK)).abs().max() < 0.02


def test_drawn_digits_are_read_by_the_means_of_mnist(sample_folder):
    means = NearestMean.from_digits(load_mnist(sample_folder, device="cpu").train)
    read = [predict(drawn(digit), means).argmax().item() == digit for digit in range(10)]
    assert sum(read) >= 8
