"""How well two sets of poses of the same images agree, and which files explain why some pairs don't.

Standard errors are those of the means of BLOCKS blocks of consecutive rows, as rows of a sequence have similar errors.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from competition.common.arrays import Float64, Floats
from competition.common.seeds import generator
from competition.common.skeleton import MIRROR

BLOCKS: Final = 8
STANDARD_ERRORS: Final = 2  # beyond a threshold

_XYZ: Final = (0, 1, 2)
CHANGES: Final = {  # faults of a file: whether sides are swapped, the order of the axes, their signs
    "left and right swapped": (True, _XYZ, (1, 1, 1)),
    "x negated": (False, _XYZ, (-1, 1, 1)),
    "y negated": (False, _XYZ, (1, -1, 1)),
    "z negated": (False, _XYZ, (1, 1, -1)),
    "y and z negated": (False, _XYZ, (1, -1, -1)),
    "x and z negated": (False, _XYZ, (-1, 1, -1)),
    "x and y exchanged": (False, (1, 0, 2), (1, 1, 1)),
    "x and z exchanged": (False, (2, 1, 0), (1, 1, 1)),
    "y and z exchanged": (False, (0, 2, 1), (1, 1, 1)),
    "the axes in the order y, z, x": (False, (1, 2, 0), (1, 1, 1)),
    "the axes in the order z, x, y": (False, (2, 0, 1), (1, 1, 1)),
    "left and right swapped and x negated": (True, _XYZ, (-1, 1, 1)),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """1 - d/d', where d is the mean distance for the same image, d' for different ones: 1 if equal, 0 if unrelated."""

    value: float
    error: float  # standard error
    row_mm: Float64  # [n] distances for the same image

    @property
    def least(self) -> float:
        return self.value - STANDARD_ERRORS * self.error

    @property
    def most(self) -> float:
        return self.value + STANDARD_ERRORS * self.error


def changed(pose_mm: Floats, change: str) -> Floats:
    """Apply one of CHANGES to poses [n, 17, 3]."""
    swapped, axes, signs = CHANGES[change]
    joints = pose_mm[:, list(MIRROR)] if swapped else pose_mm
    return joints[:, :, list(axes)] * np.array(signs, pose_mm.dtype)


def agreement(first_mm: Floats, second_mm: Floats) -> Agreement:
    """Compare poses [n, 17, 3] of the same n images."""
    rows = len(first_mm)
    order = generator(0, "agreement").permutation(rows)
    same, different = _distances(first_mm, second_mm), np.zeros(rows)
    for shift in (1, 2):
        different[order] += _distances(first_mm[order], second_mm[np.roll(order, shift)]) / 2
    scale = max(float(different.mean()), 1e-6)
    value = 1 - float(same.mean()) / scale
    error = float(mean_and_error(same - (1 - value) * different)[1]) / scale
    return Agreement(value=value, error=error, row_mm=same)


def mean_and_error(values: Floats) -> tuple[Floats, Floats]:
    """Return the mean over rows of values [n, ...], sorted by Id, and its standard error."""
    blocks = np.array([block.mean(axis=0) for block in np.array_split(values, min(BLOCKS, len(values)))])
    return values.mean(axis=0), blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks))


def _distances(first_mm: Floats, second_mm: Floats) -> Float64:
    difference = first_mm - second_mm
    return np.asarray(np.sqrt(np.einsum("njk,njk->nj", difference, difference)).mean(axis=1), np.float64)


def culprits(broken: Mapping[tuple[int, int], float], runs: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the files that explain all broken pairs of files, which come with their ratios of agreements.

    A file in several broken pairs is to blame, most pairs first: {(0, 1): 0, (1, 2): 0} gives [(1,)]. So are
    other files of its run. Of a pair that nothing else explains, either file may be: {(0, 1): 0} gives [(0, 1)].
    """
    left, found = dict(broken), list[tuple[int, ...]]()
    while left:
        conflicts = Counter(file for files in left for file in files)
        most = max(conflicts.values())
        guilty = {runs[file] for files in found for file in files if len(files) == 1}
        suspects = [file for file, count in conflicts.items() if count == most]
        if most == 1:
            suspects = [file for file in suspects if runs[file] in guilty]
        if not suspects:
            return [*found, *left]
        worst = min(suspects, key=lambda file: sum(ratio for files, ratio in left.items() if file in files))
        found.append((worst,))
        left = {files: ratio for files, ratio in left.items() if worst not in files}
    return found
