"""The post's way and ours side by side: same process, one after the other in turn, medians, ratios, peak memory.

    python benchmarks/bench.py               everything, with results/bench.json and results/bench.md
    python benchmarks/bench.py linear        one stage, nothing written

Every faster way is checked to give what the one before it gives. Not the ResNet's, of which only some batches are run;
tests/test_resnet.py shows that its last change gives the same. Memory is the peak of a fresh process that does the
stage once in that way, the imports and the inputs included."""
import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import post
import torch
from machine import machine, peak_megabytes

from mnist_scratch.baseline import mse_distance, pixel_means
from mnist_scratch.data import Digits, load_mnist
from mnist_scratch.files import mnist_path
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import SGD, fit

RESULTS = Path(__file__).resolve().parent/"results"
Ways = dict[str, Callable[[], object]]  # what each way is called, and a function that does the stage once in that way


def quietly(function: Callable, *arguments, **options):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments, **options)


def loading() -> tuple[Ways, Callable]:
    folder = quietly(mnist_path, "full")
    quietly(load_mnist, folder, "cpu")  # fills the user's cache

    def first_time():
        with tempfile.TemporaryDirectory() as empty, mock.patch.dict(os.environ, MNIST_SCRATCH_CACHE=empty):
            return quietly(load_mnist, folder, "cpu")

    def check(results):
        pictures = torch.cat(results["post"]["testing"])
        assert all(results[way].test.images.equal(pictures) for way in ("ours, first time", "ours, from the cache"))
    ways = {"post": lambda: post.load(folder), "ours, first time": first_time,
            "ours, from the cache": lambda: quietly(load_mnist, folder, "cpu")}
    return ways, check


def nearest_mean() -> tuple[Ways, Callable]:
    mnist = quietly(load_mnist, "full", "cpu")
    images, means = mnist.test.images, pixel_means(mnist.train.images, mnist.train.labels)
    by_digit = [images[mnist.test.labels == digit] for digit in range(10)]

    def check(results):
        answers = {name: torch.cat(result) if isinstance(result, list) else result for name, result in results.items()}
        order = torch.cat([(mnist.test.labels == digit).nonzero().flatten() for digit in range(10)])
        assert all((answers["post"] == answers[way][order]).float().mean() > 0.9999 for way in list(answers)[1:])
    ways = {"post": lambda: post.nearest_mean(by_digit, list(means)),
            "one broadcast (n, k, h, w)": lambda: (images[:, None] - means).square().mean((-1, -2)).argmin(1),
            "ours, a matrix product": lambda: mse_distance(images, means).argmin(1)}
    return ways, check


def rows_together(model):
    "The same numbers in the other order in memory, that of a plain torch.randn."
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    return model


def _epochs(build: Callable, post_model: Callable) -> tuple[Ways, Callable]:
    digits = post.everything(quietly(load_mnist, "full", "cpu"))
    few, loader = Digits(*digits[:100]), post.pairs_loader(*digits[:])

    def ours(model, loss, optimizer):
        fit(model, digits, few, loss=loss, epochs=1, lr=0.5, optimizer=optimizer)
        return [parameter.detach() for parameter in model.parameters()]

    def check(results):
        first, *others = list(results.values())[1:]
        for other in others:
            assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(first, other)), "a faster way learns the same"
    ways = {"post": lambda: post.epoch(loader, *post_model()),
            "batches from one tensor": lambda: ours(rows_together(build()), post.cross_entropy, torch.optim.SGD),
            "+ columns in one piece": lambda: ours(build(), post.cross_entropy, torch.optim.SGD),
            "+ plain step": lambda: ours(build(), post.cross_entropy, SGD),
            "ours, with our cross-entropy": lambda: ours(build(), cross_entropy, SGD),
            "with PyTorch's cross-entropy": lambda: ours(build(), torch.nn.functional.cross_entropy, SGD)}
    return ways, check


def linear() -> tuple[Ways, Callable]:
    return _epochs(LinearModel.random, post.linear_model)


def two_layer() -> tuple[Ways, Callable]:
    return _epochs(TwoLayerNet, post.two_layer_model)


def resnet() -> tuple[Ways, Callable]:
    "Seconds an epoch of 60,000 images, from a few batches of fastai's own loop."
    import resnet_steps
    return resnet_steps.ways(), lambda results: None


STAGES = {  # and how many repetitions
    "loading": (loading, 3), "nearest_mean": (nearest_mean, 15), "linear": (linear, 9), "two_layer": (two_layer, 9),
    "resnet": (resnet, 3),
}


def measured(name: str) -> list[dict]:
    "Medians of one stage, in the order of its ways."
    prepare, repetitions = STAGES[name]
    ways, check = prepare()
    seconds = {way: [] for way in ways}
    for _ in range(repetitions):
        results = {}
        for way, run in ways.items():
            start = time.perf_counter()
            results[way] = run()
            taken = results[way] if isinstance(results[way], float) else time.perf_counter() - start
            seconds[way].append(taken)
        check(results)
        results.clear()
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    return [{"stage": name, "way": way, "seconds": median, "times_faster": medians["post"]/median,
             "quartiles": statistics.quantiles(seconds[way], n=4), "repetitions": repetitions}
            for way, median in medians.items()]


def peak_of(stage: str, way: str) -> float:
    "Megabytes that a fresh process needs at most to prepare the stage and do it once."
    done = subprocess.run([sys.executable, __file__, stage, "--once", way], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def once(stage: str, way: str):
    STAGES[stage][0]()[0][way]()
    print(peak_megabytes())


def as_markdown(rows: list[dict], about: str) -> str:
    lines = ["| stage | way | median seconds | times as fast as the post | peak memory, MB |",
             "| --- | --- | ---: | ---: | ---: |"]
    for row in rows:
        memory = f"{row['peak_megabytes']:,.0f}" if "peak_megabytes" in row else ""
        lines.append(f"| {row['stage']} | {row['way']} | {row['seconds']:.3g} | {row['times_faster']:.2g} | {memory} |")
    return "\n".join([*lines, "", f"{about}.", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"default: all of {', '.join(STAGES)}")
    parser.add_argument("--once", metavar="WAY", help="do one stage once and print the peak memory of this process")
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(STAGES):
        parser.error(f"there is no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    if arguments.once:
        return once(arguments.stages[0], arguments.once)
    rows = []
    for stage in arguments.stages or STAGES:
        rows += measured(stage)
        for row in (row for row in rows if row["stage"] == stage):
            print(f"{stage:14}{row['way']:32}{row['seconds']:10.4g} s {row['times_faster']:8.2g} x", flush=True)
    if arguments.stages:
        return None
    for row in rows:
        row["peak_megabytes"] = peak_of(row["stage"], row["way"])
    RESULTS.mkdir(exist_ok=True)
    about = f"{machine()}, Python {platform.python_version()}; MNIST, 60,000 training and 10,000 test images"
    (RESULTS/"bench.json").write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    (RESULTS/"bench.md").write_text(as_markdown(rows, about), encoding="utf-8")
    print(as_markdown(rows, about))


if __name__ == "__main__":
    main()
