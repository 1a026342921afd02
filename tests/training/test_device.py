"""The device: which one is used, what its memory keeps, and that every optimiser can be made."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.optim import create_optimizer_v2

from competition.training import device
from models.recipes import OPTIMIZERS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_recipes_can_be_made(name: str):
    create_optimizer_v2(torch.nn.Linear(2, 2), opt=name, lr=1e-3)


@pytest.mark.parametrize(("gpus", "processes", "kind"), [(0, 1, "cpu"), (1, 1, "cuda"), (1, 2, "cpu"), (2, 2, "cuda")])
def test_processes_share_no_gpu(monkeypatch: pytest.MonkeyPatch, gpus: int, processes: int, kind: str):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert device.choose_device().type == kind


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or (HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text()),
    reason="of glibc; huge pages hide the faults",
)
def test_kept_memory_is_not_faulted_in_again():
    """Twenty megabytes, twice: of glibc's own, the second time, too, is on fresh pages."""
    count = (
        "import resource; from competition.training.device import keep_memory; KEEP\n"
        "def faults():\n"
        "    bytes(1) * 20_000_000\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "print(-faults() + faults())"
    )
    kept, given_back = (
        int(subprocess.check_output([sys.executable, "-c", count.replace("KEEP", call)]))
        for call in ("keep_memory()", "pass")
    )
    assert kept < 1000 < given_back
