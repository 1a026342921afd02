"""The gate: errors clustered as they should be, whole groups held out, and a nested gain that strangers confirm."""

import numpy as np
import pytest

from competition.bench.simulator import simulate
from competition.blending import gate, weights
from competition.blending.gate import (
    MEAN,
    OPTIONS,
    Gate,
    NestedGain,
    Option,
    careful_error,
    clustered_error,
    deal,
    row_errors,
)


def test_clustered_error_by_hand():
    values = np.array([1.0, 3.0, 5.0, 7.0])  # deviations -3 -1 1 3
    singly = np.sqrt((9 + 1 + 1 + 9) * 4 / 3) / 4
    assert clustered_error(values, np.arange(4)) == pytest.approx(singly)
    assert singly == pytest.approx(values.std(ddof=1) / 2)  # the usual standard error
    assert clustered_error(values, np.array([0, 0, 1, 1])) == pytest.approx(np.sqrt((16 + 16) * 2) / 4)
    assert clustered_error(values, np.zeros(4, int)) == np.inf


def test_few_clusters_and_a_long_tail_widen_the_error():
    clusters = np.arange(3)
    even, student = np.array([-1.0, 0.0, 1.0]), 4.5265  # t of 2 degrees of freedom, where a normal one is 2
    assert careful_error(even, clusters) == pytest.approx(clustered_error(even, clusters) * student / 2, rel=1e-4)
    tail, student = np.array([0.0, 0.0, 0.0, 4.0]), 3.3068  # deviations -1 -1 -1 3: skewness 6 / 3^1.5
    widened = student / 2 * (1 + 0.75 * (6 / 3**1.5) / 2)
    for values in (tail, -tail):
        assert careful_error(values, np.arange(4)) == pytest.approx(
            clustered_error(tail, np.arange(4)) * widened, rel=1e-4
        )
    assert careful_error(np.zeros(3), clusters) == 0
    assert careful_error(even, np.zeros(3, int)) == np.inf


def test_groups_are_dealt_whole_and_evenly():
    groups = np.repeat(["a", "b", "c", "d"], [5, 4, 3, 2])
    fold = deal(groups, 2)
    assert all(len(np.unique(fold[groups == name])) == 1 for name in "abcd")
    assert sorted(np.bincount(fold)) == [7, 7]
    assert len(np.unique(deal(groups, 9))) == 4


def test_row_errors_and_blends_are_those_of_the_metric():
    residual = simulate(60, members=3, seed=1).residual
    found = weights.exact(residual).weights
    error = row_errors(gate.blended(residual, found))
    assert error.shape == (60,)
    assert error.mean() == pytest.approx(weights.joint_errors(residual, found).mean(), rel=1e-6)


def test_a_row_has_no_say_in_the_weights_that_it_is_judged_by():
    simulated = simulate(200, members=3, sequences=10, seed=2)
    honest = Gate(simulated.residual, simulated.sequence, simulated.sequence)
    rows = honest.fold == 0
    changed = simulated.residual.copy()
    changed[..., rows] = changed[:, :, ::-1][..., rows]  # other members are good there now
    other = Gate(changed, simulated.sequence, simulated.sequence)
    for option in (Option("coordinate", 0.0), Option("axis", 0.5)):
        for left_out in (frozenset(), frozenset({3})):
            before = honest._solve(option.granularity, left_out | {0})
            np.testing.assert_array_equal(before, other._solve(option.granularity, left_out | {0}))
    judged = honest.judge(Option("coordinate", 0.0))
    optimum = weights.exact(simulated.residual).joint_mm.mean()
    assert judged.nested_mm > optimum
    assert judged.gain_mm == pytest.approx(judged.mean_mm - judged.nested_mm)


def test_the_gain_of_all_groups_is_told_from_that_of_fewer():
    """Weights of 4 and of 3 of 5 folds say how the error falls with what they are found on: c / the number of folds."""
    simulated = simulate(200, members=3, sequences=10, seed=2)
    gate_ = Gate(simulated.residual, simulated.sequence, simulated.sequence)

    def error_mm(row: int, *left_out: int) -> float:
        seen = np.ascontiguousarray(simulated.residual[..., ~np.isin(gate_.fold, left_out)])
        found = weights.exact(seen, "joint", gap_mm=gate.COARSE_GAP_MM).weights
        return float(row_errors(gate.blended(simulated.residual[..., [row]], found))[0])

    of_four, of_three = [], []
    for row in range(0, 200, 20):  # one of every sequence
        fold = int(gate_.fold[row])
        of_four.append(error_mm(row, fold))
        of_three.append(np.mean([error_mm(row, fold, other) for other in range(5) if other != fold]))
    rows = slice(0, 200, 20)
    only = Gate(simulated.residual, simulated.sequence, simulated.sequence)
    nested = np.array(only._nested({held: Option("joint", 0.0) for held in range(5)}))[rows]
    np.testing.assert_allclose(nested, np.array(of_four) - 3 / 5 * (np.array(of_three) - of_four), rtol=1e-5)
    assert np.mean(of_four) < np.mean(of_three)


@pytest.mark.parametrize(
    ("gain", "simpler", "expected"),
    [
        (0.9, 0.0, MEAN),  # not above one standard error
        (1.1, 0.3, Option("coordinate", 0.0)),
        (1.1, 0.2, Option("joint", 0.25)),  # as good as the best, within a quarter of one
    ],
)
def test_the_mean_must_be_beaten_clearly_and_a_simpler_blend_must_be_as_good(
    monkeypatch: pytest.MonkeyPatch, gain: float, simpler: float, expected: Option
):
    """Errors on held-out rows, in standard errors of their differences to the best option."""
    unit = np.repeat([-1.0, 1.0], 10)  # 20 sequences of a row each
    unit /= clustered_error(unit, np.arange(20))
    worse = dict.fromkeys(OPTIONS, 9.0) | {MEAN: gain, Option("joint", 0.25): simpler, Option("coordinate", 0.0): 0.0}
    monkeypatch.setattr(Gate, "_held_out", lambda _, option, __: 50 + worse[option] + unit * (worse[option] > 0))
    names = np.arange(20).astype(str)
    assert Gate(np.ones((17, 3, 2, 20), np.float32), names, names)._choose(set()) == expected


def test_a_blend_holds_what_it_promises_above_one_standard_error():
    option = Option("axis", 0.0)
    assert NestedGain(option, 80, 79, 1.0, 0.9).is_significant
    for chosen, error in ((option, 1.0), (MEAN, 0.9), (None, 0.9)):
        assert not NestedGain(chosen, 80, 79, 1.0, error).is_significant


def test_what_clearly_gains_is_not_shrunk_for_a_little_less():
    """Full weights are better by less than a standard error; shrunk by a quarter they give away .11 of the gain."""
    simulated = simulate(2188, sequences=55, seed=6)
    trust = Gate(simulated.residual, simulated.sequence, simulated.sequence).choose()
    assert trust.option == Option("coordinate", 0.0)
    assert trust.is_significant


def test_a_few_sequences_of_equals_get_no_weights():
    """Eight sequences of six members that differ by chance only: any weights lose on fresh ones."""
    for seed in range(3):
        random = np.random.default_rng(seed)
        sequence = np.repeat(np.arange(8), 40)
        shared = random.standard_normal((17, 3, 1, 8))[..., sequence] + random.standard_normal((17, 3, 1, 320))
        own = random.standard_normal((17, 3, 6, 8))[..., sequence] + random.standard_normal((17, 3, 6, 320))
        names = np.array([f"s{number}" for number in sequence])
        assert not Gate((40 * (shared + own)).astype(np.float32), names, names).choose().is_significant


def test_the_mean_is_chosen_of_members_that_differ_by_chance_only():
    random = np.random.default_rng(0)
    residual = (80 * random.standard_normal((17, 3, 4, 300))).astype(np.float32)
    names = np.array([f"s{row // 10}" for row in range(300)])
    trust = Gate(residual, names, names).choose()
    assert trust.option == MEAN
    assert trust.gain_mm <= trust.gain_se_mm


def test_two_groups_are_too_few_to_choose_by():
    simulated = simulate(80, members=3, sequences=2, seed=2)
    trust = Gate(simulated.residual, simulated.sequence, simulated.sequence).choose()
    assert (trust.gain_mm, trust.gain_se_mm) == (0, 0)  # without one of them nothing is left to hold out


def test_the_nested_gain_is_what_fresh_sequences_give():
    for seed in range(3):
        simulated = simulate(1600, members=4, sequences=40, seed=seed)
        trust = Gate(simulated.residual, simulated.sequence, simulated.sequence).choose()
        assert trust.option is not None
        assert trust.is_significant
        fresh = simulate(4000, members=4, sequences=4000, seed=seed, draw=1).residual
        found = weights.exact(simulated.residual, trust.option.granularity).weights
        found = weights.shrink_weights(found, trust.option.shrink)
        equal = weights.equal_weights(17, 4)
        truth = weights.joint_errors(fresh, equal).mean() - weights.joint_errors(fresh, found).mean()
        assert abs(trust.gain_mm - truth) < 3 * trust.gain_se_mm
        assert truth > 0
