"""The ResNet's loaders and its wrapping; the training itself is tested by executing notebook 06."""
import pytest
import torch

from mnist_scratch.data import MNIST, Digits
from mnist_scratch.resnet import Loader, ResNet, resnet_learner
from mnist_scratch.training import evaluate


@pytest.fixture
def mnist(generator):
    images, labels = torch.rand(40, 28, 28, generator=generator), torch.arange(40) % 10
    piles = [Digits(images[part], labels[part]) for part in torch.arange(40).split([20, 10, 10])]
    return MNIST(*piles, name="noise")


def test_loader_in_order(mnist):
    batches = list(Loader(mnist.train, 8))
    assert [tuple(images.shape) for images, _ in batches] == [(8, 1, 28, 28), (8, 1, 28, 28), (4, 1, 28, 28)]
    assert len(Loader(mnist.train, 8)) == 3
    assert torch.cat([labels for _, labels in batches]).equal(mnist.train.labels)
    assert torch.cat([images for images, _ in batches])[:, 0].equal(mnist.train.images)


def test_a_learner_repeats_and_becomes_a_model(mnist):
    weights = []
    for _ in range(2):
        learner = resnet_learner(mnist, batch_size=10, seed=4)
        with learner.no_bar(), learner.no_logging():
            learner.fit_one_cycle(1, 0.01)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in learner.model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1])
    model = ResNet(learner)
    assert model(mnist.valid.images).shape == (10, 10)
    assert evaluate(model, mnist.valid).accuracy == evaluate(model, mnist.valid, batch_size=3).accuracy
