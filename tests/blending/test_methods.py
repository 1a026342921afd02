"""The table of methods: a method whose result isn't weights is evaluated, shipped and described like the others."""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from competition.bench.simulator import simulate
from competition.blending import options, plan
from competition.blending.blend import blend
from competition.blending.fitted import Fitted, Median, Weights
from competition.blending.gate import Gate, Option
from competition.blending.join import join
from competition.blending.methods import BASELINES, METHODS, Method
from competition.blending.problem import Problem, concatenate
from competition.common.errors import UserError
from competition.common.metrics import mpjpe
from competition.common.pose_csv import Poses, read_poses
from competition.runs.candidates import candidates
from tests.blending.helpers import ROWS, TEST_IDS

SUBJECTS = [f"S{index % 5}" for index in range(ROWS)]
SEQUENCES = [f"S{index % 5}_{index % 20}" for index in range(ROWS)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Line(Fitted):
    """A line in the members' mean for each coordinate; its residuals don't follow from those of the members."""

    slope: np.ndarray  # [17, 3]

    def apply(self, pose_mm: np.ndarray) -> np.ndarray:
        return self.slope * pose_mm.mean(axis=0)


class Regression(Method):
    name = "regression"

    def fit(self, problem: Problem) -> Line:
        assert problem.true_mm is not None
        return Line(slope=slope_of(problem.poses().mean(axis=0), problem.true_mm))


def slope_of(mean_mm: np.ndarray, true_mm: np.ndarray) -> np.ndarray:
    squares = np.square(mean_mm).sum(axis=0)
    return (mean_mm * true_mm).sum(axis=0) / np.where(squares > 0, squares, 1)


@pytest.fixture
def problem() -> Problem:
    """Make four folds of sequences, with poses."""
    simulated = simulate(120, members=3, sequences=12, seed=4)
    true_mm = np.random.default_rng(0).normal(0, 300, (120, 17, 3)).astype(np.float32)
    return replace(simulated.problem, true_mm=true_mm)


def test_held_out_rows_are_blended_by_a_fit_on_the_other_rows(problem: Problem):
    gate = Gate(problem, problem.sequences)
    poses = problem.poses()
    assert poses.shape == (3, 120, 17, 3)
    for held in gate.folds:
        rows = gate.fold == held
        mean_mm = poses.mean(axis=0)
        blended = slope_of(mean_mm[~rows], problem.true_mm[~rows]) * mean_mm[rows]
        expected = np.linalg.norm(blended - problem.true_mm[rows], axis=2).mean(axis=1)
        found = gate._fold_errors(Option(Regression()), set(), held)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    gain = gate.evaluate(Option(Regression()))
    assert gain.gain_mm == pytest.approx(gain.mean_mm - gain.nested_mm)


def test_a_method_without_weights_ships_its_own_poses(
    submissions: Path, true: Poses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_search: None
):
    table = (*METHODS, Regression())
    for module, name, value in (
        (options, "_METHODS", table), (options, "METHODS", (*options.METHODS, "regression")), (plan, "METHODS", table),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    found = candidates(submissions)
    result = blend(found, true, TEST_IDS, tmp_path / "out", method="regression", subjects=SUBJECTS, sequences=SEQUENCES)
    joined = join(found, true, TEST_IDS)
    mean_mm = joined.residual.mean(axis=2).transpose(2, 0, 1) + true.pose_mm
    slope = slope_of(mean_mm, true.pose_mm)
    shipped_mm = read_poses(result.submission).pose_mm
    np.testing.assert_allclose(shipped_mm, slope * joined.test_mm.mean(axis=0), atol=0.001)
    assert result.weights is None
    assert not (tmp_path / "out/weights.csv").exists()
    record = result.record
    assert (record.method, record.granularity, record.shipped) == ("regression", None, "blend")
    assert record.mpjpe_blend_in_sample == pytest.approx(mpjpe(slope * mean_mm, true.pose_mm), rel=1e-5)
    assert record.mpjpe_nested is not None
    assert [row.method for row in record.table] == ["best single", "mean", "regression", "greedy", "exact", "optuna"]
    with pytest.raises(UserError, match="regression has no weights; expected granularity auto"):
        blend(found, true, TEST_IDS, tmp_path / "out", method="regression", granularity="joint")


@pytest.mark.parametrize("fitted", ["weights", "median"])
def test_errors_from_residuals_equal_those_of_the_poses(problem: Problem, fitted: str):
    values = np.random.default_rng(1).dirichlet(np.ones(3), (17, 3))
    found = Weights(values=values) if fitted == "weights" else Median()
    np.testing.assert_allclose(found.residual(problem), Fitted.residual(found, problem), atol=1e-3)
    np.testing.assert_allclose(found.joint_errors(problem), Fitted.joint_errors(found, problem), atol=1e-3)


def test_every_method_fits_a_subset_and_applies_to_other_rows(problem: Problem):
    part, rest = problem.take(np.arange(0, 80)), problem.take(np.arange(80, 120))
    for method in (*METHODS, *BASELINES):
        blended = method.quick().fit(part).apply(rest.poses())
        assert blended.shape == (40, 17, 3), method
        assert np.isfinite(blended).all(), method


def test_only_weights_can_be_shrunk():
    assert Median().shrunk(0.0, Median())
    with pytest.raises(ValueError, match="Median can't be shrunk"):
        Median().shrunk(0.5, Median())


def test_parts_of_a_problem_are_joined_again(problem: Problem):
    parts = [problem.take(np.arange(0, 50)), problem.take(np.arange(50, 120))]
    again = concatenate(parts)
    np.testing.assert_array_equal(again.residual, problem.residual)
    np.testing.assert_array_equal(again.true_mm, problem.true_mm)
    np.testing.assert_array_equal(again.sequences, problem.sequences)
    assert again.subjects is None
    assert problem.thinned is problem


def test_the_methods_are_listed_without_loading_libraries():
    code = (
        "import sys, competition.blending.options; assert not {'numpy', 'scipy', 'optuna', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
    assert options.METHODS == ("optuna", "exact", "greedy", "mean", "median")
