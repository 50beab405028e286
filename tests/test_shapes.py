"""Every function that broadcasts: the right shapes pass, a wrong one raises and the message names the argument."""
import inspect

import pytest
import torch

import mnist_scratch.baseline
import mnist_scratch.data
import mnist_scratch.linear
import mnist_scratch.losses
import mnist_scratch.plot
from mnist_scratch.baseline import is_digit, mae_distance, mse_distance, pixel_means
from mnist_scratch.data import split_validation
from mnist_scratch.linear import linear
from mnist_scratch.losses import cross_entropy, log_softmax, sigmoid_mse, softmax_mse
from mnist_scratch.plot import show_digits, show_weights
from mnist_scratch.shapes import ShapeError, shape_checked

IMAGES, MEANS, LABELS = torch.rand(20, 28, 28), torch.rand(10, 28, 28), torch.arange(20) % 10
LOGITS, PIXELS, WEIGHTS, BIASES = torch.randn(20, 10), torch.rand(20, 784), torch.randn(784, 10), torch.randn(10)

# function, right arguments, shape of the result (None: no tensor)
RIGHT = [
    (pixel_means, {"images": IMAGES, "labels": LABELS}, (10, 28, 28)),
    (mae_distance, {"images": IMAGES, "means": MEANS}, (20, 10)),
    (mse_distance, {"images": IMAGES, "means": MEANS}, (20, 10)),
    (is_digit, {"images": IMAGES, "digit": 3, "means": MEANS}, (20,)),
    (linear, {"pixels": PIXELS, "weights": WEIGHTS, "biases": BIASES}, (20, 10)),
    (log_softmax, {"logits": LOGITS}, (20, 10)),
    (sigmoid_mse, {"logits": LOGITS, "labels": LABELS}, ()),
    (softmax_mse, {"logits": LOGITS, "labels": LABELS}, ()),
    (cross_entropy, {"logits": LOGITS, "labels": LABELS}, ()),
    (split_validation, {"labels": LABELS, "n_valid": 5}, None),
    (show_digits, {"images": MEANS}, None),
    (show_weights, {"weights": MEANS}, None),
]
RIGHT_BY_NAME = {function.__name__: (function, arguments) for function, arguments, _ in RIGHT}

# function, argument, wrong value
WRONG = [
    ("pixel_means", "labels", LABELS[:, None]),
    ("pixel_means", "labels", LABELS[:-1]),
    ("pixel_means", "labels", LABELS.float()),
    ("pixel_means", "images", IMAGES[0]),
    ("pixel_means", "images", (IMAGES * 255).to(torch.uint8)),
    *((name, "images", wrong) for name in ("mae_distance", "mse_distance", "is_digit") for wrong in
      (IMAGES[0], IMAGES[:, None], IMAGES.flatten(1), IMAGES.double().long())),
    *((name, "means", wrong) for name in ("mae_distance", "mse_distance", "is_digit") for wrong in
      (MEANS[0], MEANS[:, :27], MEANS[:, :, :1], MEANS.flatten(1))),
    ("linear", "pixels", IMAGES),
    ("linear", "pixels", PIXELS[0]),
    ("linear", "weights", WEIGHTS.T),
    ("linear", "weights", WEIGHTS[:, 0]),
    ("linear", "biases", BIASES[:, None]),
    ("linear", "biases", BIASES[:1]),
    ("linear", "biases", BIASES[None]),
    ("log_softmax", "logits", LOGITS[0]),
    ("log_softmax", "logits", LOGITS.long()),
    *((name, "labels", wrong) for name in ("sigmoid_mse", "softmax_mse", "cross_entropy") for wrong in
      (LABELS[:, None], LABELS[None], LABELS[:-1], LABELS[:1], LABELS.float(), LABELS.int())),
    *((name, "logits", wrong) for name in ("sigmoid_mse", "softmax_mse", "cross_entropy") for wrong in
      (LOGITS[0], LOGITS[None], LOGITS.long())),
    ("split_validation", "labels", LABELS[:, None]),
    ("show_digits", "images", IMAGES[0]),
    ("show_weights", "weights", WEIGHTS),
]


@pytest.mark.parametrize(("function", "arguments", "shape"), RIGHT, ids=lambda value: getattr(value, "__name__", ""))
def test_right_shapes(function, arguments, shape):
    result = function(**arguments)
    if shape is not None:
        assert result.shape == shape


@pytest.mark.parametrize(("name", "argument", "wrong"), WRONG)
def test_wrong_shape_names_the_argument(name, argument, wrong):
    function, right = RIGHT_BY_NAME[name]
    names = list(right)
    with pytest.raises(ShapeError) as raised:
        function(**{**right, argument: wrong})
    # Where two arguments disagree, the one that comes later is named; it states the other's shape too.
    message = str(raised.value)
    named = message.removeprefix(f"{name}(): ").split(" should be ")[0]
    assert named in names and f"{argument} " in message
    assert named == argument or names.index(named) > names.index(argument)
    assert f"{str(wrong.dtype).removeprefix('torch.')} {tuple(wrong.shape)}" in message


def test_every_checked_function_is_in_the_tables():
    library = mnist_scratch
    modules = (library.baseline, library.data, library.linear, library.losses, library.plot)
    checked = {
        name for module in modules for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
        and "@shape_checked" in inspect.getsource(value)
    }
    assert checked == set(RIGHT_BY_NAME)
    assert checked - {"log_softmax"} == {name for name, _, _ in WRONG} - {"log_softmax"}


def test_a_batch_of_one_and_an_empty_batch():
    assert mse_distance(IMAGES[:1], MEANS).shape == (1, 10)
    assert mse_distance(IMAGES[:0], MEANS).shape == (0, 10)
    assert linear(PIXELS[:0], WEIGHTS, BIASES).shape == (0, 10)


def test_a_wrong_result_is_an_error_of_the_function():
    from jaxtyping import Float
    from torch import Tensor

    @shape_checked
    def forgot_the_mean(images: Float[Tensor, "n h w"]) -> Float[Tensor, "n"]:
        return images

    with pytest.raises(ShapeError, match=r"forgot_the_mean\(\) was about to return a wrong shape"):
        forgot_the_mean(IMAGES)


def test_errors_inside_a_function_pass_through():
    with pytest.raises(ValueError, match=r"there is none of \[3\]"):
        pixel_means(IMAGES[LABELS != 3], LABELS[LABELS != 3])


def test_signature_and_docstring_stay_visible():
    assert list(inspect.signature(cross_entropy).parameters) == ["logits", "labels"]
    assert "softmax" in cross_entropy.__doc__
