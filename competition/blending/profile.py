"""The profile of a set of poses: what hardly depends on which images they are of, or on how accurate they are."""

from typing import Final

import numpy as np

from competition.common.arrays import Floats
from competition.common.skeleton import BONES, JOINTS

Range = tuple[float, float]

# ratios of test to out-of-fold poses that are plausible: test subjects, actions and errors may differ
SIZE_RANGE: Final = (0.83, 1.2)  # mean distance from the root
SPREAD_RANGE: Final = (0.6, 1.67)
BONE_RANGE: Final = (0.4, 2.5)  # mean length of each bone, which large errors increase
HANDED: Final = 0.15  # least handedness whose sign is reliable
HIPS, KNEES, FEET, TRUNK = (1, 4), (2, 5), (3, 6), (0, 8)


def profile_difference(out_of_fold_mm: Floats, test_mm: Floats) -> str:
    """Describe how the profiles of out-of-fold poses [S, 17, 3] and test poses [T, 17, 3] differ; "" if they don't."""
    if _is_turned(out_of_fold_mm, test_mm):
        return "they are upside down, or axes are exchanged"
    if _is_mirrored(out_of_fold_mm, test_mm):
        return "left and right are swapped, or an axis is negated"
    spread = _spread_mm(test_mm) / max(_spread_mm(out_of_fold_mm), 1.0)
    slack = 1 + 2 / np.sqrt(min(len(test_mm), len(out_of_fold_mm)))
    if _spread_mm(out_of_fold_mm) > 1 and _outside(spread, (SPREAD_RANGE[0] / slack, SPREAD_RANGE[1] * slack)):
        return f"they vary {spread:.2f} times as much"
    size = _size_mm(test_mm) / max(_size_mm(out_of_fold_mm), 1.0)
    if _outside(size, SIZE_RANGE):
        return f"joints are {size:.2f} times as far from the root"
    bones = _bones_mm(test_mm) / np.maximum(_bones_mm(out_of_fold_mm), 1e-3)
    strangest = int(np.abs(np.log(np.maximum(bones, 1e-3))).argmax())
    if _outside(ratio := float(bones[strangest]), BONE_RANGE):
        parent, joint = BONES[strangest]
        return f"the bone from {JOINTS[parent]} to {JOINTS[joint]} is {ratio:.2f} times as long"
    return ""


def _outside(ratio: float, allowed: Range) -> bool:
    return not allowed[0] <= ratio <= allowed[1]


def _size_mm(pose_mm: Floats) -> float:
    return float(np.linalg.norm(pose_mm, axis=2).mean())


def _bones_mm(pose_mm: Floats) -> Floats:
    """Return the mean length of each bone [16]."""
    parents, joints = zip(*BONES, strict=True)
    return np.asarray(np.linalg.norm(pose_mm[:, list(joints)] - pose_mm[:, list(parents)], axis=2).mean(axis=0))


def _spread_mm(pose_mm: Floats) -> float:
    """Return the root of the mean squared distance of joints from their mean."""
    return float(np.sqrt(pose_mm.var(axis=0).sum(axis=1).mean()))


def _is_turned(out_of_fold_mm: Floats, test_mm: Floats) -> bool:
    """Whether the joints' mean heights are unrelated, if those out of fold differ beyond their standard errors."""
    height = out_of_fold_mm[..., 1]
    errors = height.std(axis=0) / np.sqrt(len(height))
    heights = [pose_mm[..., 1].mean(axis=0) for pose_mm in (out_of_fold_mm, test_mm)]
    is_reliable = heights[0].std() > 3 * errors.mean() + 1 and heights[1].std() > 0
    return bool(is_reliable and np.corrcoef(*heights)[0, 1] < 0.5)


def _is_mirrored(out_of_fold_mm: Floats, test_mm: Floats) -> bool:
    """Whether the handedness has the other sign, beyond two standard errors of each mean."""
    before, now = _handedness(out_of_fold_mm), _handedness(test_mm)
    errors = [2 * each.std() / np.sqrt(len(each)) for each in (before, now)]
    is_reliable = abs(before.mean()) - errors[0] > HANDED
    return bool(is_reliable and np.sign(before.mean()) * now.mean() + errors[1] < 0)


def _handedness(pose_mm: Floats) -> Floats:
    """Return, from -1 to 1 for each pose [n], on which side of hips and trunk the knees are bent.

    Rotations don't change it; swapped sides and mirrored axes change its sign.
    """
    right = pose_mm[:, HIPS[0]] - pose_mm[:, HIPS[1]]
    up = pose_mm[:, TRUNK[1]] - pose_mm[:, TRUNK[0]]
    bent = sum(
        pose_mm[:, knee] - (pose_mm[:, hip] + pose_mm[:, foot]) / 2
        for hip, knee, foot in zip(HIPS, KNEES, FEET, strict=True)
    )
    lengths = np.prod([np.linalg.norm(vector, axis=1) for vector in (right, up, bent)], axis=0)
    return np.asarray(np.einsum("ni,ni->n", np.cross(right, up), bent) / np.maximum(lengths, 1e-6))
