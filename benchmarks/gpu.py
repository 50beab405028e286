"""On a CUDA GPU: that our results agree with the CPU in float64, and times beside the post's way.

    python benchmarks/gpu.py

Everything is checked before anything is timed, and a result that differs by more than rounding excuses ends the script
with an error. Results go to results/cuda.json. Without a GPU it says so, exits with 2 and writes nothing. (The file is
not called cuda.py: PyTorch imports a package of that name and would find the file instead.)"""
import argparse
import copy
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import post
import torch
from machine import machine
from torch import Tensor

from mnist_scratch.convnet import train as train_recipe
from mnist_scratch.data import MNIST, Digits, load_mnist
from mnist_scratch.files import mnist_path
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy, sigmoid_mse, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.resnet import ResNet, resnet_learner
from mnist_scratch.training import fit, minibatches

FILE = Path(__file__).resolve().parent/"results"/"cuda.json"
SMALL = {"linear": (LinearModel.random, 0.1, post.linear_model), "two layers": (TwoLayerNet, 1.0, post.two_layer_model)}
Checks = dict[str, tuple[float, float]]  # name -> error, and the largest that rounding excuses


def seconds(work: Callable, device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


@torch.no_grad()
def error(ours: Tensor, reference: Tensor) -> float:
    "Largest difference, as a part of the largest number of the reference."
    return ((ours.cpu() - reference).abs().max()/reference.abs().max()).item()


def check_losses(device: torch.device) -> Checks:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, 10, generator=generator, dtype=torch.float64)*5
    labels = torch.randint(10, (1000,), generator=generator)
    return {loss.__name__: (error(loss(logits.float().to(device), labels.to(device)), loss(logits, labels)), 1e-5)
            for loss in (sigmoid_mse, softmax_mse, cross_entropy)}


def check_small(mnist: MNIST) -> Checks:
    "The loss of an epoch of `fit`, and the parameters after it, against plain steps in float64 on the CPU."
    checks, train = {}, mnist.train.to("cpu")
    for name, (make, lr, _) in SMALL.items():
        model = make(device=mnist.train.images.device)
        reference, total = copy.deepcopy(model), 0.0
        for parameter in reference.parameters():
            parameter.data = parameter.data.cpu().double()
        history = fit(model, mnist.train, mnist.valid, loss=cross_entropy, epochs=1, lr=lr)
        for batch in minibatches(len(train), 256, torch.Generator().manual_seed(0)):  # those of `fit` with seed 0
            loss = cross_entropy(reference(train.images[batch].double()), train.labels[batch])
            gradients = torch.autograd.grad(loss, reference.parameters())
            with torch.no_grad():
                for parameter, gradient in zip(reference.parameters(), gradients, strict=True):
                    parameter -= lr*gradient
            total += loss.item()*len(batch)
        checks[f"{name}: loss of an epoch"] = abs(history.train_loss[0]*len(train)/total - 1), 1e-4
        checks[f"{name}: parameters after it"] = max(
            error(ours, its) for ours, its in zip(model.parameters(), reference.parameters(), strict=True)), 1e-3
    return checks


def waits(work: Callable) -> int:
    "How often `work` waits for the GPU."
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in seen)


def check_waits(mnist: MNIST) -> Checks:
    "How much more often `fit` waits for the GPU in an epoch of many batches than in one of two."
    def epoch(train: Digits, make: Callable, lr: float) -> int:
        model = make(device=train.labels.device)
        return waits(lambda: fit(model, train, mnist.valid, loss=cross_entropy, epochs=1, lr=lr))
    return {f"{name}: waits within an epoch": (
        abs(epoch(mnist.train, make, lr) - epoch(Digits(*mnist.train[:512]), make, lr)), 0)
        for name, (make, lr, _) in SMALL.items()}


def check_trained(learner, digits: Digits) -> Checks:
    "The logits of a trained ResNet. Convolutions round to TF32."
    model = ResNet(learner)
    with torch.no_grad():
        exact = copy.deepcopy(model.network).cpu().double()(digits.images[:, None].cpu().double())
        return {"ResNet18: logits after training": (error(model(digits.images), exact), 0.02)}


def time_loading(folder: Path, device: torch.device) -> dict[str, dict]:
    "The post has no cache: what it takes is the same every time."
    def theirs():
        return [images.to(device) for split in post.load(folder).values() for images in split]
    with TemporaryDirectory() as cache, mock.patch.dict(os.environ, MNIST_SCRATCH_CACHE=cache), redirect_stdout(None):
        first, again = (seconds(lambda: load_mnist(folder, device), device) for _ in range(2))
    post_seconds = seconds(theirs, device)
    return {"load the PNGs": {"ours": first, "post": post_seconds}, "load again": {"ours": again, "post": post_seconds}}


def time_small(mnist: MNIST) -> dict[str, dict]:
    "Median of five epochs of ours, three of the post's; a first one warms up."
    device, result = mnist.train.images.device, {}
    loader = post.pairs_loader(*mnist.train[:])
    for name, (make, lr, post_model) in SMALL.items():
        ours = [fit(make(device=device), mnist.train, mnist.valid, loss=cross_entropy, epochs=1, lr=lr).seconds
                for _ in range(6)]
        parameters, model = post_model(device)
        theirs = [seconds(lambda: post.epoch(loader, parameters, model), device) for _ in range(4)]  # noqa: B023
        result[f"{name}, one epoch"] = {"ours": statistics.median(ours[1:]), "post": statistics.median(theirs[1:])}
    return result


def time_recipes(mnist: MNIST, n: int = 5) -> dict[str, dict]:
    train_recipe(mnist, "fast")  # warms up
    return {f"recipe {name}": {"ours": statistics.median(
        train_recipe(mnist, name, seed).history.seconds for seed in range(n))} for name in ("fast", "balanced")}


def time_resnet(mnist: MNIST, folder: Path, epochs: int = 4) -> tuple[dict[str, dict], object]:
    "One run each, with its own learning rate."
    learner, theirs = resnet_learner(mnist), post.resnet_learner(folder)
    taken = []
    for one, lr in ((learner, 0.01), (theirs, 0.1)):
        with one.no_bar(), one.no_logging():
            taken.append(seconds(lambda: one.fit_one_cycle(epochs, lr), mnist.train.images.device))  # noqa: B023
    return {f"ResNet18, {epochs} epochs": {"ours": taken[0], "post": taken[1]}}, learner


def report(checks: Checks, times: dict[str, dict]) -> str:
    lines = [f"{'against float64 on the CPU':40}{'error':>12}{'allowed':>12}"]
    lines += [f"{name:40}{found:12.1e}{allowed:12.0e}{'' if found <= allowed else '  WRONG'}"
              for name, (found, allowed) in checks.items()]
    lines += ["", f"{'seconds':40}{'ours':>12}{'the post':>12}"]
    lines += [f"{name:40}{row['ours']:12.4g}" + (f"{row['post']:12.4g}" if "post" in row else "")
              for name, row in times.items()]
    return "\n".join(lines)


def main(source: str | None):
    device, folder = torch.device("cuda", torch.cuda.current_device()), mnist_path(source)
    mnist = load_mnist(folder, device)
    checks = {**check_losses(device), **check_small(mnist), **check_waits(mnist)}
    resnet_times, learner = time_resnet(mnist, folder)
    checks |= check_trained(learner, Digits(*mnist.valid[:1000]))
    times = {**time_loading(folder, device), **time_small(mnist), **time_recipes(mnist), **resnet_times}
    print(report(checks, times))
    facts = {"machine": machine(device), "cuda": torch.version.cuda, "data": mnist.name, "checks": checks,
             "seconds": times}
    FILE.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if any(found > allowed for found, allowed in checks.values()):
        sys.exit("At least one result differs from the CPU's by more than rounding.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="auto, full, sample or a data folder")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("Nothing was measured: PyTorch finds no CUDA GPU on this machine.", file=sys.stderr)
        sys.exit(2)
    main(options.data)
