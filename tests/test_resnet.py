"""The ResNet's loaders and its wrapping; the training itself is tested by executing notebook 06."""
import pytest
import torch

from mnist_scratch.data import MNIST, Digits
from mnist_scratch.resnet import Loader, ResNet, TrimmedConv2d, resnet_learner
from mnist_scratch.shapes import ShapeError
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


def trained(mnist, seed):
    learner = resnet_learner(mnist, batch_size=10, seed=seed)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(1, 0.01)
    return learner


def weights(learner) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in learner.model.parameters()])


def test_a_seed_decides_a_run_and_the_learner_becomes_a_model(mnist):
    learner, again = trained(mnist, seed=4), trained(mnist, seed=4)
    assert learner.recorder.values == again.recorder.values
    assert weights(learner).equal(weights(again))
    assert not weights(learner).equal(weights(resnet_learner(mnist, seed=5)))
    model = ResNet(learner)
    assert model(mnist.valid.images).shape == (10, 10) and model(mnist.valid.images[:1]).shape == (1, 10)
    assert evaluate(model, mnist.valid).accuracy == evaluate(model, mnist.valid, batch_size=3).accuracy
    assert model(mnist.valid.images).equal(model(mnist.valid.images)), "measuring must not switch it back to training"


@pytest.mark.parametrize("wrong", ["no batch axis", "channel axis", "flat", "whole numbers", "float64", "other device"])
def test_wrong_images_are_refused(mnist, wrong):
    images = mnist.valid.images
    wrong_images = {
        "no batch axis": images[0], "channel axis": images[:, None], "flat": images.flatten(1),
        "whole numbers": images.to(torch.uint8), "float64": images.double(), "other device": images.to("meta"),
    }[wrong]
    model = ResNet(resnet_learner(mnist))
    error, message = ShapeError, r"^ResNet\(\): images should be Float32\["
    if wrong == "other device":
        error, message = RuntimeError, "device"  # PyTorch's own
    with pytest.raises(error, match=message), torch.no_grad():
        model(wrong_images)


WINDOWS = [(3, 1, 1), (3, 1, 2), (3, 0, 1), (1, 0, 2), (5, 2, 2)]  # kernel, padding, stride


@pytest.mark.parametrize(("side", "kernel", "padding", "stride"), [
    (side, *window) for side in (1, 2, 3, 4, 7) for window in WINDOWS if side + 2 * window[1] >= window[0]])
def test_a_trimmed_convolution_is_the_same_convolution(side, kernel, padding, stride):
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(3, 4, kernel, padding=padding, stride=stride)
    trimmed = TrimmedConv2d(3, 4, kernel, padding=padding, stride=stride)
    trimmed.load_state_dict(plain.state_dict())
    pictures = torch.randn(5, 3, side, side)
    gradients = []
    for layer in (plain, trimmed):
        inputs = pictures.clone().requires_grad_()
        layer(inputs).square().sum().backward()
        gradients.append((layer(inputs), inputs.grad, layer.weight.grad, layer.bias.grad))
    for expected, given in zip(*gradients, strict=True):
        assert torch.allclose(expected, given, atol=1e-4)


def test_the_resnet_trims_and_keeps_its_parameters(mnist):
    network = resnet_learner(mnist).model.eval()
    trimmed = [module for module in network.modules() if isinstance(module, TrimmedConv2d)]
    assert len(trimmed) == 16
    images = mnist.valid.images[:, None]
    with torch.no_grad():
        result = network(images)
        for module in trimmed:
            module.__class__ = torch.nn.Conv2d
        assert torch.allclose(network(images), result, atol=1e-4)
