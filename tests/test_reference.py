"""Our own mathematics against torch's, scikit-learn's and scipy's, in float64 where the inputs allow it."""
import math

import pytest
import torch
from scipy import special, stats
from sklearn import metrics
from sklearn.neighbors import NearestCentroid
from torch import nn

from mnist_scratch.baseline import NearestMean, mae_distance, mse_distance, pixel_means
from mnist_scratch.data import Digits
from mnist_scratch.linear import LinearModel, init_params, linear, linear_from_means
from mnist_scratch.losses import cross_entropy, log_softmax, sigmoid_mse, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import SGD, evaluate


@pytest.fixture
def logits(generator):
    return torch.randn(50, 10, generator=generator, dtype=torch.float64) * 5


@pytest.fixture
def labels(generator):
    return torch.randint(10, (50,), generator=generator)


@pytest.fixture
def digits(generator):
    return Digits(torch.rand(300, 28, 28, generator=generator), torch.arange(300) % 10)


def one_hot(labels):
    return nn.functional.one_hot(labels, 10).double()


REFERENCES = {
    sigmoid_mse: lambda logits, labels: nn.functional.mse_loss(logits.sigmoid(), one_hot(labels)),
    softmax_mse: lambda logits, labels: nn.functional.mse_loss(logits.softmax(1), one_hot(labels)),
    cross_entropy: nn.functional.cross_entropy,
}


@pytest.mark.parametrize("loss", REFERENCES, ids=lambda loss: loss.__name__)
def test_losses_and_their_gradients(loss, logits, labels):
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value, reference = loss(ours, labels), REFERENCES[loss](theirs, labels)
    value.backward()
    reference.backward()
    torch.testing.assert_close(value, reference)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), ours)


def test_cross_entropy_is_log_loss_and_its_gradient_probability_minus_truth(logits, labels):
    probabilities = special.softmax(logits.numpy(), axis=1)
    wanted = metrics.log_loss(labels.numpy(), probabilities, labels=range(10))
    assert cross_entropy(logits, labels).item() == pytest.approx(wanted, rel=1e-12)
    logits.requires_grad_()
    cross_entropy(logits, labels).backward()
    torch.testing.assert_close(logits.grad, (torch.from_numpy(probabilities) - one_hot(labels)) / 50)


def test_log_softmax(logits):
    torch.testing.assert_close(log_softmax(logits), logits.log_softmax(1))
    torch.testing.assert_close(log_softmax(logits), torch.from_numpy(special.log_softmax(logits.numpy(), axis=1)))
    assert torch.autograd.gradcheck(log_softmax, logits.requires_grad_())


def test_distances(generator):
    images, means = (torch.rand(n, 28, 28, generator=generator).double() for n in (30, 10))
    flat = images.flatten(1).numpy(), means.flatten(1).numpy()
    squared, absolute = (torch.from_numpy(metrics.pairwise_distances(*flat, metric=name)) / 784
                         for name in ("sqeuclidean", "manhattan"))
    torch.testing.assert_close(mse_distance(images, means), squared)
    torch.testing.assert_close(mae_distance(images, means), absolute)


@pytest.mark.parametrize("distance", [mse_distance, mae_distance], ids=lambda distance: distance.__name__)
def test_gradients_of_distances_and_scores(distance, generator):
    images, means = (torch.rand(n, 2, 3, generator=generator).double().requires_grad_() for n in (4, 3))
    assert torch.autograd.gradcheck(distance, (images, means))
    biases = torch.rand(3, generator=generator).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w, b: linear(x.flatten(1), w.flatten(1), b), (images, means, biases))


def test_pixel_means(digits):
    by_loop = torch.zeros(10, 28, 28)
    for image, label in zip(digits.images, digits.labels, strict=True):
        by_loop[label] += image / 30
    torch.testing.assert_close(pixel_means(digits.images, digits.labels), by_loop)


def test_nearest_mean_is_the_nearest_centroid(digits):
    flat = digits.images.flatten(1).double().numpy()
    predicted = torch.from_numpy(NearestCentroid().fit(flat, digits.labels.numpy()).predict(flat))
    assert NearestMean.from_digits(digits)(digits.images).argmax(1).equal(predicted)


def double_linear() -> LinearModel:
    model = LinearModel.random(std=0.1, seed=3)
    biases = torch.linspace(-1, 1, 10).double()  # zeros would hide a bias that is left out
    return LinearModel(model.weights.detach().double().requires_grad_(), biases.requires_grad_())


def double_net() -> TwoLayerNet:
    model = TwoLayerNet(n_hidden=7, seed=3)
    for layer in (model.hidden, model.output):
        layer[:] = [(part.detach().double() + 0.01).requires_grad_() for part in layer]
    return model


MODELS = {
    "linear": (double_linear, lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10))),
    "two layers": (
        double_net, lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 7), nn.Sigmoid(), nn.Linear(7, 10))),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_and_sgd_steps_are_those_of_torch(name, digits):
    images, labels = digits.images[:40].double(), digits.labels[:40]
    model, reference = (make() for make in MODELS[name])
    reference.double()
    with torch.no_grad():
        for theirs, ours in zip(reference.parameters(), model.parameters(), strict=True):
            theirs.copy_(ours)
    descents = [SGD(model.parameters(), lr=0.5), torch.optim.SGD(reference.parameters(), lr=0.5)]
    for _ in range(3):
        for each, loss, descent in zip((model, reference), (cross_entropy, nn.functional.cross_entropy), descents,
                                       strict=True):
            descent.zero_grad()
            loss(each(images), labels).backward()
            descent.step()
        torch.testing.assert_close(model(images), reference(images))
    for theirs, ours in zip(reference.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_gradients_of_a_two_layer_net_are_those_of_backpropagation_by_hand(digits):
    "The formulas of notebook 05, written with no help from autograd."
    images, labels = digits.images[:40].double(), digits.labels[:40]
    net, pixels = double_net(), images.flatten(1)
    cross_entropy(net(images), labels).backward()
    with torch.no_grad():
        activations = 1 / (1 + (-(pixels @ net.hidden[0].T + net.hidden[1])).exp())
        error = ((activations @ net.output[0].T + net.output[1]).softmax(1) - one_hot(labels)) / 40
        hidden_error = error @ net.output[0] * activations * (1 - activations)
        wanted = [hidden_error.T @ pixels, hidden_error.sum(0), error.T @ activations, error.sum(0)]
    for parameter, gradient in zip(net.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_evaluation(digits):
    model = LinearModel.random(std=1.0)
    result, logits = evaluate(model, digits, batch_size=7), model(digits.images)
    torch.testing.assert_close(result.confidence, logits.softmax(1).max(1).values.detach())
    truth, predicted = digits.labels.numpy(), logits.argmax(1).numpy()
    assert result.confusion.tolist() == metrics.confusion_matrix(truth, predicted, labels=range(10)).tolist()
    assert result.accuracy == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert result.per_digit.tolist() == pytest.approx(metrics.recall_score(truth, predicted, average=None).tolist())
    assert result.error_bar == pytest.approx(math.sqrt(result.accuracy * (1 - result.accuracy) / 300))
    worst = result.worst(5)
    wrong = result.predicted != digits.labels
    assert wrong[worst].all() and result.confidence[worst[0]] == result.confidence[wrong].max()
    assert result.confidence[worst].tolist() == sorted(result.confidence[worst].tolist(), reverse=True)


def test_initial_parameters_are_normal_and_those_of_torch():
    ours = init_params(100, 50, std=0.3, generator=torch.Generator().manual_seed(7)).detach()
    theirs = nn.init.normal_(torch.empty(100, 50), std=0.3, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(ours, theirs)
    assert stats.kstest(ours.flatten().double().numpy(), "norm", args=(0, 0.3)).pvalue > 0.05
    assert init_params(4, std=0.0).tolist() == [0.0] * 4


def test_initialisation_statistics_and_repeatability():
    parameters = init_params(400, 500, std=0.05, generator=torch.Generator().manual_seed(2))
    assert parameters.requires_grad and parameters.is_leaf
    assert parameters.std().item() == pytest.approx(0.05, rel=0.02) and abs(parameters.mean().item()) < 1e-3
    assert parameters.equal(init_params(400, 500, std=0.05, generator=torch.Generator().manual_seed(2)))
    net = TwoLayerNet(n_hidden=100)
    assert net.hidden[0].std().item() == pytest.approx(1 / 28, rel=0.02)
    assert net.output[0].std().item() == pytest.approx(1 / 10, rel=0.1)
    assert net.hidden[1].abs().max() == 0 and net.output[1].abs().max() == 0
    assert [tuple(part.shape) for part in net.parameters()] == [(100, 784), (100,), (10, 100), (10,)]
    assert TwoLayerNet(std=0.5).hidden[0].std().item() == pytest.approx(0.5, rel=0.02)
    for make in (LinearModel.random, TwoLayerNet):
        first, again, other = (make(seed=seed).parameters()[0] for seed in (1, 1, 2))
        assert first.equal(again) and not first.equal(other)


def test_the_activation_is_the_one_that_was_asked_for(digits):
    net = TwoLayerNet(activation=torch.relu)
    hidden = (digits.images.flatten(1) @ net.hidden[0].T + net.hidden[1]).relu()
    torch.testing.assert_close(net(digits.images), hidden @ net.output[0].T + net.output[1])


@pytest.mark.parametrize("labels, complaint", [
    (torch.arange(20) % 9, r"images of every digit; there is none of \[9\]"),
    (torch.arange(20) % 11, "labels should lie between 0 and 9, got 10"),
    (torch.arange(20) - 1, "labels should lie between 0 and 9, got -1")])
def test_means_need_every_digit_and_no_other(labels, complaint):
    with pytest.raises(ValueError, match=rf"pixel_means\(\).* {complaint}"):
        pixel_means(torch.rand(20, 4, 4), labels)


def test_the_linear_model_from_means_answers_with_the_nearest_mean(generator):
    "Means of very different lengths, so that a bias of the wrong size changes answers."
    means = torch.rand(10, 28, 28, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 1, 10)[:, None, None]
    images = (means[torch.arange(500) % 10] + 0.6 * torch.randn(500, 28, 28, generator=generator)).clamp(0, 1)
    squared = (images[:, None] - means).square().sum((2, 3))
    scores = linear_from_means(means)(images).detach()
    assert scores.argmax(1).equal(squared.argmin(1)) and len(scores.argmax(1).unique()) > 5
    assert torch.allclose(-2 * scores + images.square().sum((1, 2))[:, None], squared)
