"""The exercises: solutions in the lessons pass their checks, typical wrong answers get the hint meant for them."""
import math
import re

import jaxtyping
import pytest
import torch
from conftest import LESSONS, read_notebook

from mnist_scratch import exercises
from mnist_scratch.exercises import check

NAMES = sorted(exercises.EXERCISES)
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


def by_digit(function):
    return lambda images, labels: torch.stack([function(images[labels == digit]) for digit in range(10)])


def error(x, y, weight, bias):
    return 2*(weight*x + bias - y)


def smoothed(logits, labels, smoothing):
    targets = torch.eye(logits.shape[1])[labels]*(1 - smoothing) + smoothing/10  # ten classes, whatever there are
    return -(targets*logits.log_softmax(1)).sum(1).mean()


def naive_smoothed(logits, labels, smoothing):
    targets = torch.eye(logits.shape[1])[labels]*(1 - smoothing) + smoothing/logits.shape[1]
    return -(targets*logits.softmax(1).log()).sum(1).mean()


def step(parameters, lr, sign=-1, clear=slice(None)):
    with torch.no_grad():
        for parameter in parameters:
            parameter += sign*lr*parameter.grad
        for parameter in parameters[clear]:
            parameter.grad = None


def rebinding(parameters, lr):
    with torch.no_grad():
        for parameter in parameters:
            parameter = parameter - lr*parameter.grad  # a new tensor, which nobody sees


def spoiling(scores, targets):
    scores.zero_(), targets.zero_()
    return torch.tensor(0.0)


def by_chance(n, batch_size, generator):
    return torch.randperm(n).split(batch_size)


# exercise, a wrong answer, words of the sentence it must get
WRONG = [
    ("shape_of", lambda nested: list(torch.tensor(nested).shape), "it gave a list where a tuple belongs"),
    ("shape_of", lambda nested: (len(nested),), "it raised TypeError"),
    ("shape_of", lambda nested: tuple(reversed(torch.tensor(nested).shape)), "from the outside to the inside"),
    ("ink_by_digit", by_digit(torch.sum), "One mean for each digit"),
    ("ink_by_digit", lambda images, labels: images.mean((1, 2)), r"shape \(\d+,\), and \(10,\) is wanted"),
    ("top_k_accuracy", lambda logits, labels, k: (logits.argmax(1) == labels).float().mean(), "k highest"),
    ("top_k_accuracy", lambda logits, labels, k: (logits.argsort(1)[:, :k] == labels[:, None]).any(1).float().mean(),
     "highest"),
    ("top_k_accuracy", lambda logits, labels, k: (logits.topk(k).indices == labels).any(1).float().mean(),
     r"raised RuntimeError|labels\[:, None\]"),
    ("variance_images", by_digit(lambda own: own.std(0, unbiased=False)), "not yet the standard deviation"),
    ("variance_images", by_digit(lambda own: own.var(0)), r"divides by n - 1"),
    ("variance_images", lambda images, labels: by_digit(lambda own: (own - images.mean(0)).square().mean(0))(
        images, labels), "from which image"),
    ("line_gradients", lambda x, *rest: (error(x, *rest).mean(), (error(x, *rest)*x).mean()), "wrong way round"),
    ("line_gradients", lambda x, *rest: ((error(x, *rest)*x).sum(), error(x, *rest).sum()), "a mean or a sum"),
    ("line_gradients", lambda x, *rest: (error(x, *rest)*x).mean(), "where a tuple belongs"),
    ("smoothed_cross_entropy", smoothed, "smoothing/k"),
    ("smoothed_cross_entropy", naive_smoothed, "in one go"),
    ("relu_backward", lambda inputs, upstream: (inputs > 0).float(), "Multiply it by the gradient"),
    ("relu_backward", lambda inputs, upstream: upstream*(upstream > 0), "Nudge a unit"),
    ("relu_backward", lambda inputs, upstream: inputs.relu().sum().backward() or upstream, "without backward"),
    ("count_parameters", lambda sizes: sum(a*b for a, b in zip(sizes, sizes[1:], strict=False)), "one bias"),
    ("max_pool", lambda images: images[:, ::2, ::2], "every second pixel"),
    ("max_pool", lambda images: torch.nn.functional.avg_pool2d(images, 2), "largest of its own"),
    ("max_pool", lambda images: torch.nn.functional.max_pool2d(images, 2), "without max_pool2d"),
    ("max_pool", lambda images: images.amax((1, 2)), r"shape \(3,\), and \(3, 3, 4\) is wanted"),
    ("conv_output_size", lambda n, window, padding, stride: (n - window + padding)//stride + 1, "on both sides"),
    ("mean_pool", lambda pictures: 4*pictures[..., ::2, ::2], "mean of its own"),
    ("mean_pool", lambda pictures: torch.nn.functional.avg_pool2d(pictures, 2), "without avg_pool2d"),
    ("receptive_field", lambda layers: 1 + sum(window - 1 for window, _ in layers), "between them"),
    ("squared_error", lambda scores, targets: (scores[:, 0] - targets).square(), r"shape \(8,\), and \(\) is wanted"),
    ("squared_error", lambda scores, targets: (scores - targets).square().mean(), "shape of the difference"),
    ("squared_error", spoiling, "shape of the difference"),
    ("sgd_step", lambda parameters, lr: step(parameters, lr, clear=slice(0)), "when the second step begins"),
    ("sgd_step", lambda parameters, lr: step(parameters, lr, clear=slice(1, None)), "its gradient cleared"),
    ("sgd_step", lambda parameters, lr: step(parameters, lr, sign=1), "every parameter itself"),
    ("sgd_step", lambda parameters, lr: step(parameters[1:], lr), "every parameter itself"),
    ("sgd_step", rebinding, "every parameter itself"),
    ("batches", lambda n, batch_size, generator: torch.randperm(n).split(9), "batch_size"),
    ("batches", lambda n, batch_size, generator: torch.randint(n, (n,)).split(batch_size), "once"),
    ("batches", lambda n, batch_size, generator: torch.arange(n).flip(0).split(batch_size), "neighbours in the data"),
    ("batches", lambda n, batch_size, generator: torch.randperm(
        n, generator=torch.Generator().manual_seed(0)).split(batch_size), "same order"),
    ("batches", by_chance, "hand it to randperm"),
    ("batches", lambda n, batch_size, generator: None, "no tensor came"),
    ("scores", lambda pixels, weights, biases: (pixels @ weights.T + biases).relu(), "what range"),
    ("scores", lambda pixels, weights, biases: None, "it raised|gave nothing"),
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


def test_answers_that_are_right_in_another_way_pass():
    assert check("scores", lambda pixels, weights, biases: (pixels @ weights.T + biases).log_softmax(1))
    assert check("count_parameters", lambda sizes: torch.tensor(sum((a + 1)*b for a, b in zip(sizes, sizes[1:]))))
    assert check("squared_error", lambda scores, targets: (scores.squeeze(1).sub_(targets)).square().mean())


def test_no_such_exercise():
    with pytest.raises(ValueError, match="no exercise 'soft_max'; there are shape_of, "):
        check("soft_max", torch.softmax)
