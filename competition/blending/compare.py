"""The results of all methods, and the description of the blend that ships."""

import time
from dataclasses import dataclass

import numpy as np

from competition.blending.fitted import Fitted, Weights
from competition.blending.gate import NestedGain
from competition.blending.methods import Optuna
from competition.blending.plan import Plan, best_simple, describe_gain
from competition.blending.problem import Problem
from competition.common.arrays import Float64
from competition.common.skeleton import AXES, JOINTS
from competition.runs.blends import Blend, MethodErrors

LARGEST_GAP = 0.06  # percent; the gap of a search that reached its goal, on all rows


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """One method: its blend and its errors on all rows of the problem."""

    fitted: Fitted
    raw: Fitted  # before shrinking
    joint_mm: Float64  # [17]
    seconds: float  # of the fit
    nested: NestedGain | None  # on held-out groups

    @property
    def mpjpe(self) -> float:
        return float(self.joint_mm.mean())


def compare(problem: Problem, plan: Plan) -> dict[str, MethodResult]:
    """Fit every method of a plan, and evaluate it on all rows and on held-out groups; return results by name."""
    results: dict[str, MethodResult] = {}
    for name, option in plan.options():
        started = time.perf_counter()
        raw = problem.fit(option.method)
        fitted = raw.shrunk(option.shrink, problem.fit(option.toward)) if option.shrink else raw
        seconds = time.perf_counter() - started
        nested = plan.held_out_gain(option)
        results[name] = MethodResult(
            fitted=fitted,
            raw=raw,
            joint_mm=fitted.joint_errors(problem) if fitted.fit_mm is None else fitted.fit_mm,
            seconds=seconds,
            nested=nested.worsened(raw.excess_mm * (1 - option.shrink)) if nested and raw.excess_mm else nested,
        )
    return results


def describe(problem: Problem, plan: Plan, results: dict[str, MethodResult]) -> Blend:
    """Describe a blend for blend.json; figures that can't be estimated are None, with the reason in `why`."""
    mean, single, searched = (results[name] for name in ("mean", "best single", "optuna"))
    shipped, optimum_mm = results[plan.ships_as], results["exact"].mpjpe
    searched_mm = searched.mpjpe
    if searched.raw is not searched.fitted:
        searched_mm = float(searched.raw.joint_errors(problem).mean())
    nested, why = shipped.nested, plan.why
    if nested and plan.groups and plan.choice and (plan.choice.is_significant or plan.views):
        why += f": gain {describe_gain(problem, nested, plan.groups)}"  # of the weights that were found
    return Blend(
        method=plan.method.name,
        granularity=plan.method.granularity if plan.method.granularities else None,
        shrink=plan.ships.shrink,
        candidates=list(problem.names),
        n_rows=problem.rows,
        groups=plan.groups,
        mpjpe_mean=mean.mpjpe,
        mpjpe_blend_in_sample=shipped.mpjpe,
        mpjpe_nested=mean.mpjpe - nested.gain_mm if nested else None,
        gain_nested=nested.gain_mm if nested else None,
        gain_nested_se=nested.gain_se_mm if nested else None,
        best_simple=best_simple(problem, nested.simple) if nested else None,
        gain_over_best_simple=nested.simple_gain_mm if nested else None,
        gain_over_best_simple_se=nested.simple_gain_se_mm if nested else None,
        mpjpe_optimum=optimum_mm,
        gap_percent=100 * (searched_mm / optimum_mm - 1) if optimum_mm > 0 else None,
        shipped="mean" if _is_mean(shipped.fitted, mean.fitted) else "blend",
        shipped_method=_shipped_method(plan),
        why=why,
        best_single=problem.names[int(_values(single.fitted)[0, 0].argmax())],
        gain_joint=dict(zip(JOINTS, (mean.joint_mm - shipped.joint_mm).tolist(), strict=True)),
        gain_axis=_axis_gains(problem, mean.fitted, shipped.fitted),
        table=[
            MethodErrors(
                method=name,
                mpjpe_in_sample=result.mpjpe,
                mpjpe_nested=mean.mpjpe - result.nested.gain_mm if result.nested else None,
                gain_nested_se=result.nested.gain_se_mm if result.nested else None,
                seconds=round(result.seconds, 3),
            )
            for name, result in results.items()
        ],
    )


def _shipped_method(plan: Plan) -> str:
    if plan.views:
        return plan.ships_as
    return f"optuna {plan.ships}" if isinstance(plan.ships.method, Optuna) else str(plan.ships)


def notes_on_gain(blend: Blend, plan: Plan) -> list[str]:
    """Describe the gain over the mean, in sample and on held-out groups, and what is unknown."""
    notes = []
    if blend.gap_percent is not None and blend.gap_percent > LARGEST_GAP:
        notes.append(f"the search ended {blend.gap_percent:.2f} % above the optimum: --method exact finds it")
    if blend.shipped == "mean" or blend.gain_axis is None or blend.gain_joint is None:
        return notes
    by_axis = ", ".join(f"{axis} {gain:.2f}" for axis, gain in blend.gain_axis.items())
    best = sorted(blend.gain_joint.items(), key=lambda pair: -pair[1])[:3]
    by_joint = ", ".join(f"{joint} {gain:.2f}" for joint, gain in best)
    notes.append(f"gain over the mean in sample, mm: by axis {by_axis}; most at {by_joint}")
    is_in_why = plan.choice is not None and blend.best_simple == "mean"
    if plan.groups is not None and blend.gain_nested is not None and not is_in_why:
        error = f"standard error {blend.gain_nested_se:.2f}"
        notes.append(f"gain over the mean on held-out {plan.groups.by}s: {blend.gain_nested:.2f} mm ({error})")
    return [*notes, plan.limitation] if plan.limitation else notes


def _values(fitted: Fitted) -> Float64:
    assert isinstance(fitted, Weights)
    return fitted.values


def _is_mean(fitted: Fitted, mean: Fitted) -> bool:
    return isinstance(fitted, Weights) and np.array_equal(fitted.values, _values(mean))


def _axis_gains(problem: Problem, mean: Fitted, shipped: Fitted) -> dict[str, float] | None:
    """Return the gain in mean absolute error over the mean along each axis, in mm; None if it isn't reported."""
    mean_mm, shipped_mm = mean.axis_errors(problem), shipped.axis_errors(problem)
    if mean_mm is None or shipped_mm is None:
        return None
    return dict(zip(AXES, (mean_mm - shipped_mm).tolist(), strict=True))
