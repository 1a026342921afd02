"""The blending methods: the choice of the granularity, weights of all methods, in-sample and held-out errors."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from competition.blending import weights
from competition.blending.gate import MEAN, Gate, NestedGain, Option
from competition.blending.join import Joined
from competition.blending.search import Progress, search
from competition.blending.weights import TIED, Optimum
from competition.common.arrays import Float32, Float64

LEAST_SUBJECTS = 4  # with fewer, the groups are sequences


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """One method: its weights (None for the median, which has none) and its errors."""

    weights: Float64 | None  # [17, 3, M]
    joint_mm: Float64  # [17], on the joined rows
    seconds: float
    nested: NestedGain | None = None  # on held-out groups

    @property
    def mpjpe(self) -> float:
        return float(self.joint_mm.mean())


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of all methods by name, and the optimum that certifies the search."""

    methods: dict[str, MethodResult]
    optimum: Optimum  # at the plan's granularity
    searched_mm: float  # MPJPE of the search before shrinking
    studies: tuple[optuna.Study, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The method and granularity to ship, and why."""

    method: str
    option: Option  # of the search, which runs even if the mean ships
    gate: Gate | None
    nested: NestedGain | None  # of the choice, if granularity auto made one
    groups: dict[str, Any] | None  # of cross-validation: by subject or sequence, and counts
    why: str
    limitation: str  # what cross-validation can't estimate, "" if nothing
    ship_mean: bool


def make_plan(
    joined: Joined,
    part: Float32,
    rows: npt.NDArray[np.intp],
    method: str,
    granularity: str,
    subjects: npt.NDArray[np.str_] | None,
    sequences: npt.NDArray[np.str_] | None,
    progress: Progress | None,
) -> Plan:
    """Choose the granularity and whether the mean ships, by cross-validation unless method or granularity is given."""
    gate, groups, limitation = _gate(joined, part, rows, subjects, sequences)
    option = Option("coordinate" if granularity == "auto" else granularity, 0.0)
    chosen = method if granularity == "auto" else f"{method}, granularity {granularity}"
    requested = f"method {chosen}, as requested"
    if method != "optuna" or granularity != "auto":
        return Plan(
            method=method, option=option, gate=gate, nested=None, groups=groups, why=requested, limitation=limitation,
            ship_mean=method == "mean",
        )  # fmt: skip
    if gate is None:
        why = f"{limitation}; --granularity coordinate writes the weighted blend anyway"
        return Plan(
            method=method, option=option, gate=None, nested=None, groups=None, why=why, limitation=limitation,
            ship_mean=True,
        )  # fmt: skip
    if progress is not None:
        progress("cross-validation", 0, 1)
    nested = gate.choose()
    assert nested.option is not None
    assert groups is not None
    gain = f"{nested.gain_mm:.2f} mm (standard error {nested.gain_se_mm:.2f}) on held-out {groups['by']}s"
    if nested.option == MEAN:
        why = f"no weights gain more than one standard error on held-out {groups['by']}s"
    elif not nested.is_significant:
        why = f"{nested.option} weights gain only {gain}, not more than one standard error"
    else:
        why = f"{nested.option} weights, chosen by cross-validation, gain {gain}"
    option = option if nested.option == MEAN else nested.option
    return Plan(
        method=method, option=option, gate=gate, nested=nested, groups=groups, why=why, limitation=limitation,
        ship_mean=not nested.is_significant,
    )  # fmt: skip


def _gate(
    joined: Joined,
    part: Float32,
    rows: npt.NDArray[np.intp],
    subjects: npt.NDArray[np.str_] | None,
    sequences: npt.NDArray[np.str_] | None,
) -> tuple[Gate | None, dict[str, Any] | None, str]:
    """Group rows by subject, or by sequence if there are fewer than four subjects.

    Returns the gate, a description of the groups, and what they leave unknown; None, None if there are no groups.
    """
    if sequences is None:
        return None, None, "the image names contain no sequences, so the gain on unseen ones can't be estimated"
    by, names = (
        ("subject", subjects[rows])
        if subjects is not None and len(np.unique(subjects)) >= LEAST_SUBJECTS
        else ("sequence", sequences[rows])
    )
    count = len(np.unique(names))
    if count < 2:
        return None, None, f"there is only one {by}, so the gain on unseen ones can't be estimated"
    gate = Gate(part, names, sequences[rows], members=joined.members)
    limitation = "held-out sequences may share subjects with others: the gain on unseen subjects is unknown"
    groups = {"by": by, "count": count, "folds": len(gate.folds), "rows": len(rows)}
    return gate, groups, limitation * (by == "sequence")


def compute(joined: Joined, part: Float32, plan: Plan, sampler: str, seed: int, progress: Progress | None) -> Results:
    """Compute all methods, and the exact optimum of the granularity.

    Search and greedy are fitted on `part`, a subset of the joined rows; errors are over all rows.
    """
    residual, gate = joined.residual, plan.gate
    joints, _, candidates, _ = residual.shape
    equal = weights.equal_weights(joints, candidates, joined.members)
    tied = plan.option.granularity

    def timed(fit: Callable[[], Float64], evaluate: Callable[[Gate], NestedGain]) -> MethodResult:
        started = time.perf_counter()
        fitted = fit()
        seconds = time.perf_counter() - started
        joint_mm = weights.joint_errors(residual, fitted)
        nested = None if gate is None else evaluate(gate)
        return MethodResult(weights=fitted, joint_mm=joint_mm, seconds=seconds, nested=nested)

    def best_single(rows: Float32) -> Float64:
        best = int(weights.single_errors(rows[:, :, : joined.members]).argmin())
        return weights.one_candidate(joints, candidates, best)

    studies: list[optuna.Study] = []
    raw: dict[str, Float64] = {}  # searched weights by granularity, before shrinking

    def searched(option: Option) -> Float64:
        name = option.granularity
        if name not in raw:
            optimum_mm = weights.exact(part, name).joint_mm
            found = search(
                part, joined.names, optimum_mm, granularity=name, seed=seed, sampler=sampler, members=joined.members,
                progress=progress,
            )  # fmt: skip
            studies.extend(found.studies)
            raw[name] = _keep_mean(residual, found.weights, equal, name)
        return weights.shrink_weights(raw[name], option.shrink, joined.members)

    results = {
        "best single": timed(lambda: best_single(residual), lambda gate: gate.evaluate(best_single)),
        "mean": timed(lambda: equal, lambda gate: gate.evaluate(MEAN)),
    }
    if plan.method == "median":
        started = time.perf_counter()
        median_mm = weights.median_errors(residual[:, :, : joined.members])
        results["median"] = MethodResult(weights=None, joint_mm=median_mm, seconds=time.perf_counter() - started)
    results["greedy"] = timed(lambda: weights.greedy(part), lambda gate: gate.evaluate(weights.greedy))
    started = time.perf_counter()
    optimum = weights.exact(residual, tied)
    seconds = time.perf_counter() - started
    nested = None if gate is None else gate.evaluate(Option(tied, 0.0))
    results["exact"] = MethodResult(weights=optimum.weights, joint_mm=optimum.joint_mm, seconds=seconds, nested=nested)
    option, free = plan.option, Option("coordinate", 0.0)
    results["optuna"] = timed(lambda: searched(option), lambda gate: _chosen_gain(plan) or gate.evaluate(option))
    if option != free:
        results["optuna coordinate"] = timed(lambda: searched(free), lambda gate: gate.evaluate(free))
    searched_mm = float(weights.joint_errors(residual, raw[tied]).mean())
    return Results(methods=results, optimum=optimum, searched_mm=searched_mm, studies=tuple(studies))


def _chosen_gain(plan: Plan) -> NestedGain | None:
    """Return the nested gain of the choice, if auto chose the searched option; None otherwise."""
    return plan.nested if plan.nested is not None and plan.nested.option == plan.option else None


def _keep_mean(residual: Float32, found: Float64, equal: Float64, granularity: str) -> Float64:
    """Replace weights that don't beat the mean on all rows: per joint, or all of them if joints are tied."""
    gain_mm = weights.joint_errors(residual, equal) - weights.joint_errors(residual, found)
    if 0 in TIED[granularity]:
        gain_mm[:] = gain_mm.sum()
    return np.where(gain_mm[:, None, None] > 0, found, equal)
