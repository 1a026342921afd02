"""Pure functions on poses: pixels of the crop, and mm in camera axes relative to the pelvis.

Pixel convention: an integer coordinate is the centre of a pixel, so that an image W pixels wide spans -.5 to W - .5:

        |  0  |  1  |  2  |         resizing by s maps x to (x + .5) s - .5
      -.5    .5   1.5   2.5         mirroring an image of width W maps x to W - 1 - x
"""

import numpy as np

from competition.common.arrays import Floats
from competition.common.skeleton import MIRROR, ROOT


def centre_on_root(pose_mm: Floats) -> Floats:
    """Move poses [..., 17, 3] so that the pelvis is the origin."""
    return pose_mm - pose_mm[..., ROOT : ROOT + 1, :]


def mirror_pose_mm(pose_mm: Floats) -> Floats:
    """Mirror root-centred poses [..., 17, 3] left to right: negate x and swap left and right joints."""
    mirrored = pose_mm[..., MIRROR, :].copy()
    mirrored[..., 0] *= -1
    return mirrored


def mirror_pose_px(pose_px: Floats, width: int) -> Floats:
    """Mirror pixel positions [..., 17, 2] in an image `width` pixels wide and swap left and right joints."""
    mirrored = pose_px[..., MIRROR, :].copy()
    mirrored[..., 0] = width - 1 - mirrored[..., 0]
    return mirrored


def rotate_pose_mm(pose_mm: Floats, radians: float) -> Floats:
    """Rotate poses [..., 17, 3] about the camera's z axis; positive angles turn x (right) towards y (down).

    This matches an image rotated about its centre exactly under weak perspective only: the axis through the crop's
    centre is a few degrees off the optical axis.
    """
    cosine, sine = np.cos(radians), np.sin(radians)
    rotated = pose_mm.copy()
    rotated[..., 0] = cosine * pose_mm[..., 0] - sine * pose_mm[..., 1]
    rotated[..., 1] = sine * pose_mm[..., 0] + cosine * pose_mm[..., 1]
    return rotated


def resize_px(points_px: Floats, scale: float) -> Floats:
    """Scale pixel positions for an image that is resized by `scale`."""
    return (points_px + 0.5) * scale - 0.5


def warp_px(matrix: Floats, points_px: Floats) -> Floats:
    """Apply an affine matrix [2 or 3, 3] to pixel positions [..., 2]."""
    return points_px @ matrix[:2, :2].T + matrix[:2, 2]
