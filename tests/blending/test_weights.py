"""Blend weights: the bit-exact mean, errors of weighted residuals, the exact optimum, and greedy selection."""

import clarabel
import numpy as np
import pytest
import scipy.sparse

from competition.bench.simulator import simulate
from competition.blending import weights
from competition.blending.weights import TIED
from competition.common.errors import UserError
from competition.common.metrics import mean_absolute_axis, mpjpe, mpjpe_joint


def random_weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).dirichlet(np.ones(shape[-1]), shape[:-1])


def independent_optimum(residual: np.ndarray, granularity: str) -> float:
    """Minimise the MPJPE of residuals [J, 3, M, N] as a second-order cone program, by an interior-point solver.

    The variables are the distinct weights w and a bound t on each joint's error in each row. Minimise sum t subject to
    |sum_m w residual| <= t, w >= 0, and the weights of each coordinate summing to one.
    """
    residual = residual.astype(np.float64)
    joints, axes, candidates, rows = residual.shape
    tied = weights.tied_dimensions(granularity)
    shape = tuple(1 if dimension in tied else size for dimension, size in enumerate((joints, axes)))
    free = np.broadcast_to(np.arange(np.prod(shape)).reshape(shape), (joints, axes))  # index of a coordinate's w
    count, errors = int(np.prod(shape)) * candidates, joints * rows
    cones = np.zeros((joints, rows, 1 + axes, count + errors))  # t, then the blended residual's axes
    for joint in range(joints):
        for row in range(rows):
            cones[joint, row, 0, count + joint * rows + row] = -1
            for axis in range(axes):
                start = free[joint, axis] * candidates
                cones[joint, row, 1 + axis, start : start + candidates] = -residual[joint, axis, :, row]
    sums = np.kron(np.eye(count // candidates), np.ones(candidates))
    constraints = np.vstack(
        [
            np.hstack([sums, np.zeros((len(sums), errors))]),
            np.hstack([-np.eye(count), np.zeros((count, errors))]),
            cones.reshape(-1, count + errors),
        ]
    )
    right = np.concatenate([np.ones(len(sums)), np.zeros(len(constraints) - len(sums))])
    kinds = [clarabel.ZeroConeT(len(sums)), clarabel.NonnegativeConeT(count)]
    kinds += [clarabel.SecondOrderConeT(1 + axes)] * errors
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    nothing = scipy.sparse.csc_matrix((count + errors, count + errors))
    cost = np.concatenate([np.zeros(count), np.full(errors, 1 / errors)])
    solver = clarabel.DefaultSolver(nothing, cost, scipy.sparse.csc_matrix(constraints), right, kinds, settings)
    solution = solver.solve()
    assert str(solution.status) == "Solved"
    return float(solution.obj_val)


@pytest.mark.parametrize("candidates", [1, 2, 3, 6, 7])
def test_equal_weights_give_exactly_the_numpy_mean(candidates: int):
    poses = np.random.default_rng(0).normal(0, 300, (candidates, 5, 17, 3))
    blended = weights.apply_weights(poses, weights.equal_weights(17, candidates))
    assert blended.tobytes() == poses.mean(axis=0).tobytes()


def test_blended_poses_are_the_weighted_sums():
    poses = np.random.default_rng(0).normal(0, 300, (4, 5, 17, 3))
    chosen = random_weights(17, 3, 4)
    expected = np.einsum("jam,mnja->nja", chosen, poses)
    np.testing.assert_allclose(weights.apply_weights(poses, chosen), expected, atol=1e-9)


def test_hand_worked_errors():
    residual = np.array([[[[3.0, 0], [-3, 0]], [[4, 0], [4, 0]], [[0, 12], [0, 0]]]], np.float32)  # [1, 3, 2, 2]
    assert weights.joint_errors(residual, weights.mean_of(1, 2, [0])).tolist() == [(5 + 12) / 2]
    assert weights.joint_errors(residual, weights.equal_weights(1, 2)).tolist() == [(4 + 6) / 2]
    assert weights.single_errors(residual).tolist() == [8.5, 2.5]


def test_errors_of_residuals_are_the_metric_of_blended_poses():
    random = np.random.default_rng(1)
    true, poses = random.normal(0, 300, (31, 17, 3)), random.normal(0, 300, (4, 31, 17, 3))
    residual = np.ascontiguousarray((poses - true).transpose(2, 3, 0, 1), np.float32)
    chosen = random_weights(17, 3, 4)
    found = weights.joint_errors(residual, chosen)
    np.testing.assert_allclose(found, mpjpe_joint(weights.apply_weights(poses, chosen), true), rtol=1e-6)
    assert weights.median_errors(residual).mean() == pytest.approx(mpjpe(np.median(poses, axis=0), true), rel=1e-6)


def test_errors_by_axis_match_the_metric_of_blended_poses():
    random = np.random.default_rng(1)
    true, poses = random.normal(0, 300, (31, 17, 3)), random.normal(0, 300, (4, 31, 17, 3))
    residual = np.ascontiguousarray((poses - true).transpose(2, 3, 0, 1), np.float32)
    chosen = random_weights(17, 3, 4)
    expected = mean_absolute_axis(weights.apply_weights(poses, chosen), true)
    np.testing.assert_allclose(weights.axis_errors(residual, chosen), expected, rtol=1e-6)


def test_gram_over_chunks_is_the_plain_sum(monkeypatch: pytest.MonkeyPatch):
    residual, chosen = simulate(50, members=4).residual[:2], random_weights(2, 3, 4)
    monkeypatch.setattr(weights, "CHUNK_ROWS", 16)  # 50 rows end with a partial chunk
    gram, error = weights.weighted_gram(residual[1:], chosen[1:])
    joint = residual[1].astype(np.float64)
    norm = np.sqrt(np.square(np.einsum("am,amn->an", chosen[1], joint)).sum(axis=0))
    np.testing.assert_allclose(gram[0], np.einsum("amn,akn,n->amk", joint, joint, 1 / norm) / 50, rtol=1e-4)
    np.testing.assert_allclose(error, norm.mean(), rtol=1e-6)


def test_least_on_simplex_finds_minima_at_a_corner_on_an_edge_and_inside():
    np.testing.assert_allclose(weights.least_on_simplex(np.diag([1.0, 2.0])), [2 / 3, 1 / 3], atol=1e-6)
    np.testing.assert_allclose(weights.least_on_simplex(np.array([[1.0, 1.5], [1.5, 4]])), [1, 0], atol=1e-6)
    edge = np.array([[1.0, 0, 2], [0, 1, 2], [2, 2, 9]])
    np.testing.assert_allclose(weights.least_on_simplex(edge), [0.5, 0.5, 0], atol=1e-6)
    assert weights.least_on_simplex(np.zeros((4, 4))).tolist() == [0.25] * 4


@pytest.mark.parametrize("granularity", TIED)
def test_exact_agrees_with_an_independent_solver(granularity: str):
    residual = simulate(400, members=4, seed=3).residual[[3, 8, 13]]
    optimum = weights.exact(residual, granularity)
    assert optimum.joint_mm.mean() == pytest.approx(independent_optimum(residual, granularity), abs=1e-4)
    np.testing.assert_allclose(weights.joint_errors(residual, optimum.weights), optimum.joint_mm, rtol=1e-6)


@pytest.mark.parametrize("granularity", TIED)
def test_exact_weights_are_tied_by_granularity_and_lie_on_the_simplex(granularity: str):
    found = weights.exact(simulate(300).residual, granularity).weights
    assert found.shape == (17, 3, 6)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=2), 1, atol=1e-12)
    moving = found[1:]  # without the root, which has no error and keeps the mean unless tied
    for dimension in (0, 1):
        assert (np.ptp(moving, axis=dimension).max() < 1e-12) == (dimension in TIED[granularity])


@pytest.mark.parametrize("granularity", TIED)
def test_a_candidate_that_is_the_mean_of_others_does_not_change_the_optimum(granularity: str):
    residual = simulate(6000, members=2, seed=1).residual
    third = np.ascontiguousarray(np.concatenate([residual, residual.mean(axis=2, keepdims=True)], axis=2))
    two, three = (weights.exact(candidates, granularity).joint_mm.mean() for candidates in (residual, third))
    assert three == pytest.approx(two, abs=1e-3)


def test_blending_constant_candidates_is_no_worse_than_their_mean():
    true = np.random.default_rng(3).normal(0, 300, (2000, 17, 3))
    poses = np.random.default_rng(4).normal(0, 300, (5, 1, 17, 3)).repeat(2000, axis=1)
    residual = np.ascontiguousarray((poses - true).transpose(2, 3, 0, 1), np.float32)
    found = weights.exact(residual)
    assert found.joint_mm.mean() <= weights.joint_errors(residual, weights.equal_weights(17, 5)).mean()


def test_finer_granularity_is_never_worse_and_the_bound_holds():
    residual = simulate(1000, seed=2).residual
    optima = {name: weights.exact(residual, name) for name in TIED}
    mean = weights.joint_errors(residual, weights.equal_weights(17, 6)).mean()
    value = {name: optimum.joint_mm.mean() for name, optimum in optima.items()}
    assert value["coordinate"] < value["joint"] < value["global"] < mean
    assert value["coordinate"] < value["axis"] < value["global"]
    precise = weights.exact(residual, gap_mm=1e-4)
    coarse = weights.exact(residual, gap_mm=1.0)
    assert coarse.steps < precise.steps
    assert 0 < coarse.joint_mm.mean() - precise.joint_mm.mean() <= coarse.bound_mm <= 1


def test_every_step_lowers_the_error(monkeypatch: pytest.MonkeyPatch):
    residual = simulate(500, seed=4).residual[13:14]
    errors = []
    for steps in range(1, 8):
        monkeypatch.setattr(weights, "MAX_STEPS", steps)
        errors.append(weights.exact(residual).joint_mm[0])
    assert errors[0] == pytest.approx(weights.joint_error(residual[0], weights.equal_weights(1, 6)[0]), rel=1e-6)
    assert (np.diff(errors) < 0).all()


def test_exact_finds_a_perfect_candidate_and_leaves_joints_without_error_at_the_mean():
    residual = simulate(200, members=3).residual
    residual[:, :, 1] = 0
    optimum = weights.exact(residual)
    assert optimum.joint_mm.mean() < 1e-3
    np.testing.assert_allclose(optimum.weights[0], 1 / 3)
    np.testing.assert_allclose(optimum.weights[1:, :, 1], 1, atol=1e-3)


def test_duplicate_candidates_share_their_weight():
    residual = simulate(500, members=3).residual
    once, twice = weights.exact(residual), weights.exact(np.ascontiguousarray(residual[:, :, [0, 1, 2, 2]]))
    assert twice.joint_mm.mean() == pytest.approx(once.joint_mm.mean(), abs=1e-4)
    np.testing.assert_allclose(twice.weights[1:, :, 2], twice.weights[1:, :, 3], atol=1e-3)


def test_shrinking_ends_at_other_weights_and_rejects_factors_outside_0_to_1():
    chosen, equal = random_weights(17, 3, 4), weights.equal_weights(17, 4)
    np.testing.assert_array_equal(weights.shrink_weights(chosen, 0, equal), chosen)
    np.testing.assert_allclose(weights.shrink_weights(chosen, 1, equal), 0.25)
    half = weights.shrink_weights(np.array([[[1.0, 0]] * 3]), 0.5, weights.equal_weights(1, 2))
    np.testing.assert_allclose(half[0, 0], [0.75, 0.25])
    with pytest.raises(ValueError, match=r"shrink must be between 0 and 1 inclusive, but got 1\.5"):
        weights.shrink_weights(chosen, 1.5, equal)


def test_an_unknown_granularity_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean 'joint'"):
        weights.exact(simulate(10).residual, "joints")


def test_greedy_balances_opposite_errors():
    # errors +2 and -1 along x cancel with weights 1/3 and 2/3; y and z have no error
    residual = np.zeros((2, 3, 2, 4), np.float32)
    residual[1, 0] = [[2] * 4, [-1] * 4]
    found = weights.greedy(residual)
    np.testing.assert_allclose(found[1, 0], [1 / 3, 2 / 3])
    np.testing.assert_allclose(found[0], 0.5)


def test_greedy_lies_between_the_best_single_and_the_optimum():
    residual = simulate(1000, seed=6).residual
    error = weights.joint_errors(residual, weights.greedy(residual))
    singles = [weights.joint_errors(residual, weights.mean_of(17, 6, [m])) for m in range(6)]
    assert (error[1:] < np.min(singles, axis=0)[1:]).all()
    assert (error >= weights.exact(residual).joint_mm - 0.01).all()


def test_greedy_matches_an_exhaustive_implementation():
    residual = simulate(60, members=3, seed=8).residual[13]
    counts = np.zeros((3, 3))
    counts[:, np.argmin(weights.single_errors(residual[None]))] = 1
    tried = [(weights.joint_error(residual, counts), counts)]
    for _ in range(4):
        for axis in range(3):
            grown = [counts + (np.arange(3)[:, None] == axis) * one for one in np.eye(3)]
            errors = [weights.joint_error(residual, g / g.sum(axis=1, keepdims=True)) for g in grown]
            counts = grown[int(np.argmin(errors))]
            tried.append((min(errors), counts))
    best = min(tried, key=lambda pair: pair[0])[1]
    found = weights.greedy(residual[None], picks=5)[0]
    np.testing.assert_allclose(found, best / best.sum(axis=1, keepdims=True))
