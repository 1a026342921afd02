"""The profile of a set of poses: what hardly depends on which images they are of, or on how accurate they are."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from competition.blending.agreement import STANDARD_ERRORS, mean_and_error
from competition.common.arrays import Floats
from competition.common.skeleton import AXES, BONES, JOINTS

# how much larger or smaller test poses may plausibly be, as test subjects, actions and errors may differ
SIZE: Final = 1.2  # mean distance from the root
SPREAD: Final = 1.8  # distance from the mean pose along an axis
BONE: Final = 1.5  # length of a bone, if another changes the other way: errors increase or decrease all of them
ROWS: Final = 30  # at least, for these; fewer may be of one sequence
HANDED: Final = 0.15  # least handedness whose sign is reliable
HIPS, KNEES, FEET, TRUNK = (1, 4), (2, 5), (3, 6), (0, 8)


def profile_difference(out_of_fold_mm: Floats, test_mm: Floats) -> str:
    """Describe how the profiles of out-of-fold poses [S, 17, 3] and test poses [T, 17, 3] differ; "" if they don't."""
    if _is_turned(out_of_fold_mm, test_mm):
        return "they are upside down, or axes are exchanged"
    if _is_mirrored(out_of_fold_mm, test_mm):
        return "left and right are swapped, or an axis is negated"
    both = out_of_fold_mm, test_mm
    if min(map(len, both)) < ROWS:
        return ""
    size = [np.linalg.norm(pose_mm, axis=2).mean(axis=1) for pose_mm in both]
    if ratio := _implausible_ratio(size, SIZE):
        return f"joints are {ratio:.2f} times as far from the root"
    for axis, name in enumerate(AXES):
        spread = [np.abs(pose - pose.mean(axis=0)).mean(axis=1) for pose in (pose_mm[..., axis] for pose_mm in both)]
        if ratio := _implausible_ratio(spread, SPREAD):
            return f"{name} varies {ratio:.2f} times as much" if ratio > 0.1 else f"{name} hardly varies"
    changed = {}
    for parent, joint in BONES:
        length = [np.linalg.norm(pose_mm[:, joint] - pose_mm[:, parent], axis=1) for pose_mm in both]
        if ratio := _implausible_ratio(length, BONE):
            changed[f"{JOINTS[parent]} to {JOINTS[joint]}"] = ratio
    if changed and min(changed.values()) < 1 < max(changed.values()):
        shortest, longest = (extreme(changed, key=lambda bone: changed[bone]) for extreme in (min, max))
        return (
            f"the bone from {shortest} is {changed[shortest]:.2f} times as long, the one from {longest} "
            f"{changed[longest]:.2f} times"
        )
    return ""


def _implausible_ratio(lengths: Sequence[Floats], limit: float) -> float | None:
    """Return the ratio of the means of lengths in mm, [S] and [T], if it is beyond `limit` or its inverse."""
    means, errors = zip(*map(mean_and_error, lengths), strict=True)
    before, now = (max(float(mean), 1.0) for mean in means)
    error = float(np.hypot(errors[0] / before, errors[1] / now))
    return now / before if abs(np.log(now / before)) - STANDARD_ERRORS * error > np.log(limit) else None


def _is_turned(out_of_fold_mm: Floats, test_mm: Floats) -> bool:
    """Whether the joints' mean heights are unrelated, if those out of fold differ beyond their standard errors."""
    height, errors = mean_and_error(out_of_fold_mm[..., 1])
    now = test_mm[..., 1].mean(axis=0)
    is_reliable = height.std() > STANDARD_ERRORS * errors.mean() + 1 and now.std() > 0
    return bool(is_reliable and np.corrcoef(height, now)[0, 1] < 0.5)


def _is_mirrored(out_of_fold_mm: Floats, test_mm: Floats) -> bool:
    """Whether the handedness has the other sign, beyond the standard errors."""
    (before, error), (now, error_now) = (mean_and_error(_handedness(pose_mm)) for pose_mm in (out_of_fold_mm, test_mm))
    is_reliable = abs(before) - STANDARD_ERRORS * error > HANDED
    return bool(is_reliable and np.sign(before) * now + STANDARD_ERRORS * error_now < 0)


def _handedness(pose_mm: Floats) -> Floats:
    """Return, from -1 to 1 for each pose [n], on which side of hips and trunk the knees are bent.

    Rotations don't change it; swapped sides and negated axes change its sign.
    """
    right = pose_mm[:, HIPS[0]] - pose_mm[:, HIPS[1]]
    up = pose_mm[:, TRUNK[1]] - pose_mm[:, TRUNK[0]]
    bent = sum(
        pose_mm[:, knee] - (pose_mm[:, hip] + pose_mm[:, foot]) / 2
        for hip, knee, foot in zip(HIPS, KNEES, FEET, strict=True)
    )
    lengths = np.prod([np.linalg.norm(vector, axis=1) for vector in (right, up, bent)], axis=0)
    return np.asarray(np.einsum("ni,ni->n", np.cross(right, up), bent) / np.maximum(lengths, 1e-6))
