"""What the benchmarks ran on, and how much memory a process has needed."""
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch


def machine(device: torch.device | str = "cpu") -> str:
    "Processor, threads and versions in one line."
    device = torch.device(device)
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (f"{platform.machine()} cpu, {torch.get_num_threads()} threads of {cores} cores, "
            f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}")


def megabytes_on_top(work: Callable) -> float:
    "How much more memory this process holds at most while it does some work than before; NaN where Linux is missing."
    if sys.platform != "linux":
        return float("nan")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = peak_megabytes()
    work()
    return peak_megabytes() - before


def peak_megabytes() -> float:
    "The most memory that this process has held so far, in units of 2**20 bytes."
    if sys.platform == "linux":  # where ru_maxrss of a new process begins at what its parent held
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])/2**10
    import resource  # not on Windows
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20  # bytes on a Mac
