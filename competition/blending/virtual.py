"""Virtual members of an ensemble: geometric medians of its members' poses, which are robust against outliers.

The geometric median is the point with the smallest sum of distances to given points, computed by iterated means with
weights 1 / distance (Weiszfeld 1937). It is translation equivariant: the residual of the median is the median of the
residuals.
"""

from typing import Final

import numpy as np

from competition.blending.weights import CHUNK_ROWS
from competition.common.arrays import Float32

NAMES: Final = (
    "virtual-joint:0",
    "virtual-pose:0",
)  # per joint, and of whole poses (51 dimensions)
STEPS = 12
NEAREST_MM = 1.0  # smaller distances count as this one, as the median may lie on a member


def virtual_members(members: Float32) -> Float32:
    """Return the medians [17, 3, 2, N] (as in NAMES) of members [17, 3, M, N], poses or residuals in mm."""
    joints, axes, count, rows = members.shape
    result = np.empty((joints, axes, len(NAMES), rows), np.float32)
    for start in range(0, rows, CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        for joint in range(joints):
            result[joint, :, 0, chunk] = geometric_median(members[joint, ..., chunk])
        poses = members[..., chunk].reshape(joints * axes, count, -1)
        result[:, :, 1, chunk] = geometric_median(poses).reshape(joints, axes, -1)
    return result


def geometric_median(points: Float32) -> Float32:
    """Return N geometric medians [K, N] of M points with K coordinates each: points [K, M, N] in mm."""
    centre: Float32 = points.mean(axis=1)
    for _ in range(STEPS):
        distance = np.sqrt(np.square(points - centre[:, None]).sum(axis=0))
        nearness = 1 / np.maximum(distance, np.float32(NEAREST_MM))  # [M, N]
        centre = (points * nearness).sum(axis=1) / nearness.sum(axis=0)
    return centre
