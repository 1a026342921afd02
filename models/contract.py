"""What every network has in common: its inputs, its outputs and the data that it was made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.recipes import DECODERS, Recipe, require

JOINTS = 17  # joint 0 is the pelvis, the root
IMAGE_MEAN = (0.485, 0.456, 0.406)  # of ImageNet, for RGB scaled to 0..1
IMAGE_STD = (0.229, 0.224, 0.225)
POSE_STD_MM = 200.0  # roughly that of a limb, until the data's own statistics are set


@dataclass(frozen=True)
class Spec:
    """The data that a network expects.

    input_size: pixels of the square image. mean, std: of RGB images scaled to 0..1. pose_mean_mm, pose_std_mm: float
    [17,3], of the training poses, mm relative to the pelvis, camera axes.
    """

    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pose_mean_mm: Tensor
    pose_std_mm: Tensor


class Output(NamedTuple):
    """What a network says.

    pose_mm: float32 [B,17,3], relative to the pelvis, joint 0 exactly 0. maps: of every stack, what the loss compares.
    """

    pose_mm: Tensor
    maps: tuple[Tensor, ...] = ()


class Target(NamedTuple):
    """What is true.

    pose2d_px: float [B,17,2], pixels of the input image, integers at pixel centres, also outside of it. pose_mm: float
    [B,17,3], relative to the pelvis, camera axes.
    """

    pose2d_px: Tensor
    pose_mm: Tensor


class Module(nn.Module):
    """A network of the competition: images float [B,3,S,S] in, Output out, and a loss that knows how to judge it.

    same_steps: whether forward and loss run the same kernels whatever the images, so that a GPU may replay a step
    recorded once. False where Python decides anything, such as what to drop.
    """

    same_steps = False

    def __init__(self, recipe: Recipe, input_size: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.input_size = input_size
        self.image_mean = IMAGE_MEAN
        self.image_std = IMAGE_STD
        std = torch.full((JOINTS, 3), POSE_STD_MM)
        std[0] = 0.0
        self.pose_mean_mm: Tensor
        self.pose_std_mm: Tensor
        self.register_buffer("pose_mean_mm", torch.zeros(JOINTS, 3))
        self.register_buffer("pose_std_mm", std)

    @property
    def spec(self) -> Spec:
        return Spec(self.input_size, self.image_mean, self.image_std, self.pose_mean_mm, self.pose_std_mm)

    def set_pose_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and standard deviation of the training poses, [17,3] in mm; the root's deviation is 0."""
        for name, values in (("mean", mean), ("std", std)):
            shape = tuple(values.shape)
            require(shape == (JOINTS, 3), f"the shape of the pose {name}", str((JOINTS, 3)), shape)
            require(bool(values.isfinite().all()), f"the pose {name}", "finite", values.tolist())
        require(bool((std >= 0).all()), "the pose std", "at least 0", std.tolist())
        self.pose_mean_mm.copy_(mean)
        self.pose_std_mm.copy_(std)

    @property
    def regions(self) -> list[nn.Module]:
        """The parts that are compiled one by one where that is asked for; alike ones are compiled once."""
        return [self]

    def loss(self, output: Output, target: Target) -> dict[str, Tensor]:
        """Return scalars by name; "total" is what is minimised."""
        raise NotImplementedError


class HeatmapModule(Module):
    """A network whose coordinates are read off maps by a decoder that can be changed at any time."""

    def __init__(self, recipe: Recipe, input_size: int, decoder: str) -> None:
        super().__init__(recipe, input_size)
        self._decoder = decoder

    @property
    def decoder(self) -> str:
        return self._decoder

    @decoder.setter
    def decoder(self, name: str) -> None:
        require(name in DECODERS, "decoder", "one of " + ", ".join(DECODERS), name)
        self._decoder = name
