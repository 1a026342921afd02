"""Simple faults of out-of-fold files: another unit or frame, swapped sides, axes, Ids with another numbering.

A file has such a fault if its error falls much, and below the mean pose's, when the fault is corrected. A high error
alone shows nothing: that of a network's first epoch may exceed the mean pose's.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from competition.blending.agreement import CHANGES, changed
from competition.common.arrays import Float64, Int64
from competition.common.errors import RunError
from competition.common.metrics import mpjpe
from competition.common.pose_csv import Poses
from competition.common.seeds import generator
from competition.common.skeleton import ROOT

ROWS: Final = 500  # of a file, on which errors are compared
HALF: Final = 0.5  # share of the error that is left where a correction of Ids or units shows a fault
MUCH: Final = 0.75  # likewise for sides, axes and scale, which no network confuses: its error would not fall at all
SCALE: Final = 1.5  # factor from which poses have another scale
LEAST_MM: Final = 10.0  # fall of the error
MM_PER: Final = {  # common units, and what is left of mm that were converted in the wrong direction
    "metres": 1000.0, "decimetres": 100.0, "inches": 25.4, "centimetres": 10.0, "a tenth of mm": 0.1,
    "a hundredth of mm": 0.01, "micrometres": 0.001,
}  # fmt: skip


def find_fault(name: str, poses: Poses, true: Poses, *, fold: int, fold_of_row: Int64 | None) -> str:
    """Describe a fault of a file of out-of-fold poses, whose Ids are all in `true`; "" if none is found.

    `fold` is the number of the file's fold; `fold_of_row` [N] the fold that holds out each row of `true`, None if
    unknown. Raises RunError for poses in another unit or frame.
    """
    rows = generator(0, "out-of-fold faults").permutation(len(poses.id))[:ROWS]
    ids, pose_mm = poses.id[rows], poses.pose_mm[rows]
    true_mm = _true_mm(true, ids)
    error = mpjpe(pose_mm, true_mm)
    mean_pose = mpjpe(np.broadcast_to(true_mm.mean(axis=0), true_mm.shape), true_mm)
    most = min(HALF * error, error - LEAST_MM, 0.9 * mean_pose)
    for unit, factor in MM_PER.items():
        if mpjpe(factor * pose_mm, true_mm) < most:
            raise RunError(f"{name}: the poses are in {unit}, expected mm")
    if mpjpe(pose_mm - pose_mm[:, [ROOT]], true_mm) < most:
        raise RunError(f"{name}: the poses aren't relative to the pelvis, expected joint 0 at (0, 0, 0)")
    corrected = {f"with {change}": changed(pose_mm, change) for change in CHANGES}
    scale = float((pose_mm * true_mm).sum() / max(np.square(pose_mm).sum(), 1.0))
    if scale > 0 and abs(np.log(scale)) > np.log(SCALE):
        corrected[f"multiplied by {scale:.3g}"] = scale * pose_mm
    errors = {description: mpjpe(poses_mm, true_mm) for description, poses_mm in corrected.items()}
    best = min(errors, key=lambda description: errors[description])
    if errors[best] < min(MUCH * error, error - LEAST_MM, 0.9 * mean_pose):
        return f"its error is {errors[best]:.0f} mm instead of {error:.0f} {best}"
    for description, numbers in _numberings(ids, poses.id, fold, true, fold_of_row):
        known = np.isin(numbers, true.id)
        if known.any() and (after := mpjpe(pose_mm[known], _true_mm(true, numbers[known]))) < most:
            what = f"its error is {after:.0f} mm instead of {error:.0f} {description}"
            return f"{what}: use the line numbers of train_images.txt as Ids"
    return ""


def _numberings(
    ids: Int64, every: Int64, fold: int, true: Poses, fold_of_row: Int64 | None
) -> Iterator[tuple[str, Int64]]:
    """Return other meanings of some Ids among `every` Id of a file: when they hold, and the Ids they mean."""
    yield "with Id + 1", ids + 1
    yield "with Id - 1", ids - 1
    held_out = np.array([], np.int64) if fold_of_row is None else true.id[fold_of_row == fold]
    if len(held_out) and every.min() > 0 and every.max() <= len(held_out):
        yield f"if Ids count the rows of fold {fold}", held_out[ids - 1]


def _true_mm(true: Poses, ids: Int64) -> Float64:
    return true.pose_mm[np.searchsorted(true.id, ids)]
