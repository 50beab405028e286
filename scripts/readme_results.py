"""Write the results into README.md: the table and the picture of benchmarks/results/folds.json, and the minutes.

Run it after `python benchmarks/folds.py` and `python scripts/run_notebooks.py --inplace`, which leaves the times in
_build/. With --picture it also trains a net and draws the picture anew."""
import json
import re
import statistics
import sys
from itertools import groupby

import matplotlib.pyplot as plt
from series import BUILD, ROOT

from mnist_scratch.convnet import train
from mnist_scratch.data import load_mnist
from mnist_scratch.digits import asked, steps
from mnist_scratch.pictures import photographed

PICTURE = ROOT / "results.png"
FOLDS = ROOT / "benchmarks" / "results" / "folds.json"
HEADINGS = ["| model | parameters | five folds | the test images | seconds |", "| --- | ---: | ---: | ---: | ---: |"]


def models() -> list[dict]:
    "One entry a model: the mean over its folds, the standard error of that mean, and the rest."
    runs = json.loads(FOLDS.read_text(encoding="utf-8"))
    found = []
    for name, group in groupby(runs, key=lambda run: run["model"]):
        own = list(group)
        accuracies = [run["accuracy"] for run in own]
        found.append({"name": name, "parameters": own[0]["parameters"], "accuracy": statistics.mean(accuracies),
                      "error": statistics.stdev(accuracies) / len(own) ** 0.5, "machine": own[0]["machine"],
                      "test": statistics.mean(run["test_accuracy"] for run in own),
                      "seconds": statistics.median(run["seconds"] for run in own)})
    return found


def draw(rows: list[dict]):
    "A digit being read; below, share of images missed against seconds, each point with its name beside it."
    figure = plt.figure(figsize=(7.5, 6), dpi=90, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 2])
    net, photo = train(load_mnist(), "balanced"), photographed(4)
    made = steps(photo)
    shares = asked(net, made["centred"][None])[0].tolist()
    axes = above.subplots(1, 4, width_ratios=[1, 1, 1, 1.9])
    for ax, name, title in zip(axes, ("grey", "cut out", "centred"), ("a made-up photo", "its ink", "28 by 28 pixels")):
        ax.imshow(made[name].numpy(), cmap="gray" if name == "grey" else "Greys", vmin=0, vmax=1)
        ax.set_title(title, fontsize=9)
        ax.set_axis_off()
    axes[3].bar(range(10), shares, color=["tab:blue" if share == max(shares) else "#9ab8d8" for share in shares])
    axes[3].set(xticks=range(10), ylim=(0, 1), yticks=[0, 1], yticklabels=["0 %", "100 %"])
    axes[3].set_title(f"the net says {shares.index(max(shares))}", fontsize=9)
    ax = below.subplots()
    for row in rows:
        missed = 1 - row["accuracy"]
        ax.errorbar(row["seconds"], missed, yerr=2 * row["error"], fmt="o", capsize=3, color="tab:blue")
        name = row["name"].replace("convolutional net, ", "")
        ax.annotate(name, (row["seconds"], missed), xytext=(8, 4), textcoords="offset points", fontsize=9)
    ax.set(xscale="log", yscale="log", xlabel="seconds of learning on a CPU", ylabel="share of images missed")
    ax.set_yticks([0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2], ["0.3 %", "0.5 %", "1 %", "2 %", "5 %", "10 %", "20 %"])
    ax.minorticks_off()
    ax.margins(x=0.15)
    figure.savefig(PICTURE)
    plt.close(figure)


def results() -> str:
    "The block between the two marks of the README."
    rows = models()
    lines = [f"| {row['name']} | {row['parameters']:,} | {row['accuracy']:.4f} ± {row['error']:.4f} | "
             f"{row['test']:.4f} | {row['seconds']:.3g} |" for row in rows]
    return "\n\n".join([
        "\n".join(HEADINGS + lines),
        "*Five folds*: the share of the 50,000 training images that is read by nets which did not learn from them, one "
        "net a fold; the ± is the standard error of the mean over the folds. *The test images*: the mean of the same "
        "nets on the official 10,000, which were looked at while recipes were still changing "
        "([07](nbs/07_convnet.ipynb) says how that came about). *Seconds* of learning, the middle one of the folds. "
        "*public record* is the recipe of [train_mnist_fast](https://github.com/tuomaso/train_mnist_fast), written "
        "again; the post that this series grew out of reports 0.994 on the test images for its ResNet18. Machine: "
        f"{rows[0]['machine']}. Made by `benchmarks/folds.py`.",
    ])


def with_minutes(readme: str) -> str:
    "The README with the last column of the table of lessons filled in, for the lessons that were executed."
    times = BUILD / "seconds.json"
    seconds = json.loads(times.read_text(encoding="utf-8")) if times.exists() else {}

    def fill(row: re.Match) -> str:
        if row["name"] not in seconds:
            return row[0]
        minutes = seconds[row["name"]] / 60
        return f"{row['start']} {'under 1' if minutes < 1 else f'{minutes:.0f}'} |"

    return re.sub(r"^(?P<start>\| \[(?P<name>\w+)\]\(nbs/.*\|)[^|]*\|$", fill, readme, flags=re.M)


def main():
    readme = ROOT / "README.md"
    marks = re.compile(r"(<!-- results -->\n).*?(\n<!-- end -->)", re.S)
    block = results()
    text, count = marks.subn(lambda found: found[1] + block + found[2], readme.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"README.md should hold one block of results between its two marks, got {count}")
    readme.write_text(with_minutes(text), encoding="utf-8")
    if "--picture" in sys.argv:
        draw([row for row in models() if "nine looks" not in row["name"]])


if __name__ == "__main__":
    main()
