"""A file of results that grows run by run, so that a measurement of hours can be stopped and goes on."""
import json
import os
from pathlib import Path

from filelock import FileLock


def saved(file: Path) -> list[dict]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def save(file: Path, fresh: list[dict], number: str, order: list[str]):
    """Add runs, sorted by model as in `order` and by their `number`, "fold" or "seed"; a run of the same model and
    number is replaced. The file is never half-written, and two processes may measure at once."""
    new = {(one["model"], one[number]) for one in fresh}
    with FileLock(f"{file}.lock"):
        runs = [one for one in saved(file) if (one["model"], one[number]) not in new] + fresh
        runs.sort(key=lambda one: (order.index(one["model"]), one[number]))
        beside = file.with_suffix(f".{os.getpid()}")
        beside.write_text("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n", encoding="utf-8")
        os.replace(beside, file)
