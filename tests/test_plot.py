"""Figures, read back."""
import matplotlib.pyplot as plt
import pytest
import torch
from sklearn import calibration as sklearn_calibration

from mnist_scratch.data import Digits
from mnist_scratch.plot import calibration, panel, plot_curves, show_digit, show_digits, show_weights
from mnist_scratch.training import Evaluation, History

GENERATOR = torch.Generator().manual_seed(0)
DIGITS = Digits(torch.rand(300, 28, 28, generator=GENERATOR)/2, torch.arange(300) % 10)
EVALUATION = Evaluation(DIGITS.labels, torch.randint(10, (300,), generator=GENERATOR).where(
    torch.rand(300, generator=GENERATOR) < 0.4, DIGITS.labels), torch.rand(300, generator=GENERATOR)*0.9 + 0.1)


@pytest.fixture(autouse=True)
def close():
    plt.close("all")
    yield
    plt.close("all")


def axes():
    return [ax for number in plt.get_fignums() for ax in plt.figure(number).axes]


def test_the_numbers_of_the_confusion_matrix_stand_where_they_belong():
    panel(EVALUATION, DIGITS)
    ax = axes()[0]
    for text in ax.texts:
        predicted, true = (round(place) for place in text.get_position())
        count = ((EVALUATION.labels == true) & (EVALUATION.predicted == predicted)).sum()
        assert int(text.get_text()) == count > 0
    assert sum(int(text.get_text()) for text in ax.texts) == 300
    drawn = torch.as_tensor(ax.images[0].get_array())
    assert drawn.diag().sum() == 0 and drawn.sum() == (EVALUATION.labels != EVALUATION.predicted).sum()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true digit")
    assert ax.get_title() == f"{100*EVALUATION.accuracy:.2f} % of 300 correct"


def test_the_surest_mistakes_stand_under_their_own_titles():
    panel(EVALUATION, DIGITS)
    wrong = (EVALUATION.labels != EVALUATION.predicted).nonzero().flatten()
    surest = wrong[EVALUATION.confidence[wrong].argsort(descending=True)][:9].tolist()
    for index, ax in zip(surest, axes()[1:10], strict=True):
        assert torch.as_tensor(ax.images[0].get_array()).equal(DIGITS.images[index])
        assert ax.get_title() == (f"{DIGITS.labels[index]} → {EVALUATION.predicted[index]}, "
                                  f"{EVALUATION.confidence[index]:.0%}")


@pytest.mark.parametrize("n_epochs, is_drawn", [(0, False), (1, False), (2, True), (20, True)])
def test_a_learning_curve_of_two_epochs_or_more(n_epochs, is_drawn):
    panel(EVALUATION, DIGITS, History([1.0]*n_epochs, [index/20 for index in range(n_epochs)]))
    curves = [ax for ax in axes() if ax.get_title() == "learning curve"]
    assert bool(curves) == is_drawn
    if curves:
        assert list(curves[0].lines[0].get_xdata()) == list(range(1, n_epochs + 1))
        assert list(curves[0].lines[0].get_ydata()) == [index/20 for index in range(n_epochs)]


def test_panel_draws_the_first_ten_weights_in_colours_around_zero():
    weights = torch.randn(64, 28, 28, generator=GENERATOR)
    panel(EVALUATION, DIGITS, weights=weights)
    maps = [ax.images[0] for ax in axes() if ax.images and ax.images[0].get_cmap().name == "RdBu_r"]
    limit = weights[:10].abs().max().item()
    assert len(maps) == 10 and all(drawn.get_clim() == pytest.approx((-limit, limit)) for drawn in maps)
    assert all(torch.as_tensor(drawn.get_array()).equal(weights[index]) for index, drawn in enumerate(maps))


def test_panel_of_no_mistakes_and_of_other_images():
    panel(Evaluation(DIGITS.labels, DIGITS.labels, torch.ones(300)), DIGITS)
    with pytest.raises(ValueError, match="is about 300 images, but digits holds 299"):
        panel(EVALUATION, Digits(*DIGITS[:299]))


def test_the_calibration_that_is_drawn():
    panel(EVALUATION, DIGITS)
    (ax,) = [ax for ax in axes() if ax.get_title() == "calibration"]
    confidence, accuracy, _ = calibration(EVALUATION)
    assert list(ax.lines[1].get_xdata()) == confidence.tolist() and list(ax.lines[1].get_ydata()) == accuracy.tolist()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("confidence", "accuracy")


def test_calibration_is_that_of_scikit_learn_and_keeps_every_answer():
    confidence, accuracy, counts = calibration(EVALUATION, n_bins=8)
    right = (EVALUATION.predicted == EVALUATION.labels).numpy()
    wanted = sklearn_calibration.calibration_curve(right, EVALUATION.confidence.double().numpy(), n_bins=8)
    assert accuracy.tolist() == pytest.approx(wanted[0].tolist())
    assert confidence.tolist() == pytest.approx(wanted[1].tolist())
    assert counts.sum() == 300 and (accuracy*counts).sum().item() == pytest.approx(right.sum())
    edges = Evaluation(torch.arange(4), torch.arange(4), torch.tensor([0.0, 0.1, 0.999999, 1.0]))
    confidence, accuracy, counts = calibration(edges)
    assert counts.tolist() == [1, 1, 2] and accuracy.tolist() == [1, 1, 1]


def test_digits_are_drawn_with_fixed_limits_whole_numbers_too():
    show_digits(torch.full((3, 28, 28), 0.5), titles=["a", "b", "c"])
    assert [(ax.images[0].get_clim(), ax.get_title()) for ax in axes()] == [((0, 1), title) for title in "abc"]
    assert show_digit(torch.full((28, 28), 9, dtype=torch.uint8)).images[0].get_clim() == (0, 255)
    assert show_digit(torch.eye(28), "title", ax := plt.subplots()[1]) is ax and ax.get_title() == "title"


def test_grids():
    show_digits(torch.rand(13, 28, 28), columns=6)
    assert [bool(ax.images) for ax in axes()] == [True]*13 + [False]*5
    for draw in (show_digits, show_weights):
        for n, columns in ((0, 10), (3, 0)):
            with pytest.raises(ValueError, match=f"at least one image and one column, got {n} and {columns}"):
                draw(torch.rand(n, 28, 28), columns=columns)


def test_weights_that_are_all_zero():
    show_weights(torch.zeros(2, 28, 28), titles=["a", "b"], label="nothing")
    assert axes()[0].images[0].get_clim() == (-1, 1) and axes()[-1].get_ylabel() == "nothing"


def test_curves_begin_at_epoch_one_and_have_names():
    ax = plot_curves({"a": [0.1, 0.2, 0.3], "b": [0.5]}, baseline=("guess", 0.1))
    assert [list(line.get_xdata()) for line in ax.lines[:2]] == [[1, 2, 3], [1]]
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.1, 0.2, 0.3], [0.5], [0.1, 0.1]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "validation accuracy")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "guess"]
