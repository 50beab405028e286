"""How good the models are, on images by which no choice was made: five folds of the 50,000 training images.

One net a fold: it learns from the other four folds and the validation images, 50,000 in all, and is measured once on
the fold that it did not see. The seed is the number of the fold. Beside it stands the accuracy on the official test
images, which were looked at while recipes were still changing. Results go to benchmarks/results/folds.json after each
run, and runs that are there already are skipped: stop it when you like, call it again, and it goes on.

    python benchmarks/folds.py                       everything
    python benchmarks/folds.py --only fast public    some of it, by name
    python benchmarks/folds.py --again               run also what is saved already, and replace it"""
import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from machine import machine
from record import RecordNet, train_record
from runs import save, saved

from mnist_scratch.baseline import NearestMean
from mnist_scratch.convnet import nine_looks, train
from mnist_scratch.data import MNIST, Digits, load_mnist
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import evaluate, fit

FILE = Path(__file__).parent / "results" / "folds.json"
N_FOLDS = 5


def fold(mnist: MNIST, number: int) -> MNIST:
    "What a net of this fold learns from, what it is measured on, and the test images."
    order = torch.randperm(len(mnist.train), generator=torch.Generator().manual_seed(0))
    parts = list(order.to(mnist.train.labels.device).tensor_split(N_FOLDS))
    held_out, others = parts.pop(number), torch.cat(parts)
    images, labels = (torch.cat([own[others], more]) for own, more in zip(
        (mnist.train.images, mnist.train.labels), (mnist.valid.images, mnist.valid.labels)))
    return MNIST(Digits(images, labels), Digits(*mnist.train[held_out]), mnist.test, mnist.name)


def nearest_mean(mnist: MNIST, seed: int) -> tuple[object, float]:
    start = time.perf_counter()
    return NearestMean.from_digits(mnist.train), time.perf_counter() - start


def fitted(build: Callable, mnist: MNIST, seed: int, **settings) -> tuple[object, float]:
    model = build(seed=seed, device=mnist.train.images.device)
    return model, fit(model, mnist.train, mnist.valid, seed=seed, **settings).seconds


def record(mnist: MNIST, seed: int) -> tuple[object, float]:
    model = RecordNet(seed, mnist.train.images.device)
    return model, train_record(model, mnist, seed).seconds


def recipe(name: str, mnist: MNIST, seed: int) -> tuple[object, float]:
    net = train(mnist, name, seed)
    return net, net.history.seconds


def resnet(mnist: MNIST, seed: int) -> tuple[object, float]:
    from mnist_scratch.resnet import ResNet, resnet_learner
    learner, start = resnet_learner(mnist, seed=seed), time.perf_counter()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(4, 0.01)
    return ResNet(learner), time.perf_counter() - start


MODELS = {
    "nearest mean": nearest_mean,
    "linear": partial(fitted, LinearModel.random, loss=softmax_mse, epochs=40, lr=10.0),
    "two-layer net": partial(fitted, TwoLayerNet, loss=cross_entropy, epochs=40, lr=1.0),
    "public record": record,
    "convolutional net, fast": partial(recipe, "fast"),
    "convolutional net, balanced": partial(recipe, "balanced"),
    "convolutional net, accurate": partial(recipe, "accurate"),
    "ResNet18": resnet,
}
LOOKS_NINE_TIMES = "convolutional net, accurate"  # whose answers are also averaged over nine moves, in a row of its own
ORDER = [way for name in MODELS for way in (name, f"{name}, nine looks")]


def run(name: str, number: int, mnist: MNIST) -> list[dict]:
    part = fold(mnist, number)
    model, seconds = MODELS[name](part, number)
    ways = {name: model}
    if name == LOOKS_NINE_TIMES:
        ways[f"{name}, nine looks"] = lambda images: nine_looks(model, images)
    return [{"model": way, "fold": number, "accuracy": evaluate(answer, part.valid).accuracy,
             "test_accuracy": evaluate(answer, mnist.test).accuracy, "seconds": round(seconds, 3),
             "parameters": sum(parameter.numel() for parameter in model.parameters()), "data": mnist.name,
             "machine": machine(mnist.train.images.device)} for way, answer in ways.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--again", action="store_true", help="run also what is saved already, and replace it")
    arguments, mnist = parser.parse_args(), load_mnist()
    done = set() if arguments.again else {(one["model"], one["fold"]) for one in saved(FILE)}
    for name in arguments.only:
        for number in range(N_FOLDS):
            if (name, number) not in done:
                results = run(name, number, mnist)
                save(FILE, results, "fold", ORDER)
                first = results[0]
                print(f"{name}, fold {number}: {first['accuracy']:.4f} in {first['seconds']:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
