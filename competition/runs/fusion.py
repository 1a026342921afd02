"""Fusion of poses of the same instant from several cameras. `blending` fits it, `verify` applies it again.

rotation    from one camera's axes to another's, one per subject and pair of cameras: the one that best aligns the
            predicted poses themselves (Kabsch 1976). Instants with large distances count less
fused pose  (sum w_k P_k)^-1 sum w_k P_k x_k over the own camera and the others. x_k is the pose of camera k, turned by
            its rotation R_k, and P_k = R_k diag(1, 1, depth) R_k': a pose counts less along the depth of its own camera
weights     w_k = 1 / (d_k^2 + scale^2), d_k^2 being the mean over joints of (x_k - fused)' P_k (x_k - fused), found by
            iteration: poses that contradict the others count less
level       a second level that corrects fused poses, given the own poses
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from competition.common.arrays import Bools, Float64, Intp
from competition.data.views import LEAST_SHARED, Views
from competition.runs.folders import read_arrays
from competition.runs.second_level import SecondLevel, check_candidates, damaged, level_arrays, npz, read_level

STEPS: Final = 10  # of the weights' iteration; more hardly change the poses
TURN_STEPS: Final = 20  # of the rotations'
DISTANCE_MM: Final = 100.0  # of two poses, beyond which an instant counts less for the rotation
CHUNK_ROWS: Final = 8192
VIEWS: Final = "views_"  # prefix of the arrays in stack.npz
BLOCKS: Final = 4  # of the level: three of the fused pose, and the own pose's difference


@dataclass(frozen=True, kw_only=True, eq=False)
class Fusion:
    """A fitted fusion."""

    depth: float
    scale_mm: float
    level: SecondLevel | None = None

    def apply(self, pose_mm: Float64, views: Views) -> Float64:
        """Fuse poses [N, 17, 3] in mm with those of other cameras, and correct them where there are others."""
        fused_mm, several = self.fuse(pose_mm, views)
        if self.level is not None:
            fused_mm[several] = self.level.correct(fused_mm[several], pose_mm[None, several])
        return fused_mm

    def fuse(self, pose_mm: Float64, views: Views) -> tuple[Float64, Bools]:
        """Fuse poses [N, 17, 3]; return fused poses and whether others contribute to each, [N]."""
        images, turn = sources(pose_mm, views)
        fused_mm = np.empty_like(pose_mm)
        for start in range(0, len(pose_mm), CHUNK_ROWS):
            rows = np.arange(start, min(start + CHUNK_ROWS, len(pose_mm)))
            fused_mm[rows] = self.fuse_rows(pose_mm, images[rows], turn[rows])
        several = (images >= 0).sum(axis=1) > 1
        return np.where(several[:, None, None], fused_mm, pose_mm), several

    def fuse_rows(self, pose_mm: Float64, images: Intp, turn: Float64) -> Float64:
        """Fuse poses [N, 17, 3] of the images [n, C], -1 for none, turned by [n, C, 3, 3]; return [n, 17, 3]."""
        present = images >= 0
        precision = (turn * [1.0, 1.0, self.depth]) @ turn.swapaxes(2, 3)  # P
        turned_mm = pose_mm[images] @ turn.swapaxes(2, 3)  # x [n, C, 17, 3]
        weighted_mm = turned_mm @ precision
        square = (turned_mm * weighted_mm).sum(axis=(2, 3))
        flat_mm, flat_precision = weighted_mm.reshape(*present.shape, -1), precision.reshape(*present.shape, -1)
        weight = present.astype(np.float64)
        for _ in range(STEPS):
            total = (weight[:, None] @ flat_precision).reshape(-1, 3, 3)
            fused_mm = (weight[:, None] @ flat_mm).reshape(-1, *pose_mm.shape[1:]) @ np.linalg.inv(total)
            cross = (flat_mm @ fused_mm.reshape(len(images), -1, 1))[..., 0]
            moments = (fused_mm.swapaxes(1, 2) @ fused_mm).reshape(-1, 9, 1)
            distance = np.maximum(square - 2 * cross + (flat_precision @ moments)[..., 0], 0) / pose_mm.shape[1]
            weight = present / (distance + self.scale_mm**2)
        return np.asarray(fused_mm)


def sources(pose_mm: Float64, views: Views) -> tuple[Intp, Float64]:
    """Return the images [N, C] from which each fused pose is made, -1 for none, and their rotations [N, C, 3, 3]."""
    turn = rotations(pose_mm, views)[views.subject, views.camera]
    known = np.isfinite(turn[..., 0, 0])
    return np.where(known, views.usable_images(), -1), np.where(known[..., None, None], turn, 0.0)


def rotations(pose_mm: Float64, views: Views) -> Float64:
    """Return rotations [S, C, C, 3, 3]: of subject s, R[s, c, d] turns poses of camera d into the axes of camera c.

    They are NaN for two cameras that share fewer than LEAST_SHARED instants. Poses are [N, 17, 3] in mm.
    """
    images, cameras = views.images(), views.usable.shape[1]
    found = np.full((int(views.subject.max()) + 1, cameras, cameras, 3, 3), np.nan)
    found[:, range(cameras), range(cameras)] = np.eye(3)
    for subject in np.unique(views.subject):
        for one in range(cameras):
            rows = np.flatnonzero((views.subject == subject) & (views.camera == one))
            for other in range(one + 1, cameras):
                shared = rows[images[rows, other] >= 0]
                partners = images[shared, other]
                used = views.usable[shared, other] | views.usable[partners, one]
                if used.sum() >= LEAST_SHARED:
                    turn = align(pose_mm[partners[used]], pose_mm[shared[used]])
                    found[subject, one, other], found[subject, other, one] = turn, turn.T
    return found


def align(from_mm: Float64, to_mm: Float64) -> Float64:
    """Return the rotation [3, 3] that best turns poses [n, 17, 3] into others; rows far from the others count less."""
    moments = to_mm.swapaxes(1, 2) @ from_mm  # [n, 3, 3]
    square = np.square(from_mm).sum(axis=(1, 2)) + np.square(to_mm).sum(axis=(1, 2))
    weight = np.ones(len(moments))
    turn = np.eye(3)
    for _ in range(TURN_STEPS):
        u, _, v = np.linalg.svd(np.tensordot(weight, moments, 1))
        turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v  # no reflection
        distance = np.maximum(square - 2 * (moments * turn).sum(axis=(1, 2)), 0) / from_mm.shape[1]
        weight = 1 / (distance + DISTANCE_MM**2)
    return np.asarray(turn)


def fusion_npz(names: Sequence[str], level: SecondLevel | None, fusion: Fusion) -> bytes:
    """Return the contents of stack.npz for a fusion on top of a blend of the candidates `names`, and its second level.

    Beside the arrays of the latter, which are empty if there is none: views, which holds depth and scale,
    views_coefficients and views_offset_mm.
    """
    views = np.array([fusion.depth, fusion.scale_mm])
    return npz(names, {**level_arrays(level), **level_arrays(fusion.level, VIEWS), "views": views})


def read_fusion(path: Path, names: Sequence[str]) -> tuple[SecondLevel | None, Fusion]:
    """Read stack.npz as in `fusion_npz`; raise UserError if it is damaged or of other candidates."""
    check_candidates(path, names)
    (views,) = read_arrays(path, "views")
    if views.dtype != np.float64 or views.shape != (2,) or not (np.isfinite(views) & (views > 0)).all():
        raise damaged(path, "views isn't float64 [2], finite and above 0")
    depth, scale_mm = views.tolist()
    fusion = Fusion(depth=depth, scale_mm=scale_mm, level=read_level(path, BLOCKS, VIEWS))
    return read_level(path, 3 + len(names)), fusion
