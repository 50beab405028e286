"""Time and peak memory against the number of images, each size in a fresh process:

    python benchmarks/growth.py

Sizes that the data folder has are loaded from its PNGs; larger ones are made by repeating its images."""
import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from machine import machine, peak_megabytes

from mnist_scratch.baseline import NearestMean
from mnist_scratch.data import Digits, load_mnist
from mnist_scratch.files import DIGITS, SPLITS, count_images, mnist_path
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy
from mnist_scratch.training import evaluate, fit

RESULTS = Path(__file__).resolve().parent/"results"
SIZES = (1_000, 6_000, 60_000, 600_000)  # training images, validation among them; a sixth more for testing
STAGES = ("load PNGs", "load from cache", "nearest mean", "linear epoch", "evaluate")
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#000000")  # Okabe and Ito's, for the colour-blind


def seconds(work: Callable, repeats: int) -> float:
    "The best of some."
    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    return min(once() for _ in range(repeats))


def link_part(source: Path, target: Path, n: int):
    "A data folder with the first `n` training images of another, in its shares, and as large a part for testing."
    source, part = source.resolve(), n/count_images(source)["training"]
    for split in SPLITS:
        for digit in DIGITS:
            (target/split/digit).mkdir(parents=True)
            names = sorted(os.listdir(source/split/digit))
            for name in names[:math.ceil(part*len(names))]:
                os.symlink(source/split/digit/name, target/split/digit/name)


def measure(source: Path, n: int) -> dict:
    "Every stage at one size, in this process."
    result = {"images": n, "seconds": {}, "peak megabytes": {"imports": peak_megabytes()}}

    def stage(name: str, work: Callable, repeats: int = 3):
        result["seconds"][name] = seconds(work, repeats)
        result["peak megabytes"][name] = peak_megabytes()

    n_png = min(n, count_images(source)["training"])
    with TemporaryDirectory() as folder, redirect_stdout(None):
        os.environ["MNIST_SCRATCH_CACHE"] = f"{folder}/cache"
        link_part(source, Path(folder)/"data", n_png)
        load = lambda: load_mnist(f"{folder}/data", "cpu")  # noqa: E731
        if n == n_png:
            stage(STAGES[0], load, repeats=1)
            stage(STAGES[1], load)
        mnist = load()
    train, times = mnist.train, math.ceil(n/n_png)
    if times > 1:
        train = Digits(train.images.repeat(times, 1, 1), train.labels.repeat(times))
    model = LinearModel.random()
    stage(STAGES[2], lambda: evaluate(NearestMean.from_digits(train), train))
    stage(STAGES[3], lambda: fit(model, train, mnist.valid, loss=cross_entropy, epochs=1, lr=0.1))
    stage(STAGES[4], lambda: evaluate(model, train))
    return result


def between(results: list[dict], kind: str, name: str, compare: Callable) -> list[float]:
    "`compare(images before, value before, images, value)` for every two successive sizes."
    points = [(result["images"], result[kind][name]) for result in results if name in result[kind]]
    return [compare(*before, *after) for before, after in zip(points, points[1:])]


def slope(x_before: float, y_before: float, x: float, y: float) -> float:
    "How steep the line is, both axes logarithmic: 1 is linear growth."
    return math.log(y/y_before)/math.log(x/x_before)


def kilobytes_per_image(x_before: float, y_before: float, x: float, y: float) -> float:
    "What each further image took; what the imports took does not count. The same everywhere is linear growth."
    return (y - y_before)*2**10/(x - x_before)


def table(results: list[dict]) -> str:
    def rows(kind: str, unit: str, title: str, compare: Callable) -> list[str]:
        lines = ["".join([f"{kind:18}", *(f"{result['images']:>12,}" for result in results), f"    {title}"])]
        for name in STAGES:
            cells = [f"{result[kind][name]:.4g} {unit}" if name in result[kind] else "-" for result in results]
            compared = "  ".join(f"{value:.2f}" for value in between(results, kind, name, compare))
            lines.append("".join([f"{name:18}", *(f"{cell:>12}" for cell in cells), f"    {compared}"]))
        return lines
    return "\n".join([*rows("seconds", "s", "slopes", slope), "",
                      *rows("peak megabytes", "MB", "kB for each further image", kilobytes_per_image)])


def draw(results: list[dict], file: Path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6), dpi=80, layout="constrained")
    for name, color, marker in zip(STAGES, COLORS, "osD^v"):
        points = [(result["images"], result["seconds"][name]) for result in results if name in result["seconds"]]
        left.plot(*zip(*points), marker=marker, color=color, label=name, markersize=5)
    for name, label, style in (("evaluate", "all stages", "o-"), ("imports", "imports", "k--")):
        right.plot(SIZES, [result["peak megabytes"][name] for result in results], style, label=label)
    for ax, label in ((left, "seconds"), (right, "peak memory (MB)")):
        _, top = ax.get_ylim()
        ax.plot(SIZES, [top*n/SIZES[-1] for n in SIZES], ":", color="grey", label="linear growth", zorder=0)
        ax.set(xscale="log", yscale="log", xlabel="images", ylabel=label)
        ax.legend(fontsize=7)
    right.set_ylim(bottom=100)
    figure.savefig(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="auto, full, sample or a data folder")
    parser.add_argument("--size", type=int, help="measure this size alone and print it as JSON")
    options = parser.parse_args()
    with redirect_stdout(None if options.size else sys.stdout):
        source = mnist_path(options.data)
    if options.size:
        print(json.dumps(measure(source, options.size)))
        return
    command = [sys.executable, __file__, "--data", str(source), "--size"]
    results = [json.loads(subprocess.run([*command, str(n)], stdout=subprocess.PIPE, text=True, check=True).stdout)
               for n in SIZES]
    print(table(results))
    RESULTS.mkdir(exist_ok=True)
    facts = {"data": source.name, "machine": machine(), "sizes": results}
    (RESULTS/"growth.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    draw(results, RESULTS/"growth.png")


if __name__ == "__main__":
    main()
