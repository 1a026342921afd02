"""Benchmarks of blending, on simulated members at the size of the real competition."""

import time
from typing import NamedTuple

import numpy as np
import scipy.optimize

from competition.bench.measure import Row, lower_is_better, time_both
from competition.bench.simulator import Simulated, simulate
from competition.blending import weights
from competition.blending.gate import MEAN, Gate, NestedGain, Option
from competition.blending.search import search
from competition.common.arrays import Float32, Float64

ROWS, MEMBERS = 310_000, 6
HILL_STEPS = 200
FRESH = 8_000  # rows for evaluating weights, each from a sequence of its own


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
            (shipped, shipped_weights(seen)),
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
    claims = [_draw(1600, 40, seed) for seed in range(160)]
    shares = [draw.shipped_mm / draw.exact_mm for draw in enough]
    z = np.array([(draw.nested_gain.gain_mm - draw.chosen_mm) / draw.nested_gain.gain_se_mm for draw in claims])
    held = float((abs(z) <= 2).mean())
    gain, most = (float(np.mean([getattr(draw, name) for draw in enough])) for name in ("shipped_mm", "exact_mm"))
    worst = min(few, key=lambda draw: draw.shipped_mm)
    evaluated = f"evaluated on {FRESH:,} fresh sequences"
    return [
        Row("blend-fresh-gain", gain, most, gain / most, "mm", "gain over the mean, 2,188 rows of 55 sequences, "
            f"against the exact optimum's, {evaluated}, mean of 10 draws; the least share is {min(shares):.3f}"),
        lower_is_better("blend-fresh-few", worst.mean_mm - worst.shipped_mm, worst.mean_mm, "mm",
            f"MPJPE of the worst of 20 draws of 8 sequences, against the mean, {evaluated}"),
        Row("blend-fresh-claim", 100 * held, 90, held / 0.9, "%", "reported gains within 2 standard errors of the true "
            f"ones, 160 draws of 40 sequences, {evaluated}, against the goal; z is {z.mean():.2f} +- {z.std():.2f}"),
    ]  # fmt: skip


class Draw(NamedTuple):
    """A reported gain, and results on fresh sequences: MPJPE of the mean and gains over it, mm."""

    nested_gain: NestedGain
    mean_mm: float
    exact_mm: float
    chosen_mm: float  # of the option chosen
    shipped_mm: float  # the same, or 0 where the mean is shipped


def _draw(rows: int, sequences: int, seed: int) -> Draw:
    seen = simulate(rows, members=MEMBERS, sequences=sequences, seed=seed)
    unseen = simulate(FRESH, members=MEMBERS, sequences=FRESH, seed=seed, draw=1).residual
    nested_gain = Gate(seen.problem, seen.sequence).choose()
    candidates = (
        weights.equal_weights(17, MEMBERS),
        weights.exact(seen.residual).weights,
        chosen_weights(seen, nested_gain.option),
    )
    mean, exact, chosen = (float(weights.joint_errors(unseen, found).mean()) for found in candidates)
    return Draw(nested_gain, mean, mean - exact, mean - chosen, (mean - chosen) * nested_gain.is_significant)


def chosen_weights(seen: Simulated, option: Option) -> Float64:
    """Return the exact optimum of an option."""
    joints, _, members, _ = seen.residual.shape
    if option == MEAN:
        return weights.equal_weights(joints, members)
    return weights.shrink_weights(weights.exact(seen.residual, option.method.granularity).weights, option.shrink)


def shipped_weights(seen: Simulated) -> Float64:
    """Return the exact optimum of what granularity auto ships: the chosen option or the mean."""
    nested_gain = Gate(seen.problem, seen.sequence).choose()
    return chosen_weights(seen, nested_gain.option if nested_gain.is_significant else MEAN)


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
