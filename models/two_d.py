"""2dhg: stacked 2D hourglasses and a lifter that turns their joint positions into a 3D pose, trained together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.contract import JOINTS, HeatmapModule, Output, Target
from models.heatmaps import decode, gaussian_squares, resample, sizes
from models.hourglass import StackedHourglass
from models.lifter import Lifter, augment_lifting
from models.recipes import TwoD

MIN_STD_MM = 1.0  # divides coordinates that do not vary in the data


class TwoDHourglass(HeatmapModule):
    """Newell's network predicts 2D heatmaps; Martinez' lifter maps joint positions and peak heights to a 3D pose.

    The gradient of the lifter into a map is weighted by the peak height, 0 to 1. Early in training the maps are nearly
    flat, so decoded positions and this gradient are mostly noise. Joints outside the image have target Gaussians
    too: only a tail reaches the map, and the low peak shows the lifter that the position is unreliable.

    Output.maps holds [B,17,H,W] per stack; H and W are a quarter of the input size.
    """

    same_steps = True

    def __init__(self, recipe: TwoD) -> None:
        super().__init__(recipe, recipe.input_size, recipe.decoder)
        self.sigmas = (recipe.sigma, recipe.sigma)
        self.pose_weight = recipe.pose_weight
        self.lifter_copies = recipe.lifter_copies
        self.hourglass = StackedHourglass(recipe.channels, (JOINTS,) * recipe.stacks)
        self.lifter = Lifter(JOINTS * 3, (JOINTS - 1) * 3, recipe.lifter_width, recipe.lifter_dropout)

    def forward(self, images: Tensor) -> Output:
        maps = tuple(self.hourglass(images))
        with torch.autocast(images.device.type, enabled=False):
            positions, peaks = self.detect(maps[-1])
            pose_mm = self.lift(positions, peaks)
        return Output(pose_mm, maps)

    def detect(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return joint positions [B,17,2], from -1 to 1 between the map's edges, and peak heights [B,17].

        Their gradients are weighted by the peak heights.
        """
        positions, peaks = decode(maps, self.decoder, self.sigmas)
        weights = peaks.detach().clamp(0, 1)
        positions = scale_gradient(between_edges(positions, maps), weights[..., None])
        return positions, scale_gradient(peaks, weights)

    def lift(self, positions: Tensor, peaks: Tensor) -> Tensor:
        """Map joint positions [B,17,2] (-1 to 1) and peak heights [B,17] to poses [B,17,3] in mm; the root is 0."""
        features = torch.cat([positions, peaks[..., None]], 2).flatten(1)
        limbs = self.lifter(features).unflatten(1, (JOINTS - 1, 3))  # standardised
        limbs_mm = self.pose_mean_mm[1:] + self.pose_std_mm[1:] * limbs
        return torch.cat([torch.zeros_like(limbs_mm[:, :1]), limbs_mm], 1)

    @property
    def regions(self) -> list[nn.Module]:
        return self.hourglass.regions

    def loss(self, output: Output, target: Target) -> dict[str, Tensor]:
        """Return heatmap (squared error, 1 for empty maps, mean over stacks), pose and total, their weighted sum."""
        last = output.maps[-1]
        true_positions = resample(target.pose2d_px.float(), self.input_size, last.shape[-1])
        heatmap = torch.stack([gaussian_squares(maps, true_positions, self.sigmas) for maps in output.maps]).mean()
        pose = self.pose_loss(output.pose_mm, target.pose_mm)
        if self.training and self.lifter_copies and len(last) > 1:  # copies of one image have no batch statistics
            with torch.autocast(last.device.type, enabled=False):
                pose = (pose + self.copies_loss(last, between_edges(true_positions, last), target.pose_mm)) / 2
        return {"total": heatmap + self.pose_weight * pose, "heatmap": heatmap, "pose": pose}

    def pose_loss(self, pose_mm: Tensor, true_mm: Tensor) -> Tensor:
        """Return the mean squared error of standardised poses [B,17,3] without the root."""
        difference = (pose_mm - true_mm) / self.pose_std_mm.clamp(min=MIN_STD_MM)
        return difference[:, 1:].square().mean()

    def copies_loss(self, maps: Tensor, true_positions: Tensor, true_mm: Tensor) -> Tensor:
        """Return the lifter's loss on augmented copies of each sample.

        A copy places every joint at random between its true and its detected position, so the lifter sees more poses
        than there are images, and detection errors of every size.
        """
        positions, peaks = self.detect(maps.detach())
        samples = (positions, peaks, true_positions.to(positions), true_mm.to(positions))
        positions, peaks, true_positions, true_mm = (torch.cat([part] * self.lifter_copies) for part in samples)
        share = torch.rand_like(peaks)[..., None]
        positions, peaks, true_mm = augment_lifting(torch.lerp(true_positions, positions, share), peaks, true_mm)
        return self.pose_loss(self.lift(positions, peaks), true_mm)


def between_edges(positions: Tensor, maps: Tensor) -> Tensor:
    """Convert positions in map pixels (integers at centres) to -1 to 1 between the map's edges."""
    return (positions + 0.5) / sizes(maps) * 2 - 1


def scale_gradient(values: Tensor, weights: Tensor) -> Tensor:
    """Return the values; their gradient is multiplied by the weights."""
    return torch.lerp(values.detach(), values, weights)
