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

from mnist_scratch.autograd import result
from mnist_scratch.exercise_table import EXERCISES, FAULTS
from mnist_scratch.exercises import check

CELLS = [[(cell["cell_type"], "".join(cell["source"])) for cell in read_notebook(path)["cells"]] for path in LESSONS]
CODE = [[source for kind, source in cells if kind == "code"] for cells in CELLS]
SOLUTIONS = [block for cells in CELLS for kind, text in cells if kind == "markdown" and "<details>" in text
             for block in re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)]


def defined(blocks: list[str], name: str):
    "The function `name`, from the one block that defines it."
    (block,) = [block for block in blocks if re.search(rf"^def {name}\(", block, re.M)]
    exec(block.split("\ncheck(")[0], scope := {**vars(jaxtyping), "torch": torch, "math": math, "Tensor": torch.Tensor,
                                           "result": result})
    return scope[name]


PATIENTS = [name for name in EXERCISES if name.startswith("patient")]
RIGHT = {name: defined(SOLUTIONS, name) for name in EXERCISES if name not in PATIENTS}


@pytest.mark.parametrize("name", RIGHT)
def test_solutions_pass_and_what_stands_in_the_lesson_does_not(name):
    (lesson,) = [blocks for blocks in CODE if "\n".join(blocks).count(f'check("{name}", {name})') == 1]
    right, starter = check(name, RIGHT[name]), check(name, defined(lesson, name))
    assert right and repr(right) == f"Right: {name} does what it should."
    assert not starter and repr(starter).startswith("Not yet: ")


ALL = Path(__file__).with_name("answers.md").read_text("utf-8")
PARTS = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", ALL, re.S | re.M)
BANK = [(name, *answer) for name, part in PARTS  # exercise, words of a hint or "right", source
        for answer in re.findall(r"^### (.+?)\n.*?```python\n(.*?)```", part, re.S | re.M)]


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in BANK))
def test_the_bank_of_answers_gets_the_verdicts_that_it_should(name):
    "Answers as a reader types them."
    answers, missed = [(words, source) for owner, words, source in BANK if owner == name], []
    for number, (words, source) in enumerate(answers):
        file = f"<answer {number} to {name}>"  # known to linecache, as a cell of a notebook is
        linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
        exec(compile(source, file, "exec"), scope := {"torch": torch, "F": F, "result": result})
        verdict = check(name, scope[name])
        if bool(verdict) != (words == "right") or not (verdict or re.search(words, verdict, re.S)):
            missed.append(f"wanted {words!r}:\n{source}{verdict}\n")
    assert len(answers) >= 14 and missed == [], "\n".join(missed)


@pytest.mark.parametrize("name", PATIENTS)
def test_a_diagnosis_is_the_one_that_the_clinic_names_and_a_wrong_one_is_told_what_it_would_look_like(name):
    text = "\n".join(text for _, text in CELLS[[path.stem for path in LESSONS].index("bug_clinic")])
    part = text.split(f'examine("{name}")')[1].split('examine("')[0].split("## Recap")[0]
    (fault,) = [fault for fault in FAULTS if re.search(f'`{fault}`|check\\("{name}", "{fault}"\\)', part)]
    assert check(name, fault) == f"Right: {fault}."
    for other in FAULTS.keys() - {fault}:
        verdict = check(name, other)
        assert not verdict and FAULTS[other] in verdict
    assert all(fault in check(name, "a cold") for fault in FAULTS) and "listed above" in check(name, "?")


def test_answers_that_are_right_in_another_way_pass():
    assert check("count_parameters", lambda sizes: torch.tensor(RIGHT["count_parameters"](sizes)))
    with pytest.raises(ValueError, match="soft_max.*shape_of"):
        check("soft_max", torch.softmax)
