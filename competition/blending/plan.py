"""The plan of a blend: what ships and why, chosen by cross-validation unless the user has chosen."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from competition.blending.gate import MEAN, SINGLE, STACK, Gate, NestedGain, Option, with_views
from competition.blending.methods import BASELINES, METHODS, Mean, Method, Optuna, OtherCameras
from competition.blending.problem import Problem
from competition.common.console import bar
from competition.runs.blends import Groups

LEAST_SUBJECTS = 4  # with fewer, the groups are sequences
FREE = Option(Optuna("coordinate"))  # its blend is written beside the one that ships


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The option to ship, and why."""

    method: Method  # as requested
    ships: Option  # or lies beneath the other cameras
    search: Option  # is computed even if another option ships
    why: str
    gate: Gate | None  # None if there are no groups to hold out
    groups: Groups | None
    stack: bool = False  # whether the second level is computed for the table
    views: bool = False  # whether poses of other cameras are fused
    limitation: str  # what cross-validation can't estimate, "" if nothing
    choice: NestedGain | None = None  # of the option that granularity auto chose, if it made a choice

    @property
    def ships_as(self) -> str:
        """The name of the shipped option in the table."""
        return OtherCameras.name if self.views else self._own_name

    @property
    def _own_name(self) -> str:
        """The name in the table of what ships without other cameras."""
        listed = [method.name for method in (*BASELINES, *METHODS)]
        return self.ships.method.name if self.ships.method.name in listed else str(self.ships.method)

    def options(self) -> Iterator[tuple[str, Option]]:
        """Return the options to compute by their names in the table: the baselines, then from simple to complex."""
        granularity = self.search.method.granularity
        listed = [*BASELINES, *(one for one in reversed(METHODS) if one not in BASELINES)]
        if self.ships != STACK and self._own_name not in [method.name for method in listed]:
            yield self._own_name, self.ships
        for method in listed:
            if method.always or method.name == self.method.name:
                yield method.name, self.search if isinstance(method, Optuna) else Option(method.at(granularity))
        if self.stack or self.search != FREE:
            yield "coordinate", FREE
        if self.stack:
            yield STACK.method.name, STACK
        if self.views:
            yield OtherCameras.name, with_views(self.ships)

    def held_out_gain(self, option: Option) -> NestedGain | None:
        """Return the gains of an option on held-out groups; None if they can't be or aren't evaluated."""
        if self.gate is None or not option.method.cross_validated:
            return None
        if isinstance(option.method, OtherCameras):
            return self.gate.evaluate_views(self.ships, chosen=self.choice is not None)
        if self.choice is not None and option == self.choice.option == self.ships:
            return self.choice  # covers the choice, too
        if self.choice is not None and option == self.ships == SINGLE:
            return self.gate.evaluate_simple()  # likewise
        return self.gate.evaluate(option)


def make_plan(problem: Problem, method: Method, granularity: str, stack: bool | None = None) -> Plan:
    """Choose the option that ships; if the problem has views, the other cameras on top of it ship, as requested."""
    plan = _choose(problem, method, granularity, stack)
    if problem.views is None:
        return plan
    why = plan.why.removeprefix(f"{plan.ships}, ")
    beneath = "second level" if plan.ships == STACK else plan.ships
    return replace(plan, views=True, why=f"other cameras, as requested, on top of the {beneath} ({why})")


def _choose(problem: Problem, method: Method, granularity: str, stack: bool | None) -> Plan:
    """Choose the option that ships, by cross-validation unless method, granularity or `stack` is given.

    `stack` ships the second level. By default it is among the options if whole subjects are held out, unless there is a
    single candidate.
    """
    is_free = isinstance(method, Optuna) and granularity == "auto"
    gate, groups, limitation = _gate(problem, stack=is_free and stack is None and len(problem.names) > 1)
    chosen = method.name if granularity == "auto" else f"{method.name}, granularity {granularity}"
    search = FREE if granularity == "auto" else Option(Optuna(granularity))
    method = method.at(search.method.granularity)
    plan = Plan(
        method=method, ships=Option(method), search=search, why=f"method {chosen}, as requested", gate=gate,
        groups=groups, limitation=limitation, stack=gate is not None and gate.stack,
    )  # fmt: skip
    if stack:
        return replace(plan, ships=STACK, stack=True, why="a second level, as requested")
    if not is_free:
        return plan
    if gate is None or groups is None:
        why = f"{limitation}; blend --granularity coordinate writes the weighted blend anyway"
        return replace(plan, ships=Option(Mean()), why=why)
    with bar("cross-validation", None):
        choice = gate.choose()
    option = choice.option
    if isinstance(option.method, Optuna):
        plan = replace(plan, method=option.method, search=option)
    if choice.is_significant:
        return replace(plan, ships=option, choice=choice, why=f"{option}, chosen by cross-validation")
    why = f"no other blend gains more than one standard error over it on held-out {groups.by}s"
    if option != choice.simple:
        gain = describe_gain(problem, choice, groups)
        why = f"{option}: gain only {gain}, not more than one standard error"
    return replace(plan, ships=choice.simple, choice=choice, why=why)


def describe_gain(problem: Problem, gain: NestedGain, groups: Groups) -> str:
    """Describe a gain over the best simple blend on held-out groups."""
    simple = best_simple(problem, gain.simple)
    over = "the mean" if simple == "mean" else f"the best single candidate, {simple},"
    error = f"standard error {gain.simple_gain_se_mm:.2f}"
    return f"{gain.simple_gain_mm:.2f} mm ({error}) over {over} on held-out {groups.by}s"


def best_simple(problem: Problem, simple: Option) -> str:
    """Return "mean" or the name of the best single candidate."""
    return "mean" if simple == MEAN else problem.names[int(problem.single_mm.argmin())]


def _gate(problem: Problem, *, stack: bool) -> tuple[Gate | None, Groups | None, str]:
    """Group rows by subject, or by sequence if there are fewer than four subjects.

    Returns the gate, a description of the groups, and what they leave unknown; None, None if there are no groups.
    """
    part, subjects = problem.thinned, problem.subjects
    if part.sequences is None:
        return None, None, "the image names contain no sequences, so the gain on unseen ones can't be estimated"
    by, names = "sequence", part.sequences
    if subjects is not None and part.subjects is not None and len(np.unique(subjects)) >= LEAST_SUBJECTS:
        by, names = "subject", part.subjects
    count = len(np.unique(names))
    if count < 2:
        return None, None, f"there is only one {by}, so the gain on unseen ones can't be estimated"
    gate = Gate(part, names, stack=stack and by == "subject")  # on the same subjects, it would learn their bones
    limitation = "held-out sequences may share subjects with others: the gain on unseen subjects is unknown"
    groups = Groups(by=by, count=count, folds=len(gate.folds), rows=part.rows)
    return gate, groups, limitation * (by == "sequence")
