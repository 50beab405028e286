"""What the benchmarks ran on."""
import os
import platform

import torch


def machine(device: torch.device | str = "cpu") -> str:
    "Processor, threads and versions in one line."
    device = torch.device(device)
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return (f"{platform.machine()} {device.type}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, "
            f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}")
