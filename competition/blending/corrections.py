"""Simple faults of out-of-fold files: Ids with another numbering, another unit, poses that aren't relative to the root.

Whether a member has such a fault shows in its error, which falls by more than half when the fault is corrected. A high
error alone shows nothing: that of a network's first epoch may exceed the mean pose's.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from competition.common.arrays import Int64
from competition.common.errors import RunError
from competition.common.metrics import mpjpe
from competition.common.pose_csv import Poses
from competition.common.seeds import generator
from competition.common.skeleton import ROOT

ROWS: Final = 5000  # on which errors are compared
FALL: Final = 0.5  # of the error, by which a correction shows a fault
LEAST_MM: Final = 10.0  # likewise
MM_PER: Final = {"metres": 1000.0, "decimetres": 100.0, "inches": 25.4, "centimetres": 10.0}


def check_unit_and_frame(name: str, poses: Poses, true: Poses) -> None:
    """Raise RunError for out-of-fold poses in another unit than mm, or not relative to the root."""
    ids, pose_mm = _sample(poses)
    true_mm = true.pose_mm[np.searchsorted(true.id, ids)]
    error = mpjpe(pose_mm, true_mm)
    for unit, factor in MM_PER.items():
        if _is_better(mpjpe(factor * pose_mm, true_mm), error):
            raise RunError(f"{name}: its out-of-fold poses are in {unit}, expected mm")
    if _is_better(mpjpe(pose_mm - pose_mm[:, [ROOT]], true_mm), error):
        raise RunError(f"{name}: its out-of-fold poses aren't relative to the pelvis, expected joint 0 at (0, 0, 0)")


def better_numbering(poses: Poses, folds: Sequence[int], true: Poses, fold_of_row: Int64 | None) -> str:
    """Describe a numbering of Ids with which the error falls by more than half, and both errors; "" if there is none.

    `folds` holds the numbers of the folds that the poses are of. `fold_of_row` [N] is the fold that holds out each row
    of `true`, None if unknown.
    """
    ids, pose_mm = _sample(poses)
    for description, renumbered in _numberings(ids, folds, true, fold_of_row):
        known = np.isin(renumbered, true.id)
        if not known.any():
            continue
        before, after = (
            mpjpe(pose_mm[known], true.pose_mm[np.searchsorted(true.id, numbers[known])])
            for numbers in (ids, renumbered)
        )
        if _is_better(after, before):
            return f"{description}, {after:.0f} mm instead of {before:.0f}"
    return ""


def _numberings(
    ids: Int64, folds: Sequence[int], true: Poses, fold_of_row: Int64 | None
) -> Iterator[tuple[str, Int64]]:
    yield "Id + 1", ids + 1
    yield "Id - 1", ids - 1
    if fold_of_row is None or len(folds) != 1:
        return
    held_out = true.id[fold_of_row == folds[0]]
    for first in (1, 0):
        if len(held_out) and ids.max() - first < len(held_out) and ids.min() >= first:
            yield f"Ids that count the rows of fold {folds[0]} from {first}", held_out[ids - first]


def _is_better(corrected_mm: float, error_mm: float) -> bool:
    return corrected_mm < min(FALL * error_mm, error_mm - LEAST_MM)


def _sample(poses: Poses) -> Poses:
    rows = generator(0, "corrections").permutation(len(poses.id))[:ROWS]
    return Poses(poses.id[rows], poses.pose_mm[rows])
