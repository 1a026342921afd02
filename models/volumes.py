"""Triton kernels that read a volume [B,J,D,H,W] once, for the loss of 3dhg and 2dhg and the marginals of integral.

They take volumes as the networks' convolutions write them: in channels_last memory, a row of channels j * D + d per
pixel, in any floating-point type up to 32 bits. Sums are computed in float32 in a fixed order, so the same volume gives
the same bits. The same functions in plain PyTorch, for all other volumes: models/heatmaps.py and models/integral.py.
"""

# ruff: noqa: N803  # sizes and tiles are capitals, as in the shapes
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.layers import has_kernels

try:
    import triton
    import triton.language as tl
except ImportError:  # Triton exists for GPUs only
    AVAILABLE = False
else:
    AVAILABLE = True

MIN_DEPTH = 16  # from this number of bins a program computes one joint, whose bins fill whole memory transactions
ONE_JOINT = 8192  # voxels of such a program
PIXELS, COLUMNS = 64, 32  # of a program for fewer bins, which loads the positions of several joints: more registers


def fits(volume: Tensor) -> bool:
    """Return whether the kernels can compute a volume [B,J,D,H,W]."""
    return volume.is_cuda and readable(volume) and has_kernels()


def readable(volume: Tensor) -> bool:
    """Return whether a volume has the type and the memory format that the kernels read."""
    batch, joints, depth, height, width = volume.shape
    stride = volume.stride(4)  # from pixel to pixel: at least the number of channels
    expected = (height * width * stride, depth, 1, width * stride, stride)
    pairs = zip(volume.shape, volume.stride(), expected, strict=True)
    return (
        volume.dtype in (torch.bfloat16, torch.float16, torch.float32)
        and all(size == 1 or found == wanted for size, found, wanted in pairs)
        and width > 1
        and stride >= joints * depth
        and batch * height * width * stride < 2**31  # offsets are 32-bit
    )


if AVAILABLE:

    @triton.jit
    def _voxels(HW, W, JD, stride, D: tl.constexpr, ONE: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
        """Return sample, rows, joints and bins of a program's tile, offsets in the volume, and the mask of voxels.

        ONE: the tile is BM pixels of one joint. The joint is then a scalar and the rows a vector.
        """
        tiles = tl.cdiv(HW, BM)
        sample = tl.program_id(0) // tiles
        pixel = (tl.program_id(0) % tiles) * BM + tl.arange(0, BM)
        if ONE:
            bins = tl.arange(0, BC)
            channel = tl.program_id(1) * D + bins
            joint = tl.program_id(1) + tl.zeros((1, 1), tl.int32)
            inside = (pixel < HW)[:, None] & (bins < D)[None, :]
        else:
            channel = tl.program_id(1) * BC + tl.arange(0, BC)
            bins = channel % D
            joint = (channel // D)[None, :]
            inside = (pixel < HW)[:, None] & (channel < JD)[None, :]
        return sample, pixel[:, None], joint, bins[None, :], (sample * HW + pixel)[:, None] * stride + channel, inside

    @triton.jit
    def _residual(
        volume, positions, sx, sy, sz, HW, W, J, stride, D: tl.constexpr, DIMS: tl.constexpr, ONE: tl.constexpr,
        BM: tl.constexpr, BC: tl.constexpr,
    ):  # fmt: skip
        """Return a tile's differences from its target Gaussians, 0 outside the volume, with its pixels and mask."""
        sample, pixel, joint, bins, offset, inside = _voxels(HW, W, J * D, stride, D, ONE, BM, BC)
        centre = positions + (sample * J + joint) * DIMS
        known = joint < J
        x = (pixel % W - tl.load(centre, mask=known, other=0.0)) / sx
        y = (pixel // W - tl.load(centre + 1, mask=known, other=0.0)) / sy
        target = tl.exp(-0.5 * (x * x + y * y))
        if DIMS == 3:
            z = (bins - tl.load(centre + 2, mask=known, other=0.0)) / sz
            target = target * tl.exp(-0.5 * z * z)
        value = tl.load(volume + offset, mask=inside, other=0.0).to(tl.float32)
        return tl.where(inside, value - target, 0.0), offset, inside

    @triton.jit
    def _squares(
        volume, positions, partial, sx, sy, sz, HW, W, J, stride, D: tl.constexpr, DIMS: tl.constexpr,
        ONE: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
    ):  # fmt: skip
        difference, _, _ = _residual(volume, positions, sx, sy, sz, HW, W, J, stride, D, DIMS, ONE, BM, BC)
        program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        tl.store(partial + program, tl.sum(tl.sum(difference * difference, 1), 0))

    @triton.jit
    def _squares_backward(
        volume, positions, gradient, result, sx, sy, sz, HW, W, J, stride, D: tl.constexpr, DIMS: tl.constexpr,
        ONE: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
    ):  # fmt: skip
        difference, _, _ = _residual(volume, positions, sx, sy, sz, HW, W, J, stride, D, DIMS, ONE, BM, BC)
        _, _, _, _, offset, inside = _voxels(HW, W, J * D, J * D, D, ONE, BM, BC)
        slope = 2.0 * tl.load(gradient) * difference
        tl.store(result + offset, slope.to(result.dtype.element_ty), mask=inside)

    @triton.jit
    def _marginals(
        volume, along_x, along_y, along_z, logarithms, H, W, J, stride, D: tl.constexpr, BH: tl.constexpr,
        BW: tl.constexpr, BD: tl.constexpr,
    ):  # fmt: skip
        """Marginals of the softmax of one joint's volume, row by row; sums are rescaled when the maximum rises."""
        joint, sample, number = tl.program_id(0) % J, tl.program_id(0) // J, tl.program_id(0)
        rows, pixels, bins = tl.arange(0, BH), tl.arange(0, BW), tl.arange(0, BD)
        inside = (pixels < W)[:, None] & (bins < D)[None, :]
        top = tl.full((), float("-inf"), tl.float32)
        sum_x = tl.zeros((BW,), tl.float32)
        sum_y = tl.zeros((BH,), tl.float32)
        sum_z = tl.zeros((BD,), tl.float32)
        for row in range(H):
            offset = ((sample * H + row) * W + pixels)[:, None] * stride + joint * D + bins[None, :]
            value = tl.load(volume + offset, mask=inside, other=float("-inf")).to(tl.float32)
            higher = tl.maximum(top, tl.max(tl.max(value, 1), 0))
            shrink = tl.exp(top - higher)
            weight = tl.exp(value - higher)
            line = tl.sum(weight, 1)
            sum_x = sum_x * shrink + line
            sum_y = tl.where(rows == row, tl.sum(line, 0), sum_y * shrink)
            sum_z = sum_z * shrink + tl.sum(weight, 0)
            top = higher
        total = tl.sum(sum_z, 0)
        tl.store(along_x + number * W + pixels, sum_x / total, mask=pixels < W)
        tl.store(along_y + number * H + rows, sum_y / total, mask=rows < H)
        tl.store(along_z + number * D + bins, sum_z / total, mask=bins < D)
        tl.store(logarithms + number, top + tl.log(total))

    @triton.jit
    def _marginals_backward(
        volume, logarithms, slope_x, slope_y, slope_z, result, HW, W, H, J, stride, D: tl.constexpr, ONE: tl.constexpr,
        BM: tl.constexpr, BC: tl.constexpr,
    ):  # fmt: skip
        sample, pixel, joint, bins, offset, inside = _voxels(HW, W, J * D, stride, D, ONE, BM, BC)
        number = sample * J + joint
        known = joint < J
        value = tl.load(volume + offset, mask=inside, other=0.0).to(tl.float32)
        weight = tl.exp(value - tl.load(logarithms + number, mask=known, other=0.0))
        on_map = known & (pixel < HW)
        slope = tl.load(slope_x + number * W + pixel % W, mask=on_map, other=0.0)
        slope += tl.load(slope_y + number * H + pixel // W, mask=on_map, other=0.0)
        slope = slope + tl.load(slope_z + number * D + bins, mask=known & (bins < D), other=0.0)
        _, _, _, _, offset, inside = _voxels(HW, W, J * D, J * D, D, ONE, BM, BC)
        tl.store(result + offset, (weight * slope).to(result.dtype.element_ty), mask=inside)


class GaussianSquares(torch.autograd.Function):
    """sum((P - G)^2) for volumes P [B,J,D,H,W] and Gaussians G of height 1 at positions x, y (, z), [B,J,2 or 3].

    The volume is read once in the forward and once in the backward pass, which writes its gradient.
    """

    @staticmethod
    def forward(ctx: Any, volume: Tensor, positions: Tensor, sigmas: tuple[float, ...]) -> Tensor:
        ctx.save_for_backward(volume, positions)
        ctx.sigmas = sigmas
        grid, shape = _tiles(volume)
        partial = positions.new_empty(grid)
        _squares[grid](volume, positions, partial, *_arguments(volume, sigmas), DIMS=len(sigmas), **shape)
        return partial.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        volume, positions = ctx.saved_tensors
        result, (grid, shape) = _empty(volume), _tiles(volume)
        arguments = _arguments(volume, ctx.sigmas)
        _squares_backward[grid](volume, positions, gradient, result, *arguments, DIMS=len(ctx.sigmas), **shape)
        return result, None, None


class Marginals(torch.autograd.Function):
    """Marginals [B,J,W], [B,J,H], [B,J,D] of the softmax over each joint's volume, for volumes [B,J,D,H,W]."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor) -> tuple[Tensor, ...]:
        batch, joints, depth, height, width = volume.shape
        sizes = (width, height, depth)
        marginals = tuple(torch.empty(batch, joints, size, device=volume.device) for size in sizes)
        logarithms = torch.empty(batch, joints, device=volume.device)
        bw, bh, bd = (triton.next_power_of_2(size) for size in sizes)
        _marginals[(batch * joints,)](
            volume, *marginals, logarithms, height, width, joints, volume.stride(4), D=depth, BH=bh, BW=bw, BD=bd
        )
        ctx.save_for_backward(volume, logarithms, *marginals)
        return marginals

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        volume, logarithms, *marginals = ctx.saved_tensors
        slopes = [
            (gradient - (marginal * gradient).sum(2, keepdim=True)).contiguous()
            for marginal, gradient in zip(marginals, gradients, strict=True)
        ]
        _, joints, _, height, width = volume.shape
        result, (grid, shape) = _empty(volume), _tiles(volume)
        sizes = (height * width, width, height, joints, volume.stride(4))
        _marginals_backward[grid](volume, logarithms, *slopes, result, *sizes, **shape)
        return result


def _empty(volume: Tensor) -> Tensor:
    """Create a volume [B,J,D,H,W] of the same shape and type, without gaps between its rows of channels."""
    batch, joints, depth, height, width = volume.shape
    rows = torch.empty(batch, height, width, joints * depth, dtype=volume.dtype, device=volume.device)
    return rows.view(batch, height, width, joints, depth).permute(0, 3, 4, 1, 2)


def _tiles(volume: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """Return the grid of programs, pixels by channels, and the shape of a program's tile."""
    batch, joints, depth, height, width = volume.shape
    one = depth >= MIN_DEPTH
    columns = triton.next_power_of_2(depth) if one else COLUMNS
    pixels = min(triton.next_power_of_2(height * width), max(1, ONE_JOINT // columns) if one else PIXELS)
    grid = (batch * triton.cdiv(height * width, pixels), joints if one else triton.cdiv(joints * depth, columns))
    return grid, {"D": depth, "ONE": one, "BM": pixels, "BC": columns}


def _arguments(volume: Tensor, sigmas: tuple[float, ...]) -> tuple[float, ...]:
    """Return the sigmas along x, y and z and the sizes that the kernels of GaussianSquares take."""
    _, joints, _, height, width = volume.shape
    return (*sigmas, 1.0)[:3] + (height * width, width, joints, volume.stride(4))
