"""The ResNet18 or the net of 07 trained by several processes, under PyTorch's launcher and DistributedDataParallel:

    torchrun --standalone --nproc-per-node 2 benchmarks/distributed.py
    torchrun --standalone --nproc-per-node 2 benchmarks/distributed.py --net convnet --seeds 5 --record

Every process takes its own share of each batch of 256. Over gloo on a CPU, over NCCL where there are CUDA GPUs.
With --record the results go to results/distributed.json, and the table of all that is there to distributed.md."""
import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from machine import machine
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mnist_scratch.convnet import RECIPES, ConvNet
from mnist_scratch.data import MNIST, Digits, load_mnist
from mnist_scratch.resnet import HalfPrecision, Loader, ResNet, resnet_learner
from mnist_scratch.training import evaluate

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)  # from inside fastai
    from fastai.vision.all import SGD, Callback, CrossEntropyLossFlat, DataLoaders, Learner

BATCH_SIZE = 256  # of all processes together
RESULTS = Path(__file__).resolve().parent/"results"


class Share:
    "One process's part of every batch of a loader; the parts of all processes make the batch."
    def __init__(self, loader: Loader, rank: int, n_processes: int):
        left_over = len(loader.digits) % loader.batch_size or loader.batch_size
        if left_over < 2*n_processes:  # batch norm cannot take a single image
            raise ValueError(f"{len(loader.digits)} images leave a last batch of {left_over}, which {n_processes} "
                             "processes cannot share with two images each. Change --images.")
        self.loader, self.rank, self.n_processes, self.device = loader, rank, n_processes, loader.device

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader:
            yield tuple(part.tensor_split(self.n_processes)[self.rank] for part in batch)


class Distributed(Callback):
    "Average the gradients of all processes; batch norm over the whole batch where PyTorch can, which is on CUDA."
    def before_fit(self):
        model = self.learn.model
        if self.dls.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.learn.model = DistributedDataParallel(model)

    def after_fit(self):
        self.learn.model = self.learn.model.module


class Exact(Callback):
    "Without what depends on how a batch is shared: no dropout, batch norm with the statistics it has, float64."
    order = 60  # after fastai has set the model to training
    def before_train(self):
        self.model.eval()

    def before_batch(self):
        self.learn.xb = tuple(images.double() for images in self.xb)

    def after_pred(self):
        self.learn.pred = self.pred.float()  # fastai keeps its mean loss in float32


def convnet_learner(mnist: MNIST, batch_size: int, seed: int) -> Learner:
    "fastai's loop around the net of the balanced recipe."
    recipe, generator = RECIPES["balanced"], torch.Generator().manual_seed(seed)
    loaders = DataLoaders(Loader(mnist.train, batch_size, generator), [], device=mnist.train.images.device)
    net = ConvNet(recipe.channels, recipe.shift, seed=seed, device=mnist.train.images.device)
    return Learner(loaders, nn.Sequential(nn.Flatten(1, 2), net), loss_func=CrossEntropyLossFlat())


NETS = {"resnet": resnet_learner, "convnet": convnet_learner}


def shared_learner(mnist: MNIST, net: str, seed: int, exact: bool) -> Learner:
    "A learner that sees this process's share of the training images and validates nothing on the way."
    rank, n_processes = distributed.get_rank(), distributed.get_world_size()
    learner = NETS[net](mnist, BATCH_SIZE, seed)
    learner.dls = DataLoaders(Share(learner.dls.train, rank, n_processes), [], device=mnist.train.images.device)
    learner.add_cb(Distributed())
    if exact:
        learner.remove_cb(HalfPrecision)
        learner.add_cb(Exact())
        learner.model, learner.opt_func = learner.model.double(), SGD
    torch.manual_seed(seed*n_processes + rank)  # for dropout and shifts; no two processes should draw the same
    return learner


def train(learner: Learner, epochs: int, lr: float) -> float:
    "Train, and return the seconds it took."
    distributed.barrier()
    start = time.perf_counter()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, lr)
    sum(parameter.sum() for parameter in learner.model.parameters()).item()  # waits for a GPU to finish
    distributed.barrier()
    return time.perf_counter() - start


def first(digits: Digits, n: int | None) -> Digits:
    "`n` images in a random order that is always the same; all of them for None."
    return Digits(*digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))[:n]])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="auto, full, sample or a data folder")
    parser.add_argument("--images", type=int, help="how many to train on; all of them unless given")
    parser.add_argument("--net", choices=NETS, default="resnet")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1, help="runs, from seeds 0, 1, 2 ...")
    parser.add_argument("--record", action="store_true", help="write the results down")
    parser.add_argument("--lr", type=float, default=0.01, help="the highest of the cycle")
    parser.add_argument("--exact", action="store_true", help="no dropout, batch norm frozen, float64, plain "
                        "gradient descent: any number of processes must end with the same parameters")
    parser.add_argument("--save", type=Path, help="folder for the parameters that each process ends with")
    options = parser.parse_args()
    if options.exact and options.net != "resnet":
        parser.error("--exact needs --net resnet: the other net takes no float64")
    if "LOCAL_RANK" not in os.environ:
        parser.error("start it with: torchrun --standalone --nproc-per-node 2 benchmarks/distributed.py")
    return options


def run(options: argparse.Namespace, mnist: MNIST, seed: int) -> dict:
    "Train from one seed, in all processes, and measure."
    learner = shared_learner(mnist, options.net, seed, options.exact)
    seconds = train(learner, options.epochs, options.lr)
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
        state = {name: values.contiguous() for name, values in learner.model.state_dict().items()}
        save_file(state, options.save/f"{distributed.get_rank()}.safetensors")
    return {"net": options.net, "processes": distributed.get_world_size(), "backend": distributed.get_backend(),
            "threads": torch.get_num_threads(), "data": mnist.name, "images": len(mnist.train),
            "epochs": options.epochs, "lr": options.lr, "seed": seed,
            "images_per_second": len(mnist.train)*options.epochs/seconds,
            "valid_accuracy": evaluate(ResNet(learner).float(), mnist.valid).accuracy,
            "machine": machine(mnist.train.images.device)}


def settings(one: dict) -> tuple:
    "All that decides a run, except the seed."
    return tuple(one[name] for name in ("net", "processes", "threads", "data", "images", "epochs", "lr", "machine"))


def table(runs: list[dict]) -> str:
    "One row for each net and number of processes: medians of the speed, mean and spread of the accuracy."
    lines = ["| net | processes | threads each | images x epochs | seeds | images per second | validation accuracy |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for kind in dict.fromkeys(map(settings, runs)):
        same = [one for one in runs if settings(one) == kind]
        accuracies = [one["valid_accuracy"] for one in same]
        spread = f" ± {statistics.stdev(accuracies):.4f}" if len(same) > 1 else ""
        speed = statistics.median(one["images_per_second"] for one in same)
        learned = f"{same[0]['images']:,} x {same[0]['epochs']}"
        cells = [*kind[:3], learned, len(same), f"{speed:,.0f}", f"{statistics.mean(accuracies):.4f}{spread}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, "", "; ".join(dict.fromkeys(one["machine"] for one in runs)) + ".", ""])


def record(runs: list[dict]):
    "Add the runs to those of before, in the place of the same ones."
    def key(one: dict) -> tuple:
        return *settings(one), one["seed"]
    file = RESULTS/"distributed.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    together = sorted({key(one): one for one in kept + runs}.values(), key=key)
    file.write_text("[\n" + ",\n".join(map(json.dumps, together)) + "\n]\n", encoding="utf-8")
    (RESULTS/"distributed.md").write_text(table(together), encoding="utf-8")


def main(options: argparse.Namespace):
    on_gpu = distributed.get_backend() == "nccl"
    mnist = load_mnist(options.data, torch.device("cuda", torch.cuda.current_device()) if on_gpu else "cpu")
    mnist = MNIST(first(mnist.train, options.images), mnist.valid, mnist.test, mnist.name)
    runs = [run(options, mnist, seed) for seed in range(options.seeds)]
    print(table(runs))
    if options.record and distributed.get_rank() == 0:
        record(runs)


if __name__ == "__main__":
    options = arguments()
    if os.environ["RANK"] != "0":
        sys.stdout = open(os.devnull, "w")  # one process speaks for all
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    main(options)
    distributed.destroy_process_group()
