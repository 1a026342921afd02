"""The choice of the device, memory that is kept, and the optimizers of the recipes."""

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
def test_every_optimizer_of_the_recipes_can_be_created(name: str):
    create_optimizer_v2(torch.nn.Linear(2, 2), opt=name, lr=1e-3)


@pytest.mark.parametrize(("gpus", "processes", "kind"), [(0, 1, "cpu"), (1, 1, "cuda"), (1, 2, "cpu"), (2, 2, "cuda")])
def test_processes_do_not_share_a_gpu(monkeypatch: pytest.MonkeyPatch, gpus: int, processes: int, kind: str):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert device.choose_device().type == kind


FLAGS = "processor\t: 0\nmodel name\t: one of bf16\nflags\t\t: fpu avx2{}\nprocessor\t: 1\nflags\t\t: fpu\n"
CPUS = {
    "AMX": (FLAGS.format(" amx_bf16 amx_tile"), "bf16"),
    "AVX512-BF16": (FLAGS.format(" avx512_bf16"), "bf16"),
    "AVX512 without bf16": (FLAGS.format(" avx512f avx512_vnni"), "fp32"),
    "ARM with bf16": ("processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n", "bf16"),
    "ARM without": ("processor\t: 0\nFeatures\t: fp asimd\n", "fp32"),
    "no features": ("", "fp32"),
    "no file": (None, "fp32"),
}


@pytest.mark.parametrize("name", CPUS)
def test_the_precision_of_a_cpu_depends_only_on_the_features_that_it_reports(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    content, precision = CPUS[name]
    monkeypatch.setattr(device, "CPUINFO", tmp_path / "cpuinfo")
    if content is not None:
        (tmp_path / "cpuinfo").write_text(content)
    assert device.choose_precision("auto", torch.device("cpu")) == precision


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or (HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text()),
    reason="needs glibc, and no huge pages, which hide page faults",
)
def test_freed_memory_is_reused_without_page_faults():
    """By default, glibc returns freed twenty megabytes to the system, and allocating them again causes page faults."""
    code = (
        "import resource; from competition.training.device import keep_freed_memory; KEEP\n"
        "def faults():\n"
        "    bytes(1) * 20_000_000\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "print(-faults() + faults())"
    )
    kept, returned = (
        int(subprocess.check_output([sys.executable, "-c", code.replace("KEEP", call)]))
        for call in ("keep_freed_memory()", "pass")
    )
    assert kept < 1000 < returned
