"""The second level: what it learns, how it is chosen and shipped, and stack.npz."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.bench.simulator import simulate
from competition.blending import stack
from competition.blending.blend import blend
from competition.blending.gate import STACK, Gate, Option, with_views
from competition.blending.methods import Exact
from competition.blending.options import check_blend
from competition.blending.problem import Problem
from competition.common.errors import RunError, UserError
from competition.common.geometry import mirror_pose_mm
from competition.common.metrics import mpjpe
from competition.common.pose_csv import Poses, read_poses
from competition.runs.candidates import candidates
from competition.runs.second_level import TYPICAL_MM, SecondLevel, blocks, read_second_level
from tests.blending.helpers import ROWS, TEST_IDS, write_run

NAMES = {
    "subjects": [f"S{row % 5}" for row in range(ROWS)],
    "sequences": [f"S{row % 5}_{row % 20}" for row in range(ROWS)],
}

pytestmark = pytest.mark.usefixtures("short_search")


def distorted(pose_mm: np.ndarray) -> np.ndarray:
    """Move wrists by a part of the elbows' coordinates, on both sides alike."""
    moved = pose_mm.copy()
    moved[..., [13, 16], :] += 0.4 * pose_mm[..., [12, 15], :] - 0.2 * pose_mm[..., [10, 10], :]
    return moved


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Make three members with independent errors and one common error that other joints reveal."""
    simulated = simulate(400, members=3, sequences=40, seed=4)
    assert simulated.true_mm is not None
    common = distorted(simulated.true_mm) - simulated.true_mm
    residual = 0.2 * simulated.residual + common.transpose(1, 2, 0)[:, :, None]
    return replace(
        simulated.problem, residual=residual.astype(np.float32), subjects=np.repeat(["a", "b", "c", "d"], 100)
    )


@pytest.fixture
def related(tmp_path: Path, true: Poses, true_test_mm: np.ndarray) -> Path:
    """Write runs a, b and c whose common error other joints reveal."""
    random = np.random.default_rng(3)
    for name in "abc":
        poses = (
            distorted(pose) + 20 * random.standard_normal(pose.shape) * (np.arange(17) > 0)[:, None]
            for pose in (true.pose_mm, true_test_mm)
        )
        own, test = poses
        write_run(tmp_path / "runs", name, true.id, own, test.round(3))
    return tmp_path / "runs"


def test_an_error_that_other_joints_reveal_is_corrected(problem: Problem):
    fitted = problem.fit(STACK.method.quick())
    assert isinstance(fitted, stack.Stacked)
    before, after = fitted.beneath.joint_errors(problem), fitted.joint_errors(problem)
    assert after[[13, 16]].max() < 0.3 * before[[13, 16]].min()
    assert after.mean() < before.mean()


def test_a_mirror_image_gets_the_mirrored_correction(problem: Problem):
    level = problem.fit(STACK.method.quick()).level
    poses = problem.poses()
    blended = poses.mean(axis=0)
    corrected = level.correct(blended, poses)
    assert np.abs(corrected - blended).max() > 10
    np.testing.assert_allclose(
        level.correct(mirror_pose_mm(blended), mirror_pose_mm(poses)), mirror_pose_mm(corrected), atol=1e-6
    )


def test_an_error_that_depends_on_the_posture_is_corrected(problem: Problem):
    """The error of the head is quadratic in the height of a wrist."""
    assert problem.true_mm is not None
    height = problem.true_mm[:, 13, 1]
    residual = 0.1 * problem.residual
    residual[10, 1] = np.square((height - height.mean()) / height.std()) * 60
    bent = replace(problem, residual=residual.astype(np.float32))
    fold = np.arange(bent.rows) % 4 == 0
    smooth = stack.fit(bent.take(np.flatnonzero(~fold)), bent.fit(Exact()))
    held_out = bent.take(np.flatnonzero(fold))
    linear = replace(smooth, level=replace(smooth.level, response_mm=0 * smooth.level.response_mm))
    errors = [fitted.joint_errors(held_out)[10] for fitted in (smooth, linear, smooth.beneath)]
    assert errors[0] < 0.7 * min(errors[1:])


def test_a_scaled_correction_moves_poses_by_a_share(problem: Problem):
    level = problem.fit(STACK.method.quick()).level
    assert np.abs(level.response_mm).max() > 0
    pose_mm = problem.poses()
    whole, half = (one.correct(pose_mm[0], pose_mm) - pose_mm[0] for one in (level, level.scaled(0.5)))
    np.testing.assert_allclose(half, whole / 2, atol=1e-9)


def test_rows_with_gross_errors_count_little(problem: Problem):
    clean = problem.fit(STACK.method.quick()).joint_errors(problem).mean()
    random = np.random.default_rng(0)
    gross = problem.residual.copy()
    gross[..., ::12] += 3000 * random.standard_normal((17, 3, 1, gross[..., ::12].shape[-1]))
    fitted = stack.fit(replace(problem, residual=gross), problem.fit(Exact()))
    assert fitted.joint_errors(problem).mean() < 1.05 * clean


def test_the_inputs_depend_on_the_direction_and_the_size_of_the_pose():
    pose_mm = np.zeros((3, 17, 3))
    pose_mm[:, 9, 1] = -17 * TYPICAL_MM + 300  # the mean distance is the typical one
    pose_mm[0, 11, 0], pose_mm[0, 14, 0] = 150, -150  # the left shoulder is on the right: toward the camera
    pose_mm[1, 11, 0], pose_mm[1, 14, 0] = -150, 150
    pose_mm[2, 11, 2], pose_mm[2, 14, 2] = 150, -150
    pose_mm[2] *= 1.5
    found = blocks(pose_mm, pose_mm[None] + 7).reshape(3, 4, 17, 3)
    np.testing.assert_allclose(found[:, 0], pose_mm)
    for row, (facing, size) in enumerate([(1, 0), (-1, 0), (0, 1)]):
        np.testing.assert_allclose(found[row, 1], facing * pose_mm[row], atol=1e-9)
        np.testing.assert_allclose(found[row, 2], size * pose_mm[row], atol=1e-9)
    np.testing.assert_allclose(found[:, 3], 7)


def test_the_fit_does_not_depend_on_the_rows_it_is_evaluated_on(problem: Problem):
    gate = Gate(problem, problem.sequences, stack=True)
    rows = gate.fold == 0
    changed = problem.residual.copy()
    changed[..., rows] = -changed[..., rows]
    other = Gate(replace(problem, residual=changed), problem.sequences, stack=True)
    for left_out in ({0}, {0, 3}):
        one, two = (each._fit(STACK.method, frozenset(left_out)).level for each in (gate, other))
        np.testing.assert_array_equal(one.coefficients, two.coefficients)
    assert gate.choose().option == STACK
    assert gate.evaluate(STACK).is_significant
    assert not other.evaluate(STACK).gain_mm > gate.evaluate(STACK).gain_mm


def test_strength_and_step_are_chosen_on_held_out_groups(problem: Problem, monkeypatch: pytest.MonkeyPatch):
    """Of a common error that is noise, nothing is corrected; without groups, the strongest penalty applies."""
    random = np.random.default_rng(0)
    noise = replace(problem, residual=(80 * random.standard_normal(problem.residual.shape)).astype(np.float32))
    beneath = noise.fit(Exact())
    held_out = stack.fit(noise, beneath).joint_errors(noise).mean()
    monkeypatch.setattr(stack, "UNCHOSEN", (min(stack.STRENGTHS), 1.0))
    without = stack.fit(replace(noise, subjects=None, sequences=None), beneath).joint_errors(noise).mean()
    assert without < held_out - 1  # in sample


def test_auto_ships_it_above_the_coordinate_blend_and_no_stack_leaves_it_out(
    related: Path, true: Poses, tmp_path: Path
):
    out, found = tmp_path / "out", candidates(related)
    record = blend(found, true, TEST_IDS, out, **NAMES).record
    assert (record.shipped, record.shipped_method, record.method) == ("blend", "stack", "optuna")
    assert record.gain_over_best_simple > 2 * record.gain_over_best_simple_se > 0
    table = {row.method: row for row in record.table}
    assert {"mean", "best single", "coordinate", "stack"} <= set(table)
    assert table["stack"].mpjpe_nested == pytest.approx(record.mpjpe_nested, abs=0.5)
    assert table["stack"].mpjpe_nested < table["coordinate"].mpjpe_nested
    assert table["stack"].gain_nested_se > 0
    assert "stack.npz" in record.outputs

    weights = pd.read_csv(out / "weights.csv").iloc[:, 2:].to_numpy().reshape(17, 3, 3)
    test = [
        np.mean([read_poses(related / run / f"fold{k}/test_epoch01.csv.gz").pose_mm for k in (0, 1)], axis=0)
        for run in "abc"
    ]
    beneath = np.einsum("jam,mnja->nja", weights, test)
    np.testing.assert_allclose(read_poses(out / "submission_coordinate.csv.gz").pose_mm, beneath, atol=0.00051)
    corrected = read_second_level(out / "stack.npz", record.candidates).correct(beneath, np.array(test))
    np.testing.assert_allclose(read_poses(out / "submission.csv.gz").pose_mm, corrected, atol=0.00051)

    few = NAMES | {"subjects": ["S1"] * ROWS}  # of whom it could learn the bones
    assert blend(found, true, TEST_IDS, out, **few).record.shipped_method != "stack"
    record = blend(found, true, TEST_IDS, out, stack=False, **NAMES).record
    assert record.shipped_method != "stack"
    assert "stack" not in {row.method for row in record.table}
    assert not (out / "stack.npz").exists()


def test_it_ships_on_request_even_for_a_single_candidate_or_without_groups(
    related: Path, true: Poses, true_test_mm: np.ndarray, tmp_path: Path
):
    for found, names in ((candidates(related)[:1], NAMES), (candidates(related), {})):
        result = blend(found, true, TEST_IDS, tmp_path / "out", stack=True, **names)
        assert result.record.shipped_method == "stack"
        assert (result.record.mpjpe_nested is not None) == bool(names)
        errors = [
            mpjpe(read_poses(tmp_path / f"out/submission{name}.csv.gz").pose_mm, true_test_mm) for name in ("", "_mean")
        ]
        assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("method", "granularity", "is_valid"),
    [
        ("optuna", "auto", True), ("optuna", "coordinate", True), ("optuna", "axis", False), ("mean", "auto", False),
        ("exact", "auto", False),
    ],
)  # fmt: skip
def test_it_is_rejected_with_other_methods(method: str, granularity: str, is_valid: bool):
    if is_valid:
        assert check_blend(method, granularity, True).name == method
        return
    assert check_blend(method, granularity, False)
    with pytest.raises(UserError, match="expected method optuna and granularity auto or coordinate"):
        check_blend(method, granularity, True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda arrays: arrays | {"candidates": np.array(["a:1", "c:1"])}, "candidates"),
        (lambda arrays: arrays | {"coefficients": arrays["coefficients"][:4]}, "coefficients"),
        (lambda arrays: arrays | {"offset_mm": np.full(51, np.nan)}, "finite"),
        (lambda arrays: arrays | {"offset_mm": np.array([{}] * 51, object)}, "expected an npz"),
        (lambda arrays: arrays | {"reference_mm": np.ones(204)}, "reference_mm"),
        (lambda arrays: arrays | {"response_mm": arrays["response_mm"][:3]}, "response_mm"),
        (lambda arrays: arrays | {"square_mm": np.array(0.0)}, "square_mm"),
        (lambda arrays: {"offset_mm": arrays["offset_mm"]}, "expected an npz"),
    ],
)
def test_a_damaged_file_is_rejected(tmp_path: Path, damage, message: str):
    path, names = tmp_path / "stack.npz", ("a:1", "b:1")
    level = SecondLevel(
        coefficients=np.ones((5, 51, 51)),
        offset_mm=np.ones(51),
        reference_mm=np.ones((4, 51)),
        response_mm=np.ones((4, 51)),
        square_mm=9.0,
    )
    path.write_bytes(level.to_npz(names))
    assert read_second_level(path, names).offset_mm.tolist() == [1.0] * 51
    with np.load(path) as arrays:
        damaged = damage(dict(arrays))
    with path.open("wb") as handle:
        np.savez(handle, **damaged)
    with pytest.raises((UserError, RunError), match=message):
        read_second_level(path, names)


@pytest.mark.parametrize("option", [STACK, with_views(STACK)], ids=str)
def test_residuals_are_computed_once_for_a_problem(option: Option, monkeypatch: pytest.MonkeyPatch):
    problem = simulate(400, members=3, sequences=20, cameras=4).problem
    fitted = problem.fit(option.method.quick())
    expected_mm = fitted.apply_with(problem.poses(), problem.views) - problem.true_mm
    fresh = problem.take(np.arange(400))
    corrected: list[int] = []
    correct = SecondLevel.correct

    def counted(level: SecondLevel, *poses_mm: np.ndarray) -> np.ndarray:
        corrected.append(len(poses_mm[0]))
        return correct(level, *poses_mm)

    monkeypatch.setattr(SecondLevel, "correct", counted)
    np.testing.assert_allclose(fitted.axis_errors(fresh), abs(expected_mm).mean(axis=(0, 1)), rtol=1e-4)
    joint_mm = np.linalg.norm(expected_mm, axis=2).mean(axis=0)
    np.testing.assert_allclose(fitted.joint_errors(fresh), joint_mm, rtol=1e-4)
    assert corrected == [400] * (1 if option == STACK else 2)  # with other cameras, the level beneath and their own
    with pytest.raises(ValueError, match="read-only"):
        fitted.residual(fresh)[0] = 0
    assert fitted.residual(problem.take(np.arange(0, 400, 100))).shape == (17, 3, 4)
