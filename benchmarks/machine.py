"""The machine that figures were measured on."""

import os
import platform
import sys
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def machine() -> str:
    """Processor, number of cores we may use, and Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    return f"{[*models, platform.machine()][0]}, {cores} cores, Python {platform.python_version()}"


def one_thread(module: str) -> None:
    """Start a benchmark again with one thread, unless the threads are chosen: libraries read this when they load."""
    if "OMP_NUM_THREADS" not in os.environ:
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **dict.fromkeys(THREADS, "1")})
