"""Every checked function: right shapes pass; a wrong one, which PyTorch might broadcast, is refused by its name."""
import inspect
import os
import pkgutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from importlib import import_module

import pytest
import torch
from jaxtyping import Float, Int64
from torch import Tensor

import mnist_scratch
from mnist_scratch.baseline import NearestMean, mae_distance, mse_distance, pixel_means
from mnist_scratch.checks import ShapeError, check_labels, check_settings, described, shape_checked, unchecked
from mnist_scratch.convnet import ConvNet, shifted, warped
from mnist_scratch.data import Digits, split_validation
from mnist_scratch.linear import LinearModel, linear, linear_from_means
from mnist_scratch.losses import cross_entropy, log_softmax, sigmoid_mse, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.plot import show_digits, show_weights
from mnist_scratch.training import Evaluation

IMAGES, MEANS, LABELS = torch.rand(20, 28, 28), torch.rand(10, 28, 28), torch.arange(20) % 10
LOGITS, PIXELS, WEIGHTS, BIASES = torch.randn(20, 10), torch.rand(20, 784), torch.randn(10, 784), torch.randn(10)
MOVES, MAPS, CONFIDENCE = torch.zeros(20, 2, dtype=torch.int64), torch.eye(2, 3).repeat(20, 1, 1), torch.rand(20)
BYTES = (IMAGES * 255).to(torch.uint8)
NO_LABELS = [LABELS[:, None], LABELS[None], LABELS[:-1], LABELS[:1], LABELS.float(), LABELS.int(), LABELS.tolist()]
NO_IMAGES = [IMAGES[0], IMAGES[:, None], IMAGES.flatten(1), IMAGES.permute(1, 2, 0), BYTES]
DISTANCE = ({"images": IMAGES, "means": MEANS}, (20, 10), {
    "images": NO_IMAGES, "means": [MEANS[0], MEANS[:, :27], MEANS[:, :, :1], MEANS[:, :1], MEANS.flatten(1)]})
LOSS = ({"logits": LOGITS, "labels": LABELS}, (), {
    "labels": NO_LABELS, "logits": [LOGITS[0], LOGITS[None], LOGITS.T, LOGITS[:, :1].T, LOGITS.long()]})
# function -> right arguments, shape of the result (None: no tensor), wrong values of each argument
CASES = {
    pixel_means: ({"images": IMAGES, "labels": LABELS}, (10, 28, 28), {"labels": NO_LABELS, "images": NO_IMAGES}),
    mae_distance: DISTANCE, mse_distance: DISTANCE, sigmoid_mse: LOSS, softmax_mse: LOSS, cross_entropy: LOSS,
    linear: ({"pixels": PIXELS, "weights": WEIGHTS, "biases": BIASES}, (20, 10), {
        "pixels": [IMAGES, PIXELS[0], PIXELS.T, PIXELS.long()],
        "weights": [WEIGHTS.T, WEIGHTS[0], WEIGHTS[:9], WEIGHTS[:1], WEIGHTS.long()],
        "biases": [BIASES[:, None], BIASES[:1], BIASES[None], BIASES[0]]}),
    linear_from_means: ({"means": MEANS}, None, {"means": [MEANS[0], MEANS.flatten(1), MEANS[:, None], BYTES[:10]]}),
    log_softmax: ({"logits": LOGITS}, (20, 10), {"logits": [LOGITS[0], LOGITS[None], LOGITS.long()]}),
    split_validation: ({"labels": LABELS, "n_valid": 5}, None, {"labels": [LABELS[:, None], LABELS.float()]}),
    shifted: ({"images": IMAGES, "moves": MOVES, "most": 2}, (20, 28, 28), {
        "images": [*NO_IMAGES, IMAGES.double()],
        "moves": [MOVES[:-1], MOVES[:1], MOVES.T, MOVES.float(), MOVES[:, :1]]}),
    warped: ({"images": IMAGES, "maps": MAPS}, (20, 28, 28), {
        "images": [*NO_IMAGES, IMAGES.double()], "maps": [MAPS[:-1], MAPS[0], MAPS.mT, MAPS.double()]}),
    show_digits: ({"images": MEANS}, None, {"images": [IMAGES[0], IMAGES[:, None], PIXELS]}),
    show_weights: ({"weights": MEANS}, None, {"weights": [WEIGHTS, MEANS[0], BYTES]}),
    Evaluation: ({"labels": LABELS, "predicted": LABELS.flip(0), "confidence": CONFIDENCE}, None, {
        "labels": NO_LABELS, "predicted": [*NO_LABELS, LOGITS],
        "confidence": [CONFIDENCE[:, None], LABELS, CONFIDENCE[:1]]}),
}


@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
def test_right_shapes_pass_and_every_wrong_one_is_named(function):
    right, shape, wrong = CASES[function]
    assert shape is None or function(**right).shape == shape
    function(**right)
    names = list(right)
    for argument, value in [(argument, value) for argument, values in wrong.items() for value in values]:
        with pytest.raises(ShapeError) as raised:
            function(**{**right, argument: value})
        # Where two arguments disagree, the one that comes later is named; it states the other's shape too.
        message, case = str(raised.value), f"{argument} {described(value)}"
        assert message.startswith(f"{function.__name__}(): ") and " should be " in message, case
        named = message.removeprefix(f"{function.__name__}(): ").split(" should be ")[0]
        assert names.index(named) >= names.index(argument), case
        assert f"{argument} is {described(value)}" in message or f", got {described(value)}" in message, case


MODULES = [import_module(f"mnist_scratch.{module.name}") for module in pkgutil.iter_modules(mnist_scratch.__path__)]


def test_every_checked_function_is_in_the_table():
    checked = {name for module in MODULES for name, function in vars(module).items()
               if inspect.isfunction(function) and function.__module__ == module.__name__
               and "@shape_checked" in inspect.getsource(function)}
    assert checked == {function.__name__ for function in CASES} - {"Evaluation"}


MODELS = {
    "NearestMean": NearestMean(MEANS), "NearestMean, absolute": NearestMean(MEANS, mae_distance),
    "LinearModel": LinearModel.random(device="cpu"), "TwoLayerNet": TwoLayerNet(device="cpu"),
    "ConvNet": ConvNet(device="cpu").eval(),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_take_images_and_nothing_else(name):
    model = MODELS[name]
    assert model(IMAGES).shape == (20, 10) and model(IMAGES[:1]).shape == (1, 10) and model(IMAGES[:0]).shape == (0, 10)
    for wrong in (*NO_IMAGES[:3], BYTES):  # what has three axes may be images of another size
        with pytest.raises(ShapeError, match=rf"^{name.split(',')[0]}\(\): images should be Float.*got "):
            model(wrong)
    with pytest.raises(ShapeError, match="images|pixels"):
        model(IMAGES[:, :27])


def test_a_model_whose_parts_do_not_fit_answers_nothing():
    for weights, biases in ((WEIGHTS.T, BIASES), (WEIGHTS, BIASES[:1]), (WEIGHTS, BIASES[:, None])):
        with pytest.raises(ShapeError, match=r"^linear\(\): (weights|biases) should be"):
            LinearModel(weights, biases)(IMAGES)
    with pytest.raises(ShapeError, match=r"^NearestMean\(\): its result should be .*, got float32 \(20,\)"):
        NearestMean(MEANS, lambda images, means: images.mean((1, 2)))(IMAGES)


# The decorator


def test_the_message_says_what_was_wanted_and_all_that_came():
    with pytest.raises(ShapeError) as raised:
        linear(PIXELS, WEIGHTS, BIASES[:1])
    assert str(raised.value) == ("linear(): biases should be Float[Tensor, 'k'], got float32 (1,) (pixels is "
                                 "float32 (20, 784), weights is float32 (10, 784), biases is float32 (1,))")
    assert isinstance(raised.value, ValueError) and described([1]) == "list"


def test_a_wrong_result_a_class_and_a_method_go_by_their_names():
    @shape_checked
    def forgot_the_mean(images: Float[Tensor, "n h w"], most: int = 0) -> Float[Tensor, "n"]:
        "Of images."
        return images

    @shape_checked
    @dataclass
    class Scores:
        "Of images."
        logits: Float[Tensor, "n k"]
        labels: Int64[Tensor, "n"]

        @shape_checked
        def best(self, k: Int64[Tensor, "n"]) -> Int64[Tensor, "n"]:
            return k[:1]

    with pytest.raises(ShapeError, match=r"^forgot_the_mean\(\): its result should be .*got float32 \(20, 28, 28\)"):
        forgot_the_mean(IMAGES)
    assert list(inspect.signature(forgot_the_mean).parameters) == ["images", "most"]
    assert forgot_the_mean.__doc__ == Scores.__doc__ == "Of images." and Scores(LOGITS, LABELS).logits is LOGITS
    with pytest.raises(ShapeError, match=r"^Scores\(\): labels should be"):
        Scores(LOGITS, labels=LABELS[:1])
    with pytest.raises(ShapeError, match=r"^best\(\): its result should be"):
        Scores(LOGITS, LABELS).best(LABELS)
    with pytest.raises(TypeError, match="missing"):
        Scores(LOGITS)


# The switch


def broadcasts() -> bool:
    "Whether a single bias goes through unnoticed, and labels that are none."
    passed = []
    for ask in (lambda: linear(PIXELS, WEIGHTS, BIASES[:1]), lambda: check_labels(torch.tensor([10]), 10, "labels"),
                lambda: Evaluation(LABELS[:, None], LABELS, CONFIDENCE)):
        try:
            ask()
            passed.append(True)
        except ValueError:
            passed.append(False)
    assert len(set(passed)) == 1
    return passed[0]


def test_unchecked_lets_everything_through_while_it_lasts():
    assert not broadcasts()
    with unchecked():
        assert broadcasts()
        with unchecked():
            pass
        assert broadcasts()
    assert not broadcasts()
    with pytest.raises(KeyError), unchecked():
        raise KeyError
    assert not broadcasts()


def test_the_environment_variable_switches_the_checks_off():
    program = """
import torch
from mnist_scratch.linear import linear
from mnist_scratch.losses import cross_entropy
print(tuple(linear(torch.zeros(20, 784), torch.zeros(10, 784), torch.zeros(1)).shape))
print(cross_entropy(torch.zeros(1, 3), torch.tensor([1])).item() > 1)
"""
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "JAXTYPING_DISABLE": "1"},
                          capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["(20, 10)", "True"], done.stderr


# Values


@pytest.mark.parametrize(("labels", "message"), [
    ([3, -1, 9], "should lie between 0 and 9, got -1"), ([3, 10, 9], "should lie between 0 and 9, got 10"),
    ([-2, 12], "should lie between 0 and 9, got -2"), ([], "should hold at least one, got none"), ([0, 9], None),
])
def test_labels(labels, message):
    labels = torch.tensor(labels, dtype=torch.int64)
    if message is None:
        return check_labels(labels, 10, "labels")
    with pytest.raises(ValueError, match=rf"^f\(\): labels {message}$"):
        check_labels(labels, 10, "f(): labels")


@pytest.mark.parametrize(("name", "value", "complaint"), [
    ("epochs", 0, "0 and whole, got 0"), ("epochs", 1.5, "0 and whole, got 1.5"), ("lr", 0.0, "0 and finite, got 0.0"),
    ("lr", -1.0, "0 and finite, got -1.0"), ("lr", float("inf"), "0 and finite, got inf"), ("epochs", 2.0, None),
    ("lr", float("nan"), "0 and finite, got nan"), ("batch_size", float("inf"), "0 and whole"), ("lr", 0.5, None),
])
def test_settings(name, value, complaint):
    if complaint is None:
        return check_settings("fit", **{"epochs": 1, name: value})
    with pytest.raises(ValueError, match=rf"^fit\(\): {name} should be greater than {complaint}"):
        check_settings("fit", **{"epochs": 1, name: value})


@pytest.mark.parametrize(("images", "labels", "complaint"), [
    (BYTES, LABELS, r"images should be a tensor of torch.float32 with 3 axes, got uint8 \(20, 28, 28\)"),
    (IMAGES.double(), LABELS, "images should"), (IMAGES[:, None], LABELS, "images should"),
    (IMAGES.numpy(), LABELS, "images should .* got ndarray; torch.as_tensor"), (IMAGES, LABELS[None], "labels should"),
    (IMAGES, LABELS.float(), "labels should be a tensor of torch.int64 with 1 axes"),
    (IMAGES, LABELS[:-1], "every image needs a label.* 20 images on cpu and 19 labels"),
    (IMAGES, LABELS.to("meta"), ".*on its own device"),
    (IMAGES, LABELS + 1, "labels should lie between 0 and 9, got 10"),
    (IMAGES * 255, LABELS, r".*between 0 \(paper\) and 1 \(ink\), got .* by 255"),
    (IMAGES - 0.5, LABELS, ".*between 0"),
    (IMAGES / 0, LABELS, ".*between 0"), (IMAGES * float("nan"), LABELS, ".*between 0"),
])
def test_piles_that_are_no_digits(images, labels, complaint):
    with pytest.raises(ValueError, match=rf"^Digits\(\): {complaint}"):
        Digits(images, labels)


def test_a_pile_of_ink_is_warned_of_where_it_is_made():
    with pytest.warns(UserWarning, match="mostly ink.* take 1 - images") as caught:
        Digits(1 - IMAGES / 2, LABELS)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Digits(IMAGES, LABELS)) == 20 and len(Digits(IMAGES[:0], LABELS[:0])) == 0
