"""benchmarks/gpu.py without a GPU: what it says, and that its checks and clocks work, with the CPU in its place. And
that an epoch does not wait for an accelerator between its batches."""
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_scratch.data import MNIST, Digits
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy
from mnist_scratch.training import evaluate, fit, minibatches

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu
    return gpu


@pytest.fixture
def mnist(generator):
    images, labels = torch.rand(700, 28, 28, generator=generator), torch.arange(700) % 10
    piles = [Digits(images[part], labels[part]) for part in torch.arange(700).split([300, 300, 100])]
    return MNIST(*piles, name="noise")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_gpu_it_says_so_and_writes_nothing():
    file = BENCHMARKS / "results" / "cuda.json"
    before = file.read_bytes() if file.exists() else None
    done = subprocess.run([sys.executable, BENCHMARKS / "gpu.py"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "Nothing was measured: PyTorch finds no CUDA GPU on this machine.\n"
    assert (file.read_bytes() if file.exists() else None) == before


def test_its_checks_pass_on_the_cpu_and_notice_a_wrong_result(gpu, mnist, monkeypatch):
    checks = {**gpu.check_losses(torch.device("cpu")), **gpu.check_small(mnist)}
    assert len(checks) == 7 and all(found <= allowed for found, allowed in checks.values()), checks
    assert any(found > 0 for found, _ in checks.values()), "float32 rounds"
    monkeypatch.setattr(gpu, "fit", lambda *arguments, **options: fit(*arguments, **{**options, "seed": 1}))
    assert any(found > allowed for found, allowed in gpu.check_small(mnist).values()), "another order of the images"
    assert "WRONG" in gpu.report({"a": (1.0, 0.1)}, {})


def test_its_clocks_run(gpu, mnist, small_folder):
    times = {**gpu.time_loading(small_folder, torch.device("cpu")), **gpu.time_small(mnist)}
    assert len(times) == 4 and all(row["ours"] > 0 and row["post"] > 0 for row in times.values())
    learner = gpu.resnet_learner(mnist)
    found, allowed = gpu.check_trained(learner, mnist.valid)["ResNet18: logits after training"]
    assert 0 < found < allowed


class Reads(TorchDispatchMode):
    "How often a number is read from a tensor, which on an accelerator means to wait for it."
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_an_epoch_reads_no_number_between_its_batches(mnist):
    counts = []
    for batch_size in (300, 30):
        with Reads() as reads:
            fit(LinearModel.random(), mnist.train, mnist.valid, loss=cross_entropy, epochs=1, lr=0.1,
                batch_size=batch_size)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


def test_what_was_measured_lies_on_the_cpu_and_the_order_moves_in_one_piece(mnist):
    "The meta device holds no numbers: it stands for an accelerator that is asked for none."
    assert evaluate(LinearModel.random(), mnist.valid).confusion.device.type == "cpu"
    there, here = (list(minibatches(10, 4, torch.Generator().manual_seed(0), device)) for device in ("meta", None))
    assert [batch.device.type for batch in there] == ["meta"]*3 and [len(batch) for batch in there] == [4, 4, 2]
    assert len({batch.untyped_storage()._cdata for batch in there}) == 1, "views of one tensor"
    assert torch.cat(here).equal(torch.randperm(10, generator=torch.Generator().manual_seed(0)))
