"""How well the models read digits that are not MNIST's: scikit-learn's 1,797, only resized, and through `as_mnist`.

    python benchmarks/outside.py     three seeds; writes benchmarks/results/outside.md"""
import statistics
import sys
from pathlib import Path

import torch
from machine import machine
from sklearn.datasets import load_digits

from mnist_scratch.baseline import NearestMean
from mnist_scratch.convnet import train
from mnist_scratch.data import Digits, load_mnist
from mnist_scratch.digits import as_mnist, only_resized
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import evaluate, fit

FILE, N_SEEDS = Path(__file__).parent / "results" / "outside.md", 3


def models(mnist, seed: int) -> dict:
    device = mnist.train.images.device
    linear, two_layer = LinearModel.random(seed=seed, device=device), TwoLayerNet(seed=seed, device=device)
    fit(linear, mnist.train, mnist.valid, loss=softmax_mse, epochs=40, lr=10.0, seed=seed)
    fit(two_layer, mnist.train, mnist.valid, loss=cross_entropy, epochs=40, lr=1.0, seed=seed)
    return {"nearest mean": NearestMean.from_digits(mnist.train), "linear": linear, "two-layer net": two_layer,
            "fast": train(mnist, "fast", seed), "balanced": train(mnist, "balanced", seed)}


def main() -> int:
    mnist, others = load_mnist(), load_digits()
    labels = torch.tensor(others.target)
    ways = {way.__name__: Digits(torch.stack([way(image / 16) for image in others.images]), labels)
            .to(mnist.train.images.device) for way in (only_resized, as_mnist)}
    runs = [{name: [evaluate(model, digits).accuracy for digits in (mnist.valid, *ways.values())]
             for name, model in models(mnist, seed).items()} for seed in range(N_SEEDS)]
    rows = []
    for name in runs[0]:
        columns = list(zip(*(run[name] for run in runs)))
        rows.append(f"| {name} | " + " | ".join(
            f"{statistics.mean(column):.3f} ({min(column):.3f} to {max(column):.3f})" for column in columns) + " |")
    error = (0.25 / len(labels)) ** 0.5
    text = "\n".join([
        "# Digits by strangers", "",
        "The 1,797 digits of scikit-learn's `load_digits`, 8 x 8 pixels, by writers unknown to MNIST. Mean of "
        f"{N_SEEDS} seeds, and the lowest and highest of them. The luck of which images there are moves a figure by "
        f"at most {error:.3f} (one standard error). Machine: {machine(mnist.train.images.device)}. "
        "Made by `benchmarks/outside.py`.", "",
        "| model | MNIST, validation | " + " | ".join(ways) + " |", "| --- | ---: | ---: | ---: |", *rows, ""])
    if mnist.name == "full":
        FILE.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
