"""Models calculated with the autograd of notebook 09; their parameters are those of PyTorch's twins."""
from collections.abc import Callable

import torch

from mnist_scratch.autograd import Tensor, batch_norm, conv2d, max_pool
from mnist_scratch.convnet import PIXEL_MEAN, PIXEL_STD


class OwnLayers:
    "Linear layers with an activation function between them."

    def __init__(self, twin, activation: Callable = torch.sigmoid):
        self.own, self.activation = list(twin.parameters()), activation

    def parameters(self) -> list[torch.Tensor]:
        return self.own

    def __call__(self, images: torch.Tensor):
        values, layers = images.flatten(1), list(map(Tensor, self.own))
        for number in range(0, len(layers), 2):
            values = (self.activation(values) if number else values) @ layers[number].T + layers[number + 1]
        return values


class OwnConvNet(OwnLayers):
    "The twin of `record.FormerNet`; it norms by the batch, also in use."

    def __call__(self, images: torch.Tensor):
        *stages, weights, biases = map(Tensor, self.own)
        values = ((images - PIXEL_MEAN) / PIXEL_STD)[:, None]
        for number in range(3):
            kernel, scale, shift = stages[3 * number:3 * number + 3]
            values = conv2d(values, kernel)
            values = batch_norm(max_pool(values) if number < 2 else values, scale, shift).relu()
        return values.flatten(1) @ weights.T + biases
