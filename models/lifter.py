"""The lifter of Martinez et al. 2017 ("A simple yet effective baseline for 3d human pose estimation")."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = 2
MAX_ROTATION_DEG = 30.0  # as in the full augmentation of images
MAX_SCALE = 0.15
MAX_SHIFT = 0.08  # half the image is 1


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation [B,width]; a training batch of one sample has no variance and uses the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def layer(inputs: int, width: int, dropout: float) -> nn.Sequential:
    """Create a hidden layer, [B,inputs] -> [B,width]."""
    return nn.Sequential(nn.Linear(inputs, width), BatchNorm(width), nn.ReLU(inplace=True), nn.Dropout(dropout))


class Block(nn.Module):
    """Residual block of two layers, [B,width] -> the same shape."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(layer(width, width, dropout), layer(width, width, dropout))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


class Lifter(nn.Module):
    """A hidden layer, two residual blocks and a linear layer, [B,inputs] -> [B,outputs]."""

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        blocks = [Block(width, dropout) for _ in range(BLOCKS)]
        self.body = nn.Sequential(layer(inputs, width, dropout), *blocks, nn.Linear(width, outputs))

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.body(features)
        return result


def augment_lifting(positions: Tensor, peaks: Tensor, pose_mm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotate, scale, shift and mirror samples at random; every sample has its own transform.

    positions [B,17,2], -1 to 1 between the image's edges; peaks [B,17]; pose_mm [B,17,3], camera axes. The pose is
    rotated with the image about the optical axis; scale and shift leave it unchanged.
    """
    draws = torch.rand(5, len(positions), 1, 1, dtype=positions.dtype, device=positions.device)
    angle = math.radians(MAX_ROTATION_DEG) * (2 * draws[0, :, 0, 0] - 1)
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([cos, sin, -sin, cos], 1).view(-1, 2, 2)  # of row vectors
    scale = 1 + MAX_SCALE * (2 * draws[1] - 1)
    shift = MAX_SHIFT * (2 * torch.cat([draws[2], draws[3]], 2) - 1)
    positions = positions @ rotation * scale + shift
    pose_mm = torch.cat([pose_mm[..., :2] @ rotation, pose_mm[..., 2:]], 2)
    mirrored = draws[4] < 0.5  # B,1,1
    positions = torch.where(mirrored, mirror(positions), positions)
    pose_mm = torch.where(mirrored, mirror(pose_mm), pose_mm)
    peaks = torch.where(mirrored[..., 0], swap_sides(peaks), peaks)
    return positions, peaks, pose_mm


def mirror(points: Tensor) -> Tensor:
    """Mirror points [B,17,2 or 3] left to right: negate x and swap left and right joints."""
    return swap_sides(torch.cat([-points[..., :1], points[..., 1:]], 2))


def swap_sides(joints: Tensor) -> Tensor:
    """Swap left and right joints of [B,17,...]: the legs are 1-3 and 4-6, the arms 11-13 and 14-16."""
    return torch.cat(
        [joints[:, :1], joints[:, 4:7], joints[:, 1:4], joints[:, 7:11], joints[:, 14:], joints[:, 11:14]], 1
    )
