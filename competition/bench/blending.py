"""Benchmarks of blending, on simulated members at the size of the real competition."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy.optimize

from competition.bench.measure import Row, lower_is_better, time_both
from competition.bench.simulator import LEVELS, simulate
from competition.blending import weights
from competition.blending.fitted import Fitted, Weights
from competition.blending.gate import MEAN, Gate, NestedGain, Option
from competition.blending.methods import Exact, Method, Optuna
from competition.blending.problem import Problem
from competition.blending.search import search
from competition.common.arrays import Float32, Float64
from competition.common.seeds import generator

ROWS, MEMBERS = 310_000, 6
HILL_STEPS = 200
FRESH = 8_000  # rows for evaluating weights, each from a sequence of its own
FRESH_VIEWS = 800  # sequences for evaluating other cameras
CAMERAS = 4


def objective() -> list[Row]:
    """Time one evaluation of MPJPE against a plain numpy expression."""
    residual = simulate(ROWS, members=MEMBERS).residual
    found = weights.exact(np.ascontiguousarray(residual[..., :5000])).weights
    poses = np.ascontiguousarray(residual.transpose(2, 3, 0, 1).astype(np.float64))  # [M, N, 17, 3]

    def baseline() -> float:
        blended = sum(found[..., member] * poses[member] for member in range(MEMBERS))
        return float(np.linalg.norm(blended, axis=-1).mean())

    assert abs(baseline() - weights.joint_errors(residual, found).mean()) < 1e-3
    seconds = time_both(lambda: weights.joint_errors(residual, found), baseline)
    note = "310,000 rows x 6, all 17 joints; against a sum of products and a norm in float64"
    return [lower_is_better("blend-objective", *seconds, "ms", note, 1000)]


def search_and_gate() -> list[Row]:
    """Time the steps of a blend at full size against SLSQP with one weight per model, as in many Kaggle notebooks."""
    simulated = simulate(ROWS, members=MEMBERS)
    started = time.perf_counter()
    optimum = weights.exact(simulated.residual)
    exact_seconds = time.perf_counter() - started
    _, slsqp_seconds = _timed_slsqp(simulated.residual)
    part = simulated.problem.thinned
    assert part.sequences is not None
    started = time.perf_counter()
    found = search(part, weights.exact(part.residual).joint_mm).weights
    search_seconds = time.perf_counter() - started
    gap = 100 * (weights.joint_errors(simulated.residual, found).mean() / optimum.joint_mm.mean() - 1)
    started = time.perf_counter()
    Gate(part, part.sequences).choose()
    gate_seconds = time.perf_counter() - started
    note = f"310,000 rows x {MEMBERS}, timed once; against scipy's SLSQP with one weight per model, on all rows"
    return [
        lower_is_better("blend-exact", exact_seconds, slsqp_seconds, "s", f"exact per coordinate, {note}"),
        lower_is_better(
            "blend-search",
            search_seconds,
            slsqp_seconds,
            "s",
            f"Optuna per coordinate on 20,000 rows, gap {gap:.3f} % on all, {note}",
        ),
        lower_is_better(
            "blend-gate",
            gate_seconds,
            slsqp_seconds,
            "s",
            f"choice of the granularity by nested cross-validation on 20,000 rows, {note}",
        ),
    ]


def quality() -> list[Row]:
    """Compare the shipped blend on fresh sequences with the mean, SLSQP and greedy hill climbing (MPJPE)."""
    shipped: list[float] = []
    mean: list[float] = []
    slsqp: list[float] = []
    climbed: list[float] = []
    for seed in range(5):
        seen = simulate(2188, members=MEMBERS, sequences=55, seed=seed)
        fresh = simulate(20_000, members=MEMBERS, sequences=500, seed=seed, draw=1).residual
        for into, found in (
            (shipped, fitted_weights(seen.problem, shipped_option(Gate(seen.problem, seen.sequence).choose()))),
            (mean, weights.equal_weights(17, MEMBERS)),
            (slsqp, _timed_slsqp(seen.residual)[0]),
            (climbed, hill_climbing(seen.residual)),
        ):
            into.append(float(weights.joint_errors(fresh, found).mean()))
    note = "weights fitted on 2,188 rows of 55 sequences, evaluated on 20,000 fresh rows, mean of 5 seeds, "
    pairs = (("mean", mean, "the mean"), ("slsqp", slsqp, "SLSQP"), ("hill", climbed, "greedy global hill climbing"))
    average, note = float(np.mean(shipped)), note + "against "
    return [
        lower_is_better(f"blend-quality-{name}", average, float(np.mean(other)), "mm", note + what)
        for name, other, what in pairs
    ]


def fresh() -> list[Row]:
    """Compare the gain that a blend reports with its gain on unseen sequences, over many draws."""
    enough = [_draw(2188, 55, seed) for seed in range(10)]
    few = [_draw(320, 8, seed) for seed in range(20)]
    shares = [draw.shipped_mm / draw.exact_mm for draw in enough]
    gain, most = (float(np.mean([getattr(draw, name) for draw in enough])) for name in ("shipped_mm", "exact_mm"))
    worst = min(few, key=lambda draw: draw.shipped_mm)
    evaluated = f"evaluated on {FRESH:,} fresh sequences"
    return [
        Row("blend-fresh-gain", gain, most, gain / most, "mm", "gain over the mean, 2,188 rows of 55 sequences, "
            f"against the exact optimum's, {evaluated}, mean of 10 draws; the least share is {min(shares):.3f}"),
        lower_is_better("blend-fresh-few", worst.mean_mm - worst.shipped_mm, worst.mean_mm, "mm",
            f"MPJPE of the worst of 20 draws of 8 sequences, against the mean, {evaluated}"),
        _claims("blend-fresh-claim", [_draw(1600, 40, seed) for seed in range(300)]),
    ]  # fmt: skip


def stacked() -> list[Row]:
    """Compare the gain that a blend with a second level reports with its gain on unseen sequences."""
    return [_claims("blend-stack-claim", [_draw(1600, 40, seed, stack=True) for seed in range(100)])]


def other_cameras() -> list[Row]:
    """Compare the gain that a blend with other cameras reports with its gain on unseen subjects."""
    draws = [_draw_views(1600, 40, seed, fresh=FRESH_VIEWS) for seed in range(100)]
    return [_claims("blend-views-claim", draws, fresh=FRESH_VIEWS)]


def _claims(name: str, draws: Sequence[Draw], fresh: int = FRESH) -> Row:
    """Count the reported gains that are within two standard errors of the true ones."""
    z = np.array([(draw.nested_gain.gain_mm - draw.chosen_mm) / draw.nested_gain.gain_se_mm for draw in draws])
    held = float((abs(z) <= 2).mean())
    note = f"reported gains within 2 standard errors of those on {fresh:,} fresh sequences, {len(draws)} draws of 40"
    note += f" sequences; {100 * (z > 2).mean():.1f} % are too high; z is {z.mean():.2f} +- {z.std():.2f}"
    return Row(name, 100 * held, 93, held / 0.93, "%", note)


def unequal() -> list[Row]:
    """Compare what ships with the best single member, for 100 ensembles of members of unequal strength."""
    rows = []
    for sequences in (8, 40):
        draws = [_draw(40 * sequences, sequences, seed, unequal_levels(seed)) for seed in range(100)]
        worse = np.array([draw.mean_mm - draw.shipped_mm - draw.single_mm for draw in draws])
        shipped, single = (float(np.mean(column)) for column in zip(
            *((draw.mean_mm - draw.shipped_mm, draw.single_mm) for draw in draws), strict=True
        ))  # fmt: skip
        rows.append(lower_is_better(
            f"blend-unequal-{sequences}", shipped, single, "mm", f"MPJPE against the best single of 2 to 6 members, "
            f"strength ratios up to 3, {sequences} sequences, mean of 100 draws on {FRESH:,} fresh sequences; worse by "
            f"{max(0.0, worse.max()):.2f} mm at most",
        ))  # fmt: skip
    return rows


def unequal_levels(seed: int) -> list[float]:
    """Draw the error levels of two to six members; the largest is up to 3 times the smallest."""
    random = generator(seed, "unequal")
    count, ratio = int(random.integers(2, 7)), float(random.uniform(1, 3))
    between = np.exp(random.uniform(0, np.log(ratio), count - 2))
    levels = np.array([1.0, *between, ratio])
    random.shuffle(levels)
    return [float(level) for level in levels]


class Draw(NamedTuple):
    """A reported gain, and results on fresh sequences: MPJPE of the mean and gains over it, mm."""

    nested_gain: NestedGain
    mean_mm: float
    exact_mm: float
    chosen_mm: float  # of the option chosen
    shipped_mm: float  # of the option that ships
    single_mm: float  # MPJPE of the best single member


def _draw(rows: int, sequences: int, seed: int, levels: Sequence[float] | None = None, *, stack: bool = False) -> Draw:
    members, levels = (MEMBERS, LEVELS) if levels is None else (len(levels), levels)
    seen = simulate(rows, members=members, sequences=sequences, seed=seed, levels=levels)
    unseen = simulate(FRESH, members=members, sequences=FRESH, seed=seed, draw=1, levels=levels).problem
    nested_gain = Gate(seen.problem, seen.sequence, stack=stack).choose()
    options = (MEAN, Option(Exact()), nested_gain.option, shipped_option(nested_gain))
    fits = {option: fit_option(seen.problem, option) for option in options}
    mean, exact, chosen, shipped = (float(fits[option].joint_errors(unseen).mean()) for option in options)
    single = float(unseen.single_mm.min())
    return Draw(nested_gain, mean, mean - exact, mean - chosen, mean - shipped, single)


def _draw_views(rows: int, sequences: int, seed: int, *, fresh: int) -> Draw:
    """Draw as `_draw` does, with other cameras on top of what ships without them, and whole subjects held out.

    It is evaluated on `fresh` sequences of other subjects, with as many images of each subject.
    """
    seen = simulate(rows, members=MEMBERS, sequences=sequences, cameras=CAMERAS, seed=seed)
    factor = fresh // sequences
    unseen = simulate(
        rows * factor,
        members=MEMBERS,
        sequences=fresh,
        subjects=5 * factor,
        cameras=CAMERAS,
        seed=seed,
        draw=1,
    ).problem
    problem = replace(seen.problem, subjects=seen.subject)
    gate = Gate(problem, seen.subject, stack=True)
    nested_gain = gate.evaluate_views(shipped_option(gate.choose()), chosen=True)
    options = (MEAN, Option(Exact()), nested_gain.option)
    mean, exact, views = (float(fit_option(problem, option).joint_errors(unseen).mean()) for option in options)
    return Draw(nested_gain, mean, mean - exact, mean - views, mean - views, float(unseen.single_mm.min()))


def fit_option(problem: Problem, option: Option) -> Fitted:
    """Fit an option; exact weights in place of searched ones."""

    def fit(method: Method) -> Fitted:
        return (Exact(method.granularity) if isinstance(method, Optuna) else method.quick()).fit(problem)

    fitted = fit(option.method)
    return fitted.shrunk(option.shrink, fit(option.toward)) if option.shrink else fitted


def fitted_weights(problem: Problem, option: Option) -> Float64:
    """Return the weights of an option; exact ones in place of searched ones."""
    fitted = fit_option(problem, option)
    assert isinstance(fitted, Weights)
    return fitted.values


def shipped_option(choice: NestedGain) -> Option:
    """Return the option that granularity auto ships."""
    return choice.option if choice.is_significant else choice.simple


def _timed_slsqp(residual: Float32) -> tuple[Float64, float]:
    """Fit one weight per model by scipy's SLSQP with numerical gradients; return the weights and the seconds."""
    joints, _, members, _ = residual.shape

    def spread(scalar: Float64) -> Float64:
        return np.broadcast_to(scalar, (joints, 3, members)).copy()

    started = time.perf_counter()
    found = scipy.optimize.minimize(
        lambda scalar: weights.joint_errors(residual, spread(scalar)).mean(),
        np.full(members, 1 / members),
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda scalar: scalar.sum() - 1},
    )
    scalar = np.clip(found.x, 0, None)
    return spread(scalar / scalar.sum()), time.perf_counter() - started


def hill_climbing(residual: Float32) -> Float64:
    """Fit one weight per model by repeatedly adding the model that helps most (Caruana et al. 2004)."""
    joints, _, members, _ = residual.shape
    counts = np.zeros(members)
    best = np.inf
    for _ in range(HILL_STEPS):
        tried = [weights.joint_errors(residual, _spread(counts + row, joints)).mean() for row in np.eye(members)]
        if min(tried) >= best:
            break
        best = min(tried)
        counts[int(np.argmin(tried))] += 1
    return _spread(counts, joints)


def _spread(counts: Float64, joints: int) -> Float64:
    return np.broadcast_to(counts / counts.sum(), (joints, 3, len(counts))).copy()
