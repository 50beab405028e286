"""The exercises: solutions in the lessons pass their checks, typical wrong answers get the hint meant for them."""
import linecache
import math
import re
from pathlib import Path

import jaxtyping
import pytest
import torch
from conftest import LESSONS, read_notebook
from torch.nn import functional as F

from mnist_scratch.exercise_table import EXERCISES
from mnist_scratch.exercises import check

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


ALL = Path(__file__).with_name("answers.md").read_text("utf-8")
PARTS = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", ALL, re.S | re.M)
BANK = [(name, *answer) for name, part in PARTS  # exercise, words of a hint or "right", source
        for answer in re.findall(r"^### (.+?)\n.*?```python\n(.*?)```", part, re.S | re.M)]
ANSWERS = {  # exercise -> words of a hint, and the wrong answer that must get it
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


@pytest.mark.parametrize("name, words", [(name, words) for name in ANSWERS for words in ANSWERS[name]])
def test_wrong_answers_get_the_hint_meant_for_them(name, words):
    verdict = check(name, ANSWERS[name][words])
    assert not verdict and re.search(words, repr(verdict)), verdict


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in BANK))
def test_the_bank_of_answers_gets_the_verdicts_that_it_should(name, capsys):
    "Answers to the exercises of 01 to 05 as a reader types them; prints the share that got the right words."
    answers, missed = [(words, source) for owner, words, source in BANK if owner == name], []
    for number, (words, source) in enumerate(answers):
        file = f"<answer {number} to {name}>"  # known to linecache, as a cell of a notebook is
        linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
        exec(compile(source, file, "exec"), scope := {"torch": torch, "F": F})
        verdict = check(name, scope[name])
        if bool(verdict) != (words == "right") or not (verdict or re.search(words, verdict, re.S)):
            missed.append(f"wanted {words!r}:\n{source}{verdict}\n")
    with capsys.disabled():
        print(f"\n{name}: {len(answers) - len(missed)} of {len(answers)} answers get the right verdict", end="")
    assert len(answers) >= 14 and missed == [], "\n".join(missed)


def test_answers_that_are_right_in_another_way_pass():
    assert check("scores", changed("scores", lambda scores: scores.log_softmax(1)))
    assert check("count_parameters", changed("count_parameters", torch.tensor))
    assert check("squared_error", lambda scores, targets: (scores.squeeze(1).sub_(targets)).square().mean())
    with pytest.raises(ValueError, match="soft_max.*shape_of"):
        check("soft_max", torch.softmax)
