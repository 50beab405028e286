"""Our own mathematics against torch's, in float64 where the inputs allow it."""
import math

import pytest
import torch
from torch import nn

from mnist_scratch.baseline import NearestMean, mae_distance, mse_distance, pixel_means
from mnist_scratch.data import Digits
from mnist_scratch.linear import LinearModel, init_params, linear
from mnist_scratch.losses import cross_entropy, log_softmax, sigmoid_mse, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import evaluate, fit


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


def test_log_softmax(logits):
    torch.testing.assert_close(log_softmax(logits), logits.log_softmax(1))
    torch.testing.assert_close(log_softmax(logits + 123.0), log_softmax(logits))


@pytest.mark.parametrize("loss", REFERENCES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_stay_finite(loss, size, labels):
    extreme = torch.zeros(50, 10)
    extreme[:, 0] = size
    extreme.requires_grad_()
    value = loss(extreme, labels)
    value.backward()
    assert value.isfinite() and extreme.grad.isfinite().all()


@pytest.mark.parametrize("loss", REFERENCES, ids=lambda loss: loss.__name__)
def test_a_label_out_of_range_raises(loss):
    with pytest.raises((RuntimeError, IndexError)):
        loss(torch.zeros(2, 10), torch.tensor([3, 10]))


def test_distances(digits, generator):
    means = torch.rand(10, 28, 28, generator=generator)
    flat = digits.images.flatten(1), means.flatten(1)
    torch.testing.assert_close(mse_distance(digits.images, means), torch.cdist(*flat) ** 2 / 784, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mae_distance(digits.images, means), torch.cdist(*flat, p=1) / 784, rtol=1e-4, atol=1e-5)


def test_pixel_means(digits):
    by_loop = torch.zeros(10, 28, 28)
    for image, label in zip(digits.images, digits.labels, strict=True):
        by_loop[label] += image / 30
    torch.testing.assert_close(pixel_means(digits.images, digits.labels), by_loop)


def test_linear_model_is_nn_linear(digits):
    model, reference = LinearModel.random(std=0.1, seed=3), nn.Linear(784, 10)
    with torch.no_grad():
        reference.weight.copy_(model.weights.T)
        reference.bias.copy_(model.biases)
    torch.testing.assert_close(model(digits.images), reference(digits.images.flatten(1)), rtol=0, atol=1e-5)


def test_two_layer_net_is_nn_sequential(digits):
    model = TwoLayerNet(n_hidden=7)
    reference = nn.Sequential(nn.Flatten(), nn.Linear(784, 7), nn.Sigmoid(), nn.Linear(7, 10))
    with torch.no_grad():
        for theirs, ours in zip(reference.parameters(), model.parameters(), strict=True):
            theirs.copy_(ours.t())
    torch.testing.assert_close(model(digits.images), reference(digits.images))


def test_fit_is_sgd_written_out(digits):
    "Mini-batches in the order of one seeded generator, mean loss, plain steps."
    model, reference = LinearModel.random(seed=1), LinearModel.random(seed=1)
    history = fit(model, digits, digits, loss=cross_entropy, epochs=3, lr=0.1, batch_size=70, seed=5)
    order, losses = torch.Generator().manual_seed(5), []
    for _ in range(3):
        total = 0.0
        for batch in torch.randperm(300, generator=order).split(70):
            loss = nn.functional.cross_entropy(reference(digits.images[batch]), digits.labels[batch])
            gradients = torch.autograd.grad(loss, reference.parameters())
            with torch.no_grad():
                for parameter, gradient in zip(reference.parameters(), gradients, strict=True):
                    parameter -= 0.1 * gradient
            total += loss.item() * len(batch)
        losses.append(total / 300)
    torch.testing.assert_close(model.weights, reference.weights)
    assert history.train_loss == pytest.approx(losses, rel=1e-5)


def test_evaluation(digits):
    model = LinearModel.random(std=1.0)
    result, logits = evaluate(model, digits, batch_size=7), model(digits.images)
    assert result.accuracy == pytest.approx((logits.argmax(1) == digits.labels).float().mean().item())
    torch.testing.assert_close(result.confidence, logits.softmax(1).max(1).values.detach())
    for true in range(10):
        for predicted in range(10):
            count = ((digits.labels == true) & (logits.argmax(1) == predicted)).sum()
            assert result.confusion[true, predicted] == count
    assert result.error_bar == pytest.approx(math.sqrt(result.accuracy * (1 - result.accuracy) / 300))
    worst = result.worst(5)
    wrong = result.predicted != digits.labels
    assert wrong[worst].all() and result.confidence[worst[0]] == result.confidence[wrong].max()
    assert result.confidence[worst].tolist() == sorted(result.confidence[worst].tolist(), reverse=True)


def test_initialisation_statistics_and_repeatability():
    parameters = init_params(400, 500, std=0.05, generator=torch.Generator().manual_seed(2))
    assert parameters.requires_grad and parameters.is_leaf
    assert parameters.std().item() == pytest.approx(0.05, rel=0.02) and abs(parameters.mean().item()) < 1e-3
    assert parameters.equal(init_params(400, 500, std=0.05, generator=torch.Generator().manual_seed(2)))
    net = TwoLayerNet(n_hidden=100)
    assert net.hidden[0].std().item() == pytest.approx(1 / 28, rel=0.02)
    assert net.output[0].std().item() == pytest.approx(1 / 10, rel=0.1)
    assert net.hidden[1].abs().max() == 0 and net.output[1].abs().max() == 0


def test_nearest_mean_is_a_linear_model(digits):
    "Squared distance differs from a linear score only by a term that all classes share."
    nearest = NearestMean.from_digits(digits)
    flat = nearest.means.flatten(1)
    scores = linear(digits.images.flatten(1), flat.T, -flat.square().sum(1) / 2)
    assert scores.argmax(1).equal(nearest(digits.images).argmax(1))
