"""The kernels compile for an H100 without a GPU, and keep their values in registers."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

MAX_REGISTERS = 168  # of a thread; with more, a multiprocessor's 65,536 suffice for one program of 8 warps


def compile_kernels(folder: Path) -> None:
    """Compile each kernel that a training step of 2dhg launches; print name, options, registers and bytes spilled."""
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from models import kernels, layers
    from models.hourglass import StackedHourglass

    types = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int64: "*i64"}
    seen: set[str] = set()

    def launch(kernel: Any, plan: layers.Plan, *arguments: Any, **options: Any) -> None:
        given = dict(zip(kernel.arg_names, arguments, strict=False)) | plan.blocks | options
        constants = {p.name: given[p.name] for p in kernel.params if p.is_constexpr}
        signature, attributes = {}, {}
        for index, (name, value) in enumerate((name, given[name]) for name in kernel.arg_names):
            scalar = "fp32" if isinstance(value, float) else "i32"
            signature[name] = types[value.dtype] if isinstance(value, torch.Tensor) else scalar
            if name in constants:
                signature[name] = "constexpr"
            elif isinstance(value, torch.Tensor):
                attributes[(index,)] = [["tt.divisibility", 16]]
        key = f"{kernel.__name__} {signature} {constants} {plan.warps}"
        if key in seen:
            return
        seen.add(key)
        source = ASTSource(kernel, signature, constants, attributes)
        target = GPUTarget("cuda", 90, 32)
        options = {"num_warps": plan.warps, "enable_fp_fusion": True}
        compiled = triton.compile(source, target=target, options=options)
        path = folder / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        tool = [knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
        usage = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
        registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())  # type: ignore[union-attr]
        print(kernel.__name__, plan.warps, registers, stack, constants, flush=True)

    layers.launch, layers.fits = launch, lambda x: True  # convolutions on meta don't keep channels_last
    assert isinstance(kernels.rectify, triton.JITFunction)
    network = StackedHourglass(256, (17,)).to(device="meta", dtype=torch.bfloat16)
    for module in network.modules():
        if isinstance(module, layers.BatchNorm):
            module.float()
    images = torch.empty(32, 3, 256, 256, dtype=torch.bfloat16, device="meta")
    (scores,) = network(images.to(memory_format=torch.channels_last))
    scores.sum().backward()


@pytest.mark.slow
def test_kernels_compile_for_an_h100_without_spills(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split(maxsplit=4) for line in done.stdout.splitlines()]
    assert len({name for name, *_ in rows}) == 12
    for name, _, registers, stack, _ in rows:
        assert int(stack) == 0, f"{name} spills"
        assert int(registers) <= MAX_REGISTERS, name


if __name__ == "__main__":
    compile_kernels(Path(sys.argv[1]))
