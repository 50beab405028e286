"""Every function that broadcasts: the right shapes pass, a wrong one raises and the message names the argument."""
import inspect
import os
import pkgutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module

import pytest
import torch
from jaxtyping import Float, Int64
from torch import Tensor

import mnist_scratch
from mnist_scratch.baseline import NearestMean, is_digit, mae_distance, mse_distance, pixel_means
from mnist_scratch.convnet import shifted, warped
from mnist_scratch.data import split_validation
from mnist_scratch.linear import LinearModel, linear, linear_from_means
from mnist_scratch.losses import cross_entropy, log_softmax, sigmoid_mse, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.plot import show_digits, show_weights
from mnist_scratch.shapes import ShapeError, check_labels, shape_checked
from mnist_scratch.training import Answers, Evaluation

IMAGES, MEANS, LABELS = torch.rand(20, 28, 28), torch.rand(10, 28, 28), torch.arange(20) % 10
MOVES = torch.zeros(20, 2, dtype=torch.int64)
LOGITS, PIXELS, WEIGHTS, BIASES = torch.randn(20, 10), torch.rand(20, 784), torch.randn(784, 10), torch.randn(10)
MAPS = torch.eye(2, 3).repeat(20, 1, 1)

# function, right arguments, shape of the result (None: no tensor)
RIGHT = [
    (pixel_means, {"images": IMAGES, "labels": LABELS}, (10, 28, 28)),
    (mae_distance, {"images": IMAGES, "means": MEANS}, (20, 10)),
    (mse_distance, {"images": IMAGES, "means": MEANS}, (20, 10)),
    (is_digit, {"images": IMAGES, "digit": 3, "means": MEANS}, (20,)),
    (linear, {"pixels": PIXELS, "weights": WEIGHTS, "biases": BIASES}, (20, 10)),
    (linear_from_means, {"means": MEANS}, None),
    (log_softmax, {"logits": LOGITS}, (20, 10)),
    (sigmoid_mse, {"logits": LOGITS, "labels": LABELS}, ()),
    (softmax_mse, {"logits": LOGITS, "labels": LABELS}, ()),
    (cross_entropy, {"logits": LOGITS, "labels": LABELS}, ()),
    (split_validation, {"labels": LABELS, "n_valid": 5}, None),
    (shifted, {"images": IMAGES, "moves": MOVES, "most": 2}, (20, 28, 28)),
    (warped, {"images": IMAGES, "maps": MAPS}, (20, 28, 28)),
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
    ("pixel_means", "images", IMAGES.permute(1, 2, 0)),
    ("pixel_means", "images", (IMAGES * 255).to(torch.uint8)),
    *((name, "images", wrong) for name in ("mae_distance", "mse_distance", "is_digit") for wrong in
      (IMAGES[0], IMAGES[:, None], IMAGES.flatten(1), IMAGES.permute(1, 2, 0), IMAGES.double().long())),
    *((name, "means", wrong) for name in ("mae_distance", "mse_distance", "is_digit") for wrong in
      (MEANS[0], MEANS[:, :27], MEANS[:, :, :1], MEANS.flatten(1))),
    ("linear", "pixels", IMAGES),
    ("linear", "pixels", PIXELS[0]),
    ("linear", "weights", WEIGHTS.T),
    ("linear", "weights", WEIGHTS[:, 0]),
    ("linear", "weights", WEIGHTS[:, :9]),
    ("linear", "biases", BIASES[:, None]),
    ("linear", "biases", BIASES[:1]),
    ("linear", "biases", BIASES[None]),
    ("log_softmax", "logits", LOGITS[0]),
    ("log_softmax", "logits", LOGITS.long()),
    *((name, "labels", wrong) for name in ("sigmoid_mse", "softmax_mse", "cross_entropy") for wrong in
      (LABELS[:, None], LABELS[None], LABELS[:-1], LABELS[:1], LABELS.float(), LABELS.int())),
    *((name, "logits", wrong) for name in ("sigmoid_mse", "softmax_mse", "cross_entropy") for wrong in
      (LOGITS[0], LOGITS[None], LOGITS.T, LOGITS[:, :1].T, LOGITS.long())),
    ("linear_from_means", "means", MEANS[0]),
    ("linear_from_means", "means", MEANS.flatten(1)),
    ("split_validation", "labels", LABELS[:, None]),
    ("warped", "images", IMAGES[0]),
    ("warped", "maps", MAPS[:-1]),
    ("warped", "maps", MAPS.mT),
    ("shifted", "images", IMAGES[0]),
    ("shifted", "images", IMAGES.flatten(1)),
    ("shifted", "moves", MOVES[:-1]),
    ("shifted", "moves", MOVES.T),
    ("shifted", "moves", MOVES.float()),
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


MODULES = [import_module(f"mnist_scratch.{module.name}") for module in pkgutil.iter_modules(mnist_scratch.__path__)]
FUNCTIONS = {
    name: function for module in MODULES for name, function in vars(module).items()
    if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
}
# They take tensors of any shape, or hand what they get to a function that is checked.
LEFT_ALONE = {"check_labels", "show_digit", "draw_weights", "panel", "expect_equal"}


def test_every_checked_function_is_in_the_tables():
    checked = {name for name, function in FUNCTIONS.items() if "@shape_checked" in inspect.getsource(function)}
    assert checked == set(RIGHT_BY_NAME) == {name for name, _, _ in WRONG}


def test_every_public_function_of_tensors_is_checked():
    of_tensors = {
        name for name, function in FUNCTIONS.items()
        if any("Tensor" in str(parameter.annotation) for parameter in inspect.signature(function).parameters.values()
               if "Callable" not in str(parameter.annotation))
    }
    assert of_tensors - LEFT_ALONE <= set(RIGHT_BY_NAME)


# Devices. PyTorch's meta device has shapes and no numbers, and stands for the graphics card that a test machine lacks.

ELSEWHERE = [
    (name, argument) for name, (_, arguments) in RIGHT_BY_NAME.items() for argument in arguments
    if sum(isinstance(value, Tensor) for value in arguments.values()) > 1 and isinstance(arguments[argument], Tensor)
]


@pytest.mark.parametrize(("name", "argument"), ELSEWHERE)
def test_mixed_devices_are_named(name, argument):
    function, right = RIGHT_BY_NAME[name]
    with pytest.raises(ShapeError) as raised:
        function(**{**right, argument: right[argument].to("meta")})
    message = str(raised.value)
    assert message.startswith(f"{name}(): ") and f"{argument} has device meta" in message
    assert "has device cpu" in message and "make them the same with .to()" in message


def test_mixed_devices_in_arguments_without_names():
    with pytest.raises(ShapeError, match=r"cross_entropy\(\): labels has device meta, but logits has device cpu"):
        cross_entropy(LOGITS, LABELS.to("meta"))


@pytest.mark.parametrize(("function", "arguments"), [
    (linear, (PIXELS.double(), WEIGHTS, BIASES)),
    (mse_distance, (IMAGES.double(), MEANS)),
])
def test_a_precision_that_torch_refuses_is_named(function, arguments):
    with pytest.raises(ShapeError, match=r"has dtype torch.float32, but \w+ has dtype torch.float64; make them"):
        function(*arguments)


def test_other_errors_of_torch_stay_as_they_are():
    @shape_checked
    def broken(images: Float[Tensor, "n h w"], labels: Int64[Tensor, "n"]) -> Tensor:
        return images.view(7)

    with pytest.raises(RuntimeError, match="invalid for input of size"):
        broken(IMAGES, LABELS)


# Models

MODELS = {
    "nearest mean": NearestMean(MEANS),
    "nearest mean, absolute": NearestMean(MEANS, mae_distance),
    "linear": LinearModel.random(),
    "two layers": TwoLayerNet(),
}
WRONG_IMAGES = {
    "no batch axis": IMAGES[0],
    "wrong size": IMAGES[:, :27],
    "wrong size, transposed": IMAGES[:, :27].mT,
    "channel axis": IMAGES[:, None],
    "already flat": IMAGES.flatten(1),
    "whole numbers": (IMAGES * 255).to(torch.uint8),
    "other device": IMAGES.to("meta"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("wrong", WRONG_IMAGES)
def test_models_refuse_wrong_images(name, wrong):
    images = WRONG_IMAGES[wrong]
    with pytest.raises(ShapeError) as raised:
        MODELS[name](images)
    assert "images" in str(raised.value) or "pixels" in str(raised.value)


@pytest.mark.parametrize("name", MODELS)
def test_models_answer_a_batch_of_one_and_an_empty_batch(name):
    assert MODELS[name](IMAGES[:1]).shape == (1, 10)
    assert MODELS[name](IMAGES[:0]).shape == (0, 10)


@pytest.mark.parametrize(("weights", "biases"), [
    (WEIGHTS.T, BIASES), (WEIGHTS, BIASES[:1]), (WEIGHTS, BIASES[:, None]), (WEIGHTS[:, :1], BIASES),
])
def test_a_linear_model_with_unfit_parameters_answers_nothing(weights, biases):
    with pytest.raises(ShapeError, match="weights|biases"):
        LinearModel(weights, biases)(IMAGES)


# Answers

ANSWERS = {"labels": LABELS, "predicted": LABELS.flip(0), "confidence": torch.rand(20)}


@pytest.mark.parametrize(("argument", "wrong"), [
    ("labels", LABELS[:, None]), ("labels", LABELS.float()), ("labels", LABELS[:-1]), ("labels", LABELS.to("meta")),
    ("predicted", LABELS[:, None]), ("predicted", LOGITS), ("predicted", LABELS[:1]),
    ("confidence", torch.rand(20, 1)), ("confidence", LABELS), ("confidence", torch.rand(1)),
])
def test_answers_that_do_not_fit_together(argument, wrong):
    "A column of labels beside a row of predictions would compare each with all."
    with pytest.raises(ShapeError, match=rf"^Answers\(\): .*{argument} "):
        Answers(**{**ANSWERS, argument: wrong})


@pytest.mark.parametrize("confusion", [torch.zeros(10, 9).long(), torch.zeros(10, 10), torch.zeros(100).long()])
def test_a_confusion_matrix_is_ten_by_ten_counts(confusion):
    with pytest.raises(ShapeError, match=r"^Evaluation\(\): confusion should be Int64\[Tensor, '10 10'\]"):
        Evaluation(**ANSWERS, confusion=confusion)


# Values


@pytest.mark.parametrize(("labels", "message"), [
    ([3, -1, 9], "labels should lie between 0 and 9, got -1"),
    ([3, 10, 9], "labels should lie between 0 and 9, got 10"),
    ([], "labels should hold at least one, got none"),
])
def test_labels_that_are_no_digits(labels, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_labels(torch.tensor(labels, dtype=torch.int64), 10, "labels")


def test_labels_that_are_digits():
    check_labels(torch.tensor([0, 9]), 10, "labels")
    check_labels(torch.tensor([0, 9], device="meta"), 10, "labels")  # not looked at, so not waited for


# The switch


def test_the_environment_variable_switches_the_checks_off(tmp_path):
    "Without them the single bias broadcasts, and the labels on another device go unnoticed."
    program = """
import torch
from mnist_scratch.baseline import mae_distance
from mnist_scratch.linear import linear
print(tuple(linear(torch.zeros(20, 784), torch.zeros(784, 10), torch.zeros(1)).shape))
print(mae_distance(torch.zeros(2, 3, 4), torch.zeros(5, 3, 4, device="meta")).device)
"""
    with pytest.raises(ShapeError):
        linear(PIXELS, WEIGHTS, BIASES[:1])
    environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("(20, 10)"), done.stderr
    assert "ShapeError" not in done.stderr and "Tensor on device meta" in done.stderr


# The decorator


def test_a_batch_of_one_and_an_empty_batch():
    assert mse_distance(IMAGES[:1], MEANS).shape == (1, 10)
    assert mse_distance(IMAGES[:0], MEANS).shape == (0, 10)
    assert linear(PIXELS[:0], WEIGHTS, BIASES).shape == (0, 10)


def test_a_wrong_result_is_an_error_of_the_function():
    @shape_checked
    def forgot_the_mean(images: Float[Tensor, "n h w"]) -> Float[Tensor, "n"]:
        return images

    with pytest.raises(ShapeError, match=r"forgot_the_mean\(\) was about to return a wrong shape"):
        forgot_the_mean(IMAGES)


def test_errors_inside_a_function_pass_through():
    with pytest.raises(ValueError, match=r"there is none of \[3\]"):
        pixel_means(IMAGES[LABELS != 3], LABELS[LABELS != 3])


def test_what_passed_once_is_let_through_and_nothing_else():
    checks = []

    @shape_checked
    def doubled(images: Float[Tensor, "n p"], labels: Int64[Tensor, "n"]) -> Float[Tensor, "n p"]:
        checks.append(images.shape)
        return 2 * images if len(checks) < 2 else images[:, :1]

    assert doubled(PIXELS, LABELS).shape == PIXELS.shape
    assert doubled(PIXELS + 1, LABELS).shape == (20, 1)  # the same kinds: not even its result is looked at
    with pytest.raises(ShapeError, match="was about to return a wrong shape"):
        doubled(PIXELS[:5], LABELS[:5])
    for wrong in (LABELS[:-1], LABELS[:, None], LABELS.float(), LABELS.to("meta")):
        with pytest.raises(ShapeError, match="labels"):
            doubled(PIXELS, wrong)
        with pytest.raises(ShapeError, match="labels"):
            doubled(PIXELS, labels=wrong)


def test_signature_and_docstring_stay_visible():
    assert list(inspect.signature(cross_entropy).parameters) == ["logits", "labels"]
    assert "softmax" in cross_entropy.__doc__


def test_a_checked_class_stays_a_class():
    @shape_checked
    @dataclass
    class Scores:
        "Of images."
        logits: Float[Tensor, "n k"]

    assert Scores(LOGITS).logits is LOGITS and Scores.__doc__ == "Of images."
    assert list(inspect.signature(Scores).parameters) == ["logits"]
    with pytest.raises(ShapeError, match=r"^Scores\(\): logits should be Float\[Tensor, 'n k'\], got int64 \(20,\)"):
        Scores(LABELS)


def test_a_method_goes_by_the_name_of_its_class():
    class Model:
        @shape_checked
        def __call__(self, images: Float[Tensor, "n h w"]) -> Float[Tensor, "n k"]:
            return images.flatten(1)

    with pytest.raises(ShapeError, match=r"^Model\(\): images should be"):
        Model()(IMAGES[0])
