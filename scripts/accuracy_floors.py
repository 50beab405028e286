"""Stop with an error unless every model of the last `make run` on the full MNIST reached its floor.

A floor is a little below what the series shows; the same code should not fall through it, on any machine."""
import os
import sys
from pathlib import Path

from mnist_scratch.ledger import ledger

FLOORS = {  # validation accuracy
    "nearest mean": 0.80,
    "linear, sigmoid + MSE": 0.90,
    "linear, softmax + MSE": 0.915,
    "linear, cross-entropy": 0.905,
    "two-layer net": 0.96,
    "ResNet18": 0.985,
    "convolutional net, fast": 0.985,
}


def below() -> list[str]:
    "A sentence for each model that is missing from the ledger or below its floor."
    table = ledger()
    reached = dict(table.loc[table["data"] == "full", ["model", "validation accuracy"]].values.tolist())
    return [f"{model}: {reached.get(model, 'no result')}, should be at least {floor}"
            for model, floor in FLOORS.items() if not reached.get(model, 0) >= floor]


if __name__ == "__main__":
    os.environ["MNIST_SCRATCH_LEDGER"] = str(Path(__file__).resolve().parent.parent / "_build" / "ledger.json")
    sys.exit("\n".join(below()))
