"""The convolutional net of notebook 07: its recipes, the public record's recipe, and one change at a time.

Every run is a model from one seed. Results go to benchmarks/results/convnet.json after each run, and runs that are
there already, of the same name, seed, data and machine, are skipped: stop it when you like, call it again, and it goes
on. After a change to a recipe, --again.

    python benchmarks/convnet.py                          everything, five seeds
    python benchmarks/convnet.py --list                   what there is, and what it will take on this machine
    python benchmarks/convnet.py --only fast public       some of it, by name
    python benchmarks/convnet.py --seeds 1                fewer seeds
    python benchmarks/convnet.py --search "+ pooling"     three learning rates for one row, nothing saved

All choices were made on validation. The test images are read once for each finished run of a recipe: its answers, and
its answers averaged over nine moved copies of each image (test-time augmentation)."""
import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from machine import machine
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mnist_scratch.convnet import (
    PIXEL_MEAN,
    PIXEL_STD,
    RECIPES,
    ConvNet,
    Recipe,
    built,
    learn,
    nine_looks,
    one_cycle,
)
from mnist_scratch.data import MNIST, Digits, load_mnist
from mnist_scratch.losses import cross_entropy
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import History, evaluate, fit

FILE = Path(__file__).parent / "results" / "convnet.json"
FAST, BALANCED = RECIPES["fast"], RECIPES["balanced"]
Build = Callable[[int, torch.device], object]  # seed, device -> a model without training
Train = Callable[[object, MNIST, int], History]  # model, data, seed


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


class Averaged(nn.Module):
    "Learns as `net` does, and answers with a running average of its weights."

    def __init__(self, net: nn.Module, share: float = 0.99):  # of the old average, at each step
        super().__init__()
        self.net = net
        self.average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(share), use_buffers=True)

    def parameters(self, recurse: bool = True): return self.net.parameters(recurse)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return self.average(images)
        self.average.update_parameters(self.net)
        return self.net(images)


class HalfPrecision(nn.Module):
    "Learns as `net` does, in bfloat16."

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.training):
            return self.net(images).float()


def convnet(channels=FAST.channels, **options) -> Build:
    return lambda seed, device: ConvNet(channels, seed=seed, device=device, **options)


def by(recipe: Recipe) -> Train:
    return lambda model, mnist, seed: learn(model, mnist, recipe, seed)


def plainly(lr: float, **options) -> Train:
    "One epoch of plain cross-entropy, without a schedule unless one is given."
    settings = {"loss": cross_entropy, "epochs": 1, "lr": lr, "batch_size": FAST.batch_size, **options}
    return lambda model, mnist, seed: fit(model, mnist.train, mnist.valid, seed=seed, **settings)


@dataclass(frozen=True)
class Job:
    kind: str  # "recipe" or "ladder"
    build: Build
    trainer: Callable[[float], Train]  # learning rate -> how to train
    lr: float  # the best of a small search on validation
    needs_bfloat16: bool = False
    sees_valid: bool = False  # has learned from the validation images, so their accuracy says nothing
    reads_test: bool = False


def recipe_job(recipe: Recipe, kind: str = "recipe", reads_test: bool = False) -> Job:
    return Job(kind, lambda seed, device: built(recipe, seed, device), lambda lr: by(replace(recipe, lr=lr)),
               recipe.lr, sees_valid=recipe.use_valid, reads_test=reads_test)


def rung(build: Build, trainer: Callable[[float], Train], lr: float, **options) -> Job:
    return Job("ladder", build, trainer, lr, **options)


ADAMW = partial(torch.optim.AdamW, weight_decay=FAST.weight_decay, fused=True)
FOUR = replace(FAST, epochs=4, shift=2)
WIDER = replace(FOUR, channels=(8, 32, 64))
JOBS = {
    "public": Job("recipe", RecordNet, lambda lr: train_record, 1e-2, reads_test=True),
    **{name: recipe_job(recipe, reads_test=True) for name, recipe in RECIPES.items()},
    "accurate, without the validation images": recipe_job(replace(RECIPES["accurate"], use_valid=False)),
    "two-layer net": rung(lambda seed, device: TwoLayerNet(seed=seed, device=device), plainly, lr=3.0),
    "+ convolutions": rung(convnet(pools=0, norm=False), plainly, lr=0.1),
    "+ pooling": rung(convnet(norm=False), plainly, lr=0.1),
    "+ batch norm": rung(convnet(), plainly, lr=0.3),
    "+ one-cycle": rung(convnet(), partial(plainly, schedule=one_cycle), lr=2.7),
    "+ AdamW": rung(convnet(), partial(plainly, schedule=one_cycle, optimizer=ADAMW), lr=0.02),
    "+ label smoothing (the fast recipe)": recipe_job(FAST, "ladder"),
    "+ shifts": recipe_job(replace(FAST, shift=2), "ladder"),
    "+ four epochs": recipe_job(FOUR, "ladder"),
    "+ six epochs (the balanced recipe)": recipe_job(BALANCED, "ladder"),
    "four epochs, no shifts": recipe_job(replace(FOUR, shift=0), "ladder"),
    "four epochs, wider: 8-32-64": recipe_job(WIDER, "ladder"),
    "four epochs, wider, warps": recipe_job(replace(WIDER, warp=True), "ladder"),
    "four epochs, 32-48-64-96-128, one pooling, warps": recipe_job(
        replace(RECIPES["accurate"], epochs=4, dropout=0.0, use_valid=False), "ladder"),
    "four epochs, wider, weights averaged": rung(
        lambda seed, device: Averaged(built(WIDER, seed, device)), lambda lr: by(replace(WIDER, lr=lr)), lr=0.02),
    "four epochs, wider, in bfloat16": rung(
        lambda seed, device: HalfPrecision(built(WIDER, seed, device)), lambda lr: by(replace(WIDER, lr=lr)), lr=0.02,
        needs_bfloat16=True),
}


def supports_bfloat16(device: torch.device) -> bool:
    "Whether `device` calculates in bfloat16 natively."
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def seconds_expected(job: Job, mnist: MNIST) -> float:
    "Learn from 20 batches, and multiply."
    model, few = job.build(0, mnist.train.images.device), Digits(*mnist.train[:20 * FAST.batch_size])
    small = MNIST(few, Digits(*mnist.valid[:100]), mnist.test, mnist.name)
    history = job.trainer(job.lr)(model, small, 0)
    return history.seconds * len(mnist.train) / len(few)


def run(name: str, seed: int, mnist: MNIST) -> dict:
    job, device = JOBS[name], mnist.train.images.device
    model = job.build(seed, device)
    history = job.trainer(job.lr)(model, mnist, seed)

    def nine(images: torch.Tensor) -> torch.Tensor:
        return nine_looks(model, images)

    shows_valid, is_recipe = not job.sees_valid, job.kind == "recipe"
    return {
        "kind": job.kind, "name": name, "seed": seed, "data": mnist.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": len(history.valid_accuracy), "lr": job.lr, "seconds": round(history.seconds, 3),
        "valid_accuracy": evaluate(model, mnist.valid).accuracy if shows_valid else None,
        "valid_accuracy_of_nine": evaluate(nine, mnist.valid).accuracy if shows_valid and is_recipe else None,
        "test_accuracy": evaluate(model, mnist.test).accuracy if job.reads_test else None,
        "test_accuracy_of_nine": evaluate(nine, mnist.test).accuracy if job.reads_test else None,
        "machine": machine(device),
    }


def saved() -> list[dict]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else []


def key(one: dict) -> tuple:
    "Of two runs with the same key only the newer is kept."
    return one["name"], one["seed"], one["data"], one["machine"]


def save(fresh_run: dict):
    "Add a run, in the order of JOBS, whatever was run first; the file gets its final name only when complete."
    order, runs = list(JOBS), [one for one in saved() if one["name"] in JOBS and key(one) != key(fresh_run)]
    runs = sorted([*runs, fresh_run], key=lambda one: (one["machine"], order.index(one["name"]), one["seed"]))
    FILE.parent.mkdir(exist_ok=True)
    fresh = FILE.with_suffix(f".{os.getpid()}")
    fresh.write_text("[\n" + ",\n".join(json.dumps(one) for one in runs) + "\n]\n", encoding="utf-8")
    os.replace(fresh, FILE)


def search(name: str, mnist: MNIST, factors=(0.33, 1.0, 3.0)):
    "Validation accuracy for three learning rates around the one that is used, from seed 0."
    job, device = JOBS[name], mnist.train.images.device
    for lr in (job.lr * factor for factor in factors):
        try:
            history = job.trainer(lr)(job.build(0, device), mnist, 0)
            print(f"{name}: lr {lr:.3g} {history.valid_accuracy[-1]:.4f} in {history.seconds:.1f} s", flush=True)
        except ValueError as error:  # the loss was no longer a number
            print(f"{name}: lr {lr:.3g} {error}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS), metavar="NAME", help="names from --list")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each, from seeds 0, 1, 2 ...")
    parser.add_argument("--again", action="store_true", help="run also what is saved already, and replace it")
    parser.add_argument("--list", action="store_true", help="say what there is and what it takes, and stop")
    parser.add_argument("--search", nargs="+", choices=JOBS, metavar="NAME", help="try learning rates instead")
    arguments = parser.parse_args()

    mnist = load_mnist()
    device = mnist.train.images.device
    if arguments.search:
        if seen := [name for name in arguments.search if JOBS[name].sees_valid]:
            parser.error(f"the validation images cannot choose a rate for {', '.join(seen)}: it learns from them")
        for name in arguments.search:
            search(name, mnist)
        return 0
    done = {key(one) for one in saved()}
    names = [name for name in arguments.only if not JOBS[name].needs_bfloat16 or supports_bfloat16(device)]
    for name in set(arguments.only) - set(names):
        print(f"{name}: left out, this machine does not calculate in bfloat16")
    todo = [(name, seed) for seed in range(arguments.seeds) for name in names
            if arguments.again or (name, seed, mnist.name, machine(device)) not in done]
    expected = {name: seconds_expected(JOBS[name], mnist) for name in dict.fromkeys(name for name, _ in todo)}
    for name, seconds in expected.items():
        n_runs = sum(name == one for one, _ in todo)
        print(f"{name}: {n_runs} runs of about {seconds:.0f} s")
    print(f"together about {sum(expected[name] for name, _ in todo) / 60:.0f} minutes on {machine(device)}", flush=True)
    for name, seed in [] if arguments.list else todo:
        result = run(name, seed, mnist)
        save(result)
        accuracy = result["test_accuracy"] if result["valid_accuracy"] is None else result["valid_accuracy"]
        print(f"{name}, seed {seed}: {accuracy:.4f} in {result['seconds']:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
