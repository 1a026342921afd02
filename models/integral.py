"""integral: a timm backbone with the integral regression of Sun et al. 2018 ("Integral human pose regression")."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeAlias

import timm
import torch
from timm.layers import Format
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models import volumes
from models.contract import IMAGE_MEAN, IMAGE_STD, JOINTS, Module, Output, Target
from models.heatmaps import index_to_mm, mm_to_index
from models.recipes import Integral

Channels: TypeAlias = tuple[float, float, float]  # red, green, blue
DECONVOLUTIONS = 3  # each doubles the resolution: 8x8 to 64x64 for images of 256 pixels
STRIDE = 4 * 2**DECONVOLUTIONS  # of the backbone's features, in pixels: the volume is a quarter as wide as the image
SMALLEST = 1e-12  # is added to probabilities before the logarithm
SCORE_STD = 0.1  # of the initial score weights: joints start near the centre, and gradients reach the backbone


class IntegralRegression(Module):
    """Each joint's position is the expectation under the softmax of its volume [D,H,W] over the metric cube.

    The root's position is subtracted from all joints. So that the network learns faster, the loss also compares the
    marginals of the softmax with Gaussians around the true positions, the root in the middle of the cube. The images
    are normalised as the backbone's weights expect.

    Output.maps holds the marginals along x, y and z, [B,17,W], [B,17,H] and [B,17,D].
    """

    same_steps = True

    def __init__(self, recipe: Integral) -> None:
        super().__init__(recipe, recipe.input_size)
        self.cube_mm = recipe.cube_mm
        self.bins = recipe.bins
        self.sigma = recipe.sigma
        self.heatmap_weight = recipe.heatmap_weight
        self.image_mean, self.image_std = normalisation(recipe.backbone)
        self.normalisation: Tensor  # mean and std, [2,3]
        self.register_buffer("normalisation", torch.tensor([self.image_mean, self.image_std]))
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

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights and the normalisation that they were trained with: ImageNet's in older files, which lack it."""
        imagenet = {"normalisation": torch.tensor([IMAGE_MEAN, IMAGE_STD])}
        loaded = super().load_state_dict({**imagenet, **state_dict}, strict, assign)
        self.image_mean, self.image_std = map(tuple, self.normalisation.tolist())
        return loaded

    def forward(self, images: Tensor) -> Output:
        volume = self.volume(images)
        with torch.autocast(images.device.type, enabled=False):
            function = volumes.Marginals if volumes.fits(volume) else Marginals
            marginals: tuple[Tensor, ...] = function.apply(volume)
            positions_mm = expectation_mm(marginals, self.cube_mm)
        return Output(positions_mm - positions_mm[:, :1], marginals)

    def volume(self, images: Tensor) -> Tensor:
        """Return the logits of the softmax, [B,17,D,H,W]."""
        features = self.backbone(images)[-1]
        if getattr(self.backbone, "output_fmt", None) == Format.NHWC:
            features = features.permute(0, 3, 1, 2)
        score: Tensor = self.score(self.deconvolutions(features))
        return score.view(len(score), JOINTS, self.bins, *score.shape[2:])

    def loss(self, output: Output, target: Target) -> dict[str, Tensor]:
        """Return l1 (distance in units of half the cube's edge), heatmap (cross-entropy per axis), and total.

        All are means over samples and joints; total is the sum of l1 and the weighted heatmap.
        """
        true_mm = target.pose_mm.float()
        l1 = ((output.pose_mm - true_mm) / (self.cube_mm / 2)).abs().sum(2).mean()
        entropies = [
            cross_entropy(marginal, mm_to_index(true_mm[..., axis], marginal.shape[2], self.cube_mm), self.sigma)
            for axis, marginal in enumerate(output.maps)
        ]
        heatmap = torch.stack(entropies).mean()
        return {"total": l1 + self.heatmap_weight * heatmap, "l1": l1, "heatmap": heatmap}


def cross_entropy(marginal: Tensor, positions: Tensor, sigma: float) -> Tensor:
    """Return the mean cross-entropy of marginals [B,J,N] and normalised Gaussians around positions [B,J], in voxels."""
    index = torch.arange(marginal.shape[2], dtype=positions.dtype, device=positions.device)
    expected = torch.softmax(-0.5 * ((index - positions[..., None]) / sigma) ** 2, 2)
    return -(expected * (marginal + SMALLEST).log()).sum(2).mean()


def expectation_mm(marginals: tuple[Tensor, ...], cube_mm: float) -> Tensor:
    """Return the expected positions [B,J,3] in mm from the cube's centre, given the marginals along x, y and z."""
    positions = []
    for marginal in marginals:
        count = marginal.shape[2]
        centres = torch.arange(count, dtype=marginal.dtype, device=marginal.device)
        positions.append(marginal @ index_to_mm(centres, count, cube_mm))
    return torch.stack(positions, 2)


class Marginals(torch.autograd.Function):
    """Marginals [B,J,W], [B,J,H], [B,J,D] of the softmax over each joint's volume, for volumes [B,J,D,H,W].

    The gradient of a voxel is p * (gx + gy + gz - E[gx + gy + gz]), where gx, gy, gz are the gradients of the marginals
    at its x, y and z. The backward pass recomputes the softmax p one sample at a time in float32, so only the network's
    own volume is kept in memory.
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
    """Create layers that double the resolution, [B,inputs,H,W] -> [B,outputs,2H,2W]."""
    upsample = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return [upsample, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def normalisation(backbone: str) -> tuple[Channels, Channels]:
    """Return the mean and std that a timm model's weights expect, of RGB scaled to 0..1; ImageNet's if unknown."""
    known = timm.get_pretrained_cfg(backbone) if timm.is_model(backbone) else None  # reads no files
    return (IMAGE_MEAN, IMAGE_STD) if known is None else (known.mean, known.std)


def create_backbone(name: str, pretrained: bool, stride: int, size: int) -> Any:
    """Create a timm backbone that returns the features at a stride (in pixels), for images of size x size pixels.

    Weights that don't contribute to these features, such as other resolution branches of HRNet, are frozen. Raises
    ValueError for an unknown or unsuitable backbone, RuntimeError if pretrained weights can't be loaded.
    """
    if not timm.is_model(name):
        nearest = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5)) or "none"
        expected = f"a model of timm {timm.__version__} (nearest: {nearest})"
        raise ValueError(f"backbone must be {expected}, but got backbone={name!r}")
    try:
        with torch.device("meta"):
            strides = timm.create_model(name, features_only=True).feature_info.reduction()
    except Exception as error:
        raise ValueError(f"backbone {name} must support features_only of timm, but got: {one_line(error)}") from error
    if stride not in strides:
        raise ValueError(f"backbone {name} must have features at stride {stride}, but got strides {strides}")
    settings: dict[str, Any] = {"features_only": True, "out_indices": (strides.index(stride),)}
    if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        settings["img_size"] = size
    unused = unused_weights(name, settings, size)
    try:
        backbone = timm.create_model(name, pretrained=pretrained, **settings)
    except Exception as error:
        if not pretrained:
            raise
        fix = "use --no-pretrained (pretrained=False), or check the network connection and try again"
        raise RuntimeError(f"weights of backbone {name} couldn't be loaded: {one_line(error)}; {fix}") from error
    for weight, parameter in backbone.named_parameters():
        parameter.requires_grad_(weight not in unused)
    return backbone


def unused_weights(name: str, settings: dict[str, Any], size: int) -> set[str]:
    """Return the names of a backbone's weights that get no gradient; raise ValueError if it rejects the image size."""
    try:
        with torch.device("meta"):  # shapes only
            backbone = timm.create_model(name, **settings)
            features = backbone(torch.empty(2, 3, size, size))[-1]
    except Exception as error:
        raise ValueError(f"backbone {name} must accept images of {size} pixels, but got: {one_line(error)}") from error
    torch.autograd.backward(features.sum())
    return {weight for weight, parameter in backbone.named_parameters() if parameter.grad is None}


def one_line(error: Exception) -> str:
    """Return the first 200 characters of an error's message, on one line."""
    return " ".join(str(error).split())[:200]
