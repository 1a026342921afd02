"""Choose the device and the precision of training and prediction."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

import models
from competition.common.choices import one_of
from competition.training.options import PRECISIONS

CPUINFO = Path("/proc/cpuinfo")
BF16_FEATURES = {"amx_bf16", "avx512_bf16", "bf16"}  # of Intel, of Intel and AMD, of ARM
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h


def choose_device(processes: int = 1) -> torch.device:
    """Return the GPU if there is one for each of `processes` on this machine, otherwise the CPU.

    A launcher sets their number in the environment.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    return torch.device("cuda" if torch.cuda.is_available() and torch.cuda.device_count() >= processes else "cpu")


def fold_threads(model: str, device: torch.device) -> int:
    """Return the threads with which this process trains a model: one for a small model on a CPU, otherwise torch's.

    A second thread gains little for such small layers, and slows them down when other programs use the cores. A run's
    bytes depend on the number, so that it depends on nothing else; OMP_NUM_THREADS overrides it.
    """
    one = device.type == "cpu" and models.is_small(model) and "OMP_NUM_THREADS" not in os.environ
    return 1 if one else torch.get_num_threads()


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch compute with a number of threads in a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_precision(precision: str, device: torch.device) -> str:
    """Resolve auto: bf16 if the GPU or CPU has instructions for it, otherwise fp32."""
    one_of("precision", PRECISIONS)(precision)
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if BF16_FEATURES & cpu_features() else "fp32"


def cpu_features() -> set[str]:
    """Return the features that the processor reports, as Linux names them; none where they are unknown."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return set()
    described = (line.partition(":") for line in lines)
    return next((set(words.split()) for name, _, words in described if name.strip() in ("flags", "Features")), set())


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Compute matrix products and convolutions in bf16; the models keep losses and decoders in fp32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for later allocations.

    By default it returns large blocks to the system, and each batch of images causes page faults again.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never return freed memory
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # bytes; larger blocks, such as heatmap volumes, are still returned
