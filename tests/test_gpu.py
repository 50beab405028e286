"""benchmarks/gpu.py with the CPU in the place of the GPU, and distributed.py; an epoch waits for no accelerator."""
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_scratch.convnet import RECIPES, ConvNet
from mnist_scratch.data import MNIST, Digits
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy
from mnist_scratch.training import fit, minibatches


@pytest.fixture
def mnist(generator):
    images, labels = torch.rand(700, 28, 28, generator=generator), torch.arange(700) % 10
    return MNIST(*(Digits(images[part], labels[part]) for part in torch.arange(700).split([300, 300, 100])), name="x")


def run(*command):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, timeout=300, env=environment)


def test_without_a_gpu_it_says_so_but_its_checks_and_clocks_work_on_the_cpu(mnist, small_folder, monkeypatch):
    done = run(ROOT / "benchmarks/gpu.py")
    assert (done.returncode, done.stdout) == (2, b"") and b"Nothing was measured" in done.stderr
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu
    cpu, trained = torch.device("cpu"), gpu.check_trained(gpu.resnet_learner(mnist), mnist.valid)
    checks = {**gpu.check_losses(cpu), **gpu.check_small(mnist), **trained}
    times = {**gpu.time_loading(small_folder, cpu), **gpu.time_small(mnist)}
    assert (len(checks), len(times)) == (8, 4) and all(found > 0 for found, _ in trained.values()), "float32 rounds"
    assert "WRONG" not in gpu.report(checks, times) and "WRONG" in gpu.report({"a": (1.0, 0.1)}, {})
    assert all(row["ours"] > 0 and row["post"] > 0 for row in times.values())
    monkeypatch.setattr(gpu, "fit", lambda *arguments, **options: fit(*arguments, **{**options, "seed": 1}))
    assert any(found > allowed for found, allowed in gpu.check_small(mnist).values()), "another order of the images"


class Reads(TorchDispatchMode):
    "How often a number is read from a tensor, which on an accelerator means to wait for it."
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_an_epoch_reads_no_number_between_its_batches_and_the_order_moves_in_one_piece(mnist):
    for size, reads in {300: (few := Reads()), 30: (many := Reads())}.items():
        with reads:
            fit(LinearModel.random(), mnist.train, mnist.valid, loss=cross_entropy, epochs=1, lr=0.1, batch_size=size)
    assert few.count == many.count > 0
    batches = list(minibatches(10, 4, torch.Generator().manual_seed(0), "meta"))  # it stands for an accelerator
    assert [(batch.device.type, len(batch)) for batch in batches] == [("meta", 4), ("meta", 4), ("meta", 2)]
    assert len({batch.untyped_storage()._cdata for batch in batches}) == 1, "views of one tensor"


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs PyTorch's gloo")
def test_two_processes_end_where_one_does_and_without_the_launcher_it_says_how(sample_folder, tmp_path, monkeypatch):
    "The gradients of two shares, averaged, are the gradient of the whole batch, also of the last and smaller one."
    script, launcher = ROOT / "benchmarks/distributed.py", "torch.distributed.run --standalone --nproc-per-node".split()
    assert b"torchrun --standalone" in run(script).stderr
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for n in (1, 2):
        done = run("-m", *launcher, n, script, "--data", sample_folder, "--exact", "--save", tmp_path / f"{n}.npz")
        assert done.stdout.startswith(b"| %i | 1 | 3,000 x 1 | 1 |" % n) and done.stdout.count(b"\n") == 1, done.stderr
    one, two = (np.load(tmp_path / f"{n}.npz") for n in (1, 2))
    for name, start in ConvNet(RECIPES["balanced"].channels, seed=0).named_parameters():
        moved = np.abs(one[name] - start.detach().numpy()).max()
        assert moved > 0 and np.abs(one[name] - two[name]).max() < 1e-3*moved, name
