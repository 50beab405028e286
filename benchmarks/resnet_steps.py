"""Seconds an epoch of the ResNet18, from a few batches of fastai's own training loop: the post's way, then one change
at a time until ours."""
import contextlib
import io
import math
import time
import warnings
from collections.abc import Callable

import post
import torch
from torch import nn

from mnist_scratch.data import Digits, load_mnist
from mnist_scratch.files import mnist_path
from mnist_scratch.resnet import HalfPrecision, Loader, resnet_learner, supports_bfloat16

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastai.vision.all import Callback, CancelFitException, DataLoaders, resnet18, vision_learner

N_IMAGES = 60_000


class FewBatches(Callback):
    "Stop the training after some batches; two of them warm up, `seconds` is of one of the others."
    def __init__(self, n: int):
        self.n, self.ends = n + 2, []

    def after_batch(self):
        self.ends.append(time.perf_counter())
        if len(self.ends) == self.n:
            raise CancelFitException

    @property
    def seconds(self) -> float:
        return (self.ends[-1] - self.ends[1])/(self.n - 2)


class ThreeChannels(Loader):
    "Grey pictures three times over, as the post's loader gives them."
    def __iter__(self):
        for images, labels in super().__iter__():
            yield images.expand(-1, 3, -1, -1).contiguous(), labels


def seconds_an_epoch(learner, batch_size: int, n: int) -> float:
    few = FewBatches(n)
    with contextlib.redirect_stdout(io.StringIO()), learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(1, 0.01, cbs=few)
    return few.seconds*math.ceil(N_IMAGES/batch_size)


def in_memory(digits: Digits, batch_size: int, n_channels: int = 1, channels_last: bool = False):
    "A learner over tensors in memory, without what `resnet_learner` adds."
    kind = {1: Loader, 3: ThreeChannels}[n_channels]
    loaders = DataLoaders(kind(digits, batch_size, torch.Generator().manual_seed(0)), kind(Digits(*digits[:100]), 100),
                          device=torch.device("cpu"))
    learner = vision_learner(loaders, resnet18, pretrained=False, normalize=False, n_in=n_channels, n_out=10,
                             loss_func=nn.functional.cross_entropy)
    if channels_last:
        learner.model = learner.model.to(memory_format=torch.channels_last)
    return learner


def full_precision(learner):
    learner.remove_cbs([callback for callback in learner.cbs if isinstance(callback, HalfPrecision)])
    return learner


def ways() -> dict[str, Callable[[], float]]:
    with contextlib.redirect_stdout(io.StringIO()):
        folder, mnist = mnist_path("full"), load_mnist("full", "cpu")
    digits = mnist.train  # any of the batches will do
    found = {
        "post": lambda: seconds_an_epoch(post.resnet_learner(folder), 64, 12),
        "images in memory": lambda: seconds_an_epoch(in_memory(digits, 64, 3), 64, 12),
        "+ one channel": lambda: seconds_an_epoch(in_memory(digits, 64), 64, 12),
        "+ batches of 256": lambda: seconds_an_epoch(in_memory(digits, 256), 256, 4),
        "+ channels last": lambda: seconds_an_epoch(in_memory(digits, 256, channels_last=True), 256, 4),
        "+ no weights on the frame": lambda: seconds_an_epoch(full_precision(resnet_learner(mnist)), 256, 4),
    }
    if supports_bfloat16(torch.device("cpu")):
        found["+ bfloat16"] = lambda: seconds_an_epoch(resnet_learner(mnist), 256, 4)
    return found
