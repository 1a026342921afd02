"""The second level: a regression from poses to the error of their blend, so that joints and members correct each other.

beneath         the weighted blend whose error is predicted
inputs          blocks of 51 coordinates, see `runs/second_level`
fit             ridge regression; rows count 1 / (s^2 + error^2), as gross errors follow no rule: s is half of the
                median error
mirror images   every row also counts with left and right exchanged and x negated. Along axes that are even or odd
                under this exchange, that separates the regression into two: even from even, odd from odd
strength, step  the penalty, and the share of the correction that is applied: those with the lowest error on
                held-out groups
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import scipy.linalg

from competition.blending.fitted import Fitted, Weights
from competition.blending.problem import Problem, assign_folds
from competition.common.arrays import Bools, Float64, Floats, Int64
from competition.common.geometry import mirror_pose_mm
from competition.common.skeleton import AXES, JOINTS
from competition.runs.second_level import CHUNK_ROWS, COORDINATES, FILE, SecondLevel, blocks

FOLDS: Final = 5  # of whole groups, for the choice of strength and step
LEAST_SUBJECTS: Final = 3  # with fewer, the groups are sequences
STRENGTHS: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # relative to the mean square of the blend's coordinates
STEPS: Final = (1.0, 0.75, 0.5)
UNCHOSEN: Final = (1.0, 0.5)  # strength and step without groups to choose them by
SMALLEST_ERROR_MM: Final = 1.0
TINY: Final = 1e-9  # relative; inputs that are always 0, such as the root's, get the coefficient 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Stacked(Fitted):
    """A weighted blend with a correction."""

    beneath: Weights
    level: SecondLevel

    @property
    def excess_mm(self) -> float:  # type: ignore[override]  # a variable in the base class
        return self.beneath.excess_mm

    def apply(self, pose_mm: Float64) -> Float64:
        return self.level.correct(self.beneath.apply(pose_mm), pose_mm)

    def residual(self, problem: Problem) -> Floats:
        parts = np.array_split(np.arange(problem.rows), -(-problem.rows // CHUNK_ROWS))
        return np.concatenate([Fitted.residual(self, problem.take(rows)) for rows in parts], axis=2)

    def axis_errors(self, problem: Problem) -> Float64:
        return np.asarray(np.abs(self.residual(problem)).mean(axis=(0, 2)))

    def files(self, names: Sequence[str]) -> dict[str, bytes]:
        return {**self.beneath.files(names), FILE: self.level.to_npz(names)}


class _Half(NamedTuple):
    """One of the two regressions, along the even or the odd axes [51, T]; rows are scaled by their root count."""

    axes: Float64
    inputs: Float64  # [n, F]
    targets: Float64  # [n, T]
    penalty: Float64  # [F], relative to `strength`; 0 for the constant


def fit(problem: Problem, beneath: Weights) -> Stacked:
    """Fit the correction of a blend to its errors on the rows of a problem, or on some of many rows."""
    part = problem.thinned
    assert part.true_mm is not None
    pose_mm = part.poses()
    return Stacked(beneath=beneath, level=fit_level(beneath.apply(pose_mm), pose_mm, part.true_mm, folds(part)))


def fit_level(blended_mm: Float64, pose_mm: Float64, true_mm: Floats, fold: Int64 | None) -> SecondLevel:
    """Fit the correction of blended poses [n, 17, 3], given members' poses [M, n, 17, 3] and the fold of each row."""
    error_mm = (true_mm - blended_mm).reshape(len(blended_mm), COORDINATES)
    row_mm = _mpjpe(error_mm)
    count = 1 / (np.square(row_mm) + max(float(np.median(row_mm)) / 2, SMALLEST_ERROR_MM) ** 2)
    count /= count.sum()
    found = blocks(blended_mm, pose_mm)
    even, odd = _axes()
    penalty = float(np.square(found[:, 0]).sum(axis=1) @ count) / COORDINATES
    halves = [_half(axes, found, error_mm, np.sqrt(count), penalty, constant=axes is even) for axes in (even, odd)]
    strength, step = _choose(halves, fold, error_mm, np.sqrt(count))
    coefficients, offset_mm = np.zeros((found.shape[1], COORDINATES, COORDINATES)), np.zeros(COORDINATES)
    for half in halves:
        solved = _solve(half, _moments(half), strength)
        constant = solved[len(half.penalty) - 1 :] if half.axes is even else np.zeros((1, half.axes.shape[1]))
        by_block = solved[: found.shape[1] * half.axes.shape[1]].reshape(found.shape[1], half.axes.shape[1], -1)
        coefficients += half.axes @ by_block @ half.axes.T
        offset_mm += (constant @ half.axes.T)[0]
    return SecondLevel(coefficients=coefficients, offset_mm=offset_mm).scaled(step)


def _axes() -> tuple[Float64, Float64]:
    """Return the even and the odd axes of a pose, [51, 27] and [51, 24]: a mirror image negates the odd ones."""
    mirror = mirror_pose_mm(np.eye(COORDINATES).reshape(COORDINATES, len(JOINTS), len(AXES)))
    values, axes = np.linalg.eigh(mirror.reshape(COORDINATES, COORDINATES))
    return axes[:, values > 0], axes[:, values < 0]


def _half(axes: Float64, found: Float64, error_mm: Float64, root: Float64, penalty: float, *, constant: bool) -> _Half:
    """Take the part of blocks [n, B, 51] and errors [n, 51] along axes; rows are multiplied by `root` [n]."""
    inputs = (found @ axes).reshape(len(found), -1)
    if constant:  # an odd constant would differ between a pose and its mirror image
        inputs = np.column_stack([inputs, np.ones(len(inputs))])
    of_inputs = np.full(inputs.shape[1], penalty)
    of_inputs[-1] *= not constant
    return _Half(axes, inputs * root[:, None], error_mm @ axes * root[:, None], of_inputs)


def _moments(half: _Half, rows: Bools | slice = slice(None)) -> Float64:
    """Return the products of inputs with inputs and targets over some rows, [F, F + T]."""
    inputs = half.inputs[rows]
    return inputs.T @ np.column_stack([inputs, half.targets[rows]])


def _solve(half: _Half, moments: Float64, strength: float) -> Float64:
    """Return the regression's coefficients [F, T]."""
    size = len(half.penalty)
    damped = moments[:, :size] + np.diag(strength * half.penalty + TINY * np.trace(moments[:, :size]) / size)
    return np.asarray(scipy.linalg.solve(damped, moments[:, size:], assume_a="pos"))


def _choose(halves: Sequence[_Half], fold: Int64 | None, error_mm: Float64, root: Float64) -> tuple[float, float]:
    """Return the strength and the step with the lowest error on held-out folds [n]."""
    if fold is None:
        return UNCHOSEN
    total_mm = dict.fromkeys(itertools.product(STRENGTHS, STEPS), 0.0)
    every = [_moments(half) for half in halves]
    for held in range(int(fold.max()) + 1):
        rows = fold == held
        inputs = [half.inputs[rows] for half in halves]
        kept = [of_all - _moments(half, rows) for half, of_all in zip(halves, every, strict=True)]
        for strength in STRENGTHS:
            correction = np.zeros((int(rows.sum()), COORDINATES))
            for half, moments, found in zip(halves, kept, inputs, strict=True):
                correction += found @ (_solve(half, moments, strength) @ half.axes.T)
            correction /= root[rows, None]
            for step in STEPS:
                total_mm[strength, step] += float(_mpjpe(error_mm[rows] - step * correction).sum())
    return min(total_mm, key=lambda pair: total_mm[pair])


def folds(problem: Problem) -> Int64 | None:
    """Assign each row to a fold of whole subjects, or of sequences if there are few subjects; None without either."""
    for groups, least in ((problem.subjects, LEAST_SUBJECTS), (problem.sequences, 2)):
        if groups is not None and len(np.unique(groups)) >= least:
            return assign_folds(groups, FOLDS)
    return None


def _mpjpe(error_mm: Float64) -> Float64:
    """Return the MPJPE [n] of rows of errors [n, 51]."""
    square = np.square(error_mm)
    return np.asarray(np.sqrt(square[:, ::3] + square[:, 1::3] + square[:, 2::3]).mean(axis=1))
