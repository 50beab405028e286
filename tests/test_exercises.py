"""The exercises: solutions in the lessons pass their checks, typical wrong answers get the hint meant for them."""
import math
import re

import jaxtyping
import pytest
import torch
from conftest import LESSONS, read_notebook
from torch.nn import functional as F

from mnist_scratch.exercises import EXERCISES, check

CELLS = [[(cell["cell_type"], "".join(cell["source"])) for cell in read_notebook(path)["cells"]] for path in LESSONS]
CODE = [[source for kind, source in cells if kind == "code"] for cells in CELLS]
SOLUTIONS = [block for cells in CELLS for kind, text in cells if kind == "markdown" and "<details>" in text
             for block in re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)]


def defined(blocks: list[str], name: str):
    "The function `name`, from the one block that defines it."
    (block,) = [block for block in blocks if re.search(rf"^def {name}\(", block, re.M)]
    exec(block.split("\ncheck(")[0], scope := {**vars(jaxtyping), "torch": torch, "math": math, "Tensor": torch.Tensor})
    return scope[name]


RIGHT = {name: defined(SOLUTIONS, name) for name in EXERCISES}


@pytest.mark.parametrize("name", EXERCISES)
def test_solutions_pass_and_what_stands_in_the_lesson_does_not(name):
    (lesson,) = [blocks for blocks in CODE if "\n".join(blocks).count(f'check("{name}", {name})') == 1]
    right, starter = check(name, RIGHT[name]), check(name, defined(lesson, name))
    assert right and repr(right) == f"Right: {name} does what it should."
    assert not starter and repr(starter).startswith("Not yet: ")


def changed(name, change):
    return lambda *given: change(RIGHT[name](*given))


ANSWERS = {  # exercise -> words of a hint, and the wrong answer that must get it
    "shape_of": {"list where a tuple": changed("shape_of", list), "Tensor where": torch.tensor, "TypeError": len,
                 "nothing": print, "the ...": lambda *_: ..., "outside to": changed("shape_of", lambda own: own[::-1])},
    "ink_by_digit": {"One mean for each": changed("ink_by_digit", lambda means: means.roll(1)),
                     r"\(9,\), and \(10,\) is wanted": changed("ink_by_digit", lambda means: means[1:])},
    "top_k_accuracy": {"hits": lambda logits, labels, k: (logits.argmax(1) == labels).float().mean(), "k highest":
                       lambda logits, labels, k: (logits.argsort(1)[:, :k] == labels[:, None]).any(1).float().mean()},
    "variance_images": {"yet the standard deviation": changed("variance_images", torch.sqrt),
                        "by n - 1": changed("variance_images", lambda of_six_images: of_six_images*6/5)},
    "line_gradients": {"wrong way": changed("line_gradients", lambda pair: pair[::-1]), "without": lambda x: x.grad,
                       "a mean or a sum": changed("line_gradients", lambda pair: tuple(9*part for part in pair))},
    "smoothed_cross_entropy": {"smoothing/k": lambda *given: F.cross_entropy(*given[:2]),
        "one go": lambda logits, labels, share:
            (1 - share)*F.nll_loss(logs := logits.softmax(1).log(), labels) - share*logs.mean()},
    "relu_backward": {"Multiply it": lambda inputs, _: (inputs > 0).float(), "Nudge": lambda _, above: above.relu(),
                      "without backward": lambda inputs, above: inputs.relu().backward(above)},
    "count_parameters": {"one bias": lambda sizes: sum(a*b for a, b in zip(sizes, sizes[1:]))},
    "max_pool": {"every second": lambda images: images[:, ::2, ::2], "largest": lambda images: F.avg_pool2d(images, 2),
                 "without max_pool2d": lambda images: F.max_pool2d(images, 2)},
    "conv_output_size": {"both sides": lambda n, window, padding, stride: (n - window + padding)//stride + 1,
                         "how many": lambda n, window, padding, stride: -(-(n - window + 2*padding)//stride) + 1},
    "mean_pool": {"mean of": lambda images: images[..., ::2, ::2], "without": lambda images: F.avg_pool2d(images, 2)},
    "receptive_field": {"between them": lambda layers: 1 + sum(window - 1 for window, _ in layers)},
    "squared_error": {"shape of the difference": lambda scores, targets: (scores - targets).square().mean(),
                      "one number": lambda scores, targets: scores.zero_().sum() + targets.zero_().sum()},
    "sgd_step": {"second step": lambda parameters, lr: torch.optim.SGD(parameters, lr).step(), "move": print},
    "batches": {"batch_size": lambda n, size, _: torch.randperm(n).split(9), "no tensor": print,
                "a yield": lambda *_: [1], "indices": lambda n, size, _: torch.randperm(n).split(7),
                "once": lambda n, size, _: torch.randint(n, (n,)).split(size),
                "neighbours": lambda n, size, _: torch.arange(n).flip(0).split(size),
                "same order": lambda n, size, _: RIGHT["batches"](n, size, torch.Generator().manual_seed(0)),
                "hand it": lambda n, size, _: torch.randperm(n).split(size)},
    "scores": {"what range": changed("scores", torch.relu)}, "digit_labels": {"Which digit": torch.neg},
}


@pytest.mark.parametrize("name, words", [(name, words) for name in EXERCISES for words in ANSWERS[name]])
def test_wrong_answers_get_the_hint_meant_for_them(name, words):
    verdict = check(name, ANSWERS[name][words])
    assert not verdict and re.search(words, repr(verdict)), verdict


def test_answers_that_are_right_in_another_way_pass():
    assert check("scores", changed("scores", lambda scores: scores.log_softmax(1)))
    assert check("count_parameters", changed("count_parameters", torch.tensor))
    assert check("squared_error", lambda scores, targets: (scores.squeeze(1).sub_(targets)).square().mean())
    with pytest.raises(ValueError, match="soft_max.*shape_of"):
        check("soft_max", torch.softmax)
