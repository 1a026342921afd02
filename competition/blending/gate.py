"""The gate between the simple blends and the others: grouped and nested cross-validation. Pure functions of arrays.

    simple          the mean or, if its error is lower by more than one standard error, the best single member
    option          a method and how far its blend is shrunk toward the simple one
    choose          grouped cross-validation: the simple blend, unless the best option's error is lower by more than one
                    standard error of the difference, clustered by sequence; otherwise the simplest option within TIE
                    standard errors of the best (Breiman et al. 1984). The mean of the best few members counts as the
                    best only if it beats the others by one standard error, as their ranking depends on the groups
    nested          cross-validation of the whole procedure: simple blend and option are chosen, and their weights are
                    fitted, without the groups on which they are evaluated

The groups are whole subjects or sequences, because neighbouring frames are near copies. Every fit is that of the
method's `quick` replacement: exact weights for the Optuna search, which comes within a fraction of a percent of them.
README.md reports the measurements behind TIE, WIDER and the corrections.
"""

import math
from collections.abc import Set
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.stats

from competition.blending.fitted import Fitted
from competition.blending.methods import GRANULARITIES, BestSingle, Mean, Method, Optuna, OtherCameras, Stack, TopMean
from competition.blending.problem import Problem, assign_folds, concatenate
from competition.common.arrays import Float64, Floats, Int64

FOLDS = 5  # of whole groups; fewer if there are fewer groups
SHRINKS: Final = (0.5, 0.25, 0.0)
WIDER = 1.2  # factor of nested standard errors: easy sequences have small gains and small errors of them
TIE = 0.25  # standard errors; options that are this close are tied


class Option(NamedTuple):
    """A method and the factor by which its blend is shrunk toward that of another method, which is simple."""

    method: Method
    shrink: float = 0.0
    toward: Method = Mean()

    def __str__(self) -> str:
        return str(self.method) + (f" (shrunk by {self.shrink} toward the {self.toward})" if self.shrink else "")


MEAN: Final = Option(Mean())
SINGLE: Final = Option(BestSingle())
STACK: Final = Option(Stack())
TOPS: Final = {count: Option(TopMean(count=count)) for count in (2, 3, 4, 6, 8, 12)}  # by the number of members


def options(members: int, simple: Option, *, stack: bool = False) -> list[Option]:
    """Return the options, simplest first; weights are shrunk toward the simple one, which is the first or second."""
    if members == 1:
        return [MEAN]
    tops = [option for count, option in TOPS.items() if count < members]
    toward = simple.method
    weighted = [
        Option(Optuna(name), shrink, toward if shrink else Mean()) for name in GRANULARITIES for shrink in SHRINKS
    ]
    return [MEAN, SINGLE, *tops, *weighted, *([STACK] if stack else [])]


def with_views(beneath: Option) -> Option:
    """Return an option that fuses the poses of another one with those of other cameras."""
    return Option(OtherCameras(beneath=beneath.method, shrink=beneath.shrink, toward=beneath.toward))


class NestedGain(NamedTuple):
    """The gain of an option on held-out groups, averaged over the rows, over the mean and over the simple option."""

    option: Option  # as given, or chosen on all groups
    simple: Option  # chosen on all groups
    mean_mm: float  # MPJPE of the plain mean
    nested_mm: float  # MPJPE of a blend fitted without the row's group, corrected as in Gate._nested_errors
    gain_mm: float  # over the mean
    gain_se_mm: float  # clustered by sequence, see corrected_error
    simple_gain_mm: float  # over the simple option
    simple_gain_se_mm: float

    def worsened(self, excess_mm: float) -> "NestedGain":
        """Return the gains of a blend whose error is higher by this."""
        return self._replace(
            nested_mm=self.nested_mm + excess_mm,
            gain_mm=self.gain_mm - excess_mm,
            simple_gain_mm=self.simple_gain_mm - excess_mm,
        )

    @property
    def is_significant(self) -> bool:
        """Return whether an option that isn't simple gains more than one standard error over the simple one."""
        return self.option != self.simple and self.simple_gain_mm > self.simple_gain_se_mm


class Gate:
    """Cross-validation of blending methods over groups; a method is fitted once per set of held-out folds."""

    def __init__(self, problem: Problem, groups: npt.NDArray[np.str_], *, stack: bool = False) -> None:
        """Split a problem into folds by its rows' groups [N]; its sequences cluster the standard errors.

        With `stack`, which needs poses, the second level is among the options.
        """
        assert problem.sequences is not None
        self.fold = assign_folds(groups, FOLDS)
        # split once: with many candidates, selecting rows costs as much as solving for weights
        self.parts = [problem.take(np.flatnonzero(self.fold == fold)) for fold in self.folds]
        self.sequences = np.unique(problem.sequences, return_inverse=True)[1]
        self.members, self.stack = len(problem.names), stack
        self._fitted: dict[tuple[Method, frozenset[int]], Fitted] = {}
        self._errors: dict[tuple[Option, frozenset[int], int], Float64] = {}
        self.mean_mm = self._held_out_errors(MEAN, set())

    @property
    def folds(self) -> range:
        return range(int(self.fold.max()) + 1)

    def choose(self) -> NestedGain:
        """Choose an option on all groups, and measure the gain of this choice by nested cross-validation."""
        nested = {held: self._choose({held}) for held in self.folds}
        return self._nested_gain(self._choose(set()), {held: option for held, (_, option) in nested.items()})

    def evaluate(self, option: Option) -> NestedGain:
        """Measure the gain of a given option on held-out groups."""
        return self._nested_gain((self._choose_simple(set()), option), dict.fromkeys(self.folds, option))

    def evaluate_views(self, beneath: Option, *, chosen: bool) -> NestedGain:
        """Measure the gain of the other cameras on top of an option, with its choice included if it was `chosen`."""
        nested = {held: self._choose({held})[1] if chosen else beneath for held in self.folds}
        return self._nested_gain(
            (self._choose_simple(set()), with_views(beneath)),
            {held: with_views(option) for held, option in nested.items()},
        )

    def evaluate_simple(self) -> NestedGain:
        """Measure the gain of the simple option, with the choice included, on held-out groups."""
        simple = self._choose_simple(set())
        return self._nested_gain((simple, simple), {held: self._choose_simple({held}) for held in self.folds})

    def _choose(self, left_out: Set[int]) -> tuple[Option, Option]:
        """Choose the simple option and an option by cross-validation over the folds that are not left out."""
        simple = self._choose_simple(left_out)
        if len(self.folds) - len(left_out) < 2:
            return simple, simple  # nothing left to evaluate by
        kept = ~np.isin(self.fold, list(left_out))
        every = options(self.members, simple, stack=self.stack)
        errors = {option: self._held_out_errors(option, left_out)[kept] for option in every}

        def beats(option: Option, other: Option, standard_errors: float) -> bool:
            gain = errors[other] - errors[option]
            return bool(gain.mean() > standard_errors * clustered_error(gain, self.sequences[kept]))

        lowest, *_ = ranked = sorted(every, key=lambda option: float(errors[option].mean()))
        best = next(option for option in ranked if option not in TOPS.values())
        if lowest in TOPS.values() and beats(lowest, best, 1.0):
            best = lowest
        if not beats(best, simple, 1.0):
            return simple, simple
        stable = [option for option in every if option not in TOPS.values()]
        return simple, next((option for option in stable if not beats(best, option, TIE)), best)

    def _choose_simple(self, left_out: Set[int]) -> Option:
        """Choose the mean or, if it is better by more than one standard error, the best single member."""
        if len(self.folds) - len(left_out) < 2 or self.members == 1:
            return MEAN
        kept = ~np.isin(self.fold, list(left_out))
        mean_mm, single_mm = (self._held_out_errors(option, left_out)[kept] for option in (MEAN, SINGLE))
        gain = mean_mm - single_mm
        return SINGLE if gain.mean() > clustered_error(gain, self.sequences[kept]) else MEAN

    def _held_out_errors(self, option: Option, left_out: Set[int]) -> Float64:
        """Return each row's error [N] with weights fitted without its fold and `left_out`; NaN in folds left out."""
        errors = np.full(len(self.fold), np.nan)
        for held in set(self.folds) - left_out:
            errors[self.fold == held] = self._fold_errors(option, left_out, held)
        return errors

    def _fold_errors(self, option: Option, left_out: Set[int], held: int) -> Float64:
        """Return the errors of the rows of fold `held` with a blend fitted without it and without `left_out`."""
        without = frozenset(left_out | {held})
        key = (option, without, held)
        if key not in self._errors:
            fitted = self._fit(option.method, without)
            if option.shrink:
                fitted = fitted.shrunk(option.shrink, self._fit(option.toward, without))
            self._errors[key] = row_errors(fitted.residual(self.parts[held]))
        return self._errors[key]

    def _fit(self, method: Method, left_out: frozenset[int]) -> Fitted:
        quick = method.quick()
        key = (quick, left_out)
        if key not in self._fitted:
            kept = concatenate([part for fold, part in enumerate(self.parts) if fold not in left_out])
            kept.share_fits({method: fitted for (method, groups), fitted in self._fitted.items() if groups == left_out})
            self._fitted[key] = kept.fit(quick)
        return self._fitted[key]

    def _nested_gain(self, chosen: tuple[Option, Option], nested: dict[int, Option]) -> NestedGain:
        """Measure the gain of the options `nested`, by held-out fold; `chosen` are those on all groups."""
        simple, option = chosen
        nested_mm = self._nested_errors(nested)
        simple_mm = self._nested_errors({held: self._choose_simple({held}) for held in self.folds})
        gain = self.mean_mm - nested_mm
        simple_gain = simple_mm - nested_mm if option != simple else np.zeros(len(gain))
        return NestedGain(
            option=option,
            simple=simple,
            mean_mm=float(self.mean_mm.mean()),
            nested_mm=float(nested_mm.mean()),
            gain_mm=float(gain.mean()),
            gain_se_mm=WIDER * corrected_error(gain, self.sequences),
            simple_gain_mm=float(simple_gain.mean()),
            simple_gain_se_mm=WIDER * corrected_error(simple_gain, self.sequences),
        )

    def _nested_errors(self, options: dict[int, Option]) -> Float64:
        """Return the held-out errors of all rows [N], corrected for fitting on fewer groups than the shipped weights.

        `options` gives the option for each held-out fold. Weights fitted on K - 1 folds have larger errors than the
        shipped ones, which are fitted on all K. The excess error falls as 1 / (number of folds), so that the step from
        K - 1 to K folds is (K - 2) / K times the measured step from K - 2 to K - 1.
        """
        errors, folds = np.empty(len(self.fold)), len(self.folds)
        for held, option in options.items():
            rows = self.fold == held
            errors[rows] = self._fold_errors(option, set(), held)
            fewer = [self._fold_errors(option, {other}, held) for other in self.folds if folds > 2 and other != held]
            if fewer:
                errors[rows] -= (folds - 2) / folds * (np.mean(fewer, axis=0) - errors[rows])
        return errors


def row_errors(residual: Floats) -> Float64:
    """Return each row's error in mm, [N], averaged over joints: residual [17, 3, N]."""
    return np.asarray(np.sqrt(np.square(residual).sum(axis=1)).mean(axis=0, dtype=np.float64), np.float64)


def clustered_error(values: Float64, clusters: Int64) -> float:
    """Return the standard error of the mean of values [N] that are correlated within clusters [N].

    The cluster-robust error of a mean (Liang & Zeger 1986). Infinite for a single cluster.
    """
    sums = np.bincount(clusters, weights=values - values.mean())
    count = len(np.unique(clusters))
    if count < 2:
        return float("inf")
    return float(np.sqrt(np.square(sums).sum() * count / (count - 1)) / len(values))


def corrected_error(values: Float64, clusters: Int64) -> float:
    """Return the clustered standard error, widened so that two of it aim at 95 % coverage.

    Few clusters underestimate their spread (Student's t). With skewed clusters, the estimates of mean and spread are
    correlated (Johnson 1978; the factor is the shift at the end of the longer tail).
    """
    error, count = clustered_error(values, clusters), len(np.unique(clusters))
    if not 0 < error < np.inf:
        return error
    sums = np.bincount(clusters, weights=values - values.mean())
    skewness = float(abs(np.mean(sums**3)) / np.mean(sums**2) ** 1.5)
    student = float(scipy.stats.t.ppf(scipy.stats.norm.cdf(2), count - 1)) / 2
    return error * student * (1 + 0.75 * skewness / math.sqrt(count))
