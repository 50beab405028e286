"""On a CUDA GPU: the same results as on the CPU in float64, and times beside the post's way on the same GPU.

    python benchmarks/gpu.py

Writes results/cuda.json. All images lie on the GPU. A time begins and ends with a wait for the GPU and covers whole
epochs. The file is not called cuda.py: PyTorch imports a package of that name and would find the file instead."""
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

import torch
from machine import machine
from torch import Tensor, nn

from mnist_scratch.convnet import train as train_recipe
from mnist_scratch.data import MNIST, Digits, load_mnist
from mnist_scratch.files import mnist_path
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy, sigmoid_mse, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.resnet import ResNet, resnet_learner
from mnist_scratch.training import fit, minibatches

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)  # from inside fastai
    from fastai.vision.all import Callback, Learner

FILE = Path(__file__).resolve().parent/"results"/"cuda.json"
SMALL = {"linear": (LinearModel.random, 0.1), "two layers": (TwoLayerNet, 1.0)}  # model and learning rate
TARGET = 0.99  # accuracy of the ResNet
COMPILE = {"mode": "reduce-overhead", "dynamic": False}  # CUDA graphs, one for each size of a batch


class Compiled:
    "A model whose answers `torch.compile` calculates; trained by the same `fit`, and it changes the same parameters."

    def __init__(self, model):
        self.parameters, self.answer = model.parameters, torch.compile(lambda images: model(images), **COMPILE)

    def __call__(self, images: Tensor) -> Tensor:
        answer = self.answer(images)
        return answer if torch.is_grad_enabled() else answer.clone()  # the next answer takes the same place in memory


def compiled(model) -> tuple[Compiled, Callable]:
    "A model and the loss to train it with, both compiled; an error, not slow code, where that has to be given up."
    torch.compiler.reset()  # the number of times that one piece of code may be compiled again is limited
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return Compiled(model), torch.compile(cross_entropy, **COMPILE)


def farthest(ours, reference) -> float:
    "Largest error among all parameters of two models."
    return max(error(mine, its.cpu()) for mine, its in zip(ours.parameters(), reference.parameters(), strict=True))


def wait(device: torch.device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable, device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


# Correctness: each check returns an error and the largest that float32 excuses.

@torch.no_grad()
def error(ours: Tensor, reference: Tensor) -> float:
    "Largest difference, as a part of the largest number of the reference."
    return ((ours.cpu() - reference).abs().max()/reference.abs().max()).item()


def in_float64(model):
    "A copy on the CPU."
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.cpu().double()
    return model


def descend(model, images: Tensor, labels: Tensor, lr: float) -> Tensor:
    "One step of plain gradient descent; returns the loss before it."
    loss = cross_entropy(model(images), labels)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= lr*parameter.grad
            parameter.grad = None
    return loss.detach()


def check_losses(device: torch.device) -> dict[str, tuple[float, float]]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, 10, generator=generator, dtype=torch.float64)*5
    labels = torch.randint(10, (1000,), generator=generator)
    return {loss.__name__: (error(loss(logits.float().to(device), labels.to(device)), loss(logits, labels)), 1e-5)
            for loss in (sigmoid_mse, softmax_mse, cross_entropy)}


def check_small(mnist: MNIST) -> dict[str, tuple[float, float]]:
    "Logits, the loss of an epoch of `fit`, and the parameters after it."
    checks, device, train = {}, mnist.train.images.device, mnist.train.to("cpu")
    for name, (make, lr) in SMALL.items():
        model = make(device=device)
        reference = in_float64(model)
        some = train.images[:1000]
        checks[f"{name}: logits"] = error(model(some.to(device)), reference(some.double())), 1e-4
        history = fit(model, mnist.train, mnist.valid, loss=cross_entropy, epochs=1, lr=lr)
        batches = minibatches(len(train), 256, torch.Generator().manual_seed(0))  # those of `fit` with seed 0
        total = sum(descend(reference, train.images[batch].double(), train.labels[batch], lr)*len(batch)
                    for batch in batches).item()
        checks[f"{name}: loss of an epoch"] = abs(history.train_loss[0]*len(train)/total - 1), 1e-4
        checks[f"{name}: parameters after it"] = farthest(model, reference), 1e-3
    return checks


def check_compiled(mnist: MNIST) -> dict[str, tuple[float, float]]:
    "Parameters after an epoch of the compiled small models, against the same without compiling."
    checks = {}
    for name, (make, lr) in SMALL.items():
        reference, model = (make(device=mnist.train.images.device) for _ in range(2))
        fast, fast_loss = compiled(model)
        for one, loss in ((reference, cross_entropy), (fast, fast_loss)):
            fit(one, mnist.train, mnist.valid, loss=loss, epochs=1, lr=lr)
        checks[f"{name}, compiled: parameters after an epoch"] = farthest(model, reference), 1e-3
    return checks


def check_resnet(mnist: MNIST, n_steps: int = 10) -> dict[str, tuple[float, float]]:
    "Losses of the first steps, without dropout and bfloat16; a whole epoch would keep a CPU busy for long in float64."
    network = resnet_learner(mnist).model.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    reference, losses = copy.deepcopy(network).cpu().double(), []
    batches = minibatches(len(mnist.train), 64, torch.Generator().manual_seed(0), mnist.train.labels.device)
    for _, batch in zip(range(n_steps), batches):
        images, labels = mnist.train[batch]
        losses.append([descend(network, images[:, None], labels, 0.01),
                       descend(reference, images[:, None].cpu().double(), labels.cpu(), 0.01)])
    ours, theirs = (torch.tensor(some, dtype=torch.float64) for some in zip(*losses))
    return {"ResNet18: losses of its first steps": (error(ours, theirs), 0.02)}  # convolutions round to TF32


def check_trained(learner: Learner, digits: Digits) -> dict[str, tuple[float, float]]:
    model = ResNet(learner)
    with torch.no_grad():
        exact = copy.deepcopy(model.network).cpu().double()
        ours, reference = model(digits.images), exact(digits.images[:, None].cpu().double())
    return {"ResNet18: logits after training": (error(ours, reference), 0.02)}


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


def check_waits(mnist: MNIST) -> dict[str, tuple[float, float]]:
    "How much more often `fit` waits for the GPU in an epoch of many batches than in one of two."
    checks, few = {}, Digits(*mnist.train[:512])
    for name, (make, lr) in SMALL.items():
        counts = [waits(lambda: fit(make(device=mnist.train.labels.device), train, mnist.valid,  # noqa: B023
                                    loss=cross_entropy, epochs=1, lr=lr)) for train in (few, mnist.train)]  # noqa: B023
        checks[f"{name}: waits within an epoch"] = abs(counts[1] - counts[0]), 0
    return checks


# Times: ours, and the post's.

def time_loading(folder: Path, device: torch.device) -> dict[str, dict]:
    "The post has no cache: what it takes is the same every time."
    import post

    def ours():
        return load_mnist(folder, device)

    def theirs():
        return [images.to(device) for split in post.load(folder).values() for images in split]

    with TemporaryDirectory() as cache, mock.patch.dict(os.environ, MNIST_SCRATCH_CACHE=cache), redirect_stdout(None):
        first, again = seconds(ours, device), statistics.median(seconds(ours, device) for _ in range(5))
    post_seconds = seconds(theirs, device)
    return {"load the PNGs": {"ours": first, "post": post_seconds},
            "load from the cache": {"ours": again, "post": post_seconds}}


def time_small(mnist: MNIST) -> dict[str, dict]:
    "Median of five epochs of ours, plain and compiled, three of the post's; a first one warms up, or compiles."
    import post
    device, result = mnist.train.images.device, {}
    loader = post.pairs_loader(mnist.train.images, mnist.train.labels)

    def epochs(prepare: Callable, loss: Callable, lr: float) -> float:
        # History.seconds begins and ends with a number read from the GPU, which waits for it.
        times = [fit(prepare(), mnist.train, mnist.valid, loss=loss, epochs=1, lr=lr).seconds for _ in range(6)]
        return statistics.median(times[1:])

    for (name, (make, lr)), post_model in zip(SMALL.items(), (post.linear_model, post.two_layer_model)):
        fast, fast_loss = compiled(make(device=device))
        ours = {"one epoch": epochs(lambda: make(device=device), cross_entropy, lr),  # noqa: B023
                "one epoch, compiled": epochs(lambda: fast, fast_loss, lr)}  # noqa: B023
        parameters, model = post_model(device)
        theirs = [seconds(lambda: post.epoch(loader, parameters, model), device) for _ in range(4)]  # noqa: B023
        result |= {f"{name}, {what}": {"ours": time, "post": statistics.median(theirs[1:])}
                   for what, time in ours.items()}
    return result


def time_recipes(mnist: MNIST, n: int = 20) -> dict[str, dict]:
    "Median seconds of the recipes that are to reach 99 % and 99.4 %, and how many of `n` seeds do, on validation."
    result = {}
    for name, target in (("fast", 0.99), ("balanced", 0.994)):
        train_recipe(mnist, name)  # warms up
        histories = [train_recipe(mnist, name, seed).history for seed in range(n)]
        reached = sum(history.valid_accuracy[-1] >= target for history in histories)
        result[f"{name}: {reached} of {n} reach {target:.1%}"] = {
            "ours": statistics.median(history.seconds for history in histories)}
    return result


class Clock(Callback):
    "Seconds since the start, validation included, and validation accuracy, at the end of each epoch."
    order = 60  # after fastai has recorded the epoch
    def before_fit(self):
        self.seconds, self.accuracy = [], []
        wait(self.dls.device)
        self.start = time.perf_counter()

    def after_epoch(self):
        wait(self.dls.device)
        self.seconds.append(time.perf_counter() - self.start)
        self.accuracy.append(self.recorder.values[-1][-1])

    def reached(self, target: float) -> float | None:
        "Seconds to the end of the first epoch that was as good as `target`; None where none was."
        return next((time for time, accuracy in zip(self.seconds, self.accuracy) if accuracy >= target), None)


def clocked(learner: Learner, lr: float, epochs: int = 4) -> Clock:
    clock = Clock()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, lr, cbs=clock)
    return clock


def time_resnet(mnist: MNIST, folder: Path) -> tuple[dict[str, dict], Learner]:
    "Four epochs of both, one run each, with its own learning rate; by the post's protocol, without images held out."
    import post
    mnist = MNIST(post.everything(mnist), mnist.test, mnist.test, mnist.name)
    clocked(resnet_learner(MNIST(Digits(*mnist.train[:512]), mnist.valid, mnist.test, mnist.name)), 0.01, epochs=1)
    learner = resnet_learner(mnist)
    ours, theirs = clocked(learner, 0.01), clocked(post.resnet_learner(folder), 0.1)
    result = {"ResNet18, four epochs": {"ours": ours.seconds[-1], "post": theirs.seconds[-1]},
              f"ResNet18 to {TARGET:.0%} of the test": {"ours": ours.reached(TARGET), "post": theirs.reached(TARGET)}}
    return result, learner


def report(checks: dict[str, tuple[float, float]], times: dict[str, dict]) -> str:
    def shown(number: float | None) -> str:
        return "not reached" if number is None else f"{number:.4g} s"
    lines = [f"{'against float64 on the CPU':40}{'error':>12}{'allowed':>12}"]
    lines += [f"{name:40}{found:12.1e}{allowed:12.0e}{'' if found <= allowed else '  WRONG'}"
              for name, (found, allowed) in checks.items()]
    lines += ["", f"{'':40}{'ours':>12}{'the post':>12}"]
    lines += [f"{name:40}{shown(row['ours']):>12}{shown(row['post']) if 'post' in row else '':>12}"
              for name, row in times.items()]
    return "\n".join(lines)


def main(source: str | None):
    device, folder = torch.device("cuda"), mnist_path(source)
    mnist = load_mnist(folder, device)
    checks = {**check_losses(device), **check_small(mnist), **check_compiled(mnist), **check_resnet(mnist),
              **check_waits(mnist)}
    resnet_times, learner = time_resnet(mnist, folder)
    checks |= check_trained(learner, Digits(*mnist.valid[:1000]))
    times = {**time_loading(folder, device), **time_small(mnist), **time_recipes(mnist), **resnet_times}
    print(report(checks, times))
    facts = {"machine": machine(device), "cuda": torch.version.cuda, "data": mnist.name, "checks": checks,
             "seconds": times}
    FILE.parent.mkdir(exist_ok=True)
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
