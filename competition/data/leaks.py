"""Find leaks between folds: split sequences, split instants and near copies."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from competition.common.arrays import Bools, Floats, Int64
from competition.common.errors import Command
from competition.data.faults import Fault
from competition.data.names import SCHEMES, best_strategy

INSTANT = "held-out images of an instant that is also trained on, by the distances between joints"
NEAR_MM = 1.0  # closer than poses of two takes; copies and consecutive frames of a resting subject are below
# Largest difference of a joint distance between views of one instant. Float32 leaves less than .001 and two decimals
# .02; distances of other instants differ by 50 and more, unless the person rests.
SAME_MM = 0.05
MOST_VIEWS = 100  # a pose in more images isn't one instant, but a placeholder
_SIGNATURE = ((0, 10), (3, 13), (3, 16), (6, 13), (6, 16), (10, 13), (10, 16))  # joints whose distances vary most
_CELL_MM = 1.0


def split_groups(groups: Sequence[str | None], fold: Int64) -> Bools:
    """Return a mask [N] of held-out rows whose group is in more than one fold; None is an unknown group."""
    import pandas as pd

    frame = pd.DataFrame({"group": groups, "fold": fold})
    number = frame.groupby("group")["fold"].transform("nunique")
    return ((number > 1) & (frame["fold"] >= 0)).to_numpy(bool)


def split_instants(pose_mm: Floats, fold: Int64) -> Int64:
    """Return for each held-out row [N] a row of another fold that shows the same instant, -1 if there is none.

    Views of an instant from several cameras are one rigid pose [N, 17, 3], so the distances between its joints agree.
    """
    first, second = np.array(_SIGNATURE).T
    signature = np.linalg.norm(pose_mm[:, first] - pose_mm[:, second], axis=2) / _CELL_MM
    other = np.full(len(fold), -1)
    for shift in (0.0, 0.5):  # views on two sides of a cell's border share a cell of the other grid
        candidate = _same_cell(np.floor(signature + shift).astype(np.int64), fold)
        rows = np.flatnonzero((candidate >= 0) & (other < 0))
        for part in np.array_split(rows, len(rows) // 10_000 + 1):  # limits the memory
            change_mm = _distances(pose_mm[part]) - _distances(pose_mm[candidate[part]])
            same = part[np.abs(change_mm).max(axis=1, initial=0) <= SAME_MM]
            other[same] = candidate[same]
    return other


def split_instants_fault(path: Path, images: Sequence[str], other: Int64, strategy: str) -> Fault:
    """Describe the rows for which `split_instants` returned another one, and how to make better folds than those."""
    rows = np.flatnonzero(other >= 0).tolist()
    places = [f"Id {row + 1} {images[row]} as in Id {other[row] + 1} {images[other[row]]}" for row in rows]
    if strategy != "subject" and best_strategy(images) == "subject":
        fix, command = "make folds by subject in another folder", Command("folds", {"strategy": "subject"})
    else:
        fix, command = f"rename the images like {next(iter(SCHEMES))}: subject, action, take, camera, frame", None
    return Fault(path, f"{INSTANT}: scores will be too good", fix, places, command)


def _same_cell(cells: Int64, fold: Int64) -> Int64:
    """Return for each held-out row [N] a row of another fold with the same cells [N, n], -1 if there is none."""
    key = cells @ np.random.default_rng(0).integers(1 << 62, size=cells.shape[1])  # a hash: overflow is harmless
    order = np.lexsort((fold, key))
    starts = np.flatnonzero(np.diff(key[order], prepend=key[order[0]] - 1))
    sizes = np.diff(starts, append=len(order))
    lowest, highest = (np.repeat(order[ends], sizes) for ends in (starts, starts + sizes - 1))  # by fold
    candidate = np.empty_like(order)
    candidate[order] = np.where(fold[order] == fold[lowest], highest, lowest)
    candidate[order[np.repeat(sizes, sizes) > MOST_VIEWS]] = -1
    return np.where((fold >= 0) & (fold[candidate] != fold), candidate, -1)


def _distances(pose_mm: Floats) -> Floats:
    """Return the distances [N, 136] between all joints of poses [N, 17, 3]."""
    first, second = np.triu_indices(pose_mm.shape[1], 1)
    return np.asarray(np.linalg.norm(pose_mm[:, first] - pose_mm[:, second], axis=2))


def near_copies(pose_mm: Floats, fold: Int64) -> Bools:
    """Return a mask [N] of held-out rows with a pose in another fold within NEAR_MM (RMS over the joints)."""
    from scipy.spatial import cKDTree

    rows = len(pose_mm)
    centred = pose_mm.reshape(rows, -1).astype(np.float64)
    centred -= centred.mean(axis=0)
    components = np.linalg.eigh(centred.T @ centred)[1]  # principal axes make the tree's splits effective
    rotated = centred @ components
    near = np.zeros(rows, bool)
    for held_out in range(int(fold.max()) + 1):
        inside = fold == held_out
        tree = cKDTree(rotated[~inside], balanced_tree=False)
        distance, _ = tree.query(rotated[inside], distance_upper_bound=NEAR_MM * math.sqrt(pose_mm.shape[1]))
        near[inside] = np.isfinite(distance)
    return near
