"""Write the results of the last full run into README.md: the final table of notebook 06, the recipes of notebook 07
with both in one picture, and the minutes.

Run it after `python scripts/run_notebooks.py --inplace`, which leaves the outputs in nbs/ and the times in _build/. The
runs of the recipes are those in benchmarks/results/convnet.json."""
import json
import math
import os
import re
import statistics
import sys

import matplotlib.pyplot as plt
import nbformat
from series import BUILD, ROOT

from mnist_scratch.convnet import RECIPES
from mnist_scratch.ledger import ledger

sys.path.append(str(ROOT / "benchmarks"))
from machine import machine  # noqa: E402

PICTURE = ROOT / "results.png"
N_TEST = 10_000


def table_of_06() -> list[str]:
    "The lines of the final table: two of headings, then one a model."
    cells = nbformat.read(ROOT / "nbs" / "06_resnet.ipynb", as_version=4).cells
    tables = [output.data["text/markdown"] for cell in cells for output in cell.get("outputs", [])
              if "validation accuracy ± spread" in output.get("data", {}).get("text/markdown", "")]
    return tables[-1].strip().splitlines()


def recipe_rows() -> tuple[list[str], str]:
    """One line of the same table for each recipe of 07, its test accuracy the mean of its seeds, answering as the model
    of `train` does. And what to say below the table: the accuracy of one look where there are nine."""
    runs = [run for run in json.loads((ROOT / "benchmarks/results/convnet.json").read_text(encoding="utf-8"))
            if run["name"] in RECIPES and (run["data"], run["machine"]) == ("full", machine())]
    if missing := sorted(set(RECIPES) - {run["name"] for run in runs}):
        raise ValueError(f"benchmarks/results/convnet.json has nothing of this machine for {', '.join(missing)}. "
                         f"Run `python benchmarks/convnet.py --only {' '.join(missing)}`.")
    rows, notes = [], []
    for name in dict.fromkeys(run["name"] for run in runs):
        own = [run for run in runs if run["name"] == name]
        accuracies, one_look = ([run[key] for run in own] for key in ("valid_accuracy", "test_accuracy"))
        test = statistics.mean(one_look)
        if RECIPES[name].nine_looks:
            notes.append(f"`{name}` answers after nine looks at an image, each moved by at most a pixel; with one look "
                         f"it reaches {test:.4f} ± {statistics.stdev(one_look):.4f} (spread). That it looks nine times "
                         "was decided when both were known.")
            test = statistics.mean(run["test_accuracy_of_nine"] for run in own)
        spread = f" ± {statistics.stdev(accuracies):.4f}" if len(own) > 1 and None not in accuracies else ""
        valid = "–" if None in accuracies else f"{statistics.mean(accuracies):.4f}{spread}"
        bar = math.sqrt(test * (1 - test) / N_TEST)
        seconds = statistics.mean(run["seconds"] for run in own)
        rows.append(f"| convolutional net, {name} | {own[0]['parameters']:,} | {seconds:.3g} | "
                    f"{valid} | {len(own)} | {test:.4f} ± {bar:.4f} |")
    return rows, " ".join(notes)


def draw(rows: list[str]):
    "Share of test images missed against seconds, one point a row, bars of two error bars to each side."
    _, ax = plt.subplots(figsize=(7.5, 4), dpi=90, layout="constrained")
    for index, row in enumerate(rows):
        name, _, seconds, _, _, test = (cell.strip() for cell in row.strip("| ").split("|"))
        accuracy, bar = map(float, test.split(" ± "))
        ax.errorbar(float(seconds), 1 - accuracy, yerr=2 * bar, fmt="osD^vPX<>*p"[index % 11], capsize=3,
                    color=plt.cm.viridis(0.95 * index / len(rows)), label=name)
    ax.set(xscale="log", yscale="log", xlabel="seconds of learning on a CPU", ylabel="share of test images missed")
    ax.set_yticks([0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2], ["0.3 %", "0.5 %", "1 %", "2 %", "5 %", "10 %", "20 %"])
    ax.minorticks_off()
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.savefig(PICTURE)


def results() -> str:
    "The block between the two marks of the README; writes the picture too."
    os.environ["MNIST_SCRATCH_LEDGER"] = str(BUILD / "ledger.json")
    kinds = sorted(set(ledger()[["data", "device"]].itertuples(index=False, name=None)))
    if len(kinds) != 1:
        raise ValueError("The ledger in _build/ should hold results of one data set on one device, got "
                         f"{kinds or 'none'}. Run `python scripts/run_notebooks.py --inplace`: it starts a fresh one.")
    (data, device), = kinds
    headings_and_models, (recipes, notes) = table_of_06(), recipe_rows()
    draw(headings_and_models[2:] + recipes)
    return "\n\n".join([
        f"![Share of test images missed against seconds of learning, one point for each model]({PICTURE.name})",
        "\n".join(headings_and_models + recipes),
        f"Data: MNIST ({data}); seconds of learning, means over the seeds; test accuracy of seed 0, for the "
        f"convolutional nets the mean of the seeds. Machine: {machine(device)}. Made by notebook "
        "[06_resnet](nbs/06_resnet.ipynb), which explains the two kinds of ±, and by `benchmarks/convnet.py` for the "
        f"recipes of [07_convnet](nbs/07_convnet.ipynb). {notes} "
        "A dash stands where a net learned from the validation images as well.",
    ])


def with_minutes(readme: str) -> str:
    "The README with the last column of the table of lessons filled in."
    seconds = json.loads((BUILD / "seconds.json").read_text(encoding="utf-8"))

    def fill(row: re.Match) -> str:
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


if __name__ == "__main__":
    main()
