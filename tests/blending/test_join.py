"""The join of candidates: the joined rows, notes, and errors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from competition.blending.blend import blend
from competition.blending.join import join
from competition.common.errors import RunError, SubmissionError
from competition.common.files import write_json
from competition.common.pose_csv import Poses, read_poses, write_poses
from competition.runs.candidates import candidates, refitted, select
from tests.blending.helpers import ROWS, TEST_IDS, TEST_ROWS, write_nan, write_run

pytestmark = pytest.mark.usefixtures("short_search")


def test_refitted_candidates_use_test_poses_of_fold_full(submissions: Path, true: Poses, tmp_path: Path):
    found = candidates(submissions)
    with pytest.raises(RunError, match="first train a on everything") as caught:
        refitted(found[0])
    assert caught.value.command is not None
    assert caught.value.command.options["fold"] == "full"
    for run in "abc":
        poses = read_poses(submissions / run / "fold0/test_epoch01.csv.gz").pose_mm
        (submissions / run / "foldfull").mkdir()
        write_poses(submissions / run / "foldfull/test_epoch01.csv.gz", TEST_IDS, poses)
    result = blend([refitted(c) for c in found], true, TEST_IDS, tmp_path / "out", method="mean")
    expected = np.mean([read_poses(submissions / run / "fold0/test_epoch01.csv.gz").pose_mm for run in "abc"], axis=0)
    np.testing.assert_allclose(read_poses(result.submission).pose_mm, expected, atol=0.00051)


def test_a_single_candidate_is_copied_with_a_note(submissions: Path, true: Poses, tmp_path: Path):
    only = select(candidates(submissions), runs=["b"])
    result = blend(only, true, TEST_IDS, tmp_path / "out")
    joined = join(only, true, TEST_IDS)
    np.testing.assert_allclose(read_poses(result.submission).pose_mm, joined.test_mm[0], atol=0.00051)
    assert any("b:1 is the only candidate" in note for note in result.notes)


def test_copies_constant_poses_and_unverified_folds_are_reported(
    submissions: Path, true: Poses, true_test_mm: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    warned: list[str] = []
    monkeypatch.setattr("competition.blending.join.log.warning", warned.append)
    source = submissions / "a"
    poses = np.concatenate([np.load(source / f"fold{k}/valid_epoch01.npz")["pose"] for k in (0, 1)])
    ids = np.concatenate([np.load(source / f"fold{k}/valid_epoch01.npz")["id"] for k in (0, 1)])
    write_run(submissions, "copy", ids, poses, true_test_mm, folds=None)
    flat = true.pose_mm[0]
    write_run(submissions, "flat", true.id, np.tile(flat, (ROWS, 1, 1)), np.tile(flat, (TEST_ROWS, 1, 1)))
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out")
    text = "\n".join(result.notes)
    assert warned == ["copy:1 is a copy of a:1: they share one weight"]
    assert "flat:1 predicts the same pose for every image" in text
    assert "copy: its folds can't be verified" in text
    assert result.facts["mpjpe_blend_in_sample"] <= result.facts["mpjpe_mean"]


def test_external_csv_predictions_are_a_candidate(
    submissions: Path, true: Poses, true_test_mm: np.ndarray, tmp_path: Path
):
    folder = submissions / "teammate" / "fold0"
    folder.mkdir(parents=True)
    write_poses(folder / "valid_epoch01.csv.gz", true.id, true.pose_mm + 1)
    write_poses(folder / "test_epoch01.csv", TEST_IDS, true_test_mm)
    chosen = select(candidates(submissions), runs=["teammate", "a"])
    result = blend(chosen, true, TEST_IDS, tmp_path / "out", method="exact")
    assert result.facts["candidates"] == ["a:1", "teammate:1"]
    assert result.weights is not None
    assert result.weights[13, :, 1].min() > 0.9


def test_only_rows_that_all_candidates_have_are_joined(submissions: Path, true: Poses, true_test_mm: np.ndarray):
    write_run(submissions, "half", true.id[40:90], true.pose_mm[40:90], true_test_mm)
    joined = join(candidates(submissions), true, TEST_IDS)
    assert joined.id.tolist() == list(range(41, 91))
    assert any("share 50 of up to 120 out-of-fold rows" in note for note in joined.notes)
    np.testing.assert_allclose(joined.residual[:, :, joined.names.index("half:1")], 0, atol=1e-4)
    full = join(select(candidates(submissions), runs=["a", "b", "c"]), true, TEST_IDS)
    np.testing.assert_array_equal(joined.residual[:, :, [0, 1, 2]], full.residual[..., 40:90])


def _foreign_id(file: Path) -> None:
    with np.load(file) as arrays:
        ids, pose = arrays["id"], arrays["pose"]
    ids[-1] = 7000
    np.savez(file, id=ids, pose=pose)


def _same_as_other_fold(file: Path) -> None:
    (file.parent.parent / "fold1" / file.name).write_bytes(file.read_bytes())


def _other_folds(file: Path) -> None:
    for fold in range(2):
        write_json(file.parent.parent / f"fold{fold}" / "config.json", {"recipe": "b", "folds_sha256": "other"})


def _no_rows(file: Path) -> None:
    for fold in range(2):
        path = file.parent.parent / f"fold{fold}" / file.name
        np.savez(path, id=np.zeros(0, np.int64), pose=np.zeros((0, 17, 3), np.float32))  # write_valid rejects them


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (write_nan, r"b/fold0/valid_epoch01\.npz: the pose of Id 8 is not finite"),
        (_foreign_id, r"b/fold0/valid_epoch01\.npz: Id 7000 is not among the 120 training images"),
        (_same_as_other_fold, r"b:1: Id 2 is held out in several folds \(fold0, fold1\)"),
        (_other_folds, r"runs a and b were trained on different folds\.csv"),
        (_no_rows, r"b:1: its out-of-fold files contain no rows"),
    ],
)
def test_invalid_candidates_are_rejected_before_anything_is_written(
    submissions: Path, true: Poses, tmp_path: Path, damage: Callable[[Path], None], message: str
):
    damage(submissions / "b/fold0/valid_epoch01.npz")
    with pytest.raises(RunError, match=message) as caught:
        blend(candidates(submissions), true, TEST_IDS, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_candidates_without_a_common_row_are_rejected(tmp_path: Path, true: Poses):
    test = np.zeros((TEST_ROWS, 17, 3))
    write_run(tmp_path, "early", true.id[:60], true.pose_mm[:60], test)
    write_run(tmp_path, "late", true.id[60:], true.pose_mm[60:], test)
    with pytest.raises(RunError, match="late:1 shares no out-of-fold Id with early:1"):
        join(candidates(tmp_path), true, TEST_IDS)


def test_a_test_file_with_missing_rows_is_rejected(submissions: Path, true: Poses, tmp_path: Path):
    write_poses(submissions / "b/fold1/test_epoch01.csv.gz", TEST_IDS[:-1], np.zeros((TEST_ROWS - 1, 17, 3)))
    with pytest.raises(SubmissionError, match=r"b/fold1/test_epoch01\.csv\.gz: 1 Ids missing, the first is 11"):
        blend(candidates(submissions), true, TEST_IDS, tmp_path / "out")
