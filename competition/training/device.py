"""Choose the device and the precision of training and prediction."""

import ctypes
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext

import torch

from competition.common.choices import one_of
from competition.common.workers import usable_cores
from competition.training.options import PRECISIONS

MIN_SPEEDUP = 1.3  # of bf16 over fp32: on some CPUs, bf16 instructions gain nothing
TRIALS = 10
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h


def choose_device() -> torch.device:
    """Return the GPU if there is one for each process of a launcher on this machine, otherwise the CPU."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return torch.device("cuda" if torch.cuda.is_available() and torch.cuda.device_count() >= processes else "cpu")


def default_workers(device: torch.device) -> int:
    """Return the default number of loader processes: all cores but one (at most 8) with a GPU, none without."""
    return min(8, usable_cores() - 1) if device.type == "cuda" else 0


def choose_precision(precision: str, device: torch.device) -> str:
    """Resolve auto: bf16 if it is supported by the GPU or measured to be clearly faster on the CPU, otherwise fp32."""
    one_of("precision", PRECISIONS)(precision)
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    # alternating, as other programs may use the machine
    trials = [(_time_convolution("fp32", device), _time_convolution("bf16", device)) for _ in range(TRIALS)]
    fp32, bf16 = (min(seconds) for seconds in zip(*trials, strict=True))
    return "bf16" if fp32 > MIN_SPEEDUP * bf16 else "fp32"


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


def _time_convolution(precision: str, device: torch.device) -> float:
    """Return the seconds of the forward and backward pass of a convolution as in the hourglasses."""
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, device=device).to(memory_format=torch.channels_last)
    images = torch.ones(4, 128, 64, 64, device=device).to(memory_format=torch.channels_last)
    started = time.perf_counter()
    with autocast(precision, device):
        total = layer(images).float().sum()
    torch.autograd.backward(total)
    return time.perf_counter() - started
