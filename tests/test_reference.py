"""Our mathematics against PyTorch's or by hand; shapes that PyTorch would broadcast in silence are refused."""
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

from mnist_scratch.baseline import NearestMean, mae_distance, mse_distance, pixel_means
from mnist_scratch.checks import ShapeError
from mnist_scratch.data import Digits
from mnist_scratch.linear import LinearModel, init_params, linear, linear_from_means
from mnist_scratch.losses import compare, cross_entropy, log_softmax, sigmoid_mse, softmax_mse
from mnist_scratch.nets import TwoLayerNet

close = torch.testing.assert_close
REFERENCES = {
    sigmoid_mse: lambda logits, labels: F.mse_loss(logits.sigmoid(), F.one_hot(labels, logits.shape[1]).to(logits)),
    softmax_mse: lambda logits, labels: F.mse_loss(logits.softmax(1), F.one_hot(labels, logits.shape[1]).to(logits)),
    cross_entropy: F.cross_entropy,
}


def test_a_comparison_counts_the_images_on_which_two_models_differ():
    first, second = torch.tensor([1, 1, 1, 1, 0, 0, 1]).bool(), torch.tensor([1, 0, 0, 0, 1, 0, 1]).bool()
    assert compare(first, second) == (3, 1, 1.0) and compare(second, first) == (1, 3, -1.0)
    assert compare(first, first) == (0, 0, 0)
    with pytest.raises(ShapeError):
        compare(first, second[:, None])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("loss", REFERENCES, ids=lambda loss: loss.__name__)
@settings(deadline=None, derandomize=True, max_examples=25, database=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 1, 50, 1e4]), st.integers(0, 99),
       st.sampled_from([torch.float32, torch.float64]))
def test_losses_and_their_gradients(loss, n, k, size, seed, dtype):
    "Of any number of images and classes, also where logits are equal or huge."
    logits, labels = torch.randn(n, k, generator=seeded(seed)), torch.randint(k, (n,), generator=seeded(seed))
    ours, theirs = ((logits*size).to(dtype).requires_grad_() for _ in range(2))
    close(loss(ours, labels), REFERENCES[loss](theirs, labels))
    close(torch.autograd.grad(loss(ours, labels), ours), torch.autograd.grad(REFERENCES[loss](theirs, labels), theirs))
    close(log_softmax(ours), theirs.log_softmax(1))


@pytest.mark.parametrize("distance, by_hand", [(mae_distance, torch.abs), (mse_distance, torch.square)])
def test_distances_and_the_nearest_mean(distance, by_hand, generator):
    images, means = (torch.rand(n, 4, 3, generator=generator) for n in (5, 10))
    wanted = by_hand(images[:, None] - means).sum((2, 3))/12
    close(distance(images, means), wanted)
    close(NearestMean(means, distance)(images), -wanted)
    digits = Digits(torch.rand(20, 4, 3, generator=generator)/2, torch.arange(20) % 10)
    nearest, own = NearestMean.from_digits(digits, distance), pixel_means(digits.images, digits.labels)
    close(nearest(digits.images), -distance(digits.images, own))
    close(nearest.parameters(), [own])
    assert NearestMean.from_digits(digits).distance is NearestMean(own).distance is mse_distance


def test_pixel_means_of_every_digit_and_no_other(generator):
    images, labels = torch.rand(50, 4, 3, generator=generator), torch.cat([torch.arange(10), torch.arange(40) % 7])
    sums = torch.zeros(10, 4, 3).index_add(0, labels, images)
    close(pixel_means(images, labels), sums/labels.bincount()[:, None, None])
    for n, first, named in ((8, 0, r"\[8, 9\]"), (9, 1, r"\[0\]"), (11, 0, "10"), (11, -1, "-1")):
        with pytest.raises(ValueError, match=rf"^pixel_means\(\).*{named}"):
            pixel_means(images, torch.arange(50) % n + first)


def test_initial_parameters():
    ours = init_params(20, 30, std=0.3, generator=seeded(7))
    close(ours.detach(), nn.init.normal_(torch.empty(20, 30), std=0.3, generator=seeded(7)))
    assert ours.requires_grad and ours.is_leaf and init_params(4, std=0.0).tolist() == [0.0]*4
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert init_params(5).tolist() == torch.randn(5, generator=seeded(3)).tolist()


@pytest.mark.parametrize("model, settings, layers", [  # layer: units, and the standard deviation of their weights
    (LinearModel.random, {}, [(10, 0.01)]), (LinearModel.random, {"std": 0.5, "seed": 3}, [(10, 0.5)]),
    (TwoLayerNet, {}, [(64, 1/28), (10, 1/8)]), (TwoLayerNet, {"n_hidden": 1}, [(1, 1/28), (10, 1)]),
    (TwoLayerNet, {"std": 0.5, "seed": 3}, [(64, 0.5), (10, 0.5)])])
def test_models_begin_with_the_numbers_of_their_seed_and_biases_of_zero(model, settings, layers):
    own, generator, n_in, wanted = model(**settings).parameters(), seeded(settings.get("seed", 0)), 784, []
    for n_out, std in layers:
        wanted += [torch.randn(n_out, n_in, generator=generator)*std, torch.zeros(n_out)]
        n_in = n_out
    close([parameter.detach() for parameter in own], wanted)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in own)
    assert {parameter.device.type for parameter in model(**settings, device="meta").parameters()} == {"meta"}


@pytest.mark.parametrize("make, layers", [
    (LinearModel.random, [nn.Linear(784, 10)]), (TwoLayerNet, [nn.Linear(784, 64), nn.Sigmoid(), nn.Linear(64, 10)]),
    (lambda: TwoLayerNet(7, activation=torch.relu), [nn.Linear(784, 7), nn.ReLU(), nn.Linear(7, 10)])])
def test_models_and_their_gradients(make, layers, generator):
    images, labels = torch.rand(40, 28, 28, generator=generator).double(), torch.arange(40) % 10
    model, reference = make(), nn.Sequential(nn.Flatten(), *layers).double()
    for theirs, ours in zip(reference.parameters(), model.parameters(), strict=True):
        ours.data = ours.data.double() + 0.1  # zeros would hide a bias that is left out
        theirs.data.copy_(ours.data)
    close(model(images), reference(images))
    for one in (model, reference):
        F.cross_entropy(one(images), labels).backward()
    close([ours.grad for ours in model.parameters()], [theirs.grad for theirs in reference.parameters()])


def test_the_linear_model_from_means_answers_with_the_nearest_mean(generator):
    images, means = (torch.rand(n, 4, 3, generator=generator).double() for n in (30, 10))
    model = linear_from_means(means.requires_grad_())
    close(images.square().sum((1, 2))[:, None] - 2*model(images), (images[:, None] - means).square().sum((2, 3)))
    model(images).sum().backward()
    assert model.weights.grad.any() and model.biases.grad.all() and means.grad is None
    assert model.weights.data_ptr() != means.data_ptr(), "what is learned leaves the means as they are"


IMAGES, MEANS, LOGITS, LABELS = *(torch.rand(n, 28, 28) for n in (20, 10)), torch.rand(20, 10), torch.arange(20) % 10


@pytest.mark.parametrize("function, arguments", [(function, arguments) for function, *arguments in [
    *((distance, *pair) for distance in (mae_distance, mse_distance) for pair in (
        (IMAGES, MEANS[:, :1]), (IMAGES[:, :, :1], MEANS))),
    *((loss, *pair) for loss in REFERENCES for pair in ((LOGITS[:1], LABELS), (LOGITS, LABELS[:, None]), (
        LOGITS, LABELS + 1), (LOGITS, LABELS - 1), (LOGITS[:, :4], LABELS % 5), (LOGITS[:0], LABELS[:0]))),
    (linear, LOGITS, LOGITS, LOGITS[0, :1]), (log_softmax, LOGITS[None]), (linear_from_means, MEANS[:, None]),
    (pixel_means, IMAGES[:, None], LABELS), (LinearModel.random(), IMAGES[:, None]), (TwoLayerNet(), IMAGES[:, None]),
    (NearestMean(MEANS, lambda images, means: LOGITS[0]), IMAGES)]])
def test_shapes_that_pytorch_would_broadcast_and_labels_that_are_no_class_are_refused(function, arguments):
    with pytest.raises(ValueError, match=rf"^{getattr(function, '__name__', type(function).__name__)}\(\)"):
        function(*arguments)
