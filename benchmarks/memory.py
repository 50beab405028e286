"""How much memory a process has needed."""
import re
import sys
from pathlib import Path


def peak_megabytes() -> float:
    "The most memory that this process has held so far, in units of 2**20 bytes."
    if sys.platform == "linux":  # where ru_maxrss of a new process begins at what its parent held
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])/2**10
    import resource  # not on Windows
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20  # bytes on a Mac
