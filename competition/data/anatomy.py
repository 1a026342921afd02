"""Find poses whose joints aren't in the competition's order, or whose depth is mirrored, from the skeleton itself.

Nothing here depends on which leg joints 1-3 are: in the real competition's files they are the left one.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from competition.common.arrays import Floats
from competition.common.seeds import sample_rows
from competition.common.skeleton import BONES, JOINTS, LEFT, PARENTS, RIGHT, ROOT
from competition.data.faults import Fault

SAMPLE = 5_000  # rows; medians change little beyond
SPREAD = 0.3  # of a bone's length, median deviation relative to the median; below .03 for real subjects together
ASYMMETRY = 0.01  # half of the relative difference of a pose's left and right bone from which they may be crossed
SYMMETRY = 1.25  # largest ratio of the median lengths of left and right
LEAST_BONE_MM = 10.0
CLEAR_MM = 50.0  # distance of the knees from the lines between hip and foot, both legs, from which legs are bent
UPRIGHT = 0.5  # least height of the thorax above the hips, relative to their distance, from which a pose is upright
CLEAR_ROWS = 20  # bent legs needed to judge

# Joint at each position of other data sets' orders, -1: a joint that the competition doesn't have
OTHER_ORDERS = {  # those with more of its joints first
    "MPI-INF-3DHP": (10, 8, 14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6, 0, 7, 9),
    "MPII": (3, 2, 1, 4, 5, 6, 0, 8, 9, 10, 16, 15, 14, 11, 12, 13, -1),
    "COCO": (9, -1, -1, -1, -1, 11, 14, 12, 15, 13, 16, 4, 1, 5, 2, 6, 3),
    "OpenPose (COCO)": (9, 8, 14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6, -1, -1, -1),
    "OpenPose (BODY_25)": (9, 8, 14, 15, 16, 11, 12, 13, 0, 1, 2, 3, 4, 5, 6, -1, -1),
    "LSP": (3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 9, 10, -1, -1, -1),
    "Panoptic": (8, 9, 0, 11, 12, 13, 4, 5, 6, 14, 15, 16, 1, 2, 3, -1, -1),
    "SMPL": (0, 4, 1, 7, 5, 2, -1, 6, 3, 8, -1, -1, 9, -1, -1, 10, 11),
    "Human3.6M without Neck/Nose": (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, -1),
}
_SPINE, _THORAX, _NECK, _HEAD = 7, 8, 9, 10
_PAIRS = tuple(zip(RIGHT, LEFT, strict=True))


def find_skeleton_faults(path: Path, pose_mm: Floats) -> list[Fault]:
    """Find joints of pose3d [N, 17, 3] in another order, by the lengths between them."""
    sample = pose_mm[sample_rows(len(pose_mm), SAMPLE)]
    if (defect := next(skeleton_defects(sample), None)) is None:
        return []
    fix = f"joints in another order? expected {', '.join(JOINTS)}"
    if (order := guess_order(sample)) is not None:
        fix = f"joints in the order of {order}? reorder pose2d and pose3d: {', '.join(JOINTS)}"
    return [Fault(path, f"pose3d isn't the competition's skeleton: {defect}", fix)]


def guess_order(pose_mm: Floats) -> str | None:
    """Name the known order of joints in which poses [N, 17, 3] form a skeleton, or None."""
    for name, order in OTHER_ORDERS.items():
        reordered = np.full(pose_mm.shape, np.nan)
        known = [position for position, joint in enumerate(order) if joint >= 0]
        reordered[:, [order[position] for position in known]] = pose_mm[:, known]
        if next(skeleton_defects(reordered), None) is None:
            return name
    return None


def skeleton_defects(pose_mm: Floats) -> Iterator[str]:
    """Yield what contradicts a skeleton in the competition's order in poses [N, 17, 3]; unknown joints are NaN."""
    gap, spread = _gaps(pose_mm)
    for a, b in BONES:
        if gap[a, b] < LEAST_BONE_MM:
            yield f"{JOINTS[a]} and {JOINTS[b]} are one point"
    for right, left in _PAIRS:
        lengths = gap[PARENTS[right], right], gap[PARENTS[left], left]
        if max(lengths) > SYMMETRY * min(lengths):
            sides = f"{_bone(right)} is {lengths[0]:.0f} mm, {_bone(left)} {lengths[1]:.0f} mm"
            yield f"left and right differ, {sides}"
    longer = [
        ((0, _SPINE), (0, _THORAX)), ((_SPINE, _THORAX), (_SPINE, _NECK)), ((_THORAX, _NECK), (_THORAX, _HEAD)),
        ((0, 1), (1, 2)), ((0, 4), (4, 5)), ((8, 11), (11, 12)), ((8, 14), (14, 15)), ((11, 12), (4, 5)),
    ]  # fmt: skip
    for short, long in longer:
        if gap[short] > gap[long]:
            yield f"{_joints(*short)} are {gap[short]:.0f} mm apart, more than {_joints(*long)} with {gap[long]:.0f} mm"
    middle_mm = np.median(np.linalg.norm((pose_mm[:, 1] + pose_mm[:, 4]) / 2 - pose_mm[:, 0], axis=1))
    if middle_mm > 0.35 * gap[1, 4]:
        yield f"{JOINTS[0]} is {middle_mm:.0f} mm from the middle between {_joints(1, 4)}"
    for a, b in BONES:
        if spread[a, b] > SPREAD:
            yield f"the length of {_bone(b)} varies by {spread[a, b]:.0%}"
    for right, left in _PAIRS:
        if PARENTS[right] != PARENTS[left] and _are_crossed(pose_mm, right, left):
            yield f"{_joints(right, left)} belong to the limbs of the other side"


def _are_crossed(pose_mm: Floats, right: int, left: int) -> bool:
    """Return whether the bones would be more equal if their ends were exchanged; bones of a person are equal."""
    own, crossed = (
        [np.linalg.norm(pose_mm[:, PARENTS[a]] - pose_mm[:, b], axis=1) for a, b in pairs]
        for pairs in (((right, right), (left, left)), ((left, right), (right, left)))
    )
    asymmetry, other = (float(np.median(np.abs(a - b) / np.maximum(a + b, 1))) for a, b in (own, crossed))
    return asymmetry > ASYMMETRY and asymmetry > 2 * other


def knee_bend_mm(pose_mm: Floats) -> Floats:
    """Return how far both knees together are in front [N] of the lines from hip to foot, of poses [N, 17, 3].

    Front follows from the shoulders, of which joint 11 is the left one, and from the trunk.
    """
    forward = np.cross(pose_mm[:, _THORAX] - pose_mm[:, 0], pose_mm[:, 14] - pose_mm[:, 11])
    forward /= np.maximum(np.linalg.norm(forward, axis=1, keepdims=True), 1e-6)
    bend_mm = np.zeros(len(pose_mm))
    for hip, knee, foot in ((1, 2, 3), (4, 5, 6)):
        leg, thigh = pose_mm[:, foot] - pose_mm[:, hip], pose_mm[:, knee] - pose_mm[:, hip]
        along = np.einsum("nc,nc->n", thigh, leg) / np.maximum(np.einsum("nc,nc->n", leg, leg), 1e-6)
        bend_mm += np.einsum("nc,nc->n", thigh - along[:, None] * leg, forward)
    return bend_mm


def backward_share(pose_mm: Floats) -> float | None:
    """Return the share of upright poses with bent legs whose knees bend backwards; None where too few are bent."""
    bend_mm = knee_bend_mm(pose_mm)
    trunk_mm = pose_mm[:, _THORAX] - pose_mm[:, ROOT]
    is_upright = -trunk_mm[:, 1] > UPRIGHT * np.linalg.norm(trunk_mm, axis=1)  # y points down
    clear = is_upright & (np.abs(bend_mm) > CLEAR_MM)
    return float((bend_mm[clear] < 0).mean()) if clear.sum() >= CLEAR_ROWS else None


def _gaps(pose_mm: Floats) -> tuple[Floats, Floats]:
    """Return the median distance between joints [17, 17], and its median deviation relative to that."""
    joints = len(JOINTS)
    gap, spread = np.full((2, joints, joints), np.nan)
    for a in range(joints):
        distance_mm = np.linalg.norm(pose_mm - pose_mm[:, a, None], axis=2)  # [N, 17]
        gap[a] = np.median(distance_mm, axis=0)
        spread[a] = np.median(np.abs(distance_mm - gap[a]), axis=0) / np.maximum(gap[a], 1)
    return gap, spread


def _bone(joint: int) -> str:
    return f"{JOINTS[PARENTS[joint]]}-{JOINTS[joint]}"


def _joints(a: int, b: int) -> str:
    return f"{JOINTS[a]} and {JOINTS[b]}"
