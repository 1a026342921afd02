"""Held-out rows that are not as unseen as they should be: of a split sequence, or near copies."""

import math
from collections.abc import Sequence

import numpy as np

from competition.common.arrays import Bools, Floats, Int64

NEAR_MM = 1.0  # two takes don't agree so closely in 48 numbers; copies, and people at rest between frames, do


def split_groups(groups: Sequence[str | None], fold: Int64) -> Bools:
    """Tell the held-out rows [N] whose group is in more than one fold; None is a group that isn't known."""
    import pandas as pd

    frame = pd.DataFrame({"group": groups, "fold": fold})
    number = frame.groupby("group")["fold"].transform("nunique")
    return ((number > 1) & (frame["fold"] >= 0)).to_numpy(bool)


def near_copies(pose_mm: Floats, fold: Int64) -> Bools:
    """Tell the held-out rows [N] that have a row in another fold within NEAR_MM, root mean square over the joints."""
    from scipy.spatial import cKDTree

    rows = len(pose_mm)
    centred = pose_mm.reshape(rows, -1).astype(np.float64)
    centred -= centred.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1]  # turned so that the tree splits where poses differ most
    turned = centred @ axes
    near = np.zeros(rows, bool)
    for held_out in range(int(fold.max()) + 1):
        inside = fold == held_out
        tree = cKDTree(turned[~inside], balanced_tree=False)
        distance, _ = tree.query(turned[inside], distance_upper_bound=NEAR_MM * math.sqrt(pose_mm.shape[1]))
        near[inside] = np.isfinite(distance)
    return near
