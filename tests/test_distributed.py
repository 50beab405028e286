"""benchmarks/distributed.py under torchrun, as a reader starts it: the same ResNet from one process and from two."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mnist_scratch.data import Digits, load_mnist
from mnist_scratch.resnet import Loader, resnet_learner

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "distributed.py"
pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs PyTorch's gloo")


def torchrun(n_processes: int, script: Path, *options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes),
               str(script), *map(str, options)]
    one_thread_on_the_cpu = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=one_thread_on_the_cpu)


@pytest.fixture
def share(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from distributed import Share
    return Share


@pytest.fixture
def loader():
    "1004 images, each of one pixel that holds its number, in batches of 100; 4 are left for the last."
    numbers = torch.arange(1004, dtype=torch.float32)
    digits = Digits(numbers.view(-1, 1, 1), torch.zeros(1004, dtype=torch.int64))
    return lambda: Loader(digits, 100, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("n_processes", [1, 2])
def test_every_image_is_seen_once_an_epoch(share, loader, n_processes):
    shares = [share(loader(), rank, n_processes) for rank in range(n_processes)]
    assert {len(share) for share in shares} == {11}
    for (whole, _), *parts in zip(loader(), *shares, strict=True):
        assert torch.cat([images for images, _ in parts]).equal(whole)
        assert {len(labels) for _, labels in parts} == {len(whole) // n_processes}


def test_a_last_batch_too_small_to_share_is_named(share, loader):
    with pytest.raises(ValueError, match="1004 images leave a last batch of 4, which 3 processes cannot share"):
        share(loader(), 0, 3)


def flat(parameters: dict) -> torch.Tensor:
    return torch.cat([values.flatten() for _, values in sorted(parameters.items())])


def test_two_processes_end_where_one_does(sample_folder, tmp_path):
    """The gradients of two halves, averaged, are the gradient of the whole: what is left is rounding.

    Dropout is off and batch norm frozen, since both depend on how a batch is shared; and all is float64."""
    for n_processes in (1, 2):
        done = torchrun(n_processes, SCRIPT, "--data", sample_folder, "--images", 300, "--epochs", 1, "--exact",
                        "--save", tmp_path / str(n_processes))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("images per second") == 1, "one process should speak for all"
        assert f"| resnet | {n_processes} | 1 |" in done.stdout, "of one thread each"
    alone, first, second = (flat(load_file(tmp_path / f"{file}.safetensors")) for file in ("1/0", "2/0", "2/1"))
    start = flat(resnet_learner(load_mnist(sample_folder, "cpu")).model.state_dict())
    assert first.equal(second)
    assert (first - alone).norm() < 1e-5 * (alone - start).norm()


def test_a_process_that_fails_makes_the_launcher_fail(sample_folder, tmp_path):
    "And the other, which waits for it, is stopped."
    broken = tmp_path / "broken.py"
    broken.write_text(f"import os, runpy\nif os.environ['RANK'] == '1': raise RuntimeError('no power')\n"
                      f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n")
    done = torchrun(2, broken, "--data", sample_folder, "--images", 300, "--epochs", 1)
    assert done.returncode != 0
    assert "no power" in done.stderr and "images per second" not in done.stdout


def test_without_the_launcher_it_says_how_to_start():
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout == ""
    assert "start it with: torchrun --standalone --nproc-per-node 2" in done.stderr
