"""Which device to use, and in which precision; said once."""

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from competition.common.choices import PRECISIONS, one_of
from competition.common.errors import RunError

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


@contextmanager
def told_when_out_of_memory(what_to_do: str) -> Iterator[None]:
    """Turn an allocation that failed, on a GPU or not, into RunError; a compilation that failed, too."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
            raise RunError(f"out of memory: {what_to_do}") from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise RunError(f"--compile fails here, {str(error).strip().splitlines()[0]}: leave it out") from error
        raise


def _seconds(precision: str, device: torch.device) -> float:
    """Time a convolution as hourglasses have them, forward and backward."""
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, device=device).to(memory_format=torch.channels_last)
    images = torch.ones(4, 128, 64, 64, device=device).to(memory_format=torch.channels_last)
    started = time.perf_counter()
    with autocast(precision, device):
        total = layer(images).float().sum()
    torch.autograd.backward(total)
    return time.perf_counter() - started
