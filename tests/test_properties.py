"""What must hold for any input: hypothesis looks for one that breaks it."""
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from mnist_scratch.baseline import mae_distance, mse_distance, pixel_means
from mnist_scratch.data import Digits, split_validation
from mnist_scratch.linear import linear
from mnist_scratch.losses import cross_entropy, log_softmax, sigmoid_mse, softmax_mse
from mnist_scratch.report import calibration
from mnist_scratch.training import Answers, evaluate, minibatches

examples = settings(deadline=None, derandomize=True, max_examples=40, database=None)
LOSSES = pytest.mark.parametrize("loss", [sigmoid_mse, softmax_mse, cross_entropy], ids=lambda loss: loss.__name__)
SOFTMAX_LOSSES = pytest.mark.parametrize("loss", [softmax_mse, cross_entropy], ids=lambda loss: loss.__name__)
DISTANCES = pytest.mark.parametrize("distance", [mae_distance, mse_distance], ids=lambda distance: distance.__name__)
SEEDS = st.integers(0, 2**31)
SIZES, EXTREME = st.floats(-50, 50), st.sampled_from([-1e4, 0.0, 1.0, 1e4])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def batches(draw, sizes=SIZES, dtype=torch.float64):
    "Logits of a few images and classes, and a label for each image."
    n, k = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rows = draw(st.lists(st.lists(sizes, min_size=k, max_size=k), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    return torch.tensor(rows, dtype=dtype), torch.tensor(labels)


@st.composite
def pictures(draw, at_least=1):
    "A few tiny images with their labels, some of them blank."
    n, seed = draw(st.integers(at_least, 12)), draw(SEEDS)
    images = torch.rand(n, 4, 3, generator=seeded(seed))
    blank = torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    labels = torch.tensor(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))
    return Digits(images.masked_fill(blank[:, None, None], 0.0), labels)


def value_and_gradient(loss, logits, labels):
    logits = logits.clone().requires_grad_()
    value = loss(logits, labels)
    value.backward()
    return value.detach(), logits.grad


# Losses


@LOSSES
@examples
@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter_to_a_loss(loss, batch, random):
    logits, labels = batch
    order = random.sample(range(len(labels)), len(labels))
    value, gradient = value_and_gradient(loss, logits, labels)
    permuted, permuted_gradient = value_and_gradient(loss, logits[order], labels[order])
    torch.testing.assert_close(permuted, value)
    torch.testing.assert_close(permuted_gradient, gradient[order])


@LOSSES
@examples
@given(batches(), st.randoms(use_true_random=False))
def test_the_names_of_classes_do_not_matter_to_a_loss(loss, batch, random):
    logits, labels = batch
    order = torch.tensor(random.sample(range(logits.shape[1]), logits.shape[1]))
    torch.testing.assert_close(loss(logits[:, order], order.argsort()[labels]), loss(logits, labels))


@LOSSES
@examples
@given(batches())
def test_a_loss_is_the_mean_of_the_losses_of_single_images(loss, batch):
    logits, labels = batch
    single = torch.stack([loss(logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))])
    torch.testing.assert_close(loss(logits, labels), single.mean())


@LOSSES
@examples
@given(batches())
def test_a_loss_keeps_to_its_documented_range(loss, batch):
    logits, labels = batch
    highest = {sigmoid_mse: 1.0, softmax_mse: 2 / logits.shape[1], cross_entropy: math.inf}[loss]
    assert -1e-12 <= loss(logits, labels) <= highest + 1e-12


@SOFTMAX_LOSSES
@examples
@given(batches(), st.floats(-1e3, 1e3))
def test_a_constant_for_all_logits_of_an_image_changes_nothing(loss, batch, constant):
    logits, labels = batch
    shifts = constant * torch.arange(1, len(labels) + 1)[:, None]
    value, gradient = value_and_gradient(loss, logits, labels)
    shifted, shifted_gradient = value_and_gradient(loss, logits + shifts, labels)
    torch.testing.assert_close(shifted, value, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(shifted_gradient, gradient, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradient.sum(1), torch.zeros(len(labels)).double(), rtol=0, atol=1e-12)


@LOSSES
@examples
@given(batches(sizes=EXTREME, dtype=torch.float32))
def test_extreme_logits_give_finite_losses_and_gradients(loss, batch):
    value, gradient = value_and_gradient(loss, *batch)
    assert value.isfinite() and gradient.isfinite().all()


@examples
@given(batches(sizes=EXTREME, dtype=torch.float32))
def test_softmax_probabilities_of_extreme_logits_add_up_to_one(batch):
    logits, _ = batch
    torch.testing.assert_close(log_softmax(logits).exp().sum(1), torch.ones(len(logits)))


@LOSSES
@examples
@given(batches(), st.data())
def test_a_label_that_is_no_class_is_named_with_the_range(loss, batch, data):
    logits, labels = batch
    k = logits.shape[1]
    wrong = data.draw(st.integers(-(2**40), -1) | st.integers(k, 2**40))
    labels[data.draw(st.integers(0, len(labels) - 1))] = wrong
    with pytest.raises(ValueError) as raised:
        loss(logits, labels)
    assert str(raised.value) == f"{loss.__name__}(): labels should lie between 0 and {k - 1}, got {wrong}"


@LOSSES
def test_an_empty_batch_is_an_error_and_not_nan(loss):
    with pytest.raises(ValueError, match=rf"{loss.__name__}\(\): labels should hold at least one, got none"):
        loss(torch.zeros(0, 10), torch.zeros(0, dtype=torch.int64))


@LOSSES
def test_a_loss_never_waits_for_a_gpu(loss):
    "The meta device holds no numbers: whoever asks for one gets an error. On a GPU, asking would stall every step."
    logits = torch.zeros(3, 10, device="meta", requires_grad=True)
    loss(logits, torch.zeros(3, dtype=torch.int64, device="meta")).backward()
    assert logits.grad.shape == (3, 10)


# Functions of single images


@examples
@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_images_passes_through_row_by_row_functions(batch, random):
    logits, labels = batch
    order = random.sample(range(len(labels)), len(labels))
    weights, biases = torch.rand(logits.shape[1], 3).double(), torch.rand(3).double()
    torch.testing.assert_close(log_softmax(logits[order]), log_softmax(logits)[order])
    torch.testing.assert_close(linear(logits[order], weights, biases), linear(logits, weights, biases)[order])


@DISTANCES
@examples
@given(pictures(), pictures(), st.randoms(use_true_random=False))
def test_distances_are_distances(distance, ours, theirs, random):
    between = distance(ours.images, theirs.images)
    assert between.min() >= 0 and between.max() <= 1
    torch.testing.assert_close(between, distance(theirs.images, ours.images).T, rtol=0, atol=1e-6)
    torch.testing.assert_close(distance(ours.images, ours.images).diag(), torch.zeros(len(ours)), rtol=0, atol=1e-6)
    order = random.sample(range(len(ours)), len(ours))
    torch.testing.assert_close(distance(ours.images[order], theirs.images), between[order], rtol=0, atol=1e-6)


@examples
@given(pictures(), st.randoms(use_true_random=False))
def test_pixel_means_weighted_by_counts_are_the_sum_of_all_images(some, random):
    images = torch.cat([some.images, torch.ones(10, 4, 3)])
    labels = torch.cat([some.labels, torch.arange(10)])  # every digit at least once
    means = pixel_means(images, labels)
    torch.testing.assert_close((means * labels.bincount()[:, None, None]).sum(0), images.sum(0))
    order = random.sample(range(len(labels)), len(labels))
    torch.testing.assert_close(pixel_means(images[order], labels[order]), means)


# Measuring


def answer(images):
    "Ten different sums of pixels, some positive and some negative: a model that never learned."
    weights = torch.randn(images[0].numel(), 10, generator=seeded(0))
    return images.flatten(1) @ weights + torch.linspace(-0.1, 0.1, 10)


@examples
@given(pictures(), st.integers(1, 20), st.randoms(use_true_random=False))
def test_evaluation_does_not_depend_on_batch_size_or_order(digits, batch_size, random):
    whole, parts = evaluate(answer, digits), evaluate(answer, digits, batch_size=batch_size)
    assert parts.predicted.equal(whole.predicted) and parts.confusion.equal(whole.confusion)
    torch.testing.assert_close(parts.confidence, whole.confidence)
    order = random.sample(range(len(digits)), len(digits))
    permuted = evaluate(answer, Digits(*digits[order]))
    assert permuted.predicted.equal(whole.predicted[order]) and permuted.confusion.equal(whole.confusion)
    assert permuted.accuracy == whole.accuracy


@examples
@given(pictures(), st.integers(0, 15))
def test_worst_are_mistakes_and_the_surest_ones(digits, n):
    evaluation = evaluate(answer, digits)
    worst, wrong = evaluation.worst(n), evaluation.predicted != evaluation.labels
    assert len(worst) == len(set(worst.tolist())) == min(n, int(wrong.sum()))
    assert wrong[worst].all()
    assert evaluation.confidence[worst].equal(evaluation.confidence[wrong].sort(descending=True).values[:n])


@examples
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1, width=32)), min_size=1, max_size=30),
       st.integers(1, 12))
def test_calibration_accounts_for_every_answer(triples, n_bins):
    labels, predicted, confidence = map(torch.tensor, zip(*triples, strict=True))
    means, accuracies, counts = calibration(Answers(labels, predicted, confidence.float()), n_bins)
    assert counts.sum() == len(triples) and counts.min() >= 1 and len(means) == len(accuracies) == len(counts) <= n_bins
    assert (accuracies * counts).sum().item() == pytest.approx((labels == predicted).sum().item())
    assert (means * counts).sum().item() == pytest.approx(confidence.double().sum().item(), abs=1e-5)
    assert means.equal(means.sort().values)
    assert accuracies.min() >= 0 and accuracies.max() <= 1


# Splits and batches


@examples
@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.data(), SEEDS)
def test_a_split_is_a_partition_that_keeps_shares(labels, data, seed):
    labels = torch.tensor(labels)
    n_valid = data.draw(st.integers(1, len(labels) - 1))
    train, valid = split_validation(labels, n_valid, seed)
    assert len(valid) == n_valid
    assert sorted([*train.tolist(), *valid.tolist()]) == list(range(len(labels)))
    assert train.equal(train.sort().values) and valid.equal(valid.sort().values)
    exact = labels.bincount(minlength=10) * n_valid / len(labels)
    assert ((labels[valid].bincount(minlength=10) - exact).abs() < 1).all()
    again = split_validation(labels, n_valid, seed)
    assert again[0].equal(train) and again[1].equal(valid)


@examples
@given(st.integers(0, 200), st.integers(1, 250), SEEDS)
def test_minibatches_hold_every_index_once(n, batch_size, seed):
    batches = list(minibatches(n, batch_size, seeded(seed)))
    sizes = [len(batch) for batch in batches]
    assert len(sizes) == math.ceil(n / batch_size)
    assert all(size == batch_size for size in sizes[:-1]) and all(sizes)
    assert sorted(index for batch in batches for index in batch.tolist()) == list(range(n))
    again = list(minibatches(n, batch_size, seeded(seed)))
    assert all(ours.equal(theirs) for ours, theirs in zip(batches, again, strict=True))


@examples
@given(st.integers(20, 200), st.integers(1, 250), SEEDS)
def test_every_epoch_has_an_order_of_its_own(n, batch_size, seed):
    generator = seeded(seed)
    first, second = (torch.cat(list(minibatches(n, batch_size, generator))) for _ in range(2))
    assert not first.equal(second)
