"""The problem that blending methods solve: candidates' errors on training rows, and what is known about the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from competition.blending.weights import single_errors
from competition.common.arrays import Float32, Float64, Floats, Int64, Intp
from competition.data.views import Views, concatenate_views

S = TypeVar("S", bound=np.generic)
F = TypeVar("F", covariant=True)

SEARCH_ROWS = 20_000  # more rows cost time and hardly change the optimum


class Fits(Protocol[F]):
    """A blending method, as in `methods`."""

    def fit(self, problem: Problem) -> F:
        """Fit the method on the rows of a problem."""


class HasResidual(Protocol):
    """A blend whose residuals take long to compute, as in `fitted`."""

    def compute_residual(self, problem: Problem) -> Floats:
        """Compute the blend's residuals [17, 3, N] in mm on the rows of a problem."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Residuals of M candidates on N rows, each an image that all candidates have predicted out of fold."""

    residual: Float32  # [17, 3, M, N] mm, contiguous: poses minus the truth
    names: tuple[str, ...]  # [M] run:epoch
    true_mm: Float32 | None = None  # [N, 17, 3]; used only by methods that need poses, as weights don't
    subjects: npt.NDArray[np.str_] | None = None  # [N]; None if the image names don't contain them
    sequences: npt.NDArray[np.str_] | None = None  # [N], likewise
    views: Views | None = None  # of the rows; only if other cameras are used
    seed: int = 0
    sampler: str = "cmaes"  # of the search

    @property
    def rows(self) -> int:
        return int(self.residual.shape[3])

    @cached_property
    def thinned(self) -> Problem:
        """At most SEARCH_ROWS of the rows, for methods whose time grows with them; the problem itself if it is small.

        Some are taken from every sequence, as sequences matter more than frames: neighbouring frames are near copies.
        With views, all rows of an instant or none are taken.
        """
        if self.views is None:
            rows = choose_rows(self.sequences, self.rows)
        else:
            rows = choose_instants(self.views, self.sequences)
        return self if len(rows) == self.rows else self.take(rows)

    @cached_property
    def single_mm(self) -> Float64:
        """The MPJPE of every candidate alone, [M]."""
        return single_errors(self.residual)

    def fit(self, method: Fits[F]) -> F:
        """Fit a method, once: options that differ only in shrinkage share a fit, and a second level has one beneath."""
        if method not in self._fitted:
            self._fitted[method] = method.fit(self)
        found: F = self._fitted[method]
        return found

    def share_fits(self, fits: Mapping[Any, Any]) -> None:
        """Use fits to the same rows, by method, in place of fitting these methods again."""
        self._fitted.update(fits)

    @cached_property
    def _fitted(self) -> dict[object, Any]:
        return {}

    def residual_of(self, blend: HasResidual) -> Floats:
        """Return a blend's residuals [17, 3, N] in mm, computed once; they can't be written to."""
        if blend not in self._residuals:
            self._residuals[blend] = blend.compute_residual(self)
            self._residuals[blend].setflags(write=False)
        return self._residuals[blend]

    @cached_property
    def _residuals(self) -> dict[HasResidual, Floats]:
        return {}

    def take(self, rows: Intp) -> Problem:
        """Return a copy of some rows, given by their indices."""
        return replace(
            self,
            residual=self.residual.take(rows, axis=3),
            true_mm=None if self.true_mm is None else self.true_mm[rows],
            subjects=None if self.subjects is None else self.subjects[rows],
            sequences=None if self.sequences is None else self.sequences[rows],
            views=None if self.views is None else self.views.take(rows),
        )

    def poses(self) -> Float64:
        """Return the candidates' poses [M, N, 17, 3] in mm."""
        assert self.true_mm is not None
        return np.add(self.residual.transpose(2, 3, 0, 1), self.true_mm, dtype=np.float64)


def concatenate(parts: Sequence[Problem]) -> Problem:
    """Join the rows of problems with the same candidates."""
    joined = replace(
        parts[0],
        residual=np.concatenate([part.residual for part in parts], axis=3),
        true_mm=_joined([part.true_mm for part in parts]),
        subjects=_joined([part.subjects for part in parts]),
        sequences=_joined([part.sequences for part in parts]),
        views=concatenate_views([part.views for part in parts if part.views is not None]),
    )
    of_parts = [part.single_mm for part in parts]  # computed once per part, as parts are joined in many ways
    vars(joined)["single_mm"] = np.average(of_parts, axis=0, weights=[part.rows for part in parts])
    return joined


def _joined(parts: Sequence[npt.NDArray[S] | None]) -> npt.NDArray[S] | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if present else None


def choose_rows(sequences: npt.NDArray[np.str_] | None, rows: int, limit: int = SEARCH_ROWS) -> Intp:
    """Choose at most `limit` of `rows` rows, ascending: all of them, or evenly spaced rows of every sequence."""
    if rows <= limit:
        return np.arange(rows)
    by_sequence = np.arange(rows) if sequences is None else np.argsort(sequences, kind="stable")
    return np.sort(by_sequence[((np.arange(limit) + 0.5) * rows / limit).astype(np.intp)])


def choose_instants(views: Views, sequences: npt.NDArray[np.str_] | None, limit: int = SEARCH_ROWS) -> Intp:
    """Choose at most `limit` rows, ascending: all rows of all instants, or of evenly spaced ones of every sequence."""
    _, first, of_row, sizes = np.unique(views.instant, return_index=True, return_inverse=True, return_counts=True)
    if len(of_row) <= limit:
        return np.arange(len(of_row))
    of_instant = None if sequences is None else sequences[first]
    return np.flatnonzero(np.isin(of_row, choose_rows(of_instant, len(first), limit // int(sizes.max()))))


def assign_folds(groups: npt.NDArray[np.str_], folds: int) -> Int64:
    """Assign whole groups to folds of about equal size; return each row's fold [N]."""
    names, of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    fold_of_group, filled = np.zeros(len(names), np.int64), np.zeros(min(folds, len(names)))
    for group in np.argsort(-sizes, kind="stable"):
        fold_of_group[group] = filled.argmin()
        filled[fold_of_group[group]] += sizes[group]
    return fold_of_group[of_row]
