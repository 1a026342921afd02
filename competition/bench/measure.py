"""How two ways of doing the same are compared."""

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
    """A comparison; ratio above 1 means that ours is better."""

    name: str
    ours: float
    reference: float
    ratio: float
    unit: str
    note: str


def in_turn(ours: Callable[[], Any], reference: Callable[[], Any], repeats: int = REPEATS) -> tuple[float, float]:
    """Return the median seconds of both ways, run in turn after one round of warming up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for round_ in range(repeats + 1):
        for way, into in zip((ours, reference), seconds, strict=True):
            started = time.perf_counter()
            way()
            if round_:
                into.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def extra_mib(way: Callable[[], Any], device: "torch.device") -> float:
    """Return the memory in MiB that a way needs at its peak beyond what is there before; 0 where it can't be told."""
    way()
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        way()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return 0.0
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)  # pieces that glibc kept would not be counted
    before = _kib(status, "VmRSS")
    reset.write_text("5")  # Linux forgets the peak so far
    way()
    return (_kib(status, "VmHWM") - before) / 2**10


def _kib(status: Path, what: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(f"{what}:"))


def faster(name: str, ours: float, reference: float, unit: str, note: str, scale: float = 1.0) -> Row:
    """Make a row of two durations (or errors), the smaller the better, in seconds times `scale`."""
    return Row(name, scale * ours, scale * reference, reference / ours, unit, note)
