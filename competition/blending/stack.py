"""The second level: a regression from poses to the error of their blend, so that joints and members correct each other.

beneath         the weighted blend whose error is predicted
inputs          blocks of 51 coordinates, and the nearness to some of the poses that it is fitted on, see
                `runs/second_level`; the latter are scaled so that the penalty is that of a Gaussian process whose
                covariance is the nearness (Williams and Seeger 2001)
fit             ridge regression; rows count 1 / (s^2 + error^2), as gross errors follow no rule: s is half of the
                median error
mirror images   every row also counts with left and right exchanged and x negated. Along axes that are even or odd
                under this exchange, that separates the regression into two: even from even, odd from odd
strength, step  the penalty, and the share of the correction that is applied: those with the lowest error on
                held-out groups
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from competition.blending.fitted import Corrected, Fitted, Weights
from competition.blending.problem import Problem, assign_folds, choose_rows
from competition.common.arrays import Bools, Float64, Floats, Int64
from competition.common.geometry import mirror_pose_mm
from competition.common.skeleton import AXES, JOINTS
from competition.runs.second_level import CHUNK_ROWS, COORDINATES, FILE, SecondLevel, blocks, nearness

FOLDS: Final = 5  # of whole groups, for the choice of strength and step
LEAST_SUBJECTS: Final = 3  # with fewer, the groups are sequences
STRENGTHS: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # relative to the mean square of the blend's coordinates
STEPS: Final = (1.0, 0.75, 0.5)
UNCHOSEN: Final = (1.0, 0.5)  # strength and step without groups to choose them by
SMALLEST_ERROR_MM: Final = 1.0
ROWS: Final = 8000  # that it is fitted on, at most
REFERENCES: Final = 300  # poses; 600 gain no more
WIDTH: Final = 0.3  # the squared distance at which they have lost their influence, relative to the mean one
SMOOTH: Final = 0.01  # penalty of their responses, relative to `strength`
FLATTEST: Final = 1e-6  # relative; directions of nearness that reference poses share
TINY: Final = 1e-9  # relative; inputs that are always 0, such as the root's, get the coefficient 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Stacked(Corrected):
    """A weighted blend with a correction."""

    beneath: Weights
    level: SecondLevel

    def apply(self, pose_mm: Float64) -> Float64:
        return self.level.correct(self.beneath.apply(pose_mm), pose_mm)

    def compute_residual(self, problem: Problem) -> Floats:
        parts = np.array_split(np.arange(problem.rows), -(-problem.rows // CHUNK_ROWS))
        return np.concatenate([Fitted.residual(self, problem.take(rows)) for rows in parts], axis=2)

    def files(self, names: Sequence[str]) -> dict[str, bytes]:
        return {**self.beneath.files(names), FILE: self.level.to_npz(names)}


class _Half(NamedTuple):
    """One of the two regressions, along the even or the odd axes [51, T]; rows are scaled by their root count."""

    axes: Float64
    whitening: Float64  # [R, K], from the nearness to R reference poses to inputs
    inputs: Float64  # [n, F]: along the axes of each block, whitened nearness, and along even axes a constant
    targets: Float64  # [n, T]
    penalty: Float64  # [F], relative to `strength`; 0 for the constant

    def split(self, solved: Float64) -> tuple[Float64, Float64, Float64]:
        """Split coefficients [F, T] into those of blocks [B, T, T], of nearness [K, T] and of the constant [T]."""
        axes, near = self.axes.shape[1], self.whitening.shape[1]
        last = int(np.count_nonzero(self.penalty))  # odd axes have no constant
        return solved[: last - near].reshape(-1, axes, axes), solved[last - near : last], solved[last:].sum(axis=0)


class _Nearness(NamedTuple):
    """The nearness of n rows to R reference poses, some of their blended poses, and to the mirror images of those."""

    reference_mm: Float64  # [R, 51]
    square_mm: float
    own: Float64  # [n, R]
    mirrored: Float64  # [n, R]

    @classmethod
    def of(cls, blended_mm: Float64, problem: Problem, count: Float64) -> _Nearness:
        """Choose references from all sequences for the blended poses [n, 51] of a problem; rows count `count` [n]."""
        reference_mm = blended_mm[choose_rows(problem.sequences, problem.rows, REFERENCES)]
        square_mm = max(
            WIDTH * 2 * float(count @ np.square(blended_mm - count @ blended_mm).sum(axis=1)), SMALLEST_ERROR_MM
        )
        own, mirrored = (nearness(blended_mm, poses, square_mm) for poses in (reference_mm, _mirror(reference_mm)))
        return cls(reference_mm, square_mm, own, mirrored)

    def whitening(self, sign: int) -> Float64:
        """Return the factors [R, K] of the nearness to references plus `sign` times that to their mirror images."""
        both = (self.reference_mm, _mirror(self.reference_mm))
        own, mirrored = (nearness(self.reference_mm, poses, self.square_mm) for poses in both)
        values, axes = np.linalg.eigh(own + sign * mirrored)
        kept = values > FLATTEST * max(values[-1], FLATTEST)
        whitening: Float64 = axes[:, kept] / np.sqrt(values[kept])
        return whitening


def fit(problem: Problem, beneath: Weights) -> Stacked:
    """Fit the correction of a blend to its errors on the rows of a problem, or on some of many rows."""
    chosen = choose_rows(problem.sequences, problem.rows, ROWS)
    part = problem if len(chosen) == problem.rows else problem.take(chosen)
    pose_mm = part.poses()
    return Stacked(beneath=beneath, level=fit_level(beneath.apply(pose_mm), pose_mm, part))


def fit_level(blended_mm: Float64, pose_mm: Float64, part: Problem) -> SecondLevel:
    """Fit the correction of blended poses [n, 17, 3], given members' poses [M, n, 17, 3], on the rows of a problem."""
    assert part.true_mm is not None
    error_mm = (part.true_mm - blended_mm).reshape(part.rows, COORDINATES)
    row_mm = _mpjpe(error_mm)
    count = 1 / (np.square(row_mm) + max(float(np.median(row_mm)) / 2, SMALLEST_ERROR_MM) ** 2)
    count /= count.sum()
    found = blocks(blended_mm, pose_mm)
    penalty = float(np.square(found[:, 0]).sum(axis=1) @ count) / COORDINATES
    near = _Nearness.of(found[:, 0], part, count)
    halves = [_half(axes, sign, found, near, error_mm, np.sqrt(count), penalty) for axes, sign in _axes()]
    strength, step = _choose(halves, _folds(part), error_mm, np.sqrt(count))
    level = SecondLevel(
        coefficients=np.zeros((found.shape[1], COORDINATES, COORDINATES)),
        offset_mm=np.zeros(COORDINATES),
        reference_mm=np.concatenate([near.reference_mm, _mirror(near.reference_mm)]),
        response_mm=np.zeros((2 * len(near.reference_mm), COORDINATES)),
        square_mm=near.square_mm,
    )
    for half in halves:
        of_blocks, of_near, constant = half.split(_solve(half, _moments(half), strength))
        level.coefficients[:] += half.axes @ of_blocks @ half.axes.T
        level.offset_mm[:] += constant @ half.axes.T
        response_mm = half.whitening @ of_near @ half.axes.T
        level.response_mm[:] += np.concatenate([response_mm, _mirror(response_mm)])
    return level.scaled(step)


def _mirror(pose_mm: Float64) -> Float64:
    """Mirror poses [n, 51]."""
    mirrored = mirror_pose_mm(pose_mm.reshape(-1, len(JOINTS), len(AXES)))
    return np.asarray(mirrored.reshape(-1, COORDINATES))


def _axes() -> tuple[tuple[Float64, int], tuple[Float64, int]]:
    """Return the even and the odd axes of a pose, [51, 28] and [51, 23], and their sign in a mirror image."""
    values, axes = np.linalg.eigh(_mirror(np.eye(COORDINATES)))
    return (axes[:, values > 0], 1), (axes[:, values < 0], -1)


def _half(
    axes: Float64, sign: int, found: Float64, near: _Nearness, error_mm: Float64, root: Float64, penalty: float
) -> _Half:
    """Take the part of blocks [n, B, 51] and errors [n, 51] along axes; rows are multiplied by `root` [n]."""
    whitening = near.whitening(sign)
    of_blocks = (found @ axes).reshape(len(found), -1)
    inputs = [of_blocks, (near.own + sign * near.mirrored) @ whitening]
    penalties = [np.full(of_blocks.shape[1], penalty), np.full(whitening.shape[1], SMOOTH)]
    if sign > 0:  # an odd constant would differ between a pose and its mirror image
        inputs.append(np.ones((len(found), 1)))
        penalties.append(np.zeros(1))
    scaled = np.column_stack(inputs) * root[:, None]
    return _Half(axes, whitening, scaled, error_mm @ axes * root[:, None], np.concatenate(penalties))


def _moments(half: _Half, rows: Bools | slice = slice(None)) -> Float64:
    """Return the products of inputs with inputs and targets over some rows, [F, F + T]."""
    inputs = half.inputs[rows]
    return inputs.T @ np.column_stack([inputs, half.targets[rows]])


def _solve(half: _Half, moments: Float64, strength: float) -> Float64:
    """Return the regression's coefficients [F, T]."""
    size = len(half.penalty)
    damped = moments[:, :size] + np.diag(strength * half.penalty + TINY * np.trace(moments[:, :size]) / size)
    # not scipy's solver: its threads and numpy's would compete for the cores
    return np.asarray(np.linalg.solve(damped, moments[:, size:]))


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


def _folds(problem: Problem) -> Int64 | None:
    """Assign each row to a fold of whole subjects, or of sequences if there are few subjects; None without either."""
    for groups, least in ((problem.subjects, LEAST_SUBJECTS), (problem.sequences, 2)):
        if groups is not None and len(np.unique(groups)) >= least:
            return assign_folds(groups, FOLDS)
    return None


def _mpjpe(error_mm: Float64) -> Float64:
    """Return the MPJPE [n] of rows of errors [n, 51]."""
    square = np.square(error_mm)
    return np.asarray(np.sqrt(square[:, ::3] + square[:, 1::3] + square[:, 2::3]).mean(axis=1))
