"""The exercises: solutions in the lessons pass their checks, typical wrong answers get the hint meant for them."""
import math
import re

import jaxtyping
import pytest
import torch
from conftest import LESSONS, read_notebook

from mnist_scratch import exercises
from mnist_scratch.exercises import check

NAMES = sorted(exercises._CHECKS)
SCOPE = {"torch": torch, "math": math, "Tensor": torch.Tensor,
         **{name: getattr(jaxtyping, name) for name in ("Bool", "Float", "Int64")}}


def cells(path, kind: str) -> list[str]:
    "The sources of all cells of one kind in one lesson."
    return ["".join(cell["source"]) for cell in read_notebook(path)["cells"] if cell["cell_type"] == kind]


def code_by_lesson() -> list[list[str]]:
    return [cells(path, "code") for path in LESSONS]


def solutions() -> dict[str, str]:
    "Function name -> the code of its solution, from the answers that the lessons hide."
    blocks = [block for path in LESSONS for text in cells(path, "markdown") if "<details>" in text
              for block in re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)]
    return {name: block for block in blocks for name in re.findall(r"^def (\w+)", block, re.M) if name in NAMES}


SOLUTIONS = solutions()


def run(code: str, name: str):
    "The function `name` that `code` defines."
    scope = dict(SCOPE)
    exec(code, scope)
    return scope[name]


def test_every_exercise_is_asked_once_and_has_a_solution():
    asked = re.findall(r'^check\("(\w+)", \1\)', "\n".join(sum(code_by_lesson(), [])), re.M)
    assert sorted(asked) == sorted(set(asked)) == NAMES == sorted(SOLUTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_solutions_pass(name):
    verdict = check(name, run(SOLUTIONS[name], name))
    assert verdict and repr(verdict) == f"Right: {name} does what it should."


@pytest.mark.parametrize("name", NAMES)
def test_starters_and_patients_do_not_pass(name):
    (lesson,) = [sources for sources in code_by_lesson() if f'check("{name}", {name})' in "\n".join(sources)]
    (cell,) = [source for source in lesson if re.search(rf"^def {name}\(", source, re.M)]
    verdict = check(name, run(cell.split("\ncheck(")[0], name))
    assert not verdict and repr(verdict).startswith("Not yet: ")


def bias_first(x, y, weight, bias):
    error = 2 * (weight * x + bias - y)
    return error.mean(), (error * x).mean()


def line_sum(x, y, weight, bias):
    error = 2 * (weight * x + bias - y)
    return (error * x).sum(), error.sum()


def line_no_x(x, y, weight, bias):
    error = 2 * (weight * x + bias - y)
    return error.mean(), error.mean()


def by_digit(function):
    return lambda images, labels: torch.stack([function(images[labels == digit]) for digit in range(10)])


def variance_around_all(images, labels):
    return by_digit(lambda part: (part - images.mean(0)).square().mean(0))(images, labels)


def smoothed(logits, labels, smoothing, share):
    targets = torch.eye(logits.shape[1])[labels]
    targets = targets * (1 - smoothing) + (1 - targets) * smoothing / share
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def naive_smoothed(logits, labels, smoothing):
    targets = torch.eye(logits.shape[1])[labels] * (1 - smoothing) + smoothing / logits.shape[1]
    return -(targets * logits.softmax(1).log()).sum(1).mean()


def forgetful_step(parameters, lr):
    with torch.no_grad():
        for parameter in parameters:
            parameter += lr * parameter.grad
            parameter.grad = None


def once(n, batch_size, generator):
    return torch.randperm(n, generator=torch.Generator().manual_seed(0)).split(batch_size)


def no_batches(n, batch_size, generator):
    yield from ()


# exercise, a wrong answer, words of the sentence it must get
WRONG = [
    ("shape_of", lambda nested: list(torch.tensor(nested).shape), "a shape is a tuple"),
    ("shape_of", lambda nested: (len(nested),), "it raised TypeError"),
    ("shape_of", lambda nested: tuple(reversed(torch.tensor(nested).shape)), "from the outside to the inside"),
    ("ink_by_digit", by_digit(lambda images: images.sum()), "One mean for each digit"),
    ("ink_by_digit", lambda images, labels: images.mean((1, 2)), r"shape \(\d+,\), and \(10,\) is wanted"),
    ("top_k_accuracy", lambda logits, labels, k: (logits.argmax(1) == labels).float().mean(), "With k=3"),
    ("top_k_accuracy", lambda logits, labels, k: (logits.argsort(1)[:, :k] == labels[:, None]).any(1).float().mean(),
     "With k=1.*highest"),
    ("variance_images", by_digit(lambda images: images.std(0, unbiased=False)), "not yet the standard deviation"),
    ("variance_images", variance_around_all, "from which image"),
    ("line_gradients", bias_first, "about the bias"),
    ("line_gradients", line_sum, "a mean or a sum"),
    ("line_gradients", line_no_x, "about the weight; the bias is right"),
    ("line_gradients", lambda x, y, weight, bias: line_no_x(x, y, weight, bias)[1], "return two derivatives"),
    ("smoothed_cross_entropy", lambda *given: smoothed(*given, share=10), "add up to 1"),
    ("smoothed_cross_entropy", lambda *given: smoothed(*given, share=9), "smoothing/10"),
    ("smoothed_cross_entropy", naive_smoothed, "not finite"),
    ("relu_backward", lambda inputs, upstream: upstream, "Nudge each input"),
    ("relu_backward", lambda inputs, upstream: upstream * (upstream > 0), "Nudge each input"),
    ("relu_backward", lambda inputs, upstream: inputs.clamp(min=0) * upstream, "Nudge each input"),
    ("count_parameters", lambda sizes: sum(a * b for a, b in zip(sizes, sizes[1:], strict=False)), "one bias"),
    ("count_parameters", lambda sizes: torch.tensor(sizes).prod(), "one weight for each pair"),
    ("max_pool", lambda images: images[:, ::2, ::2], "largest of its own"),
    ("max_pool", lambda images: torch.nn.functional.avg_pool2d(images, 2), "largest of its own"),
    ("max_pool", lambda images: images.amax((1, 2)), r"shape \(3,\), and \(3, 3, 4\) is wanted"),
    ("conv_output_size", lambda n, window, padding, stride: (n - window + 2 * padding) / stride + 1, "how many places"),
    ("conv_output_size", lambda n, window, padding, stride: (n - window + padding) // stride + 1, "on both sides"),
    ("mean_pool", lambda pictures: pictures[..., ::2, ::2], "mean of its own"),
    ("mean_pool", lambda pictures: 4 * torch.nn.functional.avg_pool2d(pictures, 2), "mean of its own"),
    ("mean_pool", lambda pictures: pictures.mean((2, 3)), r"shape \(2, 3\), and \(2, 3, 3, 4\) is wanted"),
    ("receptive_field", lambda layers: 1 + sum(window - 1 for window, _ in layers), r"\(2, 2\).*two neighbours"),
    ("receptive_field", lambda layers: math.prod(window for window, _ in layers), r"\(3, 1\).*draw the pixels"),
    ("squared_error", lambda scores, targets: (scores[:, 0] - targets).square(), r"shape \(8,\), and \(\) is wanted"),
    ("squared_error", lambda scores, targets: (scores - targets).square().mean(), "shape of the difference"),
    ("sgd_step", forgetful_step, "parameter.grad"),
    ("batches", lambda n, batch_size, generator: torch.randperm(n).split(9), "batch_size"),
    ("batches", lambda n, batch_size, generator: torch.randint(n, (n,)).split(batch_size), "once"),
    ("batches", lambda n, batch_size, generator: torch.arange(n).flip(0).split(batch_size), "first three batches"),
    ("batches", once, "same order"),
    ("batches", lambda n, batch_size, generator: None, "gave nothing"),
    ("batches", no_batches, "no batch at all"),
    ("scores", lambda pixels, weights, biases: (pixels @ weights + biases).relu(), "what range"),
    ("scores", lambda pixels, weights, biases: (pixels @ weights + biases).log_softmax(1), "what range"),
    ("digit_labels", lambda numbers: numbers, "which digit|Which digit"),
    ("digit_labels", lambda numbers: (numbers - 1) % 10, "Which digit"),
    ("digit_labels", lambda numbers: numbers.tolist(), "gave a list where a tensor"),
]


@pytest.mark.parametrize(("name", "answer", "hint"), WRONG)
def test_wrong_answers_get_the_hint_meant_for_them(name, answer, hint):
    verdict = check(name, answer)
    assert not verdict
    assert re.search(hint, repr(verdict)), verdict


def test_every_exercise_has_a_wrong_answer():
    assert {name for name, _, _ in WRONG} == set(NAMES)


def test_no_such_exercise():
    with pytest.raises(ValueError, match="no exercise 'soft_max'; there are shape_of, "):
        check("soft_max", torch.softmax)
