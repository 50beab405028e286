"""The post's way and ours side by side: same process, one after the other in turn, medians and ratios.

    python benchmarks/bench.py               everything, with results/bench.json and results/bench.md
    python benchmarks/bench.py linear        one stage, nothing written

Our ways are checked to give what the post's gives, but for the epochs, which start from weights of their own. Seconds
of the ResNet are those of an epoch, calculated from a few of its batches. The stage `busy` trains the two-layer net
beside a program that keeps one core busy; the last ones compare PyTorch's autograd with that of notebook 09."""
import argparse
import contextlib
import functools
import io
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import post
import torch
from machine import machine
from own import OwnConvNet, OwnLayers
from record import FormerNet

from mnist_scratch.baseline import mse_distance, pixel_means
from mnist_scratch.data import Digits, load_mnist
from mnist_scratch.files import mnist_path
from mnist_scratch.linear import LinearModel, linear_from_means
from mnist_scratch.losses import cross_entropy
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.resnet import resnet_learner
from mnist_scratch.training import fit

RESULTS = Path(__file__).resolve().parent/"results"
Ways = dict[str, Callable[[], object]]  # what each way is called, and a function that does the stage once in that way


def quietly(function: Callable, *arguments, **options):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments, **options)


def loading() -> tuple[Ways, Callable]:
    folder = quietly(mnist_path, "full")
    again = functools.partial(quietly, load_mnist, folder, "cpu")
    again()  # fills the cache

    def first_time():
        with tempfile.TemporaryDirectory() as empty, mock.patch.dict(os.environ, MNIST_SCRATCH_CACHE=empty):
            return again()

    def check(results):
        pictures = torch.cat(results["post"]["testing"])
        assert all(results[way].test.images.equal(pictures) for way in ("ours, first time", "ours, from the cache"))
    return {"post": lambda: post.load(folder), "ours, first time": first_time, "ours, from the cache": again}, check


def nearest_mean() -> tuple[Ways, Callable]:
    mnist = quietly(load_mnist, "full", "cpu")
    images, means = mnist.test.images, pixel_means(mnist.train.images, mnist.train.labels)
    by_digit = [images[mnist.test.labels == digit] for digit in range(10)]
    model = linear_from_means(means)

    def check(results):
        order = torch.cat([(mnist.test.labels == digit).nonzero().flatten() for digit in range(10)])
        theirs = torch.cat(results["post"])
        assert all((theirs == results[way][order]).float().mean() > 0.9999 for way in list(results)[1:])
    ways = {"post": lambda: post.nearest_mean(by_digit, list(means)),
            "ours, as 02 teaches it": lambda: mse_distance(images, means).argmin(1),
            "ours, the matrix product of 03": lambda: model(images).argmax(1)}
    return ways, check


def _epochs(build: Callable, post_model: Callable) -> tuple[Ways, Callable]:
    digits = post.everything(quietly(load_mnist, "full", "cpu"))
    few, loader = Digits(*digits[:100]), post.pairs_loader(*digits[:])

    def ours(loss):
        model = build()
        fit(model, digits, few, loss=loss, epochs=1, lr=0.5)
        return [parameter.detach() for parameter in model.parameters()]

    def check(results):
        both = zip(*list(results.values())[1:], strict=True)
        assert all(torch.allclose(a, b, atol=1e-3) for a, b in both), "either cross-entropy teaches the same"
    return {"post": lambda: post.epoch(loader, *post_model()), "ours": lambda: ours(cross_entropy),
            "ours, with PyTorch's cross-entropy": lambda: ours(torch.nn.functional.cross_entropy)}, check


def resnet() -> tuple[Ways, Callable]:
    from fastai.callback.core import Callback, CancelFitException
    folder, mnist = quietly(mnist_path, "full"), quietly(load_mnist, "full", "cpu")

    class FewBatches(Callback):
        "Stop the training after some batches; two of them warm up."
        def __init__(self, n: int):
            self.n, self.ends = n + 2, []

        def after_batch(self):
            self.ends.append(time.perf_counter())
            if len(self.ends) == self.n:
                raise CancelFitException

    def seconds_an_epoch(learner, batch_size: int, n: int) -> float:
        few = FewBatches(n)
        with learner.no_bar(), learner.no_logging():
            quietly(learner.fit_one_cycle, 1, 0.01, cbs=few)
        return (few.ends[-1] - few.ends[1])/n*math.ceil(60_000/batch_size)
    return {"post": lambda: seconds_an_epoch(post.resnet_learner(folder), 64, 12),
            "ours": lambda: seconds_an_epoch(resnet_learner(mnist), 256, 4)}, lambda results: None


def own_autograd(build: Callable, own: Callable) -> tuple[Ways, Callable]:
    "An epoch of 10,000 images on one thread, gradients by PyTorch and by notebook 09."
    mnist = quietly(load_mnist, "full", "cpu")
    few = Digits(*mnist.train[:100])

    def seconds(wrap: Callable) -> float:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return fit(wrap(build()), mnist.valid, few, loss=cross_entropy, epochs=1, lr=0.1).seconds
        finally:
            torch.set_num_threads(threads)
    ways = {"PyTorch's autograd": lambda: seconds(lambda model: model), "that of 09": lambda: seconds(own)}
    return ways, lambda results: None


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        yield
    finally:
        program.kill()
        program.wait()


def beside_a_busy_program() -> tuple[Ways, Callable]:
    mnist = quietly(load_mnist, "sample", "cpu")

    def twenty_epochs():
        fit(TwoLayerNet(), mnist.train, mnist.valid, loss=cross_entropy, epochs=20, lr=1.0)

    def beside() -> float:
        with busy_core():
            start = time.perf_counter()
            twenty_epochs()
            return time.perf_counter() - start
    return {"alone": twenty_epochs, "beside it": beside}, lambda results: None


STAGES = {
    "loading": loading, "nearest_mean": nearest_mean,
    "linear": lambda: _epochs(LinearModel.random, post.linear_model),
    "two_layer": lambda: _epochs(TwoLayerNet, post.two_layer_model),
    "resnet": resnet, "busy": beside_a_busy_program,
    "autograd, linear": lambda: own_autograd(LinearModel.random, OwnLayers),
    "autograd, two-layer": lambda: own_autograd(TwoLayerNet, OwnLayers),
    "autograd, convolutional": lambda: own_autograd(lambda: FormerNet(0, torch.device("cpu")), OwnConvNet),
}
REPEATS = {"loading": 3, "resnet": 3, "busy": 9}  # others 7


def measured(stage: str) -> list[dict]:
    "Each way in turn, some times over; rows with the median seconds and how many times as fast as the first way it is."
    ways, check = STAGES[stage]()
    times, results = {name: [] for name in ways}, {}
    for _ in range(REPEATS.get(stage, 7)):
        for name, way in ways.items():
            start = time.perf_counter()
            results[name] = way()
            seconds = time.perf_counter() - start
            times[name].append(results[name] if isinstance(results[name], float) else seconds)
    check(results)
    medians = {name: statistics.median(values) for name, values in times.items()}
    first = next(iter(medians.values()))
    return [{"stage": stage, "way": name, "seconds": seconds, "times_faster": first/seconds,
             "fastest": min(times[name]), "slowest": max(times[name])} for name, seconds in medians.items()]


def as_markdown(runs: list[dict]) -> str:
    lines = ["# The post's way and ours", "", "Medians; in brackets fastest and slowest. Seconds of the ResNet "
             "are those of an epoch, calculated from 12 batches of 64 images or 4 of 256. The stage `busy` is twenty "
             "epochs of the two-layer net on the sample, alone and beside a program that keeps one core busy. Those of "
             "autograd are an epoch of 10,000 images on one thread."]
    for run in runs:
        lines += ["", f"## {run['machine']}", "", "| stage | way | seconds | times as fast as the first |",
                  "| --- | --- | ---: | ---: |"]
        lines += [f"| {row['stage']} | {row['way']} | {row['seconds']:.3g} ({row['fastest']:.3g} to "
                  f"{row['slowest']:.3g}) | {row['times_faster']:.2g} |" for row in run["rows"]]
    return "\n".join([*lines, ""])


def save(run: dict):
    "Into results/, beside the last run on every other machine."
    file = RESULTS/"bench.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    runs = [*(one for one in before if one["machine"] != run["machine"]), run]
    file.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    (RESULTS/"bench.md").write_text(as_markdown(runs), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"default: all of {', '.join(STAGES)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(STAGES):
        parser.error(f"there is no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    rows = []
    for stage in arguments.stages or STAGES:
        for row in measured(stage):
            rows.append(row)
            print(f"{stage:26}{row['way']:36}{row['seconds']:10.4g} s {row['times_faster']:8.2g} x", flush=True)
    if not arguments.stages:
        about = f"{machine()}, Python {platform.python_version()}; MNIST, 60,000 training and 10,000 test images"
        save({"machine": about, "rows": rows})


if __name__ == "__main__":
    main()
