"""The ways to blend, side by side: which one the candidates bear, its weights, its errors on rows seen and unseen."""

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

LEAST_SUBJECTS = 4  # fewer are too few groups to choose by: sequences then


@dataclass(frozen=True, kw_only=True)
class Blended:
    """One way to blend: its weights (None for the median, which has none) and its errors."""

    weights: Float64 | None  # [17, 3, M]
    joint_mm: Float64  # [17], on the joined rows
    seconds: float
    trust: NestedGain | None = None  # on held-out groups

    @property
    def mpjpe(self) -> float:
        return float(self.joint_mm.mean())


@dataclass(frozen=True, kw_only=True)
class Computed:
    """All ways to blend, by name, and what certifies the search."""

    blends: dict[str, Blended]
    optimum: Optimum  # of the plan's granularity
    searched_mm: float  # MPJPE of the search before shrinking
    studies: tuple[optuna.Study, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked for, and what held-out groups say to it."""

    method: str
    option: Option  # of the search; where it is the mean, the search is still made, ungated
    gate: Gate | None
    trust: NestedGain | None  # of the option, as auto chose it
    groups: dict[str, Any] | None  # by what, how many
    why: str
    unknown: str  # what no held-out group can say
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
    """Decide how complex a blend the candidates bear, and whether the mean is shipped in its stead."""
    gate, groups, unknown = _gate(joined, part, rows, subjects, sequences)
    option = Option("coordinate" if granularity == "auto" else granularity, 0.0)
    asked = f"method {method}" + (f", granularity {granularity}" if granularity != "auto" else "") + " as asked"
    if method != "optuna" or granularity != "auto":
        return Plan(
            method=method, option=option, gate=gate, trust=None, groups=groups, why=asked, unknown=unknown,
            ship_mean=method == "mean",
        )  # fmt: skip
    if gate is None:
        why = f"{unknown}; --granularity coordinate ships the ungated blend"
        return Plan(
            method=method, option=option, gate=None, trust=None, groups=None, why=why, unknown=unknown, ship_mean=True
        )
    if progress is not None:
        progress("hold out groups", 0, 1)
    trust = gate.choose()
    assert trust.option is not None
    assert groups is not None
    gain = f"{trust.gain_mm:.2f} mm (standard error {trust.gain_se_mm:.2f}) on held-out {groups['by']}s"
    if trust.option == MEAN:
        why = f"no blend beats it by more than a standard error on held-out {groups['by']}s"
    elif not trust.is_significant:
        why = f"the gain of {trust.option} is {gain}: not above one standard error"
    else:
        why = f"{trust.option} weights, chosen on held-out {groups['by']}s; choosing so gains {gain}"
    option = option if trust.option == MEAN else trust.option
    return Plan(
        method=method, option=option, gate=gate, trust=trust, groups=groups, why=why, unknown=unknown,
        ship_mean=not trust.is_significant,
    )  # fmt: skip


def _gate(
    joined: Joined,
    part: Float32,
    rows: npt.NDArray[np.intp],
    subjects: npt.NDArray[np.str_] | None,
    sequences: npt.NDArray[np.str_] | None,
) -> tuple[Gate | None, dict[str, Any] | None, str]:
    """Hold out subjects, or sequences where there are fewer than four of them; say what that leaves unknown."""
    if sequences is None:
        return None, None, "the images' names tell no sequences, so no gain on unseen ones can be estimated"
    by, names = (
        ("subject", subjects[rows])
        if subjects is not None and len(np.unique(subjects)) >= LEAST_SUBJECTS
        else ("sequence", sequences[rows])
    )
    count = len(np.unique(names))
    if count < 2:
        return None, None, f"there is one {by} only, so no gain on unseen ones can be estimated"
    gate = Gate(part, names, sequences[rows], members=joined.members)
    strangers = "held-out sequences may show people whom others show: the gain on strangers isn't known"
    return gate, {"by": by, "count": count, "folds": len(gate.folds), "rows": len(rows)}, strangers * (by == "sequence")


def compute(joined: Joined, part: Float32, plan: Plan, sampler: str, seed: int, progress: Progress | None) -> Computed:
    """Compute every method, and the exact optimum of the granularity.

    Search and greedy see `part` of the joined rows; every error is over all of them.
    """
    residual, gate = joined.residual, plan.gate
    joints, _, candidates, _ = residual.shape
    equal = weights.equal_weights(joints, candidates, joined.members)
    tied = plan.option.granularity

    def timed(find: Callable[[], Float64], trust: Callable[[Gate], NestedGain]) -> Blended:
        started = time.perf_counter()
        found = find()
        seconds = time.perf_counter() - started
        joint_mm = weights.joint_errors(residual, found)
        return Blended(weights=found, joint_mm=joint_mm, seconds=seconds, trust=None if gate is None else trust(gate))

    def best_single(rows: Float32) -> Float64:
        best = int(weights.single_errors(rows[:, :, : joined.members]).argmin())
        return weights.one_candidate(joints, candidates, best)

    studies: list[optuna.Study] = []
    raw: dict[str, Float64] = {}  # by granularity, as searched

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

    blends = {
        "best single": timed(lambda: best_single(residual), lambda gate: gate.judge(best_single)),
        "mean": timed(lambda: equal, lambda gate: gate.judge(MEAN)),
    }
    if plan.method == "median":
        started = time.perf_counter()
        median_mm = weights.median_errors(residual[:, :, : joined.members])
        blends["median"] = Blended(weights=None, joint_mm=median_mm, seconds=time.perf_counter() - started)
    blends["greedy"] = timed(lambda: weights.greedy(part), lambda gate: gate.judge(weights.greedy))
    started = time.perf_counter()
    optimum = weights.exact(residual, tied)
    seconds = time.perf_counter() - started
    exact_trust = None if gate is None else gate.judge(Option(tied, 0.0))
    blends["exact"] = Blended(weights=optimum.weights, joint_mm=optimum.joint_mm, seconds=seconds, trust=exact_trust)
    blends["optuna"] = timed(lambda: searched(plan.option), lambda gate: _of_option(plan) or gate.judge(plan.option))
    free = Option("coordinate", 0.0)
    if plan.option != free:
        blends["optuna coordinate"] = timed(lambda: searched(free), lambda gate: gate.judge(free))
    searched_mm = float(weights.joint_errors(residual, raw[tied]).mean())
    return Computed(blends=blends, optimum=optimum, searched_mm=searched_mm, studies=tuple(studies))


def _of_option(plan: Plan) -> NestedGain | None:
    """Return what was measured of choosing the option, where it was chosen; a search beside the mean never was."""
    return plan.trust if plan.trust is not None and plan.trust.option == plan.option else None


def _keep_mean(residual: Float32, found: Float64, equal: Float64, granularity: str) -> Float64:
    """Keep the mean where the search didn't beat it on all rows: by joint, or altogether where joints are tied."""
    gain_mm = weights.joint_errors(residual, equal) - weights.joint_errors(residual, found)
    if 0 in TIED[granularity]:
        gain_mm[:] = gain_mm.sum()
    return np.where(gain_mm[:, None, None] > 0, found, equal)
