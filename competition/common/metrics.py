"""MPJPE, the competition's metric, and its parts, in float64 and without alignment (protocol 1)."""

import numpy as np
import numpy.typing as npt

from competition.common.arrays import Float64


def joint_errors(predicted_mm: npt.ArrayLike, true_mm: npt.ArrayLike) -> Float64:
    """Return the Euclidean distance in mm of every joint [N, J], for poses [N, J, 3]; raise ValueError."""
    squared: Float64 = np.square(_differences(predicted_mm, true_mm)).sum(axis=2)
    return np.sqrt(squared)


def mpjpe(predicted_mm: npt.ArrayLike, true_mm: npt.ArrayLike) -> float:
    """Return the mean per-joint position error in mm over all samples and all joints, including the root."""
    return float(joint_errors(predicted_mm, true_mm).mean())


def mpjpe_joint(predicted_mm: npt.ArrayLike, true_mm: npt.ArrayLike) -> Float64:
    """Return the mean error of each joint in mm [17]."""
    return np.asarray(joint_errors(predicted_mm, true_mm).mean(axis=0))


def mean_absolute_axis(predicted_mm: npt.ArrayLike, true_mm: npt.ArrayLike) -> Float64:
    """Return the mean absolute error along x, y, z in mm [3]."""
    return np.asarray(np.abs(_differences(predicted_mm, true_mm)).mean(axis=(0, 1)))


def _differences(predicted_mm: npt.ArrayLike, true_mm: npt.ArrayLike) -> Float64:
    """Subtract poses of the same shape [N, J, 3]; raise ValueError."""
    predicted, true = np.asarray(predicted_mm, np.float64), np.asarray(true_mm, np.float64)
    if predicted.shape != true.shape or predicted.ndim != 3 or predicted.shape[2] != 3:
        raise ValueError(f"poses must be [N, J, 3], both of the same shape, but got {predicted.shape} and {true.shape}")
    for what, poses in (("predicted", predicted), ("true", true)):
        if not (finite := np.isfinite(poses).all(axis=(1, 2))).all():
            place = int(np.flatnonzero(~finite)[0])
            raise ValueError(
                f"{what} poses must be finite, but row {place} isn't ({(~finite).sum()} of {len(poses)} rows)"
            )
    return predicted - true
