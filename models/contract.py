"""The interface of all networks: inputs, outputs, loss and the expected data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.recipes import DECODERS, Recipe, require

JOINTS = 17  # joint 0 is the pelvis, the root
IMAGE_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, for RGB scaled to 0..1
IMAGE_STD = (0.229, 0.224, 0.225)
POSE_STD_MM = 200.0  # default until set_pose_statistics is called; roughly that of a limb


@dataclass(frozen=True)
class Spec:
    """The data that a network expects.

    input_size: side of the square image in pixels. mean, std: normalisation of RGB images scaled to 0..1.
    pose_mean_mm, pose_std_mm: float [17,3], statistics of the training poses, mm relative to the pelvis, camera axes;
    the std of the root is 0.
    """

    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pose_mean_mm: Tensor
    pose_std_mm: Tensor


class Output(NamedTuple):
    """A network's predictions.

    pose_mm: float32 [B,17,3], relative to the pelvis, camera axes, joint 0 exactly 0. maps: the heatmaps or volumes of
    every stack, or the marginals of a volume, for the loss; may be empty.
    """

    pose_mm: Tensor
    maps: tuple[Tensor, ...] = ()


class Target(NamedTuple):
    """The labels of a batch.

    pose2d_px: float [B,17,2], pixels of the input image, integers at pixel centres; joints may lie outside the image.
    pose_mm: float [B,17,3], relative to the pelvis, camera axes.
    """

    pose2d_px: Tensor
    pose_mm: Tensor


class Module(nn.Module):
    """Base class of all networks: forward maps normalised images, float [B,3,S,S], to an Output; loss scores it.

    same_steps: whether forward and loss run the same kernels for all images, so that a GPU can replay a training step
    as a CUDA graph. It must be False if Python control flow depends on data or random numbers.
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
        """Set the mean and standard deviation of the training poses, [17,3] in mm; raise ValueError if invalid."""
        for name, values in (("mean", mean), ("std", std)):
            shape = tuple(values.shape)
            require(shape == (JOINTS, 3), f"the shape of the pose {name}", str((JOINTS, 3)), shape)
            require(bool(values.isfinite().all()), f"the pose {name}", "finite", values.tolist())
        require(bool((std >= 0).all()), "the pose std", "at least 0", std.tolist())
        self.pose_mean_mm.copy_(mean)
        self.pose_std_mm.copy_(std)

    @property
    def regions(self) -> list[nn.Module]:
        """The submodules that torch.compile compiles one by one; identical ones share compiled code."""
        return [self]

    def loss(self, output: Output, target: Target) -> dict[str, Tensor]:
        """Return the losses by name, as scalars; training minimises "total"."""
        raise NotImplementedError


class HeatmapModule(Module):
    """A network that decodes coordinates from heatmaps; the decoder can be changed at any time."""

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
