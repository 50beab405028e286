"""Figures, read back."""
import json
import re
from html import unescape

import matplotlib.pyplot as plt
import pytest
import torch
from sklearn.calibration import calibration_curve

from mnist_scratch.data import Digits
from mnist_scratch.plot import (
    calibration,
    panel,
    plot_curves,
    show_confusion,
    show_digit,
    show_digits,
    show_numbers,
    show_weights,
    show_widget,
)
from mnist_scratch.training import Evaluation, History

GENERATOR = torch.Generator().manual_seed(0)
DIGITS = Digits(torch.rand(300, 28, 28, generator=GENERATOR)/2, torch.arange(300) % 10)
EVALUATION = Evaluation(DIGITS.labels, torch.randint(10, (300,), generator=GENERATOR).where(
    torch.rand(300, generator=GENERATOR) < 0.4, DIGITS.labels), torch.rand(300, generator=GENERATOR)*0.9 + 0.1)
WEIGHTS = torch.randn(64, 28, 28, generator=GENERATOR)

def picture(ax): return torch.as_tensor(ax.images[0].get_array())
def labels(ax): return ax.get_xlabel(), ax.get_ylabel(), ax.get_title()
def drawn(draw, *given, **options):
    "The axes that `draw` leaves, and width, height and dots of its figure."
    plt.close("all"), draw(*given, **options), plt.gcf().draw_without_rendering()
    return plt.gcf().axes, pytest.approx([*plt.gcf().get_size_inches(), plt.gcf().dpi])

@pytest.mark.parametrize("n_mistakes", [0, 4, 300])
def test_counts_and_surest_mistakes_stand_where_they_belong(n_mistakes):
    wrong = (EVALUATION.labels != EVALUATION.predicted).nonzero().flatten()[:n_mistakes]
    answers = EVALUATION.labels.index_copy(0, wrong, EVALUATION.predicted[wrong])
    evaluation = Evaluation(EVALUATION.labels, answers, EVALUATION.confidence)
    (ax, *axes), _ = drawn(panel, evaluation, DIGITS)
    counts, mistakes = evaluation.confusion, evaluation.confusion.clone().fill_diagonal_(0)
    for text in ax.texts:
        predicted, true = (round(place) for place in text.get_position())
        color = "white" if mistakes[true, predicted] > mistakes.max()/2 else "black"
        assert (int(text.get_text()), text.get_color(), text.get_ha(), text.get_va(), text.get_fontsize()) == (
            counts[true, predicted], color, "center", "center", 7)
    assert len(ax.texts) == counts.count_nonzero() and picture(ax).equal(mistakes)
    assert list(ax.get_xticks()) == list(ax.get_yticks()) == list(range(10)) and ax.images[0].get_cmap().name == "Blues"
    assert labels(ax) == ("predicted", "true digit", f"{100*evaluation.accuracy:.2f} % of 300 correct")
    assert [(bool(ax.images), ax.axison) for ax in axes[:9]] == [(index < n_mistakes, False) for index in range(9)]
    for index, ax in zip(wrong[EVALUATION.confidence[wrong].argsort(descending=True)][:9], axes):
        assert picture(ax).equal(DIGITS.images[index])
        assert ax.get_title() == f"{DIGITS.labels[index]} → {answers[index]}, {EVALUATION.confidence[index]:.0%}"

@pytest.mark.parametrize(("n_epochs", "weights", "size"), [
    (0, None, (9.9, 3.3)), (1, WEIGHTS, (9.9, 4.6)), (2, WEIGHTS[:3], (13.2, 4.6)), (20, None, (13.2, 3.3))])
def test_what_a_panel_shows_besides(n_epochs, weights, size):
    "A learning curve of two epochs or more, and the first ten weights in colours around zero."
    losses = [index/20 for index in range(n_epochs)]
    history = History([1.0]*n_epochs, losses, [0.5]*n_epochs) if n_epochs else None
    axes, shape = drawn(panel, EVALUATION, DIGITS, history, weights)
    assert [*size, 80] == shape and len(axes) == 11 + (n_epochs > 1) + 11*(weights is not None)
    for ax in axes[11:12] if n_epochs > 1 else ():
        assert labels(ax) == ("epoch", "loss", "learning curve")
        for line, values, label in zip(ax.lines, ([1.0]*n_epochs, losses), ("training", "validation"), strict=True):
            assert line.get_xydata().tolist() == [list(point) for point in enumerate(values, 1)]
            assert line.get_label() == label
    for index, ax in enumerate(axes[-11:-1][:len(weights)] if weights is not None else ()):
        limit = weights[:10].abs().max().item()
        assert picture(ax).equal(weights[index]) and ax.images[0].get_clim() == pytest.approx((-limit, limit))
        assert ax.images[0].get_cmap().name == "RdBu_r" and axes[-1].get_ylabel() == "weight"
        assert plt.gcf().subfigs[1].bbox.height/plt.gcf().bbox.height == pytest.approx(1.3/4.6, rel=0.01)
    assert len(plt.gcf().subfigs[0].subfigs) == 3 + (n_epochs > 1)
    for other, n in ((Digits(*DIGITS[:299]), 299), (Digits(DIGITS.images, DIGITS.labels.roll(1)), 300)):
        with pytest.raises(ValueError, match=f"of 300 images, is about other digits than these {n}"):
            panel(EVALUATION, other)

def test_calibration_is_that_of_scikit_learn_keeps_every_answer_and_is_drawn():
    confidence, accuracy, counts = calibration(EVALUATION)
    wanted = calibration_curve(EVALUATION.predicted == EVALUATION.labels, EVALUATION.confidence.double(), n_bins=10)
    assert [*accuracy, *confidence] == pytest.approx([*wanted[0], *wanted[1]]) and counts.sum() == 300
    edges = Evaluation(torch.arange(4), torch.arange(4), torch.tensor([0.0, 0.1, 0.999999, 1.0]))
    assert [part.tolist() for part in calibration(edges)[1:]] == [[1, 1, 1], [1, 1, 2]]
    ax, (*points, counts) = drawn(panel, EVALUATION, DIGITS)[0][10], calibration(EVALUATION)
    points = torch.stack(points, 1).tolist()
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[0, 0], [1, 1]], points]
    assert ax.collections[0].get_offsets().tolist() == points and ax.get_xlim() == ax.get_ylim() == (0, 1.03)
    assert ax.collections[0].get_sizes().tolist() == pytest.approx((8 + 150*counts/300).tolist())
    assert labels(ax) == ("confidence", "accuracy", "calibration")

@pytest.mark.parametrize(("draw", "color"), [(show_digits, "Greys"), (show_weights, "RdBu_r")])
@pytest.mark.parametrize(("n", "columns", "size"), [
    (1, 10, (1.5, 1.7)), (5, 10, (7.5, 1.7)), (6, 10, (5.7, 1.15)), (13, 6, (5.7, 3.45)), (4, 2, (3, 3.4))])
def test_grids(draw, color, n, columns, size):
    axes, shape = drawn(draw, torch.zeros(n, 28, 28).requires_grad_(draw is show_weights), range(n), columns=columns)
    axes = [ax for ax in axes if ax.get_label() != "<colorbar>"]
    assert [*size, 80] == shape and len(axes) == -(-n//columns)*min(n, columns)
    assert [(ax.get_title(), ax.title.get_fontsize(), ax.images[0].get_cmap().name, ax.images[0].get_clim())
            for ax in axes if ax.images] == [(str(index), 9, color, (-(draw is show_weights), 1)) for index in range(n)]
    assert {ax.axison for ax in axes} == {False} and len({round(ax.get_position().width, 3) for ax in axes}) == 1
    for wrong in ((0, columns), (n, 0)):
        with pytest.raises(ValueError, match=f"got {wrong[0]} and {wrong[1]}"):
            draw(WEIGHTS[:wrong[0]], columns=wrong[1])

def test_curves_begin_at_epoch_one_and_have_names_and_a_digit_has_its_own_figure():
    values = {"a": [0.1, 0.2, 0.3], "b": [0.5], "c": [0.1, 0.9], "d": [0.3], "e": [0.2]}
    (ax,), shape = drawn(plot_curves, values, baseline=("guess", 0.1))
    assert [5.5, 3, 80] == shape and labels(ax) == ("epoch", "validation accuracy", "")
    assert [list(line.get_ydata()) for line in ax.lines] == [*values.values(), [0.1, 0.1]]
    assert [list(line.get_xdata()) for line in ax.lines[:3]] == [[1, 2, 3], [1], [1, 2]]
    assert [(line.get_linestyle(), line.get_marker()) for line in ax.lines] == [
        ("-", ""), ("--", "o"), ("-.", "o"), ("--", "o"), ("-", "o"), (":", "None")]
    texts = [(text.get_text(), text.get_fontsize()) for text in ax.get_legend().get_texts()]
    assert texts == [(name, 8) for name in (*values, "guess")] and ax.lines[-1].get_color() == "grey"
    assert len(plot_curves({"a": [0.1]}, "loss", xlabel="step").lines) == 1
    assert labels(plt.gca()) == ("step", "loss", "")
    (ax,), shape = drawn(show_digit, torch.full((28, 28), 9, dtype=torch.uint8))
    assert ax.images[0].get_clim() == (0, 255) and [1.6, 1.6, 80] == shape and ax.get_title() == ""
    assert show_digit(torch.eye(28), "title", ax) is ax and ax.get_title() == "title" and len(plt.gcf().axes) == 1
    axes, _ = drawn(show_weights, WEIGHTS[:11], label="nothing")
    assert len(axes) == 21 and axes[0].get_title() == "" and axes[-1].get_ylabel() == "nothing"
    assert axes[-1].get_position().height > 1.5*axes[0].get_position().height  # a bar beside both rows

@pytest.mark.parametrize("draw, said", [
    (lambda: show_digit(DIGITS.images[0], "a four"), "28 by 28 pixels: a four$"),
    (lambda: show_digits(DIGITS.images[:3], titles=[3, 1, 4]), "^3 digits.*: 3, 1, 4$"),
    (lambda: show_digits(DIGITS.images[:3]), "^3 digits in a grid$"),
    (lambda: show_numbers(255*DIGITS.images[0]), "28 by 28 pixels.*number"),
    (lambda: show_weights(torch.tensor([-1.0, 2.0])[:, None, None].expand(2, 4, 4)), "^2 .*weight.*from -1 to 2$"),
    (lambda: plot_curves({"a net": [0.5, 0.75]}), "validation accuracy.*a net from 0.500 to 0.750$"),
    (lambda: plot_curves({"a net": [0.5, 0.75]}, baseline=("guess", 0.1)), "0.750; guess at 0.100$"),
    (lambda: plot_curves({"a net": [0.5, 0.75]}, xlabel="step"), "accuracy over steps: "),
    (lambda: panel(EVALUATION, DIGITS), f"300 images, {100*EVALUATION.accuracy:.2f} % .*confidence$"),
    (lambda: panel(EVALUATION, DIGITS, History([1, 1], [0, 1]), WEIGHTS), "learning curve, pictures of weights$"),
    (lambda: show_confusion(Evaluation(torch.tensor([4, 4, 4, 5, 0]), torch.tensor([9, 9, 4, 3, 0]), torch.ones(5))),
     "mistakes: 4 taken for 9, 5 taken for 3")])
def test_a_figure_has_words_for_those_who_cannot_see_it(draw, said):
    drawn(draw)
    data, metadata = plt.gcf()._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG") and re.search(said, metadata["image/png"]["alt"])

def test_a_widget_is_a_page_that_asks_nobody_or_where_nobody_can_move_it_a_picture(monkeypatch):
    monkeypatch.delenv("MNIST_SCRATCH_STILL", raising=False)
    points = {"x": [1, 2], "note": "</script>"}
    figure = plt.figure()
    html = show_widget("descent", figure, 'a "map"', **points)._repr_html_()
    (page,) = re.findall('^<iframe sandbox="allow-scripts" .* title="a &quot;map&quot;" srcdoc="([^"]*)">', html)
    assert unescape(page).count("</script>") == 1 and not re.search("https?:|fetch|import", page)
    assert json.loads(re.search("const data = (.*);", unescape(page))[1]) == points
    assert "learning rate" in page and not plt.fignum_exists(figure.number)
    monkeypatch.setenv("MNIST_SCRATCH_STILL", "1")
    assert show_widget("descent", figure := plt.figure(), "a map", **points) is None
    assert plt.fignum_exists(figure.number)
    _, metadata = figure._repr_mimebundle_()
    assert metadata == {"image/png": {"alt": "a map", "widget": "descent", "data": points}}

def test_numbers_stand_in_their_pixels_and_counts_in_their_squares():
    (ax,), _ = drawn(show_numbers, torch.tensor([[0, 200], [30, 255]], dtype=torch.uint8))
    assert {(*text.get_position(), text.get_text(), text.get_color()) for text in ax.texts} == {
        (0, 0, "0", "0.75"), (1, 0, "200", "white"), (0, 1, "30", "black"), (1, 1, "255", "white")}
    (ax,), _ = drawn(show_confusion, Evaluation(torch.tensor([4, 4]), torch.tensor([9, 4]), torch.ones(2)))
    assert {(*text.get_position(), text.get_text()) for text in ax.texts} == {(9, 4, "1"), (4, 4, "1")}
