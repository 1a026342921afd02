"""The blending methods. A new one is a class here and its entry in METHODS.

This module imports no library, so that the command line can list the methods without loading any; `fit` imports what
it needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from competition.blending.fitted import Fitted
    from competition.blending.problem import Problem

GRANULARITIES: Final = ("global", "axis", "joint", "coordinate")  # from the fewest weights to the most
SAMPLERS: Final = ("cmaes", "tpe")  # of the search


@dataclass(frozen=True)
class Method(ABC):
    """A blending method at one granularity; equal methods fit the same blend to the same problem."""

    granularity: str = "coordinate"

    name: ClassVar[str]
    granularities: ClassVar[tuple[str, ...]] = ()  # that it honours; () if it has no weights that can be shared
    always: ClassVar[bool] = True  # whether it is computed for the table of every blend, or only where it ships
    cross_validated: ClassVar[bool] = True  # whether it is evaluated on held-out groups

    def __str__(self) -> str:
        return self.name

    @abstractmethod
    def fit(self, problem: Problem) -> Fitted:
        """Fit the method on all rows of a problem, or on fewer where more wouldn't help."""

    def quick(self) -> Method:
        """Return a faster method whose fits are as good, for the many fits of cross-validation."""
        return self

    def at(self, granularity: str) -> Method:
        """Return the method at a granularity, if it honours that one."""
        return replace(self, granularity=granularity) if granularity in self.granularities else self


class Optuna(Method):
    """The weights that a search by Optuna finds; the mean in joints where they don't improve on it."""

    name = "optuna"
    granularities = GRANULARITIES

    def __str__(self) -> str:
        return f"{self.granularity} weights"

    def fit(self, problem: Problem) -> Fitted:
        from competition.blending import search, weights
        from competition.blending.fitted import SearchedWeights

        part = problem.thinned
        optimum_mm = weights.exact(part.residual, self.granularity).joint_mm
        found = search.search(part, optimum_mm, self.granularity)
        excess_mm = max(0.0, float((weights.joint_errors(part.residual, found.weights) - optimum_mm).mean()))
        values = weights.keep_mean(problem.residual, found.weights, self.granularity)
        return SearchedWeights(values=values, studies=found.studies, excess_mm=excess_mm)

    def quick(self) -> Method:
        return Exact(self.granularity, coarse=True)


@dataclass(frozen=True)
class Exact(Method):
    """The weights with the lowest error."""

    coarse: bool = False  # stop earlier: weights for held-out groups need less precision

    name = "exact"
    granularities = GRANULARITIES

    def fit(self, problem: Problem) -> Fitted:
        from competition.blending import weights
        from competition.blending.fitted import Weights

        gap_mm = weights.COARSE_GAP_MM if self.coarse else weights.GAP_MM
        optimum = weights.exact(problem.residual, self.granularity, gap_mm=gap_mm)
        return Weights(values=optimum.weights, fit_mm=optimum.joint_mm)

    def quick(self) -> Method:
        return replace(self, coarse=True)


class Greedy(Method):
    """Weights by repeated selection of candidates."""

    name = "greedy"
    granularities = ("coordinate",)

    def fit(self, problem: Problem) -> Fitted:
        from competition.blending import weights
        from competition.blending.fitted import Weights

        return Weights(values=weights.greedy(problem.thinned.residual))


class Mean(Method):
    """The plain mean of the members."""

    name = "mean"

    def fit(self, problem: Problem) -> Fitted:
        from competition.blending import weights
        from competition.blending.fitted import Weights

        joints, _, candidates, _ = problem.residual.shape
        return Weights(values=weights.equal_weights(joints, candidates))


class Median(Method):
    """The median of the members."""

    name = "median"
    always = False
    cross_validated = False  # as nothing is fitted, its error in sample is already that on unseen rows

    def fit(self, problem: Problem) -> Fitted:
        from competition.blending import fitted

        return fitted.Median()


@dataclass(frozen=True)
class TopMean(Method):
    """The mean of the members with the lowest errors."""

    count: int = 1

    name = "mean of the best"

    def __str__(self) -> str:
        return f"mean of the best {self.count}"

    def fit(self, problem: Problem) -> Fitted:
        from competition.blending import weights
        from competition.blending.fitted import Weights

        joints, _, candidates, _ = problem.residual.shape
        best = problem.single_mm.argsort(kind="stable")[: self.count]
        return Weights(values=weights.mean_of(joints, candidates, best.tolist()))


class BestSingle(TopMean):
    """The member with the lowest error, alone."""

    name = "best single"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Stack(Method):
    """Coordinate weights, and a second level that corrects their poses."""

    beneath: Method = field(default_factory=Optuna)

    name = "stack"

    def fit(self, problem: Problem) -> Fitted:
        from competition.blending import stack
        from competition.blending.fitted import Weights

        beneath = problem.fit(self.beneath)
        assert isinstance(beneath, Weights)
        return stack.fit(problem, beneath)

    def quick(self) -> Method:
        return replace(self, beneath=self.beneath.quick())


@dataclass(frozen=True)
class OtherCameras(Method):
    """The poses of another method, fused with those of other cameras at the same instant."""

    beneath: Method = field(default_factory=Optuna)
    shrink: float = 0.0  # of the method beneath
    toward: Method = field(default_factory=Mean)

    name = "views"

    def fit(self, problem: Problem) -> Fitted:
        from competition.blending import views

        beneath = problem.fit(self.beneath)
        if self.shrink:
            beneath = beneath.shrunk(self.shrink, problem.fit(self.toward))
        return views.fit(problem, beneath)

    def quick(self) -> Method:
        return replace(self, beneath=self.beneath.quick(), toward=self.toward.quick())


METHODS: Final[tuple[Method, ...]] = (Optuna(), Exact(), Greedy(), Mean(), Median())  # the first is the default
BASELINES: Final[tuple[Method, ...]] = (BestSingle(), Mean())  # the first rows of every table
