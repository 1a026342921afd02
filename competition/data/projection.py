"""Compare pose2d with pose3d row by row: each pose2d is the perspective image of its pose3d."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from competition.common.arrays import Bools, Float64, Floats, Intp
from competition.common.skeleton import JOINTS, MIRROR
from competition.data.faults import Fault, are_few, list_ids

MISMATCH = 0.1  # RMS distance of the joints, relative to the pose's size; matching rows without noise: < 1e-3
NOISE = 0.02  # up to which the camera is fitted well enough to see on which side it is
_CHUNK = 20_000  # rows, which bounds the memory
_LIMBS = {"arms": (11, 12, 13, 14, 15, 16), "legs": (1, 2, 3, 4, 5, 6)}


class CameraFit(NamedTuple):
    """Cameras fitted to N rows, such that pose2d is the image of pose3d."""

    error: Float64  # [N] RMS distance of the joints relative to the pose's size
    root_depth_m: Float64  # [N]

    @property
    def mismatches(self) -> Bools:
        """A mask [N] of the rows whose pose2d isn't an image of their pose3d."""
        return np.asarray(self.error > MISMATCH)

    @property
    def behind_share(self) -> float | None:
        """The share of rows in which pose2d is an image of pose3d only if z points towards the camera.

        None where this can't be seen: without perspective, or with too much noise.
        """
        known = (self.error < NOISE) & (np.abs(self.root_depth_m) < 20)
        return float((self.root_depth_m[known] < 0).mean()) if known.mean() > 0.5 else None


def find_joint_faults(path: Path, pose2d_px: Floats, pose_mm: Floats, fit: CameraFit) -> list[Fault]:
    """Find joints that pose2d [N, 17, 2] and pose3d [N, 17, 3] name differently."""
    order = match_joints(pose2d_px, pose_mm)
    if not (moved := np.flatnonzero(order != np.arange(len(JOINTS)))).size:
        return []
    now, then = (float(np.median(one.error)) for one in (fit, fit_cameras(pose2d_px, pose_mm[:, order])))
    if now < NOISE or then > min(now / 2, MISMATCH / 2):
        return []
    what = f"pose2d and pose3d name the joints differently: {_describe(order, moved)}"
    return [Fault(path, what, _correction(order, moved))]


def find_row_faults(path: Path, pose2d_px: Floats, pose_mm: Floats, sample: CameraFit) -> list[Fault]:
    """Find rows whose pose2d and pose3d are of different images, if the fit of a sample of the rows has some."""
    if are_few(sample.mismatches):
        return []
    rows = list_ids(fit_cameras(pose2d_px, pose_mm).mismatches)
    fix = "one of them in another order, or of other images? take both from one source"
    return [Fault(path, "rows of pose3d don't match pose2d", fix, rows)]


def fit_cameras(pose2d_px: Floats, pose_mm: Floats) -> CameraFit:
    """Fit a camera to each row of pose2d [N, 17, 2] and pose3d [N, 17, 3].

    The camera is a perspective or an orthographic one, whichever fits better: without noise the former is exact, and
    with noise the latter is better determined.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        parts = [_fit(pose2d_px[i : i + _CHUNK], pose_mm[i : i + _CHUNK]) for i in range(0, len(pose_mm), _CHUNK)]
    return CameraFit(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _fit(pose2d_px: Floats, pose_mm: Floats) -> CameraFit:
    size_px = np.maximum(np.ptp(pose2d_px, axis=1).max(axis=1), 1e-6).astype(np.float64)[:, None, None]
    uv = (pose2d_px - pose2d_px.mean(axis=1, keepdims=True)) / size_px
    xyz = pose_mm.astype(np.float64) / 1000
    xy = xyz[..., :2] - xyz[..., :2].mean(axis=1, keepdims=True)
    scale = (xy * uv).sum(axis=(1, 2)) / np.maximum((xy * xy).sum(axis=(1, 2)), 1e-12)
    flat = _rms(uv - scale[:, None, None] * xy)
    # u = (f x + c z + b) / (z + d) for each axis, or u z = f x - d u + c z + b, which is linear in f, d, c and b:
    # subtracting the parts of all terms along z and 1 leaves f and d
    z = xyz[..., 2:]
    terms = np.concatenate([xy, uv, uv * z], axis=2)
    terms -= terms.mean(axis=1, keepdims=True)
    along = z - z.mean(axis=1, keepdims=True)
    squared = np.maximum((along * along).sum(axis=1, keepdims=True), 1e-12)
    terms -= along * ((along * terms).sum(axis=1, keepdims=True) / squared)
    x, u, uz = (part.reshape(len(z), -1) for part in np.split(terms, 3, axis=2))
    xx, xu, uu, xt, ut = (np.einsum("nj,nj->n", a, b) for a, b in ((x, x), (x, u), (u, u), (x, uz), (u, uz)))
    determinant = xu * xu - xx * uu
    f, depth = (xu * ut - uu * xt) / determinant, (xx * ut - xu * xt) / determinant
    error = (uz - f[:, None] * x + depth[:, None] * u).reshape(uv.shape) / (z + depth[:, None, None])
    return CameraFit(np.fmin(_rms(error), flat), depth)


def match_joints(pose2d_px: Floats, pose_mm: Floats) -> Intp:
    """Return the joint of pose3d [17] at each joint of pose2d, by their mean distance after scaling."""
    uv, xy, joints = _scaled(pose2d_px), _scaled(pose_mm[..., :2]), range(len(JOINTS))
    cost = np.array([[np.square(uv[:, i] - xy[:, j]).sum(axis=1).mean() for j in joints] for i in joints])
    nearest: Intp = cost.argmin(axis=1)
    if len(set(nearest.tolist())) == len(JOINTS):
        return nearest
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(cost)[1])


def _scaled(points: Floats) -> Floats:
    """Return points [N, 17, 2] relative to their mean, with an RMS distance of 1."""
    centred = points - points.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(_rms(centred), 1e-6)[:, None, None])


def _rms(points: Floats) -> Float64:
    return np.asarray(np.sqrt(np.square(points).sum(axis=2, dtype=np.float64).mean(axis=1)))


def _correction(order: Intp, moved: Intp) -> str:
    """Return how to give both arrays one order of joints."""
    draw = "draw pose2d on a few of the images"
    if all(order[joint] == MIRROR[joint] for joint in moved):
        pairs = ", ".join(f"{joint} and {MIRROR[joint]}" for joint in moved if joint < MIRROR[joint])
        return f"{draw}: if its sides are wrong, exchange joints {pairs} of pose2d, otherwise those of pose3d"
    return f"{draw}: if it is right, set pose3d = pose3d[:, {order.tolist()}], otherwise reorder pose2d"


def _describe(order: Intp, moved: Intp) -> str:
    """Describe which limbs are exchanged, or else which joints differ."""
    if all(order[joint] == MIRROR[joint] for joint in moved):
        for name, limbs in _LIMBS.items():
            if sorted(moved) == sorted(limbs):
                return f"left and right {name} are exchanged in one of them"
        if sorted(moved) == sorted((*_LIMBS["arms"], *_LIMBS["legs"])):
            return "left and right are exchanged in one of them"
    return ", ".join(f"{JOINTS[joint]} of pose2d is {JOINTS[order[joint]]} of pose3d" for joint in moved[:4])
