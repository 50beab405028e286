"""The convolutional net of 07 trained by several processes, under PyTorch's launcher and DistributedDataParallel:

    torchrun --standalone --nproc-per-node 2 benchmarks/distributed.py

Every process takes its own share of each batch of 256, and the gradients of all are averaged. Over gloo on a CPU, over
NCCL where there are CUDA GPUs. Prints images per second and validation accuracy."""
import argparse
import contextlib
import os
import statistics
import time
from pathlib import Path

import torch
from machine import machine
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from mnist_scratch.convnet import RECIPES, ConvNet, one_cycle
from mnist_scratch.data import MNIST, load_mnist
from mnist_scratch.training import evaluate, minibatches

BATCH_SIZE = 256  # of all processes together


def train(mnist: MNIST, epochs: int, seed: int, exact: bool) -> tuple[nn.Module, float]:
    "The net of the balanced recipe, and seconds of learning; with `exact` nothing depends on how a batch is shared."
    rank, n_processes, device = distributed.get_rank(), distributed.get_world_size(), mnist.train.images.device
    net = ConvNet(RECIPES["balanced"].channels, shift=2, seed=seed, device=device)
    if device.type == "cuda":
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    model = DistributedDataParallel(net).train(not exact)  # in evaluation mode: no shifts, batch norm as it is
    n_steps = epochs*-(-len(mnist.train)//BATCH_SIZE)
    optimizer = torch.optim.SGD(net.parameters(), 0.1) if exact else torch.optim.AdamW(net.parameters(), 0.02)
    schedule, generator = one_cycle(optimizer, n_steps), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed*n_processes + rank)  # for the shifts; no two processes should draw the same
    distributed.barrier()
    start = time.perf_counter()
    for _ in range(epochs):
        for batch in minibatches(len(mnist.train), BATCH_SIZE, generator, device):
            images, labels = mnist.train[batch.tensor_split(n_processes)[rank]]
            share = len(labels)*n_processes/len(batch)  # 1, unless the last batch cannot be shared equally
            (F.cross_entropy(model(images), labels)*share).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    sum(parameter.sum() for parameter in net.parameters()).item()  # waits for a GPU to finish
    distributed.barrier()
    return net.eval(), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="auto, full, sample or a data folder")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="runs, from seeds 0, 1, 2 ...")
    parser.add_argument("--exact", action="store_true", help="no shifts, batch norm frozen, plain gradient descent: "
                        "any number of processes must end with the same parameters")
    parser.add_argument("--save", type=Path, help="file for the parameters that the first process ends with")
    options = parser.parse_args()
    if "LOCAL_RANK" not in os.environ:
        parser.error("start it with: torchrun --standalone --nproc-per-node 2 benchmarks/distributed.py")
    on_gpu, local = torch.cuda.is_available(), int(os.environ["LOCAL_RANK"])
    if on_gpu:
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    speaks = distributed.get_rank() == 0
    with contextlib.redirect_stdout(None):
        mnist = load_mnist(options.data, torch.device("cuda", local) if on_gpu else "cpu")
    speeds, accuracies = [], []
    for seed in range(options.seeds):
        net, seconds = train(mnist, options.epochs, seed, options.exact)
        speeds.append(len(mnist.train)*options.epochs/seconds)
        accuracies.append(evaluate(net, mnist.valid).accuracy)
    if options.save and speaks:
        import numpy as np
        np.savez(options.save, **{name: value.cpu().numpy() for name, value in net.state_dict().items()})
    if speaks:
        spread = f" ± {statistics.stdev(accuracies):.4f}" if len(accuracies) > 1 else ""
        print(f"| {distributed.get_world_size()} | {torch.get_num_threads()} | {len(mnist.train):,} x {options.epochs} "
              f"| {options.seeds} | {statistics.median(speeds):,.0f} | {statistics.mean(accuracies):.4f}{spread} | "
              f"{machine(mnist.train.images.device)} |")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
