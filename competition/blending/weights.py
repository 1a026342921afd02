"""Weights of a blend: their application, their errors, and the exact optimum. Pure functions of arrays.

Each coordinate (joint and axis) of a blend is a convex combination of M candidates. The weights w >= 0 of a coordinate
sum to one, so that the blend's residual is the same combination of the candidates' residuals, and

    MPJPE(w) = 1 / (17 N)  sum_joints sum_rows  | sum_m w[joint, axis, m] residual[joint, axis, m, row] |

is a sum of norms of linear functions: convex, and separable over joints. The exact solver certifies its optimum.

    residual    float32 [17, 3, M, N] mm, contiguous: prediction minus truth
    weights     float64 [17, 3, M], nonnegative, summing to one over M

The granularity determines which coordinates share weights: global (all), axis (all joints of an axis), joint (the axes
of a joint), coordinate (none).
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.optimize

from competition.common.arrays import Float32, Float64
from competition.common.errors import UserError, unknown_message

# The dimensions of [17, 3, M] along which weights are the same, from the fewest weights to the most.
TIED: Final[dict[str, tuple[int, ...]]] = {"global": (0, 1), "axis": (0,), "joint": (1,), "coordinate": ()}

CHUNK_ROWS = 8192  # so that the residuals of one axis fit into the cache
SMALLEST_ERROR_MM = 1e-4  # smaller norms are smoothed, which moves the optimum by at most half of this
RIDGE = 1e-7  # relative to the mean squared error; duplicate candidates get equal weights
GAP_MM = 5e-3  # target of the duality gap; the true distance to the optimum is far smaller
COARSE_GAP_MM = 0.05  # target where less precision is needed, as for weights of held-out groups
MAX_STEPS = 60


class Optimum(NamedTuple):
    """The exact blend and an upper bound on its distance from the best possible one."""

    weights: Float64  # [17, 3, M]
    joint_mm: Float64  # [17], mean error of each joint over the rows
    bound_mm: float  # no weights of this granularity have an MPJPE below joint_mm.mean() - bound_mm
    steps: int  # the maximum over joints


def tied_dimensions(granularity: str) -> tuple[int, ...]:
    """Return the dimensions of [17, 3, M] along which weights are shared; raise UserError for an unknown name."""
    if granularity not in TIED:
        raise UserError(unknown_message("granularity", granularity, TIED))
    return TIED[granularity]


def equal_weights(joints: int, candidates: int) -> Float64:
    """Return the weights of the mean, [joints, 3, M]."""
    return np.full((joints, 3, candidates), 1 / candidates)


def shrink_weights(weights: Float64, shrink: float, toward: Float64) -> Float64:
    """Move weights [J, 3, M] toward others; `shrink` 0 keeps them, 1 gives the others."""
    if not 0 <= shrink <= 1:
        raise ValueError(f"shrink must be between 0 and 1 inclusive, but got {shrink}")
    return (1 - shrink) * weights + shrink * toward


def apply_weights(pose_mm: npt.ArrayLike, weights: Float64) -> Float64:
    """Blend the candidates' poses [M, N, 17, 3] in mm with weights [17, 3, M] to [N, 17, 3].

    Computed as the members' mean plus a correction, so that equal weights give `np.mean` exactly.
    """
    poses = np.asarray(pose_mm, np.float64)
    mean: Float64 = poses.mean(axis=0)
    correction = weights - equal_weights(len(weights), len(poses))
    blended = mean.copy()
    for candidate, pose in enumerate(poses):
        if correction[..., candidate].any():
            blended += correction[..., candidate] * (pose - mean)
    return blended


def blend_residuals(residual: Float32, weights: Float64) -> Float32:
    """Return the residuals [17, 3, N] of a blend of residuals [17, 3, M, N] with weights [17, 3, M]."""
    result: Float32 = np.matmul(weights[..., None, :].astype(np.float32), residual)[..., 0, :]
    return result


def keep_mean(residual: Float32, found: Float64, granularity: str) -> Float64:
    """Replace weights that don't beat the members' mean: per joint, or all of them if joints are tied."""
    equal = equal_weights(found.shape[0], found.shape[2])
    gain_mm = joint_errors(residual, equal) - joint_errors(residual, found)
    if 0 in TIED[granularity]:
        gain_mm[:] = gain_mm.sum()
    return np.where(gain_mm[:, None, None] > 0, found, equal)


def joint_error(residual: Float32, weights: Float64) -> float:
    """Return the mean error in mm of one joint: residual [3, M, N], weights [3, M].

    The inner loop of the search: three matrix-vector products, and in-place operations.
    """
    blended = np.empty((3, residual.shape[2]), np.float32)
    single = weights.astype(np.float32)
    for axis in range(3):
        np.dot(single[axis], residual[axis], out=blended[axis])
    np.multiply(blended, blended, out=blended)
    squared = blended[0]
    squared += blended[1]
    squared += blended[2]
    np.sqrt(squared, out=squared)
    return float(squared.mean(dtype=np.float64))


def joint_errors(residual: Float32, weights: Float64) -> Float64:
    """Return the mean error in mm of every joint, [J]: residual [J, 3, M, N], weights [J, 3, M]."""
    return np.array([joint_error(*both) for both in zip(residual, weights, strict=True)])


def axis_errors(residual: Float32, weights: Float64) -> Float64:
    """Return the mean absolute error in mm along x, y and z, [3]: residual [J, 3, M, N], weights [J, 3, M]."""
    spread = np.zeros(residual.shape[1])
    for joint, of_joint in zip(residual, weights.astype(np.float32), strict=True):
        for axis, chosen in enumerate(of_joint):
            spread[axis] += np.abs(chosen @ joint[axis]).mean(dtype=np.float64)
    return spread / len(residual)


def single_errors(residual: Float32) -> Float64:
    """Return the MPJPE in mm of every candidate alone, [M]."""
    joints, _, candidates, rows = residual.shape
    total = np.zeros(candidates)
    for joint in residual:
        for start in range(0, rows, CHUNK_ROWS):
            squares = np.square(joint[:, :, start : start + CHUNK_ROWS])
            total += np.sqrt(squares.sum(axis=0)).sum(axis=1, dtype=np.float64)
    mpjpe: Float64 = total / (joints * rows)
    return mpjpe


def mean_of(joints: int, candidates: int, chosen: Sequence[int]) -> Float64:
    """Return the weights [joints, 3, M] of the mean of some candidates, given by their indices."""
    weights = np.zeros((joints, 3, candidates))
    weights[..., list(chosen)] = 1 / len(chosen)
    return weights


def median_errors(residual: Float32) -> Float64:
    """Return each joint's mean error in mm, [J], of the candidates' median, from residuals [J, 3, M, N]."""
    # the residual of a median is the median of the residuals
    median = [np.median(joint, axis=1).astype(np.float64) for joint in residual]
    return np.array([np.sqrt(np.square(joint).sum(axis=0)).mean() for joint in median])


def weighted_gram(residual: Float32, weights: Float64 | None) -> tuple[Float64, Float64]:
    """Return the Gram matrices [J, 3, M, M] of the residuals and the mean error [J] of the weights.

    Rows are weighted by 1 / error, as in iteratively reweighted least squares; without `weights` all rows have weight
    1 and the returned error is 0.
    """
    joints, axes, candidates, rows = residual.shape
    gram = np.zeros((joints, axes, candidates, candidates))
    error = np.zeros(joints)
    for joint in range(joints):
        for start in range(0, rows, CHUNK_ROWS):
            part = residual[joint, :, :, start : start + CHUNK_ROWS]
            scaled = part
            if weights is not None:
                blended = np.matmul(weights[joint, :, None].astype(np.float32), part)[:, 0]
                norm = np.sqrt(np.square(blended).sum(axis=0))
                error[joint] += norm.sum(dtype=np.float64)
                scaled = part / np.maximum(norm, np.float32(SMALLEST_ERROR_MM))
            gram[joint] += np.matmul(scaled, part.transpose(0, 2, 1))
    return gram / rows, error / rows


def least_on_simplex(gram: Float64) -> Float64:
    """Minimise w' G w over the simplex (w >= 0, sum w = 1), G [M, M] positive semidefinite.

    The objective is homogeneous, so the minimiser is that of v' G v / 2 - sum v over v >= 0, rescaled to sum to one:
    nonnegative least squares with a square root of G (Lawson & Hanson 1974, chapter 23).
    """
    candidates = len(gram)
    scale = np.trace(gram) / candidates
    if scale <= 0:
        return np.full(candidates, 1 / candidates)
    # eigh, as Cholesky fails on rounding below zero if a candidate is the mean of others
    values, axes = np.linalg.eigh((gram + gram.T) / (2 * scale))
    root = np.sqrt(np.maximum(values, 0) + RIDGE)
    solution = scipy.optimize.nnls(root[:, None] * axes.T, axes.sum(axis=0) / root)[0]
    return np.asarray(solution / solution.sum(), np.float64)


def least_squares(gram: Float64, granularity: str) -> Float64:
    """Return the weights [J, 3, M] that minimise the sum of squared errors, from unweighted Grams [J, 3, M, M]."""
    tied = gram.sum(axis=tied_dimensions(granularity), keepdims=True)
    return _broadcast(_solve(tied), gram.shape[:3])


def exact(residual: Float32, granularity: str = "coordinate", *, gap_mm: float = GAP_MM) -> Optimum:
    """Minimise MPJPE over all weights [17, 3, M] of a granularity.

    Iteratively reweighted least squares: each step minimises a quadratic upper bound that touches the objective, so
    the objective never rises. The gradient gives a lower bound on the error of any weights: a convex function lies
    above its tangent, whose minimum on a simplex is at a corner (Frank & Wolfe 1956).
    """
    tied = tied_dimensions(granularity)
    together = 0 in tied
    joints = len(residual)
    parts = [residual] if together else [residual[joint : joint + 1] for joint in range(joints)]
    optima = [_exact_part(part, tied, gap_mm) for part in parts]
    return Optimum(
        np.concatenate([optimum.weights for optimum in optima]),
        np.concatenate([optimum.joint_mm for optimum in optima]),
        float(np.mean([optimum.bound_mm for optimum in optima])),
        max(optimum.steps for optimum in optima),
    )


def _exact_part(residual: Float32, tied: tuple[int, ...], gap_mm: float) -> Optimum:
    """Solve for joints that share weights, or for a single joint: residual [J, 3, M, N]."""
    shape = residual.shape[:3]
    weights = equal_weights(shape[0], shape[2])
    best = Optimum(weights, np.full(shape[0], np.inf), np.inf, 0)
    for step in range(MAX_STEPS):
        gram, error = weighted_gram(residual, weights)
        slope = np.matmul(gram, weights[..., None])[..., 0].sum(axis=tied, keepdims=True)
        reduced = gram.sum(axis=tied, keepdims=True)
        gap = ((slope * weights[tuple(slice(n) for n in slope.shape)]).sum(axis=2) - slope.min(axis=2)).sum()
        if error.sum() < best.joint_mm.sum():
            best = Optimum(weights, error, float(gap) / shape[0], step)
        if gap / shape[0] <= gap_mm or not error.any():
            break
        weights = _broadcast(_solve(reduced), shape)
    return best


def _solve(gram: Float64) -> Float64:
    """Solve the simplex problem of every Gram matrix: [A, B, M, M] to [A, B, M]."""
    flat = gram.reshape(-1, *gram.shape[2:])
    return np.array([least_on_simplex(one) for one in flat]).reshape(gram.shape[:3])


def _broadcast(weights: Float64, shape: tuple[int, ...]) -> Float64:
    return np.broadcast_to(weights, shape).copy()


def greedy(residual: Float32, picks: int = 20) -> Float64:
    """Return weights [J, 3, M] by forward selection with replacement (Caruana et al. 2004), one coordinate at a time.

    Each joint starts from its best candidate; every round adds to each axis in turn the candidate that lowers the
    joint's mean error most. The weights of the best round are returned: early stopping limits overfitting.
    """
    equal = equal_weights(1, residual.shape[2])[0]
    return np.array([_greedy_joint(joint, picks) if joint.any() else equal for joint in residual])


def _greedy_joint(residual: Float32, picks: int) -> Float64:
    axes, candidates, _ = residual.shape
    single_mm = single_errors(residual[None])
    first = int(np.argmin(single_mm))
    counts = mean_of(1, candidates, [first])[0]  # [3, M], number of picks
    total = residual[:, first].copy()  # [3, N], sum of the picked residuals
    best_mm, best = single_mm[first], counts.copy()
    for _ in range(picks - 1):
        for axis in range(axes):
            average = total / counts.sum(axis=1, keepdims=True).astype(np.float32)
            average[axis] = 0
            others = np.square(average).sum(axis=0)
            tried = (total[axis] + residual[axis]) / np.float32(counts[axis].sum() + 1)  # [M, N]
            error_mm = np.sqrt(np.square(tried) + others).mean(axis=1, dtype=np.float64)
            pick = int(error_mm.argmin())
            counts[axis, pick] += 1
            total[axis] += residual[axis, pick]
            if error_mm[pick] < best_mm:
                best_mm, best = float(error_mm[pick]), counts.copy()
    return np.asarray(best / best.sum(axis=1, keepdims=True), np.float64)
