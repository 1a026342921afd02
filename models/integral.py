"""integral: a timm backbone with integral regression, after Sun et al. 2018 ("Integral human pose regression")."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from timm.layers import Format
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.contract import JOINTS, Module, Output, Target
from models.heatmaps import index_to_mm
from models.recipes import Integral

DECONVOLUTIONS = 3  # each doubles the resolution: at 256 pixels 8x8 to 64x64
STRIDE = 4 * 2**DECONVOLUTIONS  # pixels, of the backbone's features: the volume's width is a quarter of the image's
SCORE_STD = 0.1  # of the volume's first weights: every joint begins near the centre, and gradients reach the backbone


class IntegralRegression(Module):
    """A joint's position is the expectation over a softmax of its volume [D,H,W] in the metric cube.

    The pose is the joints' positions less the root's: the network may place the person in the cube where it is in the
    image.
    """

    same_steps = True

    def __init__(self, recipe: Integral) -> None:
        super().__init__(recipe, recipe.input_size)
        self.cube_mm = recipe.cube_mm
        self.bins = recipe.bins
        self.backbone = create_backbone(recipe.backbone, recipe.pretrained, STRIDE, recipe.input_size)
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
        volume = self.volume(images)
        with torch.autocast(images.device.type, enabled=False):
            marginals: tuple[Tensor, ...] = Marginals.apply(volume)
            positions_mm = expectation_mm(marginals, self.cube_mm)
        return Output(positions_mm - positions_mm[:, :1])

    def volume(self, images: Tensor) -> Tensor:
        """Return the volumes before the softmax, [B,17,D,H,W]."""
        features = self.backbone(images)[-1]
        if getattr(self.backbone, "output_fmt", None) == Format.NHWC:
            features = features.permute(0, 3, 1, 2)
        score: Tensor = self.score(self.deconvolutions(features))
        return score.view(len(score), JOINTS, self.bins, *score.shape[2:])

    def loss(self, output: Output, target: Target) -> dict[str, Tensor]:
        """Return the mean absolute difference in units of half the cube, summed over x, y, z."""
        difference = (output.pose_mm - target.pose_mm.float()) / (self.cube_mm / 2)
        return {"total": difference.abs().sum(2).mean()}


def expectation_mm(marginals: tuple[Tensor, ...], cube_mm: float) -> Tensor:
    """Return the expected positions [B,J,3], mm from the cube's centre, under marginals along x, y, z."""
    positions = []
    for marginal in marginals:
        count = marginal.shape[2]
        centres = torch.arange(count, dtype=marginal.dtype, device=marginal.device)
        positions.append(marginal @ index_to_mm(centres, count, cube_mm))
    return torch.stack(positions, 2)


class Marginals(torch.autograd.Function):
    """Marginals [B,J,W], [B,J,H], [B,J,D] of the softmax over each joint's whole volume, of volumes [B,J,D,H,W].

    The gradient to a voxel is p * (gx + gy + gz - E[gx + gy + gz]), with the marginals' gradients at its x, y and z.
    The softmax p is made again in the backward pass, sample by sample in float32, so no volume is kept but the
    network's own.
    """

    @staticmethod
    def forward(ctx: Any, volume: Tensor) -> tuple[Tensor, ...]:
        logarithms = []
        rows: tuple[list[Tensor], ...] = ([], [], [])
        for sample in volume:
            flat = flatten(sample)
            top = flat.amax((1, 2))
            weights = torch.exp(flat - top[:, None, None])  # J,D,HW
            plane, line = weights.sum(1).view(len(flat), *sample.shape[2:]), weights.sum(2)
            total = line.sum(1)
            logarithms.append(top + total.log())
            for row, marginal in zip(rows, (plane.sum(1), plane.sum(2), line), strict=True):
                row.append(marginal / total[:, None])
        marginals = tuple(torch.stack(row) for row in rows)
        ctx.save_for_backward(volume, torch.stack(logarithms), *marginals)
        return marginals

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        volume, logarithms, *marginals = ctx.saved_tensors
        pairs = zip(marginals, gradients, strict=True)
        along_x, along_y, along_z = (
            gradient - (marginal * gradient).sum(2, keepdim=True) for marginal, gradient in pairs
        )
        along_plane = (along_y[..., :, None] + along_x[..., None, :]).flatten(2)  # B,J,HW
        result = torch.empty_like(volume)
        for index, sample in enumerate(volume):
            weights = torch.exp(flatten(sample) - logarithms[index, :, None, None])  # J,D,HW; they sum to 1
            slopes = along_plane[index, :, None, :] + along_z[index, :, :, None]
            result[index].copy_(weights.mul_(slopes).view_as(sample))
        return result


def flatten(sample: Tensor) -> Tensor:
    """Return a sample [J,D,H,W] as [J,D,HW] in float32 (or float64)."""
    return sample.flatten(2).to(torch.promote_types(sample.dtype, torch.float32))


def deconvolution(inputs: int, outputs: int) -> list[nn.Module]:
    """Return layers that double the resolution, [B,inputs,H,W] -> [B,outputs,2H,2W]."""
    upsample = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return [upsample, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def create_backbone(name: str, pretrained: bool, stride: int, size: int) -> Any:
    """Create a timm backbone for images of size x size pixels that gives its features at a stride, in image pixels.

    Weights that have no say in them, as of a network that keeps several resolutions apart, are frozen. Raises
    ValueError for an unknown or unfit name, RuntimeError where weights can't be had.
    """
    if not timm.is_model(name):
        nearest = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5)) or "none"
        expected = f"a model of timm {timm.__version__} (nearest: {nearest})"
        raise ValueError(f"backbone must be {expected}, but got backbone={name!r}")
    try:
        with torch.device("meta"):
            strides = timm.create_model(name, features_only=True).feature_info.reduction()
    except Exception as error:
        raise ValueError(f"backbone {name} has no features_only: {one_line(error)}") from error
    if stride not in strides:
        raise ValueError(f"backbone {name} must have features at stride {stride}, but has them at {strides}")
    settings: dict[str, Any] = {"features_only": True, "out_indices": (strides.index(stride),)}
    if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        settings["img_size"] = size
    unread = unread_weights(name, settings, size)
    try:
        backbone = timm.create_model(name, pretrained=pretrained, **settings)
    except Exception as error:
        if not pretrained:
            raise
        cure = "use pretrained=False, or try again online"
        raise RuntimeError(f"weights of backbone {name} couldn't be loaded: {one_line(error)}; {cure}") from error
    for weight, parameter in backbone.named_parameters():
        parameter.requires_grad_(weight not in unread)
    return backbone


def unread_weights(name: str, settings: dict[str, Any], size: int) -> set[str]:
    """Return the names of a backbone's weights that no gradient reaches; raise ValueError where images don't fit it."""
    try:
        with torch.device("meta"):  # shapes only
            backbone = timm.create_model(name, **settings)
            features = backbone(torch.empty(2, 3, size, size))[-1]
    except Exception as error:
        raise ValueError(f"backbone {name} takes no images of {size} pixels: {one_line(error)}") from error
    torch.autograd.backward(features.sum())
    return {weight for weight, parameter in backbone.named_parameters() if parameter.grad is None}


def one_line(error: Exception) -> str:
    """Return the beginning of an error's message, on one line."""
    return " ".join(str(error).split())[:200]
