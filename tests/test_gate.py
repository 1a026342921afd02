"""The gate: errors clustered as they should be, whole groups held out, and a nested gain that strangers confirm."""

import numpy as np
import pytest

from competition import gate, weights
from competition.gate import MEAN, Gate, Option, clustered_error, deal, row_errors
from competition.simulator import simulate


def test_clustered_error_by_hand():
    values = np.array([1.0, 3.0, 5.0, 7.0])  # deviations -3 -1 1 3
    singly = np.sqrt((9 + 1 + 1 + 9) * 4 / 3) / 4
    assert clustered_error(values, np.arange(4)) == pytest.approx(singly)
    assert singly == pytest.approx(values.std(ddof=1) / 2)  # the usual standard error
    assert clustered_error(values, np.array([0, 0, 1, 1])) == pytest.approx(np.sqrt((16 + 16) * 2) / 4)
    assert clustered_error(values, np.zeros(4, int)) == np.inf


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
    claims, truths = [], []
    for seed in range(3):
        simulated = simulate(1600, members=4, sequences=40, seed=seed)
        trust = Gate(simulated.residual, simulated.sequence, simulated.sequence).choose()
        assert trust.option is not None
        fresh = simulate(4000, members=4, sequences=200, seed=seed, draw=1).residual
        equal = weights.equal_weights(17, 4)
        if trust.option == MEAN:
            found = equal
        else:
            found = weights.exact(simulated.residual, trust.option.granularity).weights
            found = weights.shrink_weights(found, trust.option.shrink)
        truths.append(weights.joint_errors(fresh, equal).mean() - weights.joint_errors(fresh, found).mean())
        claims.append((trust.gain_mm, trust.gain_se_mm))
    for (gain, error), truth in zip(claims, truths, strict=True):
        assert abs(gain - truth) < 3 * error
        assert truth > 0
