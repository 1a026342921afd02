"""Which device to use, and in which precision; said once."""

import ctypes
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext

import torch

from competition.common.choices import one_of
from competition.training.options import PRECISIONS

CLEARLY = 1.3  # times: some processors have bf16 instructions that gain nothing
TRIES = 10
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def choose_device() -> torch.device:
    """Return the GPU when there is one for each process that torchrun started here, otherwise the processor."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return torch.device("cuda" if torch.cuda.is_available() and torch.cuda.device_count() >= processes else "cpu")


def default_workers(device: torch.device) -> int:
    """Return how many processes load images: beside a GPU all cores but one, on a processor none, as it is busy."""
    return min(8, (os.cpu_count() or 1) - 1) if device.type == "cuda" else 0


def choose_precision(precision: str, device: torch.device) -> str:
    """Resolve auto: bf16 where it is clearly faster, which on a processor only a measurement can tell, else fp32."""
    one_of("precision", PRECISIONS)(precision)
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    tries = [
        (_seconds("fp32", device), _seconds("bf16", device)) for _ in range(TRIES)
    ]  # in turn: others work here too
    fp32, bf16 = (min(seconds) for seconds in zip(*tries, strict=True))
    return "bf16" if fp32 > CLEARLY * bf16 else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Compute matrix products and convolutions in bf16; losses and decoders stay in fp32 by their own doing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def keep_memory() -> None:
    """Keep what is freed for what is allocated next, where the system's C library is glibc.

    It would give large pieces back, and their pages would be faulted in again: some twenty for every image that is
    loaded in batches of 16.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # bytes; larger pieces, as volumes of heatmaps, are given back


def _seconds(precision: str, device: torch.device) -> float:
    """Time a convolution as hourglasses have them, forward and backward."""
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, device=device).to(memory_format=torch.channels_last)
    images = torch.ones(4, 128, 64, 64, device=device).to(memory_format=torch.channels_last)
    started = time.perf_counter()
    with autocast(precision, device):
        total = layer(images).float().sum()
    torch.autograd.backward(total)
    return time.perf_counter() - started
