"""Training augmentation: image, 2D pose and 3D pose change together.

Rotating the image rotates x and y of the 3D pose about the camera's axis; mirroring negates x and swaps left and
right; scaling and shifting don't change the 3D pose. Each sample has its own random state, keyed by (seed, epoch,
index): albumentations' own seeding repeats the same augmentations every epoch in workers, and makes results depend on
the number of workers.
"""

import os
import random
from typing import Any

import cv2
import numpy as np

from competition.common.geometry import mirror_pose_mm, mirror_pose_px, rotate_pose_mm, warp_px
from competition.common.seeds import derive

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would look online for a newer release
import albumentations as A

from competition.common.arrays import Float32, Float64, Floats, Image


class Affine(A.Affine):  # type: ignore[misc]  # albumentations has no types
    """albumentations' Affine on four channels, which OpenCV 5 warps faster than three."""

    def apply(self, img: Image, matrix: Float64, output_shape: tuple[int, int], **_: Any) -> Image:
        four = cv2.cvtColor(img, cv2.COLOR_RGB2RGBA)
        warped: Image = cv2.cvtColor(cv2.warpAffine(four, matrix[:2], output_shape[::-1]), cv2.COLOR_RGBA2RGB)
        return warped


class RGBShift(A.RGBShift):  # type: ignore[misc]
    """albumentations' RGBShift as one saturating addition instead of one lookup table per channel."""

    def apply(self, img: Image, noise_map: Floats, **_: Any) -> Image:
        shifted: Image = cv2.add(img, (*np.rint(noise_map).tolist(), 0.0))
        return shifted


def pipeline(kind: str, size: int) -> A.Compose:
    """Create the transforms of one of AUGMENTATIONS for images of `size` pixels."""
    mirror = A.HorizontalFlip(p=0.5)
    if kind == "light":
        transforms = [
            mirror,
            A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.5),
            RGBShift(r_shift_limit=25, g_shift_limit=25, b_shift_limit=25, p=0.5),
        ]
    else:
        assert kind == "full"
        hole = (0.08, 0.2)  # share of the image's side
        transforms = [
            Affine(rotate=(-30, 30), scale=(0.85, 1.15), keep_ratio=True, translate_percent=(-0.04, 0.04), p=0.7),
            mirror,
            A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.6),
            RGBShift(r_shift_limit=15, g_shift_limit=15, b_shift_limit=15, p=0.3),
            A.CoarseDropout(num_holes_range=(1, 3), hole_height_range=hole, hole_width_range=hole, p=0.3),
        ]
    # the poses are transformed with the parameters applied; unless strict, unknown argument names only cause a warning
    return A.Compose(transforms, save_applied_params=True, strict=True)


class Augment:
    """Augments one sample. The same (seed, epoch, index) gives the same result in any process."""

    def __init__(self, size: int, seed: int, kind: str = "full") -> None:
        self.seed = seed
        self.pipeline = pipeline(kind, size)

    def __call__(
        self, image: Image, pose2d_px: Float32, pose_mm: Float32, *, epoch: int, index: int
    ) -> tuple[Image, Float32, Float32]:
        """Augment an image [S, S, 3] and its poses: pose2d_px [17, 2] in image pixels, pose_mm [17, 3]."""
        seed = derive(self.seed, "augment", epoch, index)
        self.pipeline.set_random_state(np.random.Generator(np.random.PCG64(seed)), random.Random(seed))
        augmented = self.pipeline(image=image)
        for name, parameters in augmented["applied_transforms"]:
            if name == "Affine":
                matrix = parameters["matrix"]
                pose2d_px = warp_px(matrix, pose2d_px)
                pose_mm = rotate_pose_mm(pose_mm, float(np.arctan2(matrix[1, 0], matrix[0, 0])))
            elif name == "HorizontalFlip":
                pose2d_px, pose_mm = mirror_pose_px(pose2d_px, image.shape[1]), mirror_pose_mm(pose_mm)
        return augmented["image"], pose2d_px.astype(np.float32), pose_mm.astype(np.float32)
