"""Every checked function: right shapes pass; a wrong one, which PyTorch might broadcast, is refused by its name."""
import os
import subprocess
import sys
import warnings
from functools import partial
from inspect import signature

import pytest
import torch
from torch import Tensor

from mnist_scratch.baseline import NearestMean, mae_distance, mse_distance, pixel_means
from mnist_scratch.checks import ShapeError, check_labels, check_settings, described, unchecked
from mnist_scratch.convnet import ConvNet, shifted
from mnist_scratch.data import Digits, split_validation
from mnist_scratch.linear import LinearModel, linear, linear_from_means
from mnist_scratch.losses import cross_entropy, log_softmax, sigmoid_mse, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.plot import show_digits, show_weights
from mnist_scratch.training import Evaluation

IMAGES, MEANS, LABELS, SHARES = torch.rand(20, 28, 28), torch.rand(10, 28, 28), torch.arange(20) % 10, torch.rand(20)
LOGITS, PIXELS, WEIGHTS, BIASES = torch.randn(20, 10), torch.rand(20, 784), torch.randn(10, 784), torch.randn(10)
MOVES = torch.zeros(20, 2, dtype=torch.int64)
# function -> right arguments, and the places of those whose length has to be that of another
CASES = {
    pixel_means: ((IMAGES, LABELS), (0, 1)), mae_distance: ((IMAGES, MEANS), ()), mse_distance: ((IMAGES, MEANS), ()),
    linear: ((PIXELS, WEIGHTS, BIASES), (1, 2)), linear_from_means: ((MEANS,), ()), log_softmax: ((LOGITS,), ()),
    sigmoid_mse: ((LOGITS, LABELS), (0, 1)), softmax_mse: ((LOGITS, LABELS), (0, 1)),
    cross_entropy: ((LOGITS, LABELS), (0, 1)), split_validation: ((LABELS, 5), ()), show_digits: ((MEANS,), ()),
    show_weights: ((MEANS,), ()), shifted: ((IMAGES, MOVES, 2), (0, 1)),
    Evaluation: ((LABELS, LABELS.flip(0), SHARES), (0, 1, 2)),
}


@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
def test_right_shapes_pass_and_every_wrong_one_is_named(function):
    right, of_one_length = CASES[function]
    names = list(signature(function).parameters)
    function(*right)
    for place, value in enumerate(right):
        misfits = [value[None], value[..., None], value[0], value.bool()] if isinstance(value, Tensor) else []
        for wrong in [*misfits, value[:1]] if place in of_one_length else misfits:
            with pytest.raises(ShapeError) as raised:
                function(*right[:place], wrong, *right[place + 1:])
            # Where two arguments disagree, the one that comes later is named; it states the other's shape too.
            named, _, came = str(raised.value).partition(" should be ")
            assert named in [f"{function.__name__}(): {name}" for name in names[place:]] and described(wrong) in came


@pytest.mark.parametrize("model", [NearestMean(MEANS), LinearModel.random(), TwoLayerNet(), ConvNet().eval()])
def test_models_take_images_and_nothing_else(model):
    for n in (20, 1, 0):
        assert model(IMAGES[:n]).shape == (n, 10)
    for wrong in (IMAGES[0], IMAGES[:, None], PIXELS, IMAGES.byte()):  # with three axes it may be of another size
        with pytest.raises(ShapeError, match=rf"^{type(model).__name__}\(\): images should be Float.*got "):
            model(wrong)
    with pytest.raises(ShapeError, match="images|pixels"):
        model(IMAGES[:, :27])


@pytest.mark.parametrize("ask, message", [
    (lambda: linear(PIXELS, WEIGHTS, biases=BIASES[:1]), r"linear\(\): biases should be .*'k'.*, got float32 \(1,\)"
     r" .*pixels is float32 \(20, 784\), weights is float32 \(10, 784\), biases is float32 \(1,\)"),
    (lambda: shifted(IMAGES, MOVES[:1], most=2), r"shifted\(\): moves .*28, 28\), moves is int64 \(1, 2\)\)$"),
    (lambda: NearestMean(MEANS, lambda images, means: -images)(IMAGES),
     r"NearestMean\(\): its result should be .*, got float32 \(20, 28, 28\)")])
def test_the_message_says_what_was_wanted_and_all_that_came(ask, message):
    with pytest.raises(ShapeError, match=f"^{message}"):
        ask()


@pytest.mark.parametrize("ask", [
    lambda: linear(PIXELS, WEIGHTS, BIASES[:1]), lambda: check_labels(torch.tensor([10]), 10, "labels")])
def test_unchecked_lets_everything_through_while_it_lasts(ask):
    with unchecked():
        with unchecked():
            pass
        ask()
    with pytest.raises(KeyError), unchecked():
        raise KeyError
    with pytest.raises(ValueError, match="should"):
        ask()


def test_the_environment_variable_switches_the_checks_off():
    program = "from mnist_scratch.checks import check_labels as check, torch; check(torch.tensor([10]), 10, 'labels')"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "JAXTYPING_DISABLE": "1"}, check=True)


@pytest.mark.parametrize("check, arguments, message", [
    *((check_labels, (torch.tensor(labels).long(), 10, "f(): labels"), rf"f\(\): labels .*{message}")
      for labels, message in (([3, -1], "0 and 9, got -1"), ([3, 10], "got 10"), ([-2, 12], "-2"), ([], "at least"))),
    *((partial(check_settings, epochs=value), ("f",), rf"f\(\): epochs .*0 and whole, got {value}")
      for value in (0, -1, 1.5, 2.0, torch.inf, None)),
    *((partial(check_settings, first=1, lr=value), ("f",), rf"f\(\): lr .*0 and finite, got {value}")
      for value in (0.0, -1.0, torch.inf, torch.nan)),
    (Digits, (IMAGES.byte(), LABELS), r"Digits\(\): images .*float32 .*3 .*got uint8 \(20, 28, 28\)"),
    (Digits, (IMAGES[0], LABELS), r"Digits\(\): images .*3 "), (Digits, (IMAGES.numpy(), LABELS), ".* got ndarray"),
    (Digits, (IMAGES, LABELS.float()), r"Digits\(\): labels .*int64 .*1 .*float32"),
    (Digits, (IMAGES, LABELS[None]), r"Digits\(\): labels .*1 "), (Digits, (IMAGES, LABELS[1:]), ".*label.* 20 .*19 "),
    (Digits, (IMAGES, LABELS.to("meta")), ".*label.*cpu.*meta"), (Digits, (IMAGES, LABELS + 1), ".*labels .* got 10"),
    (Digits, (IMAGES + 0.5, LABELS), r"Digits\(\): images .* 1 .*got .* 1\.[45]"),
    (Digits, (IMAGES - 0.5, LABELS), r".*images .*got -0\.[45]"), (Digits, (IMAGES*torch.nan, LABELS), ".* got nan")])
def test_wrong_values_are_named(check, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        check(*arguments)


def test_right_values_pass_and_a_pile_of_ink_is_warned_of_where_it_is_made():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_labels(torch.tensor([0, 9]), 10, "labels")
        check_settings("fit", epochs=1, batch_size=2, lr=0.5)
        for images in (torch.full((20, 28, 28), 0.59), IMAGES.round(), IMAGES[:0]):
            Digits(images, LABELS[:len(images)])
    with pytest.warns(UserWarning, match="mostly ink.* 1 - images") as caught:
        Digits(torch.full((20, 28, 28), 0.61), LABELS)
    assert caught[0].filename == __file__
