"""The way of the blog post that the series grew out of, in our own writing of its protocol.

One picture after the other through PIL, one digit after the other, a DataLoader over a list of pairs, weights of
standard deviation 1 and learning rate 1, and a ResNet that reads its PNGs again in every epoch. The library does none
of this; the benchmarks compare with it."""
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from mnist_scratch.data import MNIST, Digits

Model = Callable[[Tensor], Tensor]


def load(folder: Path) -> dict[str, list[Tensor]]:
    "For `training` and `testing`, one float tensor of images for each digit."
    def images(digit: Path) -> Tensor:
        pictures = [torch.tensor(np.array(Image.open(file))) for file in sorted(digit.iterdir())]
        return torch.stack(pictures).float()/255
    return {split: [images(folder/split/str(digit)) for digit in range(10)] for split in ("training", "testing")}


def everything(mnist: MNIST) -> Digits:
    "All training images, validation images included: the post holds none back."
    train, valid = mnist.train, mnist.valid
    return Digits(torch.cat([train.images, valid.images]), torch.cat([train.labels, valid.labels]))


def nearest_mean(images_by_digit: list[Tensor], means: list[Tensor]) -> list[Tensor]:
    "For the images of each digit, which mean is nearest by squared difference."
    return [torch.stack([(images - mean).square().mean((-1, -2)) for mean in means]).argmin(0)
            for images in images_by_digit]


def pairs_loader(images: Tensor, labels: Tensor) -> DataLoader:
    "Shuffled batches of 256 from a list of (784 pixels, label) pairs."
    return DataLoader(list(zip(images.flatten(1), labels)), batch_size=256, shuffle=True)


def _parameters(*shapes: tuple[int, ...], device=None) -> list[Tensor]:
    return [torch.randn(*shape).to(device).requires_grad_() for shape in shapes]


def linear_model(device=None) -> tuple[list[Tensor], Model]:
    "Parameters of standard deviation 1, and the model that uses them."
    weights, biases = parameters = _parameters((784, 10), (10,), device=device)
    return parameters, lambda pixels: pixels @ weights + biases


def two_layer_model(device=None) -> tuple[list[Tensor], Model]:
    "784-64-10 with a sigmoid; parameters of standard deviation 1, and the model that uses them."
    parameters = first, first_biases, second, second_biases = _parameters(
        (784, 64), (64,), (64, 10), (10,), device=device)
    return parameters, lambda pixels: torch.sigmoid(pixels @ first + first_biases) @ second + second_biases


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    "Softmax first, logarithm afterwards: overflows for a probability that rounds to 0."
    return -logits.softmax(1)[range(len(labels)), labels].log().mean()


def epoch(loader: DataLoader, parameters: list[Tensor], model: Model, lr: float = 1.0):
    "One pass over the loader; moves the parameters."
    for pixels, labels in loader:
        cross_entropy(model(pixels), labels).backward()
        for parameter in parameters:
            parameter.data -= parameter.grad*lr
            parameter.grad.zero_()


def resnet_learner(folder: Path):
    "A fastai learner over the PNG files: three channels, batches of 64, no weights from elsewhere."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastai.vision.all import ImageDataLoaders, accuracy, resnet18, vision_learner
        loaders = ImageDataLoaders.from_folder(folder, train="training", valid="testing")
        return vision_learner(loaders, resnet18, pretrained=False, loss_func=torch.nn.functional.cross_entropy,
                              metrics=accuracy)
