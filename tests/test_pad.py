"""The pad without a browser: what Python answers to a drawing."""
import json

import pytest
import torch

pad = pytest.importorskip("mnist_scratch.pad", reason="needs anywidget")
from mnist_scratch.convnet import ConvNet  # noqa: E402
from mnist_scratch.digits import altered, as_mnist, asked, only_resized  # noqa: E402
from mnist_scratch.linear import LinearModel  # noqa: E402
from mnist_scratch.pictures import STROKES, drawn  # noqa: E402

MODELS = {"linear": LinearModel.random(seed=1), "net": ConvNet(seed=1).eval()}
SETTINGS = {"prepared": True, "right": 0, "down": 0, "turn": 0, "thicker": 0}


def test_a_drawing_and_its_settings_get_one_reply():
    sheet = pad.Pad(MODELS)
    assert (sheet.names, set(sheet.examples)) == (["linear", "net"], set("0123456789"))
    assert {int(digit): strokes for digit, strokes in sheet.examples.items()} == STROKES
    with sheet.hold_trait_notifications():
        sheet.settings, sheet.drawing = {**SETTINGS, "right": 2}, drawn(4).tobytes()
    (image,) = altered(as_mnist(drawn(4))[None], right=2)
    assert sheet.reply["picture"] == (255*image).round().int().flatten().tolist()
    for answer, model in zip(sheet.reply["answers"], MODELS.values(), strict=True):
        assert torch.allclose(torch.tensor(answer), asked(model, image[None])[0])
    json.dumps(sheet.reply)
    sheet.settings = {**SETTINGS, "prepared": False}
    assert sheet.reply["picture"] == (255*only_resized(drawn(4))).round().int().flatten().tolist()


def test_an_empty_sheet_and_two_digits_get_words_in_place_of_answers():
    blank = pad.answered(MODELS, bytes([255]*280*280))
    assert (blank["answers"], blank["message"], set(blank["picture"])) == ([], "Draw a digit.", {0})
    two = torch.full((280, 280), 255, dtype=torch.uint8)
    two[40:240, 40:60] = two[40:240, 200:220] = 0
    assert "more than one digit" in pad.answered(MODELS, two.numpy().tobytes())["message"]


def test_where_nobody_can_draw_a_picture_says_what_the_models_answer(monkeypatch):
    assert isinstance(pad.drawing_pad(MODELS), pad.Pad)
    monkeypatch.setenv("MNIST_SCRATCH_STILL", "1")
    shown = []
    monkeypatch.setattr(pad, "describe", lambda figure, text: shown.append(text))
    pad.drawing_pad(MODELS, digit=5)
    best = asked(MODELS["net"], as_mnist(drawn(5))[None])[0].max(0)
    assert shown[0].startswith("The digit 5, drawn on the pad: linear says ")
    assert f"net says {best.indices} with {best.values:.0%}" in shown[0]
