"""Fitted blends: functions from the candidates' poses to one pose. Weights are one kind, the median is another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from competition.blending import weights
from competition.blending.picture import weights_picture
from competition.blending.problem import Problem
from competition.common.arrays import Float64, Floats
from competition.data.views import Views
from competition.runs.blends import weights_csv

if TYPE_CHECKING:
    import optuna


class Fitted(ABC):
    """What a method returns: it blends poses of the candidates that it was fitted on.

    A subclass needs only `apply`, and one of `Corrected` also `compute_residual`. Where a blend's residuals follow from
    those of the candidates, it also overrides `residual` and `joint_errors`, which then need no poses and are faster.
    """

    fit_mm: Float64 | None = None  # [17] mean errors on all rows of the problem, if the fit computed them
    excess_mm: float = 0.0  # MPJPE above that of the method's `quick` replacement, on the rows of the fit

    @abstractmethod
    def apply(self, pose_mm: Float64) -> Float64:
        """Blend the candidates' poses [M, n, 17, 3] in mm to [n, 17, 3]."""

    def apply_with(self, pose_mm: Float64, views: Views | None) -> Float64:
        """Blend poses as in `apply`, given the views of the images, which most blends don't use."""
        return self.apply(pose_mm)

    def residual(self, problem: Problem) -> Floats:
        """Return the blend's residuals [17, 3, N] in mm on the rows of a problem."""
        assert problem.true_mm is not None
        return (self.apply(problem.poses()) - problem.true_mm).transpose(1, 2, 0)

    def joint_errors(self, problem: Problem) -> Float64:
        """Return each joint's mean error in mm, [17], on the rows of a problem."""
        return np.asarray(np.sqrt(np.square(self.residual(problem)).sum(axis=1)).mean(axis=1, dtype=np.float64))

    def axis_errors(self, problem: Problem) -> Float64 | None:
        """Return the mean absolute error in mm along x, y and z, [3]; None if it isn't reported."""
        return None

    def shrunk(self, shrink: float, toward: Fitted) -> Fitted:
        """Move the blend toward another one; `shrink` 0 keeps it."""
        if shrink:
            raise ValueError(f"{type(self).__name__} can't be shrunk")
        return self

    def files(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the files that describe the blend of the candidates `names`, to be written beside its poses."""
        return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights(Fitted):
    """A weighted mean of the candidates for each coordinate."""

    values: Float64  # [17, 3, M]
    fit_mm: Float64 | None = None

    def apply(self, pose_mm: Float64) -> Float64:
        return weights.apply_weights(pose_mm, self.values)

    def residual(self, problem: Problem) -> Floats:
        return weights.blend_residuals(problem.residual, self.values)

    def joint_errors(self, problem: Problem) -> Float64:
        return weights.joint_errors(problem.residual, self.values)

    def axis_errors(self, problem: Problem) -> Float64:
        return weights.axis_errors(problem.residual, self.values)

    def shrunk(self, shrink: float, toward: Fitted) -> Weights:
        if not shrink:
            return self
        if not isinstance(toward, Weights):
            raise ValueError(f"weights can't be shrunk toward {type(toward).__name__}")
        return Weights(values=weights.shrink_weights(self.values, shrink, toward.values))

    def files(self, names: Sequence[str]) -> dict[str, bytes]:
        return {
            "weights.csv": weights_csv(names, self.values).encode(),
            "weights.png": weights_picture(names, self.values),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchedWeights(Weights):
    """Weights found by Optuna, with its studies."""

    studies: tuple[optuna.Study, ...]
    excess_mm: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Median(Fitted):
    """The members' median for each coordinate."""

    def apply(self, pose_mm: Float64) -> Float64:
        return np.asarray(np.median(pose_mm, axis=0), np.float64)

    def residual(self, problem: Problem) -> Floats:
        return np.asarray(np.median(problem.residual, axis=2))

    def joint_errors(self, problem: Problem) -> Float64:
        return weights.median_errors(problem.residual)


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrected(Fitted):
    """A blend whose poses are changed further. Its residuals are computed once for every problem."""

    beneath: Fitted

    @abstractmethod
    def compute_residual(self, problem: Problem) -> Floats:
        """Compute the blend's residuals [17, 3, N] in mm on the rows of a problem."""

    def residual(self, problem: Problem) -> Floats:
        return problem.residual_of(self)

    @property
    def excess_mm(self) -> float:  # type: ignore[override]  # a variable in the base class
        return self.beneath.excess_mm

    def axis_errors(self, problem: Problem) -> Float64:
        return np.asarray(np.abs(self.residual(problem)).mean(axis=(0, 2)))
