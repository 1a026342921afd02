"""2dhg: stacked 2D hourglasses whose heatmaps feed a lifter, trained together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.contract import JOINTS, HeatmapModule, Output, Target
from models.heatmaps import decode, gaussian_squares, resample, sizes
from models.hourglass import StackedHourglass
from models.lifter import Lifter
from models.recipes import TwoD

LEAST_STD_MM = 1.0  # what is divided by, where the data don't vary


class TwoDHourglass(HeatmapModule):
    """Newell's network reads 2D heatmaps, Martinez' lifter turns their coordinates and peak heights into a pose.

    A joint outside the image is drawn where it is, so of a far one nothing is on the map: its low peak tells the
    lifter. maps of the Output: [B,17,H,W] of every stack, H and W a quarter of the image's.
    """

    same_steps = True

    def __init__(self, recipe: TwoD) -> None:
        super().__init__(recipe, recipe.input_size, recipe.decoder)
        self.sigmas = (recipe.sigma, recipe.sigma)
        self.pose_weight = recipe.pose_weight
        self.hourglass = StackedHourglass(recipe.channels, (JOINTS,) * recipe.stacks)
        self.lifter = Lifter(JOINTS * 3, (JOINTS - 1) * 3, recipe.lifter_width, recipe.lifter_dropout)

    def forward(self, images: Tensor) -> Output:
        maps = tuple(self.hourglass(images))
        with torch.autocast(images.device.type, enabled=False):
            positions, peaks = decode(maps[-1], self.decoder, self.sigmas)  # B,J,2 and B,J
            scaled = (positions + 0.5) / sizes(maps[-1]) * 2 - 1  # from edge to edge of the map: -1 to 1
            features = torch.cat([scaled, peaks[..., None]], 2).flatten(1)
            limbs = self.lifter(features).unflatten(1, (JOINTS - 1, 3))  # standardised
            limbs_mm = self.pose_mean_mm[1:] + self.pose_std_mm[1:] * limbs
        root_mm = torch.zeros_like(limbs_mm[:, :1])
        return Output(torch.cat([root_mm, limbs_mm], 1), maps)

    @property
    def regions(self) -> list[nn.Module]:
        return self.hourglass.regions

    def loss(self, output: Output, target: Target) -> dict[str, Tensor]:
        """Return heatmap: squares of all stacks' maps (1 if empty), pose: mean squares of the standardised pose."""
        last = output.maps[-1]
        size = last.shape[-1]
        positions = resample(target.pose2d_px.float(), self.input_size, size)
        heatmap = torch.stack([gaussian_squares(maps, positions, self.sigmas) for maps in output.maps]).mean()
        difference = (output.pose_mm - target.pose_mm) / self.pose_std_mm.clamp(min=LEAST_STD_MM)
        pose = difference[:, 1:].square().mean()
        return {"total": heatmap + self.pose_weight * pose, "heatmap": heatmap, "pose": pose}
