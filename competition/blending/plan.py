"""The plan of a blend: what ships and why, chosen by cross-validation unless the user has chosen."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from competition.blending.gate import MEAN, Gate, NestedGain, Option
from competition.blending.methods import BASELINES, METHODS, Mean, Method, Optuna
from competition.blending.problem import Problem
from competition.common.console import bar
from competition.runs.blends import Groups

LEAST_SUBJECTS = 4  # with fewer, the groups are sequences
FREE = Option(Optuna("coordinate"))  # its blend is written beside the one that ships


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The method to ship, and why."""

    method: Method  # as requested; the mean ships in its place if `ships` is the mean
    ships: Method
    search: Option  # is computed even if another method ships
    why: str
    gate: Gate | None  # None if there are no groups to hold out
    groups: Groups | None
    limitation: str  # what cross-validation can't estimate, "" if nothing
    choice: NestedGain | None = None  # of the option that granularity auto chose, if it made a choice

    def options(self) -> Iterator[tuple[str, Option]]:
        """Return the methods to compute by their names in the table: the baselines, then from simple to complex."""
        granularity = self.search.method.granularity
        for method in (*BASELINES, *(one for one in reversed(METHODS) if one not in BASELINES)):
            if method.always or method.name == self.method.name:
                yield method.name, self.search if isinstance(method, Optuna) else Option(method.at(granularity))
        if self.search != FREE:
            yield "optuna coordinate", FREE

    def held_out_gain(self, option: Option) -> NestedGain | None:
        """Return the gain of an option over the mean on held-out groups; None if it can't be or isn't evaluated."""
        if self.choice is not None and self.choice.option == self.search == option:
            return self.choice  # covers the choice, too
        return self.gate.evaluate(option) if self.gate is not None and option.method.cross_validated else None


def make_plan(problem: Problem, method: Method, granularity: str) -> Plan:
    """Choose the granularity and whether the mean ships, by cross-validation unless method or granularity is given."""
    gate, groups, limitation = _gate(problem)
    chosen = method.name if granularity == "auto" else f"{method.name}, granularity {granularity}"
    search = FREE if granularity == "auto" else Option(Optuna(granularity))
    method = method.at(search.method.granularity)
    plan = Plan(
        method=method, ships=method, search=search, why=f"method {chosen}, as requested", gate=gate, groups=groups,
        limitation=limitation,
    )  # fmt: skip
    if not isinstance(method, Optuna) or granularity != "auto":
        return plan
    if gate is None or groups is None:
        why = f"{limitation}; --granularity coordinate writes the weighted blend anyway"
        return replace(plan, ships=Mean(), why=why)
    with bar("cross-validation", None):
        choice = gate.choose()
    gain = f"{choice.gain_mm:.2f} mm (standard error {choice.gain_se_mm:.2f}) on held-out {groups.by}s"
    if choice.option == MEAN:
        why = f"no weights gain more than one standard error on held-out {groups.by}s"
        return replace(plan, ships=Mean(), choice=choice, why=why)
    method = choice.option.method
    plan = replace(plan, method=method, ships=method, search=choice.option, choice=choice)
    if not choice.is_significant:
        why = f"{choice.option} weights gain only {gain}, not more than one standard error"
        return replace(plan, ships=Mean(), why=why)
    return replace(plan, why=f"{choice.option} weights, chosen by cross-validation, gain {gain}")


def _gate(problem: Problem) -> tuple[Gate | None, Groups | None, str]:
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
    gate = Gate(part, names)
    limitation = "held-out sequences may share subjects with others: the gain on unseen subjects is unknown"
    groups = Groups(by=by, count=count, folds=len(gate.folds), rows=part.rows)
    return gate, groups, limitation * (by == "sequence")
