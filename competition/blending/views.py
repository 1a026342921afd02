"""The other cameras: poses of the same instant, fused on top of another blend; see `runs/fusion`.

depth, scale    those with the lowest error on the rows of the problem, one after the other. There are only two, so that
                their error on other groups is hardly larger; the gate measures it
level           where a second level lies beneath, another one corrects the fused poses: the errors that are left are
                smaller and follow other rules
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from competition.blending.fitted import Corrected, Fitted
from competition.blending.problem import Problem, choose_rows
from competition.blending.stack import ROWS as LEVEL_ROWS
from competition.blending.stack import Stacked, fit_level
from competition.common.arrays import Float64, Floats
from competition.common.metrics import mpjpe
from competition.data.views import Views
from competition.runs.fusion import Fusion, fusion_npz, sources
from competition.runs.second_level import FILE

START: Final = Fusion(depth=0.1, scale_mm=50.0)
DEPTHS: Final = (1.0, 0.3, 0.1, 0.05, 0.02)
SCALES_MM: Final = (25.0, 50.0, 100.0, 200.0)
ROWS: Final = 1500  # by which depth and scale are chosen


@dataclass(frozen=True, kw_only=True, eq=False)
class Viewed(Corrected):
    """A blend whose poses are fused with those of other cameras."""

    fusion: Fusion

    def apply(self, pose_mm: Float64) -> Float64:
        return self.beneath.apply(pose_mm)

    def apply_with(self, pose_mm: Float64, views: Views | None) -> Float64:
        assert views is not None
        return self.fusion.apply(self.beneath.apply(pose_mm), views)

    def compute_residual(self, problem: Problem) -> Floats:
        assert problem.true_mm is not None
        assert problem.views is not None
        fused_mm = self.fusion.apply(_poses(problem, self.beneath), problem.views)
        return (fused_mm - problem.true_mm).transpose(1, 2, 0)

    def files(self, names: Sequence[str]) -> dict[str, bytes]:
        level = self.beneath.level if isinstance(self.beneath, Stacked) else None
        return {**self.beneath.files(names), FILE: fusion_npz(names, level, self.fusion)}


def fit(problem: Problem, beneath: Fitted) -> Viewed:
    """Fit the fusion of a blend's poses with those of other cameras, on the rows of a problem or on some of many."""
    part = problem.thinned
    assert part.true_mm is not None
    assert part.views is not None
    own_mm = _poses(part, beneath)
    fusion = _choose(own_mm, part)
    fused_mm, several = fusion.fuse(own_mm, part.views)
    if isinstance(beneath, Stacked) and several.any():
        rows = np.flatnonzero(several)
        rows = rows[choose_rows(None if part.sequences is None else part.sequences[rows], len(rows), LEVEL_ROWS)]
        level = fit_level(fused_mm[rows], own_mm[None, rows], part.take(rows))
        fusion = replace(fusion, level=level)
    return Viewed(beneath=beneath, fusion=fusion)


def _choose(own_mm: Float64, problem: Problem) -> Fusion:
    """Choose depth and scale: those with the lowest error on some of the rows of own poses [N, 17, 3]."""
    assert problem.true_mm is not None
    assert problem.views is not None
    images, turn = sources(own_mm, problem.views)
    rows = np.arange(0, problem.rows, -(-problem.rows // ROWS))
    true_mm = problem.true_mm[rows].astype(np.float64)

    def error_of(fusion: Fusion) -> float:
        return mpjpe(fusion.fuse_rows(own_mm, images[rows], turn[rows]), true_mm)

    best = min((replace(START, depth=depth) for depth in DEPTHS), key=error_of)
    return min((replace(best, scale_mm=scale_mm) for scale_mm in SCALES_MM), key=error_of)


def _poses(problem: Problem, fitted: Fitted) -> Float64:
    """Return a blend's poses [N, 17, 3] in mm on the rows of a problem."""
    assert problem.true_mm is not None
    return np.add(fitted.residual(problem).transpose(2, 0, 1), problem.true_mm, dtype=np.float64)
