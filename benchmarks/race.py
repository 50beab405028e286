"""The speed track: how long until a net reads MNIST, by rules that anybody can follow.

    python benchmarks/race.py              thirty seeds, in turn; appends a row a recipe to benchmarks/results/race.md
    python benchmarks/race.py --seeds 5    fewer

Rules. The clock starts with the 50,000 training images as float tensors on the device and an untrained net, and stops
when the net has learned; it does not run while the net is measured. Nothing that depends on the images may be prepared
before. Whoever takes part runs in the same process, one seed after the other in turn, so that a noisy minute hits all
of them. Seconds are compared as ratios to the public record's recipe. Accuracy is that of the 10,000 validation images,
compared seed by seed: the mean of the differences, and its standard error. No recipe may be chosen by these seeds.
`contender` is what may follow `fast`. Where the processor calculates in bfloat16, `fast` runs a second time in that."""
import argparse
import statistics
import sys
from functools import partial
from pathlib import Path

import torch
from machine import machine
from record import FormerNet, RecordNet, train_former, train_record
from torch.nn import functional as F

from mnist_scratch.convnet import RECIPES, ConvNet, one_cycle, train
from mnist_scratch.data import MNIST, load_mnist
from mnist_scratch.training import History, fit

FILE = Path(__file__).parent / "results" / "race.md"
HEADINGS = "| machine | seeds | recipe | seconds, median | ratio to the record | accuracy | above the former fast |"


def supports_bfloat16(device: torch.device) -> bool:
    "Whether `device` calculates in bfloat16 natively."
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def train_in_half(mnist: MNIST, seed: int) -> History:
    "Its numbers are kept in float32; a copy of them in the cache of autocast would not learn."
    with torch.autocast(mnist.train.images.device.type, dtype=torch.bfloat16, cache_enabled=False):
        return train(mnist, "fast", seed).history


def train_contender(mnist: MNIST, seed: int) -> History:
    "`fast` with fewer second and more third windows, and an Adam whose memory is shorter than an epoch of 196 steps."
    fast = RECIPES["fast"]
    net = ConvNet((16, 24, 80), seed=seed, device=mnist.train.images.device)
    return fit(net, mnist.train, mnist.valid, epochs=1, lr=fast.lr, batch_size=fast.batch_size, seed=seed,
               schedule=one_cycle, loss=partial(F.cross_entropy, label_smoothing=fast.smoothing), optimizer=partial(
                   torch.optim.AdamW, betas=(0.7, 0.9), weight_decay=fast.weight_decay, fused=True))


def runs_of(mnist: MNIST, seed: int) -> dict[str, History]:
    device = mnist.train.images.device
    runs = {
        "public record": train_record(RecordNet(seed, device), mnist, seed),
        "former fast": train_former(FormerNet(seed, device), mnist, seed),
        "fast": train(mnist, "fast", seed).history,
        "contender": train_contender(mnist, seed),
    }
    return runs | ({"fast, in bfloat16": train_in_half(mnist, seed)} if supports_bfloat16(device) else {})


def rows(runs: list[dict[str, History]], where: str) -> list[str]:
    "One line a recipe."
    lines = []
    for name in runs[0]:
        seconds, ratio = (statistics.median(values) for values in zip(*(
            (run[name].seconds, run[name].seconds / run["public record"].seconds) for run in runs)))
        accuracy = statistics.mean(run[name].valid_accuracy[-1] for run in runs)
        gaps = [run[name].valid_accuracy[-1] - run["former fast"].valid_accuracy[-1] for run in runs]
        error = statistics.stdev(gaps) / len(gaps) ** 0.5
        lines.append(f"| {where} | {len(runs)} | {name} | {seconds:.2f} | {ratio:.2f} | {accuracy:.4f} | "
                     f"{statistics.mean(gaps):+.4f} ± {error:.4f} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30, help="runs of each, from seeds 0, 1, 2 ...; at least 2")
    arguments, mnist = parser.parse_args(), load_mnist()
    runs_of(mnist, 0)  # warms up
    runs = [runs_of(mnist, seed) for seed in range(arguments.seeds)]
    lines = rows(runs, machine(mnist.train.images.device))
    if mnist.name == "full":
        if not FILE.exists():
            FILE.write_text(f"# The speed track\n\nRules: `benchmarks/race.py`. CUDA: not measured yet.\n\n{HEADINGS}\n"
                            "| --- | ---: | --- | ---: | ---: | ---: | ---: |\n", encoding="utf-8")
        with FILE.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
