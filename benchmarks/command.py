"""How long `mnist-scratch predict` takes on a warm cache, beside a Python that only imports PyTorch; in turn."""
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

from mnist_scratch.pictures import drawn

N_RUNS = 10


def seconds(*command) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main():
    predict = Path(sys.executable).with_name("mnist-scratch")
    with tempfile.TemporaryDirectory() as folder:
        drawn(3).save(file := Path(folder) / "3.png")
        seconds(predict, "predict", file)  # trains where there is no net yet
        runs = [(seconds(sys.executable, "-c", "import torch"), seconds(predict, "predict", file))
                for _ in range(N_RUNS)]
    torch_alone, whole = (statistics.median(values) for values in zip(*runs))
    more = statistics.median(one - other for other, one in runs)
    print(f"import torch {torch_alone:.2f} s, predict {whole:.2f} s: {more:.2f} s more; medians of {N_RUNS} runs each, "
          f"in turn; {machine()}")


if __name__ == "__main__":
    main()
