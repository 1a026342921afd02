"""integral: a timm backbone with integral regression, after Sun et al. 2018 ("Integral human pose regression")."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.contract import JOINTS, Module, Output, Target
from models.heatmaps import index_to_mm
from models.recipes import Integral

DECONVOLUTIONS = 3  # each doubles the resolution: 8x8 to 64x64 at 256 pixels
SCORE_STD = 1e-3  # of the volume's first weights: every joint begins at the cube's centre


class IntegralRegression(Module):
    """A joint's position is the expectation over a softmax of its volume [D,H,W] in the metric cube.

    The pose is the joints' positions less the root's: the network may place the person in the cube where it is in the
    image.
    """

    def __init__(self, recipe: Integral) -> None:
        super().__init__(recipe, recipe.input_size)
        self.cube_mm = recipe.cube_mm
        self.bins = recipe.bins
        self.backbone = create_backbone(recipe.backbone, recipe.pretrained)
        inputs = self.backbone.feature_info.channels()[-1]
        layers: list[nn.Module] = []
        for _ in range(DECONVOLUTIONS):
            layers += deconvolution(inputs, recipe.deconvolution_channels)
            inputs = recipe.deconvolution_channels
        self.deconvolutions = nn.Sequential(*layers)
        self.score = nn.Conv2d(inputs, JOINTS * recipe.bins, 1)
        nn.init.normal_(self.score.weight, std=SCORE_STD)
        assert self.score.bias is not None
        nn.init.zeros_(self.score.bias)

    def forward(self, images: Tensor) -> Output:
        positions_mm = expectation_mm(self.volume(images), self.cube_mm)
        return Output(positions_mm - positions_mm[:, :1])

    def volume(self, images: Tensor) -> Tensor:
        """Return the volumes before the softmax, [B,17,D,H,W]."""
        features = self.backbone(images)[-1]
        score: Tensor = self.score(self.deconvolutions(features))
        return score.view(len(score), JOINTS, self.bins, *score.shape[2:])

    def loss(self, output: Output, target: Target) -> dict[str, Tensor]:
        """Return the mean absolute difference in units of half the cube, summed over x, y, z."""
        difference = (output.pose_mm - target.pose_mm.float()) / (self.cube_mm / 2)
        return {"total": difference.abs().sum(2).mean()}


def expectation_mm(volume: Tensor, cube_mm: float) -> Tensor:
    """Return the expected positions [B,J,3], mm from the cube's centre, under the softmax of volumes [B,J,D,H,W]."""
    with torch.autocast(volume.device.type, enabled=False):
        index: Tensor = Expectation.apply(volume)
    return index_to_mm(index, index.new_tensor(volume.shape[:1:-1]), cube_mm)


class Expectation(torch.autograd.Function):
    """Expected voxel position [B,J,3] (x, y, z) under the softmax over each joint's whole volume, of [B,J,D,H,W].

    Expectations need only the softmax' marginals, and so does the gradient: p * (gx (x - E x) + gy (y - E y) + gz (z -
    E z)). The softmax is made again in the backward pass, sample by sample in float32, so that no volume is kept but
    the network's own.
    """

    @staticmethod
    def forward(ctx: Any, volume: Tensor) -> Tensor:
        logarithms, means = [], []
        for sample in volume:
            flat, x, y, z = flatten(sample)
            top = flat.amax((1, 2))
            weights = torch.exp(flat - top[:, None, None])  # J,D,HW
            plane, line = weights.sum(1), weights.sum(2)
            total = line.sum(1)
            logarithms.append(top + total.log())
            means.append(torch.stack([plane @ x, plane @ y, line @ z], 1) / total[:, None])
        mean = torch.stack(means)
        ctx.save_for_backward(volume, torch.stack(logarithms), mean)
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        volume, logarithms, means = ctx.saved_tensors
        result = torch.empty_like(volume)
        for sample, into, logarithm, mean, slope in zip(volume, result, logarithms, means, gradient, strict=True):
            flat, x, y, z = flatten(sample)
            weights = torch.exp(flat - logarithm[:, None, None])  # J,D,HW; they sum to 1
            along_x, along_y, along_z = (
                slope[:, axis, None] * (row - mean[:, axis, None]) for axis, row in enumerate((x, y, z))
            )
            slopes = (along_x + along_y)[:, None, :] + along_z[:, :, None]  # J,D,HW
            into.copy_(weights.mul_(slopes).view_as(sample))
        return result


def flatten(sample: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a sample [J,D,H,W] as [J,D,HW] in float32 (or float64), and the indices x [HW], y [HW] and z [D]."""
    depth, height, width = sample.shape[1:]
    flat = sample.flatten(2).to(torch.promote_types(sample.dtype, torch.float32))
    x, y, z = (torch.arange(size, dtype=flat.dtype, device=flat.device) for size in (width, height, depth))
    return flat, x.repeat(height), y.repeat_interleave(width), z


def deconvolution(inputs: int, outputs: int) -> list[nn.Module]:
    """Return layers that double the resolution, [B,inputs,H,W] -> [B,outputs,2H,2W]."""
    upsample = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return [upsample, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def create_backbone(name: str, pretrained: bool) -> Any:
    """Create a timm backbone that gives its last features.

    Raises ValueError for an unknown or unfit name, RuntimeError where weights can't be had.
    """
    if not timm.is_model(name):
        nearest = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5)) or "none"
        expected = f"a model of timm {timm.__version__} (nearest: {nearest})"
        raise ValueError(f"backbone must be {expected}, but got backbone={name!r}")
    try:
        backbone = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=(-1,))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        if pretrained:
            cure = "use pretrained=False, or try again online"
            raise RuntimeError(f"weights of backbone {name} couldn't be loaded: {reason}; {cure}") from error
        raise ValueError(f"backbone {name} has no features_only: {reason}") from error
    return backbone
