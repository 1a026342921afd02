"""How well two sets of poses of the same images agree, and which files explain why some pairs don't."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from competition.common.arrays import Float32, Float64
from competition.common.seeds import generator
from competition.common.skeleton import MIRROR

ERRORS: Final = 2  # standard errors beyond a threshold

_XYZ: Final = (0, 1, 2)
CHANGES: Final = {  # faults of a file: whether sides are swapped, the order of the axes, their signs
    "left and right swapped": (True, _XYZ, (1, 1, 1)),
    "x negated": (False, _XYZ, (-1, 1, 1)),
    "y negated": (False, _XYZ, (1, -1, 1)),
    "z negated": (False, _XYZ, (1, 1, -1)),
    "y and z negated": (False, _XYZ, (1, -1, -1)),
    "x and z negated": (False, _XYZ, (-1, 1, -1)),
    "y and z exchanged": (False, (0, 2, 1), (1, 1, 1)),
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
        return self.value - ERRORS * self.error

    @property
    def most(self) -> float:
        return self.value + ERRORS * self.error


def changed(pose_mm: Float32, change: str) -> Float32:
    """Apply one of CHANGES to poses [n, 17, 3]; each undoes itself."""
    swapped, axes, signs = CHANGES[change]
    joints = pose_mm[:, list(MIRROR)] if swapped else pose_mm
    return joints[:, :, list(axes)] * np.array(signs, np.float32)


def agreement(first_mm: Float32, second_mm: Float32) -> Agreement:
    """Compare poses [n, 17, 3] of the same n images."""
    rows = len(first_mm)
    order = generator(0, "agreement").permutation(rows)
    same, different = _distances(first_mm, second_mm), np.zeros(rows)
    for shift in (1, 2):
        different[order] += _distances(first_mm[order], second_mm[np.roll(order, shift)]) / 2
    scale = max(float(different.mean()), 1e-6)
    value = 1 - float(same.mean()) / scale
    error = float((same - (1 - value) * different).std()) / scale / float(np.sqrt(rows))
    return Agreement(value=value, error=error, row_mm=same)


def _distances(first_mm: Float32, second_mm: Float32) -> Float64:
    difference = first_mm - second_mm
    return np.asarray(np.sqrt(np.einsum("njk,njk->nj", difference, difference)).mean(axis=1), np.float64)


def culprits(broken: Mapping[tuple[int, int], float], members: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the files that explain broken pairs of files, given with their ratios: each alone, or both of a pair.

    A file with several broken pairs is to blame, most pairs first; so is another file of the same member.
    """
    left, found = dict(broken), list[tuple[int, ...]]()
    while left:
        conflicts = Counter(file for files in left for file in files)
        most = max(conflicts.values())
        guilty = {members[file] for files in found for file in files if len(files) == 1}
        suspects = [file for file, count in conflicts.items() if count == most]
        if most == 1:
            suspects = [file for file in suspects if members[file] in guilty]
        if not suspects:
            return [*found, *left]
        worst = min(suspects, key=lambda file: sum(ratio for files, ratio in left.items() if file in files))
        found.append((worst,))
        left = {files: ratio for files, ratio in left.items() if worst not in files}
    return found
