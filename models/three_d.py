"""3dhg: the coarse-to-fine volumetric hourglass of Pavlakos et al. 2017, over a metric cube around the pelvis.

Paper: "Coarse-to-fine volumetric prediction for single-image 3D human pose". Here x, y and z are all in mm from
the pelvis, so decoding a pose from a volume needs no camera.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.contract import JOINTS, HeatmapModule, Output, Target
from models.heatmaps import decode, gaussian_squares, index_to_mm, mm_to_index, sizes
from models.hourglass import StackedHourglass
from models.recipes import ThreeD

MIN_DEPTH_SIGMA = 0.75  # depth bins: a joint halfway between two bins has a target of .8 in both


class ThreeDHourglass(HeatmapModule):
    """Stack i predicts a volume per joint, [B,17,depths[i],H,W]; Output.maps holds them.

    Joints are decoded as absolute positions in the cube. The root is the cube's centre by definition: its output is
    exactly 0, and its volume only helps training. For a joint outside the cube, the target Gaussian is moved to the
    nearest voxel.
    """

    same_steps = True

    def __init__(self, recipe: ThreeD) -> None:
        super().__init__(recipe, recipe.input_size, recipe.decoder)
        self.cube_mm = recipe.cube_mm
        self.sigma = recipe.sigma
        self.depths = recipe.depths
        self.hourglass = StackedHourglass(recipe.channels, tuple(JOINTS * depth for depth in recipe.depths))

    def forward(self, images: Tensor) -> Output:
        scores = self.hourglass(images)
        maps = tuple(score.unflatten(1, (JOINTS, depth)) for score, depth in zip(scores, self.depths, strict=True))
        decoder = "argmax" if self.training else self.decoder  # the fastest; the loss doesn't use the pose
        with torch.no_grad():
            positions, _ = decode(maps[-1], decoder, self.sigmas(maps[-1]))
            pose_mm = index_to_mm(positions, sizes(maps[-1]), self.cube_mm)
            pose_mm[:, 0] = 0.0
        return Output(pose_mm, maps)

    @property
    def regions(self) -> list[nn.Module]:
        return self.hourglass.regions

    def loss(self, output: Output, target: Target) -> dict[str, Tensor]:
        """Return the squared error (1 for empty volumes) of every stack, stack1, stack2, ..., and total, their mean."""
        result = {}
        for index, maps in enumerate(output.maps):
            bins = sizes(maps)
            positions = mm_to_index(target.pose_mm.float(), bins, self.cube_mm)
            positions = positions.clamp(min=torch.zeros_like(bins), max=bins - 1)
            result[f"stack{index + 1}"] = gaussian_squares(maps, positions, self.sigmas(maps))
        return {"total": torch.stack(list(result.values())).mean(), **result}

    def sigmas(self, volume: Tensor) -> tuple[float, float, float]:
        """Return the target's sigmas in voxels, x, y, z: equal in mm, but at least MIN_DEPTH_SIGMA along z."""
        depth, _, width = volume.shape[2:]
        return self.sigma, self.sigma, max(self.sigma * depth / width, MIN_DEPTH_SIGMA)
