"""The panel and the ledger."""
import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_scratch.data import Digits
from mnist_scratch.plot import plot_curves, show_digits, show_weights
from mnist_scratch.report import Ledger, calibration, ledger, panel, record
from mnist_scratch.training import Answers, History, evaluate


class Two:
    "A model with two parameters that always answers 2."

    def parameters(self):
        return [torch.zeros(2)]

    def __call__(self, images):
        return torch.eye(10)[torch.full((len(images),), 2)]


DIGITS = Digits(torch.rand(30, 28, 28), torch.arange(30) % 10)


def add(name="two", seconds=1.0, data="full") -> Ledger:
    return record(name, Two(), evaluate(Two(), DIGITS), seconds, data)


def test_rows_keep_the_order_of_first_appearance():
    add("b"), add("a"), add("b", seconds=7.0)
    assert [(row.model, row.seconds) for row in ledger()] == [("b", 7.0), ("a", 1.0)]
    assert ledger()[0].parameters == 2 and ledger()[0].valid_accuracy == 0.1 and ledger()[0].device == "cpu"


def test_the_same_model_on_other_data_is_another_row():
    add(data="full")
    assert len(add(data="sample")) == 2


def test_names_that_differ_only_in_signs_do_not_replace_each_other():
    add("linear, a+b"), add("linear, a b")
    assert {row.model for row in ledger()} == {"linear, a+b", "linear, a b"}


def test_a_space_may_stand_in_the_name_of_the_model_or_of_the_data():
    add("linear", data="my set"), add("linear my", data="set")
    assert [(row.model, row.data) for row in ledger()] == [("linear", "my set"), ("linear my", "set")]


@pytest.mark.parametrize("fault", ["a file in place of the folder", "a name of 300 letters"])
def test_a_row_that_cannot_be_written_is_named_with_the_cure(fault):
    if fault.startswith("a file"):
        Path(os.environ["MNIST_SCRATCH_LEDGER"]).write_text("")
    with pytest.raises(ValueError, match=r"record\(\): .*cannot be written .*shorter name.*set MNIST_SCRATCH_LEDGER"):
        add("a" * 300 if fault.startswith("a name") else "two")


def test_an_empty_ledger():
    assert len(ledger()) == 0 and "model" in str(ledger())


def test_text_and_table():
    add("one model", 0.0123), add("another", 93.44)
    lines = str(ledger()).splitlines()
    assert lines[0].split()[:3] == ["model", "data", "parameters"]
    assert "0.012" in lines[1] and "93.4" in lines[2]
    table = ledger()._repr_markdown_().splitlines()
    assert len(table) == 4 and {line.count("|") for line in table} == {7}


def test_a_damaged_row_is_named():
    add()
    (file,) = Path(os.environ["MNIST_SCRATCH_LEDGER"]).iterdir()
    file.write_text("{")
    with pytest.raises(ValueError, match=f"{file.name} is not a row of the ledger. Delete that file"):
        ledger()
    file.write_text(json.dumps({"model": "x"}))
    with pytest.raises(ValueError, match="is not a row"):
        ledger()


@pytest.mark.parametrize("history", [None, History([1.0], [0.5]), History([1.0] * 20, [0.5] * 20)])
def test_panel_draws(history):
    panel(evaluate(Two(), DIGITS), DIGITS, history)
    texts = [text.get_text() for figure in plt.get_fignums() for ax in plt.figure(figure).axes for text in ax.texts]
    assert texts.count("3") == 10  # three images of each digit, all answered with 2
    titles = [ax.get_title() for figure in plt.get_fignums() for ax in plt.figure(figure).axes]
    assert "10.00 % of 30 correct" in titles and sum("→ 2, " in title for title in titles) == 9
    assert ("learning curve" in titles) == bool(history)
    plt.close("all")


def test_panel_of_a_model_without_mistakes():
    twos = Digits(DIGITS.images[:4], torch.full((4,), 2))
    panel(evaluate(Two(), twos), twos)
    plt.close("all")


def test_panel_of_other_images():
    with pytest.raises(ValueError, match="is about 30 images, but digits holds 29"):
        panel(evaluate(Two(), DIGITS), Digits(*DIGITS[:29]))


def test_digits_are_drawn_with_fixed_limits():
    show_digits(torch.full((3, 28, 28), 0.5))
    assert {ax.images[0].get_clim() for ax in plt.gcf().axes if ax.images} == {(0, 1)}
    plt.close("all")


@pytest.mark.parametrize("draw", [show_digits, show_weights])
@pytest.mark.parametrize(("n", "columns"), [(0, 10), (3, 0)])
def test_a_grid_of_nothing_is_refused(draw, n, columns):
    with pytest.raises(ValueError, match=f"at least one image and one column, got {n} and {columns}"):
        draw(torch.rand(n, 28, 28), columns=columns)


def test_curves_have_labelled_axes():
    ax = plot_curves({"a": [0.1, 0.2]}, baseline=("guess", 0.1))
    assert ax.get_xlabel() == "epoch" and ax.get_ylabel() == "validation accuracy"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "guess"]
    plt.close("all")


def test_panel_draws_the_first_ten_weights():
    panel(evaluate(Two(), DIGITS), DIGITS, weights=torch.randn(64, 28, 28))
    maps = [ax.images[0].get_cmap().name for ax in plt.gcf().axes if ax.images]
    assert maps.count("RdBu_r") == 10
    plt.close("all")


def test_calibration_of_known_answers():
    right = torch.arange(1000) % 10 < 7  # seven in ten
    answers = Answers(torch.zeros(1000, dtype=torch.int64), (~right).long(), torch.full((1000,), 0.72))
    confidence, accuracy, counts = calibration(answers)
    assert counts.tolist() == [1000]
    assert accuracy.item() == pytest.approx(0.7) and confidence.item() == pytest.approx(0.72)


def test_calibration_needs_a_bin():
    with pytest.raises(ValueError, match=r"calibration\(\): n_bins should be at least 1, got 0"):
        calibration(Answers(torch.arange(4), torch.arange(4), torch.ones(4)), n_bins=0)


def test_calibration_keeps_every_answer_at_the_edges():
    answers = Answers(torch.arange(4), torch.arange(4), torch.tensor([0.0, 0.1, 0.999999, 1.0]))
    confidence, accuracy, counts = calibration(answers)
    assert counts.tolist() == [1, 1, 2] and accuracy.tolist() == [1, 1, 1]


def test_calibration_means_are_those_of_all_answers():
    evaluation = evaluate(lambda images: torch.randn(len(images), 10), DIGITS)
    confidence, accuracy, counts = calibration(evaluation)
    assert (accuracy * counts).sum().item() / len(DIGITS) == pytest.approx(evaluation.accuracy)
    assert (confidence * counts).sum().item() / len(DIGITS) == pytest.approx(evaluation.confidence.mean().item())
