"""Measures time and memory of two implementations of the same task."""

import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

REPEATS = 5


class Row(NamedTuple):
    """One comparison; a ratio above 1 means that this implementation (`ours`) beats the baseline (`reference`)."""

    name: str
    ours: float
    reference: float
    ratio: float
    unit: str
    note: str


def time_both(ours: Callable[[], Any], baseline: Callable[[], Any], repeats: int = REPEATS) -> tuple[float, float]:
    """Return the median seconds of two functions, called alternately after one warm-up round."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for round_ in range(repeats + 1):
        for function, into in zip((ours, baseline), seconds, strict=True):
            started = time.perf_counter()
            function()
            if round_:
                into.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def extra_mib(function: Callable[[], Any], device: "torch.device") -> float:
    """Return by how many MiB a call raises memory at its peak; 0 on systems that don't report it."""
    function()
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return 0.0
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # free memory that glibc keeps would hide new allocations
    before = _kib(status, "VmRSS")
    reset.write_text("5")  # resets VmHWM, the peak
    function()
    return (_kib(status, "VmHWM") - before) / 2**10


def _kib(status: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(f"{key}:"))


def lower_is_better(name: str, ours: float, reference: float, unit: str, note: str, scale: float = 1.0) -> Row:
    """Make a row of two durations, errors or amounts of memory, multiplied by `scale` to give `unit`."""
    return Row(name, scale * ours, scale * reference, reference / ours, unit, note)
