"""What must hold for any input: hypothesis looks for one that breaks it."""
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from mnist_scratch.baseline import mae_distance, mse_distance, pixel_means
from mnist_scratch.data import Digits, split_validation
from mnist_scratch.losses import cross_entropy, log_softmax, sigmoid_mse, softmax_mse
from mnist_scratch.plot import calibration
from mnist_scratch.training import Evaluation, evaluate, minibatches

examples = settings(deadline=None, derandomize=True, max_examples=25, database=None)
LOSSES = pytest.mark.parametrize("loss", [sigmoid_mse, softmax_mse, cross_entropy], ids=lambda loss: loss.__name__)
SEEDS, SHUFFLES = st.integers(0, 2**31), st.randoms(use_true_random=False)
SIZES, EXTREME = st.floats(-50, 50), st.sampled_from([-1e4, 0.0, 1.0, 1e4])
close = torch.testing.assert_close


@st.composite
def batches(draw, sizes=SIZES, dtype=torch.float64):
    "Logits of a few images and classes, and a label for each image."
    n, k = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rows = draw(st.lists(st.lists(sizes, min_size=k, max_size=k), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    return torch.tensor(rows, dtype=dtype), torch.tensor(labels)


@st.composite
def pictures(draw):
    "A few tiny images with their labels, some of them blank."
    n = draw(st.integers(1, 12))
    images = torch.rand(n, 4, 3, generator=torch.Generator().manual_seed(draw(SEEDS))) / 2
    blank = torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    labels = torch.tensor(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))
    return Digits(images.masked_fill(blank[:, None, None], 0.0), labels)


def value_and_gradient(loss, logits, labels):
    logits = logits.clone().requires_grad_()
    value = loss(logits, labels)
    value.backward()
    return value.detach(), logits.grad


@LOSSES
@examples
@given(batches(), SHUFFLES, st.floats(-1e3, 1e3))
def test_losses(loss, batch, random, constant):
    "Order and names of classes do not matter; a batch is the mean of its images; ranges; what all logits share."
    logits, labels = batch
    n, k = logits.shape
    value, gradient = value_and_gradient(loss, logits, labels)
    order, names = random.sample(range(n), n), torch.tensor(random.sample(range(k), k))
    permuted, permuted_gradient = value_and_gradient(loss, logits[order], labels[order])
    close(permuted, value)
    close(permuted_gradient, gradient[order])
    close(loss(logits[:, names], names.argsort()[labels]), value)
    close(torch.stack([loss(logits[i : i + 1], labels[i : i + 1]) for i in range(n)]).mean(), value)
    highest = {sigmoid_mse: 1.0, softmax_mse: 2 / k, cross_entropy: math.inf}[loss]
    assert -1e-12 <= value <= highest + 1e-12
    if loss is not sigmoid_mse:
        more = constant * torch.arange(1, n + 1)[:, None]
        shifted, shifted_gradient = value_and_gradient(loss, logits + more, labels)
        close(shifted, value, rtol=1e-6, atol=1e-9)
        close(shifted_gradient, gradient, rtol=1e-6, atol=1e-9)
        close(gradient.sum(1), torch.zeros(n).double(), rtol=0, atol=1e-12)


@LOSSES
@examples
@given(batches(sizes=EXTREME, dtype=torch.float32))
def test_extreme_logits_give_finite_losses_and_gradients(loss, batch):
    value, gradient = value_and_gradient(loss, *batch)
    assert value.isfinite() and gradient.isfinite().all()
    close(log_softmax(batch[0]).exp().sum(1), torch.ones(len(batch[0])))


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
    with pytest.raises(ValueError, match=rf"{loss.__name__}\(\): labels should hold at least one, got none"):
        loss(logits[:0], labels[:0])


@pytest.mark.parametrize("distance", [mae_distance, mse_distance], ids=lambda distance: distance.__name__)
@examples
@given(pictures(), pictures())
def test_distances_are_distances(distance, ours, theirs):
    between = distance(ours.images, theirs.images)
    assert between.min() >= 0 and between.max() <= 1
    close(between, distance(theirs.images, ours.images).T, rtol=0, atol=1e-6)
    close(distance(ours.images, ours.images).diag(), torch.zeros(len(ours)), rtol=0, atol=1e-6)


@examples
@given(pictures())
def test_pixel_means_weighted_by_counts_are_the_sum_of_all_images(some):
    images = torch.cat([some.images, torch.ones(10, 4, 3)])
    labels = torch.cat([some.labels, torch.arange(10)])  # every digit at least once
    close((pixel_means(images, labels) * labels.bincount()[:, None, None]).sum(0), images.sum(0))


def answer(images):
    "Ten different sums of pixels, some positive and some negative: a model that never learned."
    weights = torch.randn(images[0].numel(), 10, generator=torch.Generator().manual_seed(0))
    return images.flatten(1) @ weights + torch.linspace(-0.1, 0.1, 10)


@examples
@given(pictures(), st.integers(1, 20), st.integers(0, 15), SHUFFLES)
def test_an_evaluation_does_not_depend_on_batch_size_or_order(digits, batch_size, n, random):
    whole, parts = evaluate(answer, digits), evaluate(answer, digits, batch_size=batch_size)
    assert parts.predicted.equal(whole.predicted) and parts.labels.equal(digits.labels)
    close(parts.confidence, whole.confidence)
    order = random.sample(range(len(digits)), len(digits))
    permuted = evaluate(answer, Digits(*digits[order]))
    assert permuted.predicted.equal(whole.predicted[order]) and permuted.confusion.equal(whole.confusion)
    worst, wrong = whole.worst(n), whole.predicted != whole.labels
    assert len(worst) == len(set(worst.tolist())) == min(n, int(wrong.sum())) and wrong[worst].all()
    assert whole.confidence[worst].equal(whole.confidence[wrong].sort(descending=True).values[:n])


@examples
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1, width=32)), min_size=1, max_size=30),
       st.integers(1, 12))
def test_calibration_accounts_for_every_answer(triples, n_bins):
    labels, predicted, confidence = map(torch.tensor, zip(*triples, strict=True))
    means, accuracies, counts = calibration(Evaluation(labels, predicted, confidence.float()), n_bins)
    assert counts.sum() == len(triples) and counts.min() >= 1 and len(means) == len(accuracies) == len(counts) <= n_bins
    assert (accuracies * counts).sum().item() == pytest.approx((labels == predicted).sum().item())
    assert (means * counts).sum().item() == pytest.approx(confidence.double().sum().item(), abs=1e-5)
    assert means.equal(means.sort().values) and accuracies.min() >= 0 and accuracies.max() <= 1


@examples
@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.data(), SEEDS)
def test_a_split_is_a_partition_that_keeps_shares(labels, data, seed):
    labels = torch.tensor(labels)
    n_valid = data.draw(st.integers(1, len(labels) - 1))
    train, valid = split_validation(labels, n_valid, seed)
    assert len(valid) == n_valid and sorted([*train.tolist(), *valid.tolist()]) == list(range(len(labels)))
    assert train.equal(train.sort().values) and valid.equal(valid.sort().values)
    exact = labels.bincount(minlength=10) * n_valid / len(labels)
    assert ((labels[valid].bincount(minlength=10) - exact).abs() < 1).all()
    assert split_validation(labels, n_valid, seed)[1].equal(valid)


@examples
@given(st.integers(0, 200), st.integers(1, 250), SEEDS)
def test_minibatches_hold_every_index_once_in_an_order_that_the_generator_decides(n, batch_size, seed):
    generator = torch.Generator().manual_seed(seed)
    first, second = list(minibatches(n, batch_size, generator)), list(minibatches(n, batch_size, generator))
    assert len(first) == math.ceil(n / batch_size) and all(len(batch) == batch_size for batch in first[:-1])
    order = torch.cat([*first, torch.zeros(0, dtype=torch.int64)])
    assert order.sort().values.equal(torch.arange(n)) and all(len(batch) for batch in first)
    generator.manual_seed(seed)
    assert order.equal(torch.randperm(n, generator=generator))
    assert n < 20 or not order.equal(torch.cat(second))
