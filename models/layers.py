"""Layers of the hourglasses: plain PyTorch, and on a GPU kernels that read and write each activation fewer times.

The kernels need Triton, float32 or bfloat16, and channels_last with a multiple of 8 channels (see `fits`). Others take
PyTorch's path: CPUs, float64, torch.compile, and batch norms in prediction or synchronised between processes.
"""

from __future__ import annotations

import functools
import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

log = logging.getLogger(__name__)

SMALL_ROWS = 2048  # pixels of all maps, up to which one kernel is faster than three
PROGRAMS = 264  # of a kernel that sums: two for each of an H100's 132 multiprocessors


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that uses its running statistics where a channel has a single value: one image at 1x1."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)

    def fits(self) -> bool:
        """Return whether the kernels can update the running statistics."""
        return self.weight.dtype == torch.float32 and self.momentum is not None and self.track_running_stats


class BatchNormReLU(nn.Sequential):
    """Batch normalisation and ReLU, in one pass on a GPU in training.

    The batch norm is a submodule of its own, which nn.SyncBatchNorm.convert_sync_batchnorm replaces.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(BatchNorm(channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.with_input(x)[0]

    def with_input(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the result and x for a skip connection, whose gradient is added in the same pass."""
        norm, relu = self
        if self.training and fits(x) and type(norm) is BatchNorm and norm.fits():
            result: tuple[Tensor, Tensor] = FusedBatchNormReLU.apply(x, norm.weight, norm.bias, norm)
            return result
        return relu(norm(x)), x


def max_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x [B,C,H,W] for its other use, and its greatest values in windows of 2x2; H and W are even."""
    if fits(x):
        result: tuple[Tensor, Tensor] = FusedMaxPool.apply(x)
        return result
    return x, F.max_pool2d(x, 2)


class MaxPool(nn.Module):
    """The greatest values in windows of 2x2."""

    def forward(self, x: Tensor) -> Tensor:
        return max_pool(x)[1]


def add_upsampled(x: Tensor, low: Tensor) -> Tensor:
    """Return x [B,C,2H,2W] plus the nearest neighbours in low [B,C,H,W]."""
    if fits(x) and fits(low) and x.dtype == low.dtype:
        result: Tensor = FusedAddUpsampled.apply(x, low)
        return result
    with own_precision(low):  # autocast would convert it to float32
        return x + F.interpolate(low, scale_factor=2, mode="nearest")


def own_precision(x: Tensor) -> AbstractContextManager[object]:
    """Compute in the precision of the operands, without autocast, on the device of x."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def fits(x: Tensor) -> bool:
    """Return whether the kernels can process x [B,C,H,W]."""
    return x.is_cuda and shape_fits(x) and not torch.compiler.is_compiling() and has_kernels()


def shape_fits(x: Tensor) -> bool:
    rows, channels = rows_and_channels(x)
    return (
        x.dtype in (torch.float32, torch.bfloat16)
        and x.is_contiguous(memory_format=torch.channels_last)
        and channels % 8 == 0
        and rows >= 2
        and x.numel() < 2**31  # offsets are int32
    )


@functools.cache
def has_kernels() -> bool:
    """Return whether Triton works on this machine, where it needs a C compiler; if it doesn't, log a warning."""
    try:
        FusedMaxPool.apply(torch.zeros(1, 8, 2, 2, device="cuda").to(memory_format=torch.channels_last))
    except Exception as error:  # of any kind, as it runs compilers and the driver
        reason = " ".join(str(error).split())[:200]
        log.warning(f"training on this GPU is slower, as Triton doesn't work here: {reason}; install gcc and triton")
        return False
    return True


class FusedBatchNormReLU(torch.autograd.Function):
    """relu(batch norm(x)) and x, in training; updates the running statistics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: BatchNorm) -> tuple[Tensor, Tensor]:
        from models import kernels

        rows, channels = rows_and_channels(x)
        y = torch.empty_like(x)
        statistics = torch.empty(2, channels, device=x.device)
        affine = (weight, bias, statistics)
        running = (norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum, norm.eps, rows)
        if rows <= SMALL_ROWS:
            launch(kernels.small_forward, all_rows(x), x, y, *affine, *running)
        else:
            group, grouped = groups(x, 8192)
            parts = torch.empty(grouped.grid[0], 2, channels, device=x.device)
            launch(kernels.group_moments, grouped, x, parts, rows, group)
            launch(kernels.combine_moments, combination(parts), parts, statistics, *running, group, len(parts))
            launch(kernels.rectify, elementwise(x), x, y, *affine, rows)
        ctx.save_for_backward(x, *affine)
        ctx.set_materialize_grads(False)
        return y, x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, skip: Tensor | None) -> tuple[Tensor | None, ...]:
        from models import kernels

        if dy is None:
            return skip, None, None, None
        x, weight, bias, statistics = ctx.saved_tensors
        rows, channels = rows_and_channels(x)
        dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
        inputs = (aligned(dy), x, weight, bias, statistics)
        results = (x if skip is None else aligned(skip), dx, dweight, dbias, rows)
        if rows <= SMALL_ROWS:
            launch(kernels.small_backward, all_rows(x), *inputs, *results, SKIP=skip is not None)
        else:
            group, grouped = groups(x, 4096)
            parts = torch.empty(grouped.grid[0], 2, channels, device=x.device)
            launch(kernels.group_sums, grouped, *inputs, parts, rows, group)
            launch(kernels.combine_sums, combination(parts), parts, dweight, dbias, len(parts))
            launch(kernels.input_gradient, elementwise(x), *inputs, *results, SKIP=skip is not None)
        return dx, dweight, dbias, None


class FusedMaxPool(torch.autograd.Function):
    """x and its greatest values in windows of 2x2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        from models import kernels

        y = halved(x)
        launch(kernels.max_pool, windows(y), x, y, rows_and_channels(y)[0], y.shape[3])
        ctx.save_for_backward(x, y)
        ctx.set_materialize_grads(False)
        return x.view_as(x), y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, skip: Tensor | None, dy: Tensor | None) -> Tensor | None:
        from models import kernels

        if dy is None:
            return skip
        x, y = ctx.saved_tensors
        dx = torch.empty_like(x)
        tensors = (aligned(dy), x, y, x if skip is None else aligned(skip), dx)
        size = (rows_and_channels(y)[0], y.shape[3])
        launch(kernels.max_pool_gradient, windows(y), *tensors, *size, SKIP=skip is not None)
        return dx


class FusedAddUpsampled(torch.autograd.Function):
    """x plus the nearest neighbours in a map of half its height and width."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor) -> Tensor:
        from models import kernels

        y = torch.empty_like(x)
        launch(kernels.add_upsampled, windows(low), x, low, y, rows_and_channels(low)[0], low.shape[3])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        from models import kernels

        dy = aligned(dy)
        low = halved(dy)
        launch(kernels.sum_windows, windows(low), dy, low, rows_and_channels(low)[0], low.shape[3])
        return dy, low


def rows_and_channels(x: Tensor) -> tuple[int, int]:
    """Return the shape of the matrix that x [B,C,H,W] is in channels_last: the number of pixels, and of channels."""
    return x.numel() // x.shape[1], x.shape[1]


def aligned(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def halved(x: Tensor) -> Tensor:
    """Return an uninitialised tensor [B,C,H/2,W/2] like x [B,C,H,W]."""
    shape = (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


class Plan(NamedTuple):
    """How a kernel is launched: its programs, the rows and channels of each one's blocks, and its warps."""

    grid: tuple[int, ...]
    blocks: dict[str, int]
    warps: int


def launch(kernel: Any, plan: Plan, *arguments: Any, **options: Any) -> None:
    """Run a kernel on the current stream."""
    kernel[plan.grid](*arguments, **plan.blocks, **options, num_warps=plan.warps, enable_fp_fusion=True)


def all_rows(x: Tensor) -> Plan:
    """Plan a kernel whose programs have all rows of x [B,C,H,W]."""
    rows, channels = rows_and_channels(x)
    block = min(1024, max(16, 1 << (rows - 1).bit_length()))
    return Plan((channels // 8,), {"C": channels, "BM": block, "BC": 8}, 8 if block > 256 else 4)


def groups(x: Tensor, values: int) -> tuple[int, Plan]:
    """Plan a kernel that sums over groups of rows in blocks of `values`; return the rows of a group and the plan."""
    rows, channels = rows_and_channels(x)
    block = column_block(channels, 64)
    count = max(1, min(PROGRAMS * block // channels, rows // 64))
    group = 64 * divide(divide(rows, count), 64)
    grid = (divide(rows, group), channels // block)
    return group, Plan(grid, {"C": channels, "BM": values // block, "BC": block}, 8)


def combination(parts: Tensor) -> Plan:
    """Plan a kernel that combines parts [groups,2,C]."""
    count, _, channels = parts.shape
    block = column_block(channels, 16)
    return Plan((channels // block,), {"C": channels, "BG": 256 if count > 64 else 64, "BC": block}, 8)


def elementwise(x: Tensor) -> Plan:
    """Plan a kernel whose programs have a block of x [B,C,H,W]; large ones if all multiprocessors have several."""
    return tiles(x, 8192, 8) if x.numel() >= 8192 * 2 * PROGRAMS else tiles(x, 2048, 4)


def windows(low: Tensor) -> Plan:
    """Plan a kernel whose programs have a block of low [B,C,H,W] and its windows of 2x2."""
    return tiles(low, 2048, 4)


def tiles(x: Tensor, values: int, warps: int) -> Plan:
    rows, channels = rows_and_channels(x)
    block = column_block(channels, values)
    height = values // block
    return Plan((divide(rows, height), channels // block), {"C": channels, "BM": height, "BC": block}, warps)


def column_block(channels: int, most: int) -> int:
    """Return the greatest power of two that divides a number of channels, but at most `most`."""
    return min(channels & -channels, most)


def divide(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)
