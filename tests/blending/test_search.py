"""The search: its gap to the optimum, its starting points, its seeds, and the journal."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from competition.bench.simulator import simulate
from competition.blending import options, search, weights
from competition.blending.problem import Problem, choose_rows
from competition.common.errors import UserError


def problem_of(residual: np.ndarray, **settings: object) -> Problem:
    names = tuple(f"m:{index}" for index in range(residual.shape[2]))
    return Problem(residual=residual, names=names, **settings)


def gap(residual: np.ndarray, found: np.ndarray, granularity: str) -> float:
    best = weights.exact(residual, granularity).joint_mm.mean()
    return weights.joint_errors(residual, found).mean() / best - 1


@pytest.mark.parametrize(("granularity", "studies"), [("coordinate", 4), ("joint", 4), ("axis", 1), ("global", 1)])
def test_the_search_ends_at_its_goal(granularity: str, studies: int):
    residual = simulate(1000, seed=1).residual[[0, 3, 8, 13, 16]]
    optimum = weights.exact(residual, granularity)
    found = search.search(problem_of(residual), optimum.joint_mm, granularity)
    assert len(found.studies) == studies  # no study for the root, which has no error
    assert gap(residual, found.weights, granularity) < 0.00051
    assert found.weights.min() >= 0
    np.testing.assert_allclose(found.weights.sum(axis=2), 1, atol=1e-12)
    for dimension in (0, 1):
        assert (np.ptp(found.weights[1:], axis=dimension).max() == 0) == (dimension in weights.TIED[granularity])
    if studies > 1:
        np.testing.assert_array_equal(found.weights[0], 1 / 6)
    values = [study.best_value for study in found.studies]
    error = weights.joint_errors(residual, found.weights)
    np.testing.assert_allclose(values, error[1:] if studies > 1 else [error.mean()], rtol=1e-6)


@pytest.mark.parametrize(("rows", "members"), [(200, 12), (360, 9)])
def test_the_search_reaches_its_goal_with_few_rows_and_many_similar_candidates(rows: int, members: int):
    runs = simulate(rows, members=members // 3, seed=1).residual
    epochs = simulate(rows, members=members, seed=2).residual
    residual = np.ascontiguousarray((0.9 * runs[:, :, np.arange(members) // 3] + 0.25 * epochs)[[3, 13, 16]])
    optimum = weights.exact(residual)
    found = search.search(problem_of(residual), optimum.joint_mm)
    assert gap(residual, found.weights, "coordinate") < 0.00051
    assert found.trials < 3 * search.TRIALS


def test_the_search_starts_at_the_best_of_the_mean_and_least_squares():
    residual = simulate(300).residual[5:6]
    study = search.search(problem_of(residual), np.zeros(1), trials=7).studies[0]
    starts = search.starting_weights(residual, "coordinate")
    errors = {name: weights.joint_errors(residual, start)[0] for name, start in starts.items()}
    assert list(errors) == [
        "mean", "least squares, global", "least squares, axis", "least squares, joint", "least squares, coordinate",
        "least squares, reweighted",
    ]  # fmt: skip
    assert study.user_attrs["starts_mm"] == pytest.approx(errors, rel=1e-6)
    assert study.trials[0].value == pytest.approx(min(errors.values()), rel=1e-6)
    assert study.trials[0].user_attrs["start"] == min(errors, key=lambda name: errors[name])
    assert set(study.trials[0].params.values()) == {0.0}
    assert len(study.trials) == 7


def test_the_best_weights_are_stored_with_the_study():
    residual = simulate(300).residual[5:6]
    found = search.search(problem_of(residual), np.zeros(1), trials=40)
    stored = np.array(list(found.studies[0].user_attrs["weights"].values()))  # [M, 3]
    np.testing.assert_allclose(stored.T, found.weights[0])


def test_the_error_grows_alike_along_all_directions():
    residual = simulate(2000, seed=3).residual[13:14]
    start = weights.exact(residual).weights[0]
    directions = search._directions(residual, start)
    np.testing.assert_allclose(directions.sum(axis=2), 0, atol=1e-9)  # weights keep their sum
    at_start = weights.joint_errors(residual, start[None])[0]
    rises = [
        np.mean([weights.joint_errors(residual, (start + step * direction)[None])[0] for step in (0.1, -0.1)])
        for direction in directions
    ] / at_start - 1  # of both sides, as unused candidates make the error rise linearly
    assert 0.1**2 / 5 < rises.min() < rises.max() < 0.1**2 / 2  # the quadratic estimate is an upper bound


def test_candidates_that_cannot_help_are_not_searched():
    residual = simulate(500, members=4, seed=1).residual[13:14].copy()
    residual[:, :, 3] *= 10
    start = weights.exact(residual).weights[0]
    assert start[:, 3].max() < 1e-6
    assert not search._directions(residual, start)[..., 3].any()


def test_a_study_stops_at_the_first_trial_near_the_optimum():
    residual = simulate(300).residual[5:6]
    mean = weights.joint_errors(residual, weights.equal_weights(1, 6))
    stopped = search.search(problem_of(residual), mean)
    assert stopped.trials == 1
    assert stopped.studies[0].trials[0].state.is_finished()
    assert search.search(problem_of(residual), np.zeros(1), trials=9).trials == 9


@pytest.mark.parametrize("sampler", search.SAMPLERS)
def test_the_same_seed_tries_the_same_weights(sampler: str):
    residual = simulate(200).residual[5:6]
    first, again, other = (
        search.search(problem_of(residual, seed=seed, sampler=sampler), np.zeros(1), trials=20) for seed in (0, 0, 1)
    )
    assert first.weights.tobytes() == again.weights.tobytes()
    values = [[trial.value for trial in found.studies[0].trials] for found in (first, again, other)]
    assert values[0] == values[1] != values[2]


def test_optuna_reads_all_trials_from_the_journal(tmp_path: Path):
    residual = simulate(200).residual[4:7]
    found = search.search(problem_of(residual), np.zeros(3), trials=12)
    (tmp_path / "study.journal").write_bytes(search.journal(found.studies))
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    assert len(optuna.get_all_study_names(storage)) == 3
    for study in found.studies:
        loaded = optuna.load_study(study_name=study.study_name, storage=storage)
        assert [trial.value for trial in loaded.trials] == [trial.value for trial in study.trials]
        assert loaded.best_params == study.best_params
        assert loaded.user_attrs == study.user_attrs


def test_numbers_that_sum_to_one_are_converted_to_weights():
    made = search._to_simplex(np.array([[1.5, 0.5, -1.0], [0.25, 0.25, 0.5]]))
    np.testing.assert_allclose(made, [[0.75, 0.25, 0], [0.25, 0.25, 0.5]])


def test_the_verbosity_of_optuna_is_restored_after_a_search():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        search.search(problem_of(simulate(50).residual[5:6]), np.zeros(1), trials=6)
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)


def test_many_rows_are_thinned_within_every_sequence():
    sequences = np.tile([f"S1_Walking_{i}" for i in range(10)], 7)  # interleaved, like Ids of shuffled images
    rows = choose_rows(sequences, 70, limit=30)
    assert (np.diff(rows) > 0).all()
    kept, counts = np.unique(sequences[rows], return_counts=True)
    assert len(kept) == 10
    assert (counts == 3).all()
    assert choose_rows(None, 5, limit=5).tolist() == [0, 1, 2, 3, 4]
    assert choose_rows(None, 9, limit=3).tolist() == [1, 4, 7]


def test_of_many_candidates_only_those_that_can_help_are_searched():
    members = simulate(800, seed=3).residual[[5, 8]]
    noise = np.random.default_rng(0).normal(0, 5, (*members.shape[:2], 5 * members.shape[2], 800))
    many = (np.repeat(members, 5, axis=2) + noise).astype(np.float32)  # five epochs of each of six runs
    optimum = weights.exact(many)
    found = search.search(problem_of(many), optimum.joint_mm)
    assert gap(many, found.weights, "coordinate") < 0.00051
    for study in found.studies:
        assert len(study.trials[0].params) <= search.MOST_DIRECTIONS


def test_an_unknown_sampler_is_rejected():
    assert tuple(search.SAMPLERS) == options.SAMPLERS
    with pytest.raises(UserError, match="unknown sampler 'cma': did you mean 'cmaes'"):
        search.search(problem_of(simulate(10).residual, sampler="cma"), np.zeros(17))
