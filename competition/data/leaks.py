"""Find leaks between folds: split sequences and near copies."""

import math
from collections.abc import Sequence

import numpy as np

from competition.common.arrays import Bools, Floats, Int64

NEAR_MM = 1.0  # closer than poses of two takes; copies and consecutive frames of a resting subject are below


def split_groups(groups: Sequence[str | None], fold: Int64) -> Bools:
    """Return a mask [N] of held-out rows whose group is in more than one fold; None is an unknown group."""
    import pandas as pd

    frame = pd.DataFrame({"group": groups, "fold": fold})
    number = frame.groupby("group")["fold"].transform("nunique")
    return ((number > 1) & (frame["fold"] >= 0)).to_numpy(bool)


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
