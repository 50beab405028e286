"""benchmarks/gpu.py without a GPU: what it says, and that its checks and clocks work, with the CPU in its place.
And the benchmark of growth, on few images."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_scratch.data import MNIST, Digits
from mnist_scratch.linear import LinearModel
from mnist_scratch.training import fit, minibatches

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu
    monkeypatch.setattr(gpu, "COMPILE", {"backend": "aot_eager"})  # traces as on a GPU, and compiles nothing
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
    cpu = torch.device("cpu")
    checks = {**gpu.check_losses(cpu), **gpu.check_small(mnist), **gpu.check_resnet(mnist, n_steps=2)}
    assert len(checks) == 10 and all(found <= allowed for found, allowed in checks.values()), checks
    assert any(found > 0 for found, _ in checks.values()), "float32 rounds"
    monkeypatch.setattr(gpu, "fit", lambda *arguments, **options: fit(*arguments, **{**options, "seed": 1}))
    checks = gpu.check_small(mnist)
    assert any(found > allowed for found, allowed in checks.values()), "another order of the images"
    assert "WRONG" in gpu.report(checks, {})


def test_a_compiled_model_learns_the_same_by_the_same_fit(gpu, mnist, monkeypatch):
    checks = gpu.check_compiled(mnist)
    assert len(checks) == 2 and all(found <= allowed for found, allowed in checks.values()), checks

    class Doubled(gpu.Compiled):
        def __call__(self, images):
            return 2 * super().__call__(images)
    monkeypatch.setattr(gpu, "Compiled", Doubled)
    assert any(found > allowed for found, allowed in gpu.check_compiled(mnist).values()), "it must notice other answers"


def test_its_clocks_run(gpu, mnist, small_folder):
    times = {**gpu.time_loading(small_folder, torch.device("cpu")), **gpu.time_small(mnist)}
    assert len(times) == 6 and all(row["ours"] > 0 and row["post"] > 0 for row in times.values())
    (fast, row), _ = gpu.time_recipes(mnist, n=2).items()
    assert fast.startswith("fast: 0 of 2 reach 99.0%") and row["ours"] > 0, "nobody can read noise"
    learner = gpu.resnet_learner(mnist)
    clock = gpu.clocked(learner, 0.01, epochs=2)
    assert 0 < clock.seconds[0] < clock.seconds[1] and clock.reached(0) == clock.seconds[0]
    assert clock.reached(1.1) is None
    assert "not reached" in gpu.report({}, {"to 110 %": {"ours": clock.reached(1.1), "post": 1.0}})
    found, allowed = gpu.check_trained(learner, mnist.valid)["ResNet18: logits after training"]
    assert 0 < found < allowed


class Reads(TorchDispatchMode):
    "How often a number is read from a tensor, which on a GPU means to wait for it."
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_an_epoch_reads_no_number_between_its_batches(mnist):
    counts = []
    for batch_size in (300, 30):
        with Reads() as reads:
            fit(LinearModel.random(), mnist.train, mnist.valid, loss=torch.nn.functional.cross_entropy,
                epochs=1, lr=0.1, batch_size=batch_size)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


def test_the_order_of_the_images_moves_to_the_device_in_one_piece():
    there, here = (list(minibatches(10, 4, torch.Generator().manual_seed(0), device)) for device in ("meta", None))
    assert [batch.device.type for batch in there] == ["meta"] * 3 and [len(batch) for batch in there] == [4, 4, 2]
    assert len({batch.untyped_storage()._cdata for batch in there}) == 1, "views of one tensor"
    assert torch.cat(here).equal(torch.randperm(10, generator=torch.Generator().manual_seed(0)))


@pytest.mark.skipif(os.name == "nt", reason="Windows does not say how much memory a process has held")
def test_growth_measures_one_size_of_the_folder_that_the_setting_names(small_folder, monkeypatch):
    monkeypatch.setenv("MNIST_SCRATCH_DATA", small_folder.name)  # relative to where it is started
    command = [sys.executable, BENCHMARKS / "growth.py", "--size", "40"]
    done = subprocess.run(command, cwd=small_folder.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 40
