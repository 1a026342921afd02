"""Find out whether pose2d and pose3d agree: skeleton, axes, rows, and the direction of z."""

from pathlib import Path

import numpy as np

from competition.common.arrays import Float64, Floats
from competition.common.seeds import sample_rows
from competition.common.skeleton import AXES, IMAGE_PX
from competition.data.anatomy import backward_share, find_skeleton_faults
from competition.data.faults import BOX_SHARE, MIDDLE_PX, Fault, joint_box, list_ids
from competition.data.projection import CameraFit, find_joint_faults, find_row_faults, fit_cameras

LEAST_CORRELATION = 0.7  # of pose2d with pose3d's x and y; .97 and more for matching arrays
BACKWARD = 0.75  # of the poses whose knees bend backwards if z is mirrored: .96; .02 of real ones, .4 on the floor
PARTLY = 0.1  # of the rows, both by the perspective and by the knees, if z is mirrored in some
SURE = 0.9  # share of rows that must agree on the camera's side of the pose
BOX_PX = (195.0, 250.0)  # median of the longer side of the joints' box; 228 for crops made like the competition's
SHIFT_PX = 8.0  # of the middle of the joints' boxes
SAMPLE = 20_000  # rows; faults of a hundredth of the rows show
_EXPECTED = ("x to the right", "y down")


def find_pose_mismatches(path: Path, pose2d_px: Floats, pose_mm: Floats) -> list[Fault]:
    """Find the first reason why pose3d [N, 17, 3] isn't what pose2d [N, 17, 2] shows; later ones would follow from it.

    Judge a sample of the rows.
    """
    rows = sample_rows(len(pose_mm), SAMPLE)
    sample2d_px, sample_mm = pose2d_px[rows], pose_mm[rows]
    fit = fit_cameras(sample2d_px, sample_mm)
    return (
        find_skeleton_faults(path, sample_mm)
        or find_joint_faults(path, sample2d_px, sample_mm, fit)
        or _find_axis_faults(path, sample2d_px, sample_mm)
        or find_row_faults(path, pose2d_px, pose_mm, fit)
        or _find_depth_faults(path, sample_mm, fit)
    )


def find_doubtful_rows(path: Path, pose2d_px: Floats, pose_mm: Floats) -> list[Fault]:
    """Find single rows that don't match, and poses that aren't placed like in the competition's crops."""
    faults = []
    if wrong := list_ids(fit_cameras(pose2d_px, pose_mm).mismatches):
        fix = "correct these rows, or remove them and their lines in train_images.txt"
        faults.append(Fault(path, "pose3d that doesn't match pose2d", fix, wrong))
    box_px, (x_px, y_px) = joint_box(pose2d_px)
    expected_px = BOX_SHARE * IMAGE_PX
    fix = "pose2d of another crop? draw it on a few of the images"
    if not BOX_PX[0] <= box_px <= BOX_PX[1]:
        what = f"the joints' box in pose2d has {box_px:.0f} px, expected about {expected_px:.0f} of {IMAGE_PX} px"
        faults.append(Fault(path, what, fix))
    elif max(abs(x_px - MIDDLE_PX), abs(y_px - MIDDLE_PX)) > SHIFT_PX:
        what = f"the middle of the joints' box is at ({x_px:.0f}, {y_px:.0f}) px, expected ({MIDDLE_PX}, {MIDDLE_PX})"
        faults.append(Fault(path, what, fix))
    return faults


def _find_axis_faults(path: Path, pose2d_px: Floats, pose_mm: Floats) -> list[Fault]:
    """Find axes of pose3d that don't correlate with pose2d (x right, y down)."""
    correlation = axis_correlations(pose2d_px, pose_mm)
    own = correlation[[0, 1], [0, 1]]
    negated = [axis for axis in (0, 1) if own[axis] < -LEAST_CORRELATION]
    fix = f"multiply {_negation(pose2d_px, pose_mm, negated)} by -1" if negated else ""
    faults = []
    for axis, expected in enumerate(_EXPECTED):
        if own[axis] < LEAST_CORRELATION:
            mismatch = f"{expected[0]} of pose3d doesn't match pose2d (correlation {own[axis]:+.2f})"
            advice = fix if axis in negated else _other_axes(correlation)
            faults.append(Fault(path, f"{mismatch}, expected {expected}", advice))
    return faults


def _negation(pose2d_px: Floats, pose_mm: Floats, negated: list[int]) -> str:
    """Name the axes to negate: those known to be, and z unless the poses show that it is right.

    Negating a single axis mirrors the poses; labels with other axes are usually rotated.
    """
    signs = np.array([-1 if axis in negated else 1 for axis in range(3)], pose_mm.dtype)
    negated_mm = pose_mm * signs
    mirrored = _is_mirrored(fit_cameras(pose2d_px, negated_mm).behind_share, backward_share(negated_mm))
    if mirrored or (mirrored is None and len(negated) == 1):
        negated = [*negated, 2]
    return " and ".join(AXES[axis] for axis in negated)


def _other_axes(correlation: Float64) -> str:
    """Advise on axes that correlate with neither x nor y of pose2d, or with the other one."""
    best = np.abs(correlation).argmax(axis=1)
    if best[0] != best[1] and (np.abs(correlation).max(axis=1) > LEAST_CORRELATION).all():
        parts = (
            f"{AXES[axis]} is {'-' if correlation[axis, other] < 0 else ''}{AXES[other]} of pose3d"
            for axis, other in enumerate(best)
        )
        return f"axes swapped: {', '.join(parts)}: {_exchange(correlation, best.tolist())}"
    return "axes swapped, or rows in another order?"


def _exchange(correlation: Float64, best: list[int]) -> str:
    """Return the assignment that makes axes `best` of pose3d x and y, with the sign of z that doesn't mirror it."""
    signs = [-1 if correlation[axis, other] < 0 else 1 for axis, other in enumerate(best)]
    order = [*best, 3 - sum(best)]
    parity = round(float(np.linalg.det(np.eye(3)[order])))
    signs.append(parity * signs[0] * signs[1])
    factor = "" if min(signs) > 0 else f" * [{', '.join(map(str, signs))}]"
    return f"set pose3d = pose3d[..., [{', '.join(map(str, order))}]]{factor}, and check again"


def _is_mirrored(behind: float | None, backward: float | None) -> bool | None:
    """Return whether z points towards the camera, by the perspective, or else by the knees; None if unknown."""
    if behind is not None and not 1 - SURE < behind < SURE:
        return behind >= SURE
    return None if backward is None else backward > BACKWARD


def _find_depth_faults(path: Path, pose_mm: Floats, fit: CameraFit) -> list[Fault]:
    """Find z of pose3d with the wrong sign, and left and right exchanged in all arrays."""
    backward, behind = backward_share(pose_mm), fit.behind_share
    bend = f"the knees bend backwards in {backward:.0%} of the poses" if backward is not None else ""
    if _is_mirrored(behind, backward):
        what = "z of pose3d points towards the camera or is mirrored, expected z away from it"
        by = bend if backward is not None and backward > BACKWARD else "by the perspective"
        return [Fault(path, f"{what} ({by})", "multiply z by -1")]
    if backward is not None and backward > BACKWARD:
        fix = "exchange joints 11-13 and 14-16 of pose2d and pose3d, or restore images that were mirrored"
        return [Fault(path, f"joints 11-13 aren't the left arm, or images are mirrored: {bend}", fix)]
    if behind is not None and backward is not None and min(behind, backward) > PARTLY:
        what = f"z of pose3d points towards the camera in {behind:.0%} of the rows, expected z away from it ({bend})"
        return [Fault(path, what, "multiply z of these rows by -1")]
    return []


def axis_correlation(pose2d_px: Floats, pose_mm: Floats, axis: int) -> float:
    """Return the correlation of pose2d and pose3d along an axis (0: x, 1: y), after subtracting each row's mean."""
    return float(axis_correlations(pose2d_px, pose_mm)[axis, axis])


def axis_correlations(pose2d_px: Floats, pose_mm: Floats) -> Float64:
    """Return the correlations [2, 3] of the axes of pose2d and pose3d, after subtracting each row's mean."""
    a, b = (
        (joints - joints.mean(axis=1, keepdims=True, dtype=np.float64)).reshape(-1, joints.shape[2])
        for joints in (pose2d_px, pose_mm)
    )
    scale = np.sqrt(np.outer((a * a).sum(axis=0), (b * b).sum(axis=0)))
    return np.asarray(np.divide(a.T @ b, scale, out=np.zeros((2, 3)), where=scale > 0))
