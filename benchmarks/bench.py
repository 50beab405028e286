"""The post's way and ours side by side: same process, one after the other in turn, medians, ratios, memory.

    python benchmarks/bench.py               everything, with results/bench.json and results/bench.md
    python benchmarks/bench.py linear        one stage, nothing written

Our faster ways are checked to give what the one before it gives; the post starts an epoch with weights of its own. Not
the ResNet's, of which only some batches are run; tests/test_resnet.py shows that its last change gives the same. Rows
that begin with "of it" are parts of our way, alone: they say where the time goes. Memory is what a fresh process needs
at most beyond the inputs when it does the stage once in that way; what the workers of the post's loaders need is not in
it."""
import argparse
import contextlib
import functools
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
from machine import machine, megabytes_on_top

from mnist_scratch.baseline import mse_distance, pixel_means
from mnist_scratch.cache import stamp_of
from mnist_scratch.data import Digits, load_mnist
from mnist_scratch.files import mnist_path
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import SGD, fit, minibatches

RESULTS = Path(__file__).resolve().parent/"results"
Ways = dict[str, Callable[[], object]]  # what each way is called, and a function that does the stage once in that way
PART = "of it: "  # begins the name of a part of our way
GOALS = {("loading", "ours, first time"): 2, ("loading", "ours, from the cache"): 40,
         ("nearest_mean", "ours, a matrix product"): 5, ("linear", "with PyTorch's cross-entropy"): 3,
         ("two_layer", "with PyTorch's cross-entropy"): 1.8, ("resnet", "+ no weights on the frame"): 2.5}


def quietly(function: Callable, *arguments, **options):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments, **options)


def loading() -> tuple[Ways, Callable]:
    folder = quietly(mnist_path, "full")
    cached = functools.partial(quietly, load_mnist, folder, "cpu")
    subprocess.run([sys.executable, "-c", f"from mnist_scratch.data import load_mnist; load_mnist({str(folder)!r})"],
                   stdout=subprocess.DEVNULL, check=True)  # fills the user's cache, in other memory

    def first_time():
        with tempfile.TemporaryDirectory() as empty, mock.patch.dict(os.environ, MNIST_SCRATCH_CACHE=empty):
            return quietly(load_mnist, folder, "cpu")

    def check(results):
        pictures = torch.cat(results["post"]["testing"])
        assert all(results[way].test.images.equal(pictures) for way in ("ours, first time", "ours, from the cache"))
    ways = {"post": lambda: post.load(folder), "ours, first time": first_time,
            "ours, from the cache": cached, PART + "has any of the 70,000 files changed?": lambda: stamp_of(folder)}
    return ways, check


def nearest_mean() -> tuple[Ways, Callable]:
    mnist = quietly(load_mnist, "full", "cpu")
    images, means = mnist.test.images, pixel_means(mnist.train.images, mnist.train.labels)
    by_digit = [images[mnist.test.labels == digit] for digit in range(10)]

    def check(results):
        answers = {name: torch.cat(result) if isinstance(result, list) else result for name, result in results.items()
                   if not name.startswith(PART)}
        order = torch.cat([(mnist.test.labels == digit).nonzero().flatten() for digit in range(10)])
        assert all((answers["post"] == answers[way][order]).float().mean() > 0.9999 for way in list(answers)[1:])
    ways = {"post": lambda: post.nearest_mean(by_digit, list(means)),
            "one broadcast (n, k, h, w)": lambda: (images[:, None] - means).square().mean((-1, -2)).argmin(1),
            "ours, a matrix product": lambda: mse_distance(images, means).argmin(1),
            PART + "the matrix product": lambda: images.flatten(1) @ means.flatten(1).T}
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
        first, *others = [result for way, result in results.items() if way != "post" and not way.startswith(PART)]
        for other in others:
            assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(first, other)), "a faster way learns the same"
    ways = {"post": lambda: post.epoch(loader, *post_model()),
            "batches from one tensor": lambda: ours(rows_together(build()), post.cross_entropy, torch.optim.SGD),
            "+ columns in one piece": lambda: ours(build(), post.cross_entropy, torch.optim.SGD),
            "+ plain step": lambda: ours(build(), post.cross_entropy, SGD),
            "ours, with our cross-entropy": lambda: ours(build(), cross_entropy, SGD),
            "with PyTorch's cross-entropy": lambda: ours(build(), torch.nn.functional.cross_entropy, SGD),
            PART + "gathering the batches": lambda: gathered(digits),
            PART + "the matrix products": lambda: products(digits, [p for p in build().parameters() if p.ndim == 2])}
    return ways, check


def gathered(digits: Digits):
    "Every batch of an epoch, taken out of the images, and nothing else."
    for batch in minibatches(len(digits), 256, torch.Generator().manual_seed(0)):
        digits.images.index_select(0, batch)
        digits.labels.index_select(0, batch)


@torch.no_grad()
def products(digits: Digits, weights: list[torch.Tensor]):
    "The matrix products of an epoch as autograd does them: forward, gradients of weights, and of what lies between."
    for batch in digits.images.flatten(1).split(256):
        inputs = [batch]
        for weight in weights:
            inputs.append(inputs[-1] @ weight)
        gradient = inputs.pop()  # any numbers of the right shape
        for weight, given in zip(reversed(weights), reversed(inputs)):
            gradient.T @ given  # transposed, it has its columns in one piece, as the weights have
            if given is not batch:
                gradient = gradient @ weight.T


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


def memory_of(stage: str, way: str) -> float:
    "Megabytes that a fresh process needs at most, beyond what it holds once the stage is prepared."
    done = subprocess.run([sys.executable, __file__, stage, "--once", way], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def once(stage: str, way: str):
    print(megabytes_on_top(STAGES[stage][0]()[0][way]))


def as_markdown(runs: list[dict]) -> str:
    "A table for each machine."
    lines = ["# The post's way and ours", "",
             "Seconds of the ResNet are those of an epoch, calculated from 12 batches of 64 images or 4 of 256."]
    for run in runs:
        lines += ["", f"## {run['machine']}", "",
                  "| stage | way | median seconds | times as fast as the post | goal | memory on top, MB |",
                  "| --- | --- | ---: | ---: | ---: | ---: |"]
        for row in run["rows"]:
            is_part, goal = row["way"].startswith(PART), GOALS.get((row["stage"], row["way"]), "")
            times = "" if is_part else f"{row['times_faster']:.2g}"
            memory = f"{row['megabytes_on_top']:,.0f}" if "megabytes_on_top" in row else ""
            lines.append(f"| {row['stage']} | {row['way']} | {row['seconds']:.3g} | {times} | {goal} | {memory} |")
    return "\n".join([*lines, ""])


def save(run: dict):
    "Into results/, beside the last run on every other machine."
    file = RESULTS/"bench.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    runs = [*(one for one in before if one["machine"] != run["machine"]), run]
    RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    (RESULTS/"bench.md").write_text(as_markdown(runs), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"default: all of {', '.join(STAGES)}")
    parser.add_argument("--once", metavar="WAY", help="do one stage once and print the memory it took")
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(STAGES):
        parser.error(f"there is no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    if arguments.once and len(arguments.stages) != 1:
        parser.error("--once needs one stage")
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
        if not row["way"].startswith(PART):
            row["megabytes_on_top"] = memory_of(row["stage"], row["way"])
    about = f"{machine()}, Python {platform.python_version()}; MNIST, 60,000 training and 10,000 test images"
    save({"machine": about, "rows": rows})
    print(as_markdown([{"machine": about, "rows": rows}]))


if __name__ == "__main__":
    main()
