"""How much a blend may be trusted: its complexity chosen on groups held out, its gain measured on others. Pure.

    option      a granularity and how far its weights are shrunk toward the mean; the mean itself is the simplest
    choose      the mean, unless the best option's error on held-out groups is lower by more than one standard error
                (of their difference, clustered by sequence); then the simplest option within TIE errors of the best
    nested      the same, choice included, on all groups but some, judged on those: what a stranger may expect

The rule of one standard error (Breiman et al. 1984) guards the mean, which costs nothing. Between blends it was too
timid: in 7 of 60 simulated draws of 55 sequences it shrank away 6 to 11 % of what the exact optimum gains on fresh
ones, a quarter of an error in none. Nor does a quarter harm where members differ little (150 draws of 8 to 55
sequences, full weights losing up to 4.3 mm): what was shipped lost at most .12 mm.

Two standard errors of the claim hold the gain on fresh sequences in 91 % of 160 draws of 40 sequences, in 92 % of 60 of
55, and in 90 % of 140 with three members; all others claim too little. Were weights of fewer groups not allowed for
(`Gate._nested`), nor few and skewed clusters (`careful_error`), it would be 86, 87 and 87 %. What is left is chance
that a sample can't see: one without hard sequences shows a small gain and a small error.

Neighbouring frames say nearly the same, so groups (subjects, sequences) are held out whole: on random rows a blend that
lost 1.6 mm was seen to claim a gain of 5. Weights are solved exactly here, as the search comes within a fraction of a
percent of them.
"""

import math
from collections.abc import Callable, Set
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.stats

from competition.blending import weights
from competition.common.arrays import Float32, Float64, Int64

FOLDS = 5  # of the groups; fewer where there are fewer groups
SHRINKS: Final = (0.5, 0.25, 0.0)
TIE = 0.25  # standard errors between options that do as well
COARSE_GAP_MM = 0.05  # of the certificate: what is judged on other groups needs no more


class Option(NamedTuple):
    """A granularity, "mean" for equal weights, and how far it is shrunk toward the mean."""

    granularity: str
    shrink: float

    def __str__(self) -> str:
        return self.granularity + (f", shrunk by {self.shrink}" if self.shrink else "")


MEAN: Final = Option("mean", 0.0)
OPTIONS: Final = (MEAN, *(Option(name, shrink) for name in ("axis", "joint", "coordinate") for shrink in SHRINKS))


Find: TypeAlias = Callable[[Float32], Float64]  # weights [17, 3, M] on residuals
Way: TypeAlias = Option | Find


class NestedGain(NamedTuple):
    """What held-out groups say of one way to blend, over the rows that were looked at."""

    option: Option | None  # chosen on all groups; None where nothing was to choose
    mean_mm: float  # MPJPE of the plain mean
    nested_mm: float  # MPJPE of the weights found without the row's group
    gain_mm: float
    gain_se_mm: float  # clustered by sequence, see `careful_error`

    @property
    def is_significant(self) -> bool:
        """Tell whether another blend than the mean was chosen, and gains more than one standard error."""
        return self.option not in (None, MEAN) and self.gain_mm > self.gain_se_mm


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
        self.members = members
        self.fold = deal(groups, FOLDS)
        # cut once: of many candidates, picking rows is as dear as solving for weights
        self.parts = [np.ascontiguousarray(residual[..., self.fold == fold]) for fold in self.folds]
        self.sequences = np.unique(sequences, return_inverse=True)[1]
        self.mean_mm = row_errors(residual[:, :, :members].mean(axis=2))
        self._solved: dict[tuple[str | Find, frozenset[int]], Float64] = {}

    @property
    def folds(self) -> range:
        return range(int(self.fold.max()) + 1)

    def choose(self) -> NestedGain:
        """Choose an option on all groups; measure the gain of choosing so on groups that had no say."""
        option = self._choose(set())
        return self._trust(option, {held: self._choose({held}) for held in self.folds})

    def judge(self, way: Way) -> NestedGain:
        """Measure the gain of a given option, or of another way to find weights, on held-out groups."""
        return self._trust(way if isinstance(way, Option) else None, dict.fromkeys(self.folds, way))

    def _choose(self, left_out: Set[int]) -> Option:
        """Choose an option on the groups that are not left out, by holding out each of their folds in turn."""
        if len(self.folds) - len(left_out) < 2:
            return MEAN  # nothing left to judge by
        there = ~np.isin(self.fold, list(left_out))
        errors = {option: self._held_out(option, left_out)[there] for option in OPTIONS}
        best = min(OPTIONS, key=lambda option: float(errors[option].mean()))

        def near(option: Option, least: float) -> bool:
            worse = errors[option] - errors[best]
            return bool(worse.mean() <= least * clustered_error(worse, self.sequences[there]))

        if near(MEAN, 1.0):
            return MEAN
        return next(option for option in OPTIONS if near(option, TIE))

    def _held_out(self, option: Option, left_out: Set[int]) -> Float64:
        """Return the rows' errors [N] under weights found without their fold and without those left out (there NaN)."""
        errors = np.full(len(self.fold), np.nan)
        for held in set(self.folds) - left_out:
            errors[self.fold == held] = self._errors(option, left_out, held)
        return errors

    def _errors(self, way: Way, left_out: Set[int], held: int) -> Float64:
        """Return the errors of a fold's rows under weights found without it and without those left out."""
        if way == MEAN:
            of_mean: Float64 = self.mean_mm[self.fold == held]
            return of_mean
        if isinstance(way, Option):
            found = weights.shrink_weights(self._solve(way.granularity, left_out | {held}), way.shrink, self.members)
        else:
            found = self._solve(way, left_out | {held})
        return row_errors(blended(self.parts[held], found))

    def _solve(self, way: str | Find, left_out: Set[int]) -> Float64:
        key = (way, frozenset(left_out))
        if key not in self._solved:
            seen = self._without(left_out)
            if isinstance(way, str):
                self._solved[key] = weights.exact(seen, way, gap_mm=COARSE_GAP_MM).weights
            else:
                self._solved[key] = way(seen)
        return self._solved[key]

    def _without(self, left_out: Set[int]) -> Float32:
        return np.concatenate([part for fold, part in enumerate(self.parts) if fold not in left_out], axis=3)

    def _trust(self, option: Option | None, ways: dict[int, Way]) -> NestedGain:
        nested_mm = self._nested(ways)
        gain = self.mean_mm - nested_mm
        return NestedGain(
            option=option,
            mean_mm=float(self.mean_mm.mean()),
            nested_mm=float(nested_mm.mean()),
            gain_mm=float(gain.mean()),
            gain_se_mm=careful_error(gain, self.sequences),
        )

    def _nested(self, ways: dict[int, Way]) -> Float64:
        """Return what the rows' errors [N] would be under weights of as many groups as there are, none of them theirs.

        Weights found without a row's fold, in the way given for it, are those of K - 1 folds and err more than those
        of all K, which are shipped. As what weights lack falls with 1 / the data that they are found on, the step from
        K - 2 folds to K - 1, which can be seen, is K / (K - 2) times the one from K - 1 to K, which can't.
        """
        errors, folds = np.empty(len(self.fold)), len(self.folds)
        for held, way in ways.items():
            rows = self.fold == held
            errors[rows] = self._errors(way, set(), held)
            fewer = [self._errors(way, {other}, held) for other in self.folds if folds > 2 and other != held]
            if fewer:
                errors[rows] -= (folds - 2) / folds * (np.mean(fewer, axis=0) - errors[rows])
        return errors


def deal(groups: npt.NDArray[np.str_], folds: int) -> Int64:
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


def clustered_error(values: Float64, clusters: Int64) -> float:
    """Return the standard error of the mean of values [N] whose rows depend on each other within clusters [N].

    Liang & Zeger 1986 for a mean: the clusters' summed deviations are what varies. Infinite for a single cluster.
    """
    sums = np.bincount(clusters, weights=values - values.mean())
    count = len(np.unique(clusters))
    if count < 2:
        return float("inf")
    return float(np.sqrt(np.square(sums).sum() * count / (count - 1)) / len(values))


def careful_error(values: Float64, clusters: Int64) -> float:
    """Return the clustered standard error, widened so that two of it reach as far as is said of two: 95 % of draws.

    Few clusters don't know their own spread (Student's t), and a long tail, of which a draw has too much or too little,
    moves the mean and the spread together (Johnson 1978; here by what it moves the end of the longer side).
    """
    error, count = clustered_error(values, clusters), len(np.unique(clusters))
    if not 0 < error < np.inf:
        return error
    sums = np.bincount(clusters, weights=values - values.mean())
    skewness = float(abs(np.mean(sums**3)) / np.mean(sums**2) ** 1.5)
    student = float(scipy.stats.t.ppf(scipy.stats.norm.cdf(2), count - 1)) / 2
    return error * student * (1 + 0.75 * skewness / math.sqrt(count))
