"""How much a blend may be trusted: its complexity chosen on groups held out, its gain measured on others. Pure.

    option      a granularity and how far its weights are shrunk toward the mean; the mean itself is the simplest
    choose      the simplest option whose error on held-out groups is within one standard error of the best one's
                (Breiman et al. 1984), the error being that of their difference, clustered by sequence
    nested      the same, choice included, on all groups but some, judged on those: what a stranger may expect

Neighbouring frames say nearly the same, so groups (subjects, sequences) are held out whole: on random rows a blend that
lost 1.6 mm was seen to claim a gain of 5. Weights are solved exactly here, as the search comes within a fraction of a
percent of them.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from competition import weights
from competition.weights import Float32, Float64

FOLDS = 5  # of the groups; fewer where there are fewer groups
SHRINKS: Final = (0.5, 0.25, 0.0)
COARSE_GAP_MM = 0.05  # of the certificate: what is judged on other groups needs no more


class Option(NamedTuple):
    """A granularity, "mean" for equal weights, and how far it is shrunk toward the mean."""

    granularity: str
    shrink: float

    def __str__(self) -> str:
        return self.granularity + (f", shrunk by {self.shrink}" if self.shrink else "")


MEAN: Final = Option("mean", 0.0)
OPTIONS: Final = (MEAN, *(Option(name, shrink) for name in ("axis", "joint", "coordinate") for shrink in SHRINKS))


class Trust(NamedTuple):
    """What held-out groups say of one way to blend, over the rows that were looked at."""

    option: Option | None  # chosen on all groups; None where nothing was to choose
    mean_mm: float  # MPJPE of the plain mean
    nested_mm: float  # MPJPE of the weights found without the row's group
    gain_mm: float
    gain_se_mm: float  # clustered by sequence


class Gate:
    """Blends of residuals [17, 3, M, N] on groups held out; weights are found once for every set of groups."""

    def __init__(
        self,
        residual: Float32,
        groups: npt.NDArray[np.str_],
        sequences: npt.NDArray[np.str_],
        *,
        members: int | None = None,
    ) -> None:
        """Take residuals, the group and the sequence of each row [N]; the mean is of the first `members` candidates."""
        self.residual = residual
        self.members = members
        self.fold = deal(groups, FOLDS)
        self.sequences = np.unique(sequences, return_inverse=True)[1]
        self.mean_mm = row_errors(residual[:, :, :members].mean(axis=2))
        self._solved: dict[tuple[str, frozenset[int]], Float64] = {}

    @property
    def folds(self) -> range:
        return range(int(self.fold.max()) + 1)

    def choose(self) -> Trust:
        """Choose an option on all groups; measure the gain of choosing so on groups that had no say."""
        nested_mm = np.empty(self.residual.shape[3])
        for held in self.folds:
            option = self._choose(frozenset({held}))
            rows = self.fold == held
            nested_mm[rows] = self._errors(option, frozenset({held}), rows)
        return self._trust(self._choose(frozenset()), nested_mm)

    def judge(self, option: Option) -> Trust:
        """Measure the gain of a given option on held-out groups."""
        return self._trust(option, self._held_out(option, frozenset()))

    def judge_other(self, find: Callable[[Float32], Float64]) -> Trust:
        """Measure the gain of another way to find weights [17, 3, M] on residuals."""
        nested_mm = np.empty(self.residual.shape[3])
        for held in self.folds:
            rows = self.fold == held
            found = find(self._without(frozenset({held})))
            nested_mm[rows] = row_errors(blended(self.residual[..., rows], found))
        return self._trust(None, nested_mm)

    def _choose(self, left_out: frozenset[int]) -> Option:
        """Choose an option on the groups that are not left out, by holding out each of their folds in turn."""
        if len(self.folds) - len(left_out) < 2:
            return MEAN  # nothing left to judge by
        there = ~np.isin(self.fold, list(left_out))
        errors = {option: self._held_out(option, left_out)[there] for option in OPTIONS}
        best = min(OPTIONS, key=lambda option: float(errors[option].mean()))
        for option in OPTIONS:
            worse = errors[option] - errors[best]
            if worse.mean() <= clustered_error(worse, self.sequences[there]):
                return option
        return best

    def _held_out(self, option: Option, left_out: frozenset[int]) -> Float64:
        """Return the rows' errors [N] under weights found without their fold and without those left out (there NaN)."""
        errors = np.full(self.residual.shape[3], np.nan)
        for held in set(self.folds) - left_out:
            rows = self.fold == held
            errors[rows] = self._errors(option, left_out | {held}, rows)
        return errors

    def _errors(self, option: Option, left_out: frozenset[int], rows: npt.NDArray[np.bool_]) -> Float64:
        if option == MEAN:
            return self.mean_mm[rows]
        found = weights.shrink_weights(self._solve(option.granularity, left_out), option.shrink, self.members)
        return row_errors(blended(self.residual[..., rows], found))

    def _solve(self, granularity: str, left_out: frozenset[int]) -> Float64:
        key = (granularity, left_out)
        if key not in self._solved:
            self._solved[key] = weights.exact(self._without(left_out), granularity, gap_mm=COARSE_GAP_MM).weights
        return self._solved[key]

    def _without(self, left_out: frozenset[int]) -> Float32:
        return np.ascontiguousarray(self.residual[..., ~np.isin(self.fold, list(left_out))])

    def _trust(self, option: Option | None, nested_mm: Float64) -> Trust:
        gain = self.mean_mm - nested_mm
        return Trust(
            option=option,
            mean_mm=float(self.mean_mm.mean()),
            nested_mm=float(nested_mm.mean()),
            gain_mm=float(gain.mean()),
            gain_se_mm=clustered_error(gain, self.sequences),
        )


def deal(groups: npt.NDArray[np.str_], folds: int) -> npt.NDArray[np.int64]:
    """Deal whole groups into folds of about as many rows each; return each row's fold [N]."""
    names, of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    fold_of_group, filled = np.zeros(len(names), np.int64), np.zeros(min(folds, len(names)))
    for group in np.argsort(-sizes, kind="stable"):
        fold_of_group[group] = filled.argmin()
        filled[fold_of_group[group]] += sizes[group]
    return fold_of_group[of_row]


def blended(residual: Float32, found: Float64) -> Float32:
    """Return the residuals [17, 3, N] of a blend of residuals [17, 3, M, N] with weights [17, 3, M]."""
    result: Float32 = np.matmul(found[..., None, :].astype(np.float32), residual)[..., 0, :]
    return result


def row_errors(residual: Float32) -> Float64:
    """Return each row's error in mm, [N], the mean over joints: residual [17, 3, N]."""
    return np.asarray(np.sqrt(np.square(residual).sum(axis=1)).mean(axis=0, dtype=np.float64), np.float64)


def clustered_error(values: Float64, clusters: npt.NDArray[np.int64]) -> float:
    """Return the standard error of the mean of values [N] whose rows depend on each other within clusters [N].

    Liang & Zeger 1986 for a mean: the clusters' summed deviations are what varies. Infinite for a single cluster.
    """
    sums = np.bincount(clusters, weights=values - values.mean())
    count = len(np.unique(clusters))
    if count < 2:
        return float("inf")
    return float(np.sqrt(np.square(sums).sum() * count / (count - 1)) / len(values))
