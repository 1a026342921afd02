"""The gate: clustered standard errors, held-out groups, the choice of an option, and the nested gain."""

import numpy as np
import pytest

from competition.bench.blending import fitted_weights, shipped_option
from competition.bench.simulator import Simulated, simulate
from competition.blending import weights
from competition.blending.gate import (
    MEAN,
    SINGLE,
    TOPS,
    Gate,
    NestedGain,
    Option,
    clustered_error,
    corrected_error,
    options,
    row_errors,
)
from competition.blending.methods import BestSingle, Exact, Greedy, Optuna
from competition.blending.problem import assign_folds


def gate_of(residual: np.ndarray, sequence: np.ndarray) -> Gate:
    return Gate(Simulated(residual, sequence).problem, sequence)


def test_clustered_error_matches_values_computed_by_hand():
    values = np.array([1.0, 3.0, 5.0, 7.0])  # deviations -3 -1 1 3
    singly = np.sqrt((9 + 1 + 1 + 9) * 4 / 3) / 4
    assert clustered_error(values, np.arange(4)) == pytest.approx(singly)
    assert singly == pytest.approx(values.std(ddof=1) / 2)  # the usual standard error
    assert clustered_error(values, np.array([0, 0, 1, 1])) == pytest.approx(np.sqrt((16 + 16) * 2) / 4)
    assert clustered_error(values, np.zeros(4, int)) == np.inf


def test_few_or_skewed_clusters_widen_the_standard_error():
    clusters = np.arange(3)
    even, student = (
        np.array([-1.0, 0.0, 1.0]),
        4.5265,
    )  # t quantile, 2 degrees of freedom; normal: 2
    assert corrected_error(even, clusters) == pytest.approx(clustered_error(even, clusters) * student / 2, rel=1e-4)
    tail, student = np.array([0.0, 0.0, 0.0, 4.0]), 3.3068  # deviations -1 -1 -1 3: skewness 6 / 3^1.5
    widened = student / 2 * (1 + 0.75 * (6 / 3**1.5) / 2)
    for values in (tail, -tail):
        assert corrected_error(values, np.arange(4)) == pytest.approx(
            clustered_error(tail, np.arange(4)) * widened, rel=1e-4
        )
    assert corrected_error(np.zeros(3), clusters) == 0
    assert corrected_error(even, np.zeros(3, int)) == np.inf


def test_whole_groups_are_assigned_to_folds_of_equal_size():
    groups = np.repeat(["a", "b", "c", "d"], [5, 4, 3, 2])
    fold = assign_folds(groups, 2)
    assert all(len(np.unique(fold[groups == name])) == 1 for name in "abcd")
    assert sorted(np.bincount(fold)) == [7, 7]
    assert len(np.unique(assign_folds(groups, 9))) == 4


def test_row_errors_of_a_blend_match_the_metric():
    residual = simulate(60, members=3, seed=1).residual
    found = weights.exact(residual).weights
    error = row_errors(weights.blend_residuals(residual, found))
    assert error.shape == (60,)
    assert error.mean() == pytest.approx(weights.joint_errors(residual, found).mean(), rel=1e-6)


def test_weights_do_not_depend_on_the_rows_they_are_evaluated_on():
    simulated = simulate(200, members=3, sequences=10, seed=2)
    gate_ = Gate(simulated.problem, simulated.sequence)
    rows = gate_.fold == 0
    changed = simulated.residual.copy()
    changed[..., rows] = changed[:, :, ::-1][..., rows]  # other members are good in these rows
    other = Gate(Simulated(changed, simulated.sequence).problem, simulated.sequence)
    for method in (Optuna("coordinate"), Exact("axis"), Greedy(), BestSingle()):
        for left_out in (frozenset(), frozenset({3})):
            before, after = (one._fit(method, left_out | {0}) for one in (gate_, other))
            np.testing.assert_array_equal(before.values, after.values)
    nested = gate_.evaluate(Option(Optuna("coordinate")))
    gain = gate_.mean_mm - gate_._nested_errors(dict.fromkeys(gate_.folds, nested.option))
    assert nested.gain_se_mm == pytest.approx(1.2 * corrected_error(gain, gate_.sequences))
    optimum = weights.exact(simulated.residual).joint_mm.mean()
    assert nested.nested_mm > optimum
    assert nested.gain_mm == pytest.approx(nested.mean_mm - nested.nested_mm)


def test_the_nested_error_is_corrected_for_fitting_on_fewer_groups():
    """Weights fitted on 4 and on 3 of 5 folds show how the excess error falls with 1 / (number of folds)."""
    simulated = simulate(200, members=3, sequences=10, seed=2)
    gate_ = Gate(simulated.problem, simulated.sequence)

    def error_mm(row: int, *left_out: int) -> float:
        fitted_on = np.ascontiguousarray(simulated.residual[..., ~np.isin(gate_.fold, left_out)])
        found = weights.exact(fitted_on, "joint", gap_mm=weights.COARSE_GAP_MM).weights
        return float(row_errors(weights.blend_residuals(simulated.residual[..., [row]], found))[0])

    of_four, of_three = [], []
    for row in range(0, 200, 20):  # one row per sequence
        fold = int(gate_.fold[row])
        of_four.append(error_mm(row, fold))
        of_three.append(np.mean([error_mm(row, fold, other) for other in range(5) if other != fold]))
    rows = slice(0, 200, 20)
    nested = np.array(gate_._nested_errors({held: Option(Exact("joint")) for held in range(5)}))[rows]
    np.testing.assert_allclose(nested, np.array(of_four) - 3 / 5 * (np.array(of_three) - of_four), rtol=1e-5)
    assert np.mean(of_four) < np.mean(of_three)


@pytest.mark.parametrize(
    ("gain", "simpler", "expected"),
    [
        (0.9, 0.0, MEAN),  # not above one standard error
        (1.1, 0.3, Option(Optuna("coordinate"))),
        (1.1, 0.2, Option(Optuna("joint"), 0.25)),  # tied with the best, within a quarter of a standard error
    ],
)
def test_the_mean_wins_within_one_standard_error_and_simpler_options_within_a_quarter(
    monkeypatch: pytest.MonkeyPatch, gain: float, simpler: float, expected: Option
):
    """The parameters are errors on held-out rows, in standard errors of the difference from the best option."""
    unit = np.repeat([-1.0, 1.0], 10)  # 20 sequences of one row each
    unit /= clustered_error(unit, np.arange(20))
    tied, best = Option(Optuna("joint"), 0.25), Option(Optuna("coordinate"))
    worse = dict.fromkeys(options(2, MEAN), 9.0) | {MEAN: gain, tied: simpler, best: 0.0}
    monkeypatch.setattr(Gate, "_held_out_errors", lambda _, option, __: 50 + worse[option] + unit * (worse[option] > 0))
    names = np.arange(20).astype(str)
    assert gate_of(np.ones((17, 3, 2, 20), np.float32), names)._choose(set()) == (MEAN, expected)


@pytest.mark.parametrize(
    ("top", "expected"),
    [(0.5, Option(Optuna("axis"))), (1.5, TOPS[2])],  # better than the weights, in standard errors
)
def test_the_mean_of_the_best_few_wins_only_by_one_standard_error(
    monkeypatch: pytest.MonkeyPatch, top: float, expected: Option
):
    unit = np.repeat([-1.0, 1.0], 10)
    unit /= clustered_error(unit, np.arange(20))
    best = Option(Optuna("axis"))
    worse = dict.fromkeys(options(3, MEAN), 9.0) | {best: 0.0, TOPS[2]: -top}
    monkeypatch.setattr(Gate, "_held_out_errors", lambda _, option, __: 50 + worse[option] + unit * (option != best))
    names = np.arange(20).astype(str)
    assert gate_of(np.ones((17, 3, 3, 20), np.float32), names)._choose(set()) == (MEAN, expected)


def test_a_gain_is_significant_above_one_standard_error():
    option = Option(Optuna("axis"))
    assert NestedGain(option, SINGLE, 80, 74, 6.0, 0.9, 1.0, 0.9).is_significant
    for chosen, error in ((option, 1.0), (SINGLE, 0.9)):
        assert not NestedGain(chosen, SINGLE, 80, 74, 6.0, 0.9, 1.0, error).is_significant


def test_full_weights_are_chosen_if_shrinking_loses_part_of_the_gain():
    """Full weights are better by less than a standard error, but weights shrunk by a quarter lose 11 % of the gain."""
    simulated = simulate(2188, sequences=55, seed=6)
    nested = Gate(simulated.problem, simulated.sequence).choose()
    assert nested.option == Option(Optuna("coordinate"))
    assert nested.is_significant


def test_with_few_sequences_of_equal_members_hardly_anything_is_lost():
    """With eight sequences of six members that differ only by chance, any weights lose on fresh sequences."""

    def draw(random: np.random.Generator, sequences: int, frames: int) -> Simulated:
        sequence = np.repeat(np.arange(sequences), frames)
        of_sequence = random.standard_normal((17, 3, 7, sequences))[..., sequence]
        errors = of_sequence + random.standard_normal((17, 3, 7, sequences * frames))
        residual = 40 * (errors[:, :, :1] + errors[:, :, 1:])  # the first is shared by all members
        return Simulated(residual.astype(np.float32), np.array([f"s{number}" for number in sequence]))

    equal = weights.equal_weights(17, 6)
    for seed in range(3):
        random = np.random.default_rng(seed)
        seen, fresh = draw(random, 8, 40), draw(random, 1000, 1).residual
        shipped = fitted_weights(seen.problem, shipped_option(Gate(seen.problem, seen.sequence).choose()))
        assert weights.joint_errors(fresh, shipped).mean() < weights.joint_errors(fresh, equal).mean() + 0.2


def test_the_mean_is_chosen_if_members_differ_only_by_chance():
    random = np.random.default_rng(0)
    residual = (80 * random.standard_normal((17, 3, 4, 300))).astype(np.float32)
    names = np.array([f"s{row // 10}" for row in range(300)])
    nested = gate_of(residual, names).choose()
    assert nested.option == MEAN
    assert nested.gain_mm <= nested.gain_se_mm


def test_two_groups_are_too_few_to_choose_an_option():
    simulated = simulate(80, members=3, sequences=2, seed=2)
    nested = Gate(simulated.problem, simulated.sequence).choose()
    assert (nested.gain_mm, nested.gain_se_mm) == (0, 0)  # without one of them, no second fold remains


def test_the_nested_gain_agrees_with_the_gain_on_fresh_sequences():
    for seed in range(3):
        simulated = simulate(1600, members=4, sequences=40, seed=seed)
        nested = Gate(simulated.problem, simulated.sequence).choose()
        assert nested.is_significant
        fresh = simulate(4000, members=4, sequences=4000, seed=seed, draw=1).residual
        found = weights.exact(simulated.residual, nested.option.method.granularity).weights
        equal = weights.equal_weights(17, 4)
        found = weights.shrink_weights(found, nested.option.shrink, equal)
        truth = weights.joint_errors(fresh, equal).mean() - weights.joint_errors(fresh, found).mean()
        assert abs(nested.gain_mm - truth) < 3 * nested.gain_se_mm
        assert truth > 0


def unequal(levels: tuple[float, ...], sequences: int, seed: int = 0) -> Simulated:
    return simulate(40 * sequences, members=len(levels), sequences=sequences, seed=seed, levels=levels)


def test_the_best_single_member_is_the_simple_option_if_the_mean_is_clearly_worse():
    seen = unequal((1.0, 3.0), 20)
    choice = Gate(seen.problem, seen.sequence).choose()
    assert choice.simple == SINGLE
    assert choice.gain_mm > choice.simple_gain_mm  # the mean is easier to beat
    seen = unequal((1.0, 1.0, 1.0), 20)
    assert Gate(seen.problem, seen.sequence).choose().simple == MEAN


@pytest.mark.parametrize("seed", range(3))
def test_what_ships_is_hardly_worse_than_the_best_single_member(seed: int):
    levels = ((1.0, 2.9), (1.0, 1.3, 2.2), (2.5, 1.0, 1.2, 2.9))[seed]
    seen = unequal(levels, 20, seed)
    choice = Gate(seen.problem, seen.sequence).choose()
    fresh = simulate(4000, members=len(levels), sequences=4000, seed=seed, draw=1, levels=levels).residual
    shipped = fitted_weights(seen.problem, shipped_option(choice))
    assert weights.joint_errors(fresh, shipped).mean() < weights.single_errors(fresh).min() + 0.2


def test_the_simple_option_has_no_gain_over_itself():
    seen = unequal((1.0, 3.0), 10)
    simple = Gate(seen.problem, seen.sequence).evaluate_simple()
    assert simple.option == simple.simple == SINGLE
    assert (simple.simple_gain_mm, simple.simple_gain_se_mm) == (0, 0)
    assert simple.gain_mm > simple.gain_se_mm


def test_weights_are_shrunk_toward_the_simple_option():
    seen = unequal((1.0, 1.2, 2.9), 20)
    option = next(one for one in options(3, SINGLE) if one.shrink == 0.5 and one.method == Optuna("joint"))
    free = fitted_weights(seen.problem, option._replace(shrink=0.0))
    shrunk = fitted_weights(seen.problem, option)
    np.testing.assert_allclose(shrunk, (free + weights.mean_of(17, 3, [0])) / 2)
    assert str(option) == "joint weights (shrunk by 0.5 toward the best single)"


def test_a_search_above_the_optimum_reduces_the_gain():
    gain = NestedGain(Option(Optuna("axis")), MEAN, 80, 74, 6.0, 0.9, 6.0, 0.9).worsened(0.5)
    assert (gain.nested_mm, gain.gain_mm, gain.simple_gain_mm) == (74.5, 5.5, 5.5)
