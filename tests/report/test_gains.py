"""What the errors consist of: each repair removes the error that it names, and no other."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from competition.common.geometry import rotate_pose_mm
from competition.common.metrics import joint_errors, mpjpe
from competition.common.skeleton import JOINTS, MIRROR
from competition.common.workspace import Workspace
from competition.report import gains
from competition.report.blocks import Chart
from competition.report.evidence import gather
from competition.report.gains import COMMON, REPAIRS, VISIBLE
from competition.report.rare import Rarity

TRUE_MM = np.random.default_rng(0).normal(0, 300, (5, 17, 3))
TRUE_MM[:, 0] = 0
ABOUT_Y = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
ARMS_EXCHANGED = [MIRROR[joint] if joint > 10 else joint for joint in range(len(JOINTS))]
DAMAGE = {  # poses with one kind of error, and the repairs that remove it entirely
    "depth": (TRUE_MM * (1, 1, 0.5), {"exact depth (z)"}),
    "image": (TRUE_MM + np.where(TRUE_MM[..., :1] == 0, 0, (30.0, 40.0, 0)), {"exact x and y"}),
    "facing": (
        TRUE_MM @ ABOUT_Y,
        {"exact orientation", "exact facing direction"},
    ),
    "orientation": (rotate_pose_mm(TRUE_MM, 0.5), {"exact orientation", "exact x and y"}),
    "size": (TRUE_MM * 1.2, {"exact size"}),
    "arms": (TRUE_MM[:, ARMS_EXCHANGED], {"no exchanged sides"}),
    "all sides": (TRUE_MM[:, MIRROR], {"no exchanged sides"}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_repair_removes_the_error_that_it_names(kind: str):
    predicted_mm, removing = DAMAGE[kind]
    before = mpjpe(predicted_mm, TRUE_MM)
    after = {cause: mpjpe(repair(predicted_mm, TRUE_MM), TRUE_MM) for cause, repair in REPAIRS.items()}
    assert {cause for cause, error in after.items() if error < 1e-9} == removing
    assert before > 10


@pytest.mark.parametrize("cause", REPAIRS)
def test_a_repair_leaves_exact_poses_unchanged(cause: str):
    np.testing.assert_allclose(REPAIRS[cause](TRUE_MM, TRUE_MM), TRUE_MM, atol=1e-9)


def test_the_best_orientation_is_a_rotation():
    mirrored_mm = TRUE_MM * (1, 1, -1)
    assert mpjpe(gains.exact_orientation(mirrored_mm, TRUE_MM), TRUE_MM) > 50


def test_a_bone_in_front_hides_a_joint():
    pose2d_px, pose_mm = np.full((1, 17, 2), 500.0), np.zeros((1, 17, 3))
    pose2d_px[0] += np.arange(17)[:, None] * 100
    pose2d_px[0, [14, 15, 3]] = (100, 100), (200, 100), (150, 104)  # the upper arm passes the right foot
    pose_mm[0, 3, 2] = 100
    assert np.argwhere(gains.hidden_joints(pose2d_px, pose_mm)).tolist() == [[0, 3]]
    pose_mm[0, 3, 2] = 50
    assert not gains.hidden_joints(pose2d_px, pose_mm).any()
    pose_mm[0, 3, 2], pose2d_px[0, 3, 1] = 100, 108
    assert not gains.hidden_joints(pose2d_px, pose_mm).any()


def test_the_gain_of_visible_joints_is_that_of_their_means():
    error_mm = np.full((4, 17), 10.0)
    hidden = np.zeros((4, 17), bool)
    assert gains.visible_gain(error_mm, hidden) == 0
    hidden[0, 3] = True
    error_mm[0, 3] = 78
    assert gains.visible_gain(error_mm, hidden) == pytest.approx(1)
    hidden[:, 3] = True
    assert gains.visible_gain(error_mm, hidden) == 0  # there is no visible one


def test_runs_of_different_folds_have_a_gain_of_rare_poses_where_it_is_known(run: Path, data: Path, tmp_path: Path):
    other = run.parent / "other"
    shutil.copytree(run, other)
    shutil.rmtree(run / "fold1")
    shutil.rmtree(other / "fold0")
    evidence = gather(Workspace(data=data, folds=tmp_path / "folds", submissions=run.parent))
    assert not set(evidence.entries[0].id) & set(evidence.entries[1].id)
    (numbers,) = [block.numbers for block in gains.gains(evidence).blocks if isinstance(block, Chart)]
    ((_, first, second),) = [row for row in numbers.rows if row[0] == COMMON]
    assert isinstance(first, float)
    assert second is None


def test_the_section_lists_every_gain_of_a_run(data: Path, finished: Path):
    evidence = gather(Workspace(data=data, folds=finished / "folds", submissions=finished / "runs"))
    labels, entry = evidence.labels, evidence.entries[0]
    assert labels is not None
    chart = next(block for block in gains.gains(evidence).blocks if isinstance(block, Chart))
    found = {str(cause): float(values[0]) for cause, *values in chart.numbers.rows}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert set(found) == {*REPAIRS, VISIBLE, COMMON}

    poses = evidence.read_poses(entry)
    true_mm = labels.pose_mm[poses.id - 1]
    error_mm = joint_errors(poses.pose_mm, true_mm)
    depth_mm = np.abs(poses.pose_mm - true_mm)[..., :2]
    assert found["exact depth (z)"] == pytest.approx(error_mm.mean() - np.hypot(*np.moveaxis(depth_mm, 2, 0)).mean())
    hidden = gains.hidden_joints(labels.pose2d_px[poses.id - 1], true_mm)
    assert found[VISIBLE] == pytest.approx(gains.visible_gain(error_mm, hidden))
    assert found[VISIBLE] != 0
    rarity = evidence.rarity
    assert isinstance(rarity, Rarity)
    common = rarity.distance_mm <= np.sort(rarity.distance_mm)[len(rarity.id) * 2 // 3]
    common_mm = error_mm[np.searchsorted(poses.id, rarity.id[common])].mean()
    assert found[COMMON] == pytest.approx(error_mm.mean() - common_mm)
