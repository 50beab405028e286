"""benchmarks/distributed.py under torchrun, as a reader starts it: the same net from one process and from two."""
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

from mnist_scratch.convnet import RECIPES, built

SCRIPT = ROOT / "benchmarks" / "distributed.py"
pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs PyTorch's gloo")


def torchrun(n_processes: int, *options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes),
               str(SCRIPT), *map(str, options)]
    one_thread_on_the_cpu = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=one_thread_on_the_cpu)


def test_two_processes_end_where_one_does(sample_folder, tmp_path):
    "The gradients of two shares, averaged, are the gradient of the whole batch, also of the last and smaller one."
    for n_processes in (1, 2):
        done = torchrun(n_processes, "--data", sample_folder, "--exact", "--save", tmp_path / f"{n_processes}.npz")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"| {n_processes} | 1 | 3,000 x 1 | 1 |") and done.stdout.count("\n") == 1
    one, two = (np.load(tmp_path / f"{n}.npz") for n in (1, 2))
    for name, start in built(RECIPES["balanced"], seed=0).named_parameters():
        moved = np.abs(one[name] - start.detach().numpy()).max()
        assert moved > 0 and np.abs(one[name] - two[name]).max() < 1e-3*moved, name


def test_without_the_launcher_it_says_how_to_start():
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout == ""
    assert "start it with: torchrun --standalone --nproc-per-node 2" in done.stderr
