"""What moved images, and pictures that are halved once less, are worth to the ResNet18 of notebook 06.

Each way learns from the 50,000 training images for four epochs, with three seeds, and is measured on the validation
images. Results go to benchmarks/results/resnets.json after each run; runs that are there already are skipped. The
committed seconds were measured beside other programs and say nothing.

    python benchmarks/resnets.py                      everything, some hours on one thread
    python benchmarks/resnets.py --only "as it is"    some of it, by name"""
import argparse
import sys
import time
from pathlib import Path

from fastai.vision.all import Callback, Learner
from machine import machine
from runs import save, saved
from torch import nn

from mnist_scratch.convnet import RandomShift
from mnist_scratch.data import load_mnist
from mnist_scratch.resnet import ResNet, resnet_learner
from mnist_scratch.training import evaluate

FILE = Path(__file__).parent / "results" / "resnets.json"
N_SEEDS = 3


class Shifts(Callback):
    "Moves each image by its own random pixels, up to two in each direction, while the net learns."
    def before_batch(self):
        if self.training:
            self.learn.xb = (RandomShift(2)(self.x[:, 0])[:, None],)


def with_shifts(learner: Learner):
    learner.add_cb(Shifts())


def without_pool(learner: Learner):
    body = learner.model[0]
    assert body[0].stride == (2, 2) and isinstance(body[3], nn.MaxPool2d)
    body[3] = nn.Identity()  # the first convolution strides, and nothing is halved right after it


WAYS = {"as it is": lambda learner: None, "with shifts of two pixels": with_shifts,
        "without the first max pool": without_pool}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), metavar="NAME")
    arguments, mnist = parser.parse_args(), load_mnist()
    done = {(one["model"], one["seed"]) for one in saved(FILE)}
    for name, seed in ((name, seed) for name in arguments.only for seed in range(N_SEEDS)):
        if (name, seed) in done:
            continue
        learner = resnet_learner(mnist, seed=seed)
        WAYS[name](learner)
        start = time.perf_counter()
        with learner.no_bar(), learner.no_logging():
            learner.fit_one_cycle(4, 0.01)
        seconds = time.perf_counter() - start
        accuracy = evaluate(ResNet(learner), mnist.valid).accuracy
        save(FILE, [{"model": name, "seed": seed, "accuracy": accuracy, "seconds": round(seconds, 1),
                     "data": mnist.name, "machine": machine(mnist.train.images.device)}], "seed", list(WAYS))
        print(f"{name}, seed {seed}: {accuracy:.4f} in {seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
