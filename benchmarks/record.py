"""What `fast` is measured against: the recipe of the public record, and that of `fast` as it was before."""
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from mnist_scratch.convnet import PIXEL_MEAN, PIXEL_STD, one_cycle
from mnist_scratch.data import MNIST
from mnist_scratch.training import History, fit, memory_format


class RecordNet(nn.Module):
    "The net of github.com/tuomaso/train_mnist_fast, written again: two convolutions, two linear layers."

    def __init__(self, seed: int, device: torch.device):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.first, self.second = nn.Conv2d(1, 24, 5), nn.Conv2d(24, 32, 3)
            self.hidden, self.output = nn.Linear(800, 256), nn.Linear(256, 10)
        self.to(device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pictures = F.max_pool2d(self.first((images[:, None] - PIXEL_MEAN) / PIXEL_STD), 2).relu()
        pictures = F.max_pool2d(self.second(pictures), 2).relu()
        return self.output(self.hidden(pictures.flatten(1)).relu())


def train_record(model: nn.Module, mnist: MNIST, seed: int) -> History:
    "Its training: Adam 1e-2 with betas 0.7 and 0.9, PyTorch's one cycle, batches of 256, one epoch; images in memory."
    def schedule(optimizer, n_steps):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=n_steps, cycle_momentum=False)

    return fit(model, mnist.train, mnist.valid, loss=F.cross_entropy, epochs=1, lr=1e-2, batch_size=256, seed=seed,
               optimizer=partial(torch.optim.Adam, betas=(0.7, 0.9)), schedule=schedule)


class FormerNet(nn.Module):
    "The net of `fast` up to version 0.1: pooling in place of a stride."

    def __init__(self, seed: int, device: torch.device):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            stages, n_in = [], 1
            for number, n_out in enumerate((8, 24, 64)):
                stages.append(nn.Conv2d(n_in, n_out, 3 if number else 5, bias=False))
                stages += [nn.MaxPool2d(2)] * (number < 2) + [nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
                n_in = n_out
            self.network = nn.Sequential(*stages, nn.Flatten(), nn.Linear(576, 10))
        self.to(device, memory_format=memory_format(device))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(((images - PIXEL_MEAN) / PIXEL_STD)[:, None])


def train_former(model: nn.Module, mnist: MNIST, seed: int) -> History:
    "Its training: AdamW, one cycle up to 0.02, smoothing 0.05, batches of 128, one epoch."
    return fit(model, mnist.train, mnist.valid, epochs=1, lr=0.02, batch_size=128, seed=seed, schedule=one_cycle,
               loss=partial(F.cross_entropy, label_smoothing=0.05),
               optimizer=partial(torch.optim.AdamW, weight_decay=0.01, fused=True))
