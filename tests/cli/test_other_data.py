"""Runs and blends of other data than those in use: refused, rescored or not ranked, with one warning."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from competition.common.errors import RunError
from competition.common.metrics import mpjpe
from competition.common.pose_csv import Poses
from competition.data.dataset import Dataset
from competition.data.labels import read_labels
from competition.notebook import blend, blend_dataset, candidates, score, select
from competition.runs.candidates import out_of_fold_mpjpe
from competition.runs.folders import read_valid
from tests.helpers import Command


def reverse(path: Path) -> None:
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))


def other_test_list(data: Path) -> None:
    reverse(data / "annot/valid_images.txt")


def other_images(data: Path) -> None:
    reverse(data / "annot/train_images.txt")


def other_labels(data: Path) -> None:
    """Move all joints but the root by 40 mm."""
    with h5py.File(data / "annot/train.h5", "r+") as file:
        pose = file["pose3d"][:]
        pose[:, 1:, 0] += 40
        file["pose3d"][:] = pose


def warned(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning:")]


def out_of_fold(run: Path, data: Path, epoch: int = 1) -> float:
    parts = [read_valid(run / f"fold{fold}/valid_epoch{epoch:02d}.npz") for fold in (0, 1)]
    ids = np.concatenate([part.id for part in parts])
    return mpjpe(np.concatenate([part.pose_mm for part in parts]), read_labels(data).pose_mm[ids - 1])


def board(command: Command, data: Path, tmp_path: Path) -> dict[str, dict[str, object]]:
    assert command("board", "--json", str(tmp_path / "board.json"), data=data) == 0
    return {row["name"]: row for row in json.loads((tmp_path / "board.json").read_text())}


def test_the_same_data_give_no_warning(command: Command, run: Path, own_data: Path, tmp_path: Path, capsys):
    assert command("blend", "--method", "mean") == 0
    assert command("blend", "--method", "mean", "--out", str(run.parent / "blend-mean"), data=own_data) == 0
    assert command("score", "--file", str(run / "submission.csv.gz")) == 0
    assert command("report") == 0
    rows = board(command, own_data, tmp_path)
    assert warned(capsys) == []
    assert {name: row["why"] for name, row in rows.items()} == dict.fromkeys(("3dhg-small", "blend", "blend-mean"), "")
    assert rows["3dhg-small"]["public_rank"] == rows["3dhg-small"]["out_of_fold_rank"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [(other_test_list, "run 3dhg-small was made for another test set"), (other_images, "trained on other images")],
)
def test_blends_of_other_images_are_refused(
    command: Command, run: Path, own_data: Path, tmp_path: Path, change: Callable[[Path], None], message: str, capsys
):
    change(own_data)
    assert command("blend", data=own_data) == 2
    assert message in capsys.readouterr().err
    assert not (run.parent / "blend").exists()
    with pytest.raises(RunError, match=message):
        blend_dataset(select(candidates(run.parent)), Dataset(own_data), tmp_path / "out")


def test_runs_of_different_test_sets_are_refused_without_data(run: Path, data: Path, tmp_path: Path):
    other = run.parent / "other"
    shutil.copytree(run, other)
    for fold in (0, 1):
        path = other / f"fold{fold}/config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"test_images_sha256": "0" * 64}))
    true, test = Dataset(data).true, Dataset(data).test.id
    with pytest.raises(RunError, match="run other was made for another test set than that in run 3dhg-small"):
        blend(candidates(run.parent), true, test, tmp_path / "out")


def test_older_runs_without_hashes_are_not_refused(command: Command, run: Path, own_data: Path, tmp_path: Path, capsys):
    for fold in (0, 1):
        path = run / f"fold{fold}/config.json"
        facts = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in facts.items() if k[:5] not in ("test_", "label", "image")}))
    other_test_list(own_data)
    assert command("blend", "--method", "mean", data=own_data) == 0
    assert board(command, own_data, tmp_path)["3dhg-small"]["out_of_fold_rank"] is not None
    assert warned(capsys) == []


def test_folds_of_one_run_on_different_data_are_refused(command: Command, run: Path, capsys):
    for part in ("test_images_sha256", "labels_sha256", "images_sha256", "folds_sha256"):
        path = run / "fold1/config.json"
        before = path.read_text()
        path.write_text(json.dumps(json.loads(before) | {part: "0" * 64}))
        assert command("blend") == 2
        assert "its folds were trained on different data" in capsys.readouterr().err
        path.write_text(before)


def test_the_best_epoch_is_chosen_with_the_labels_in_use(command: Command, run: Path, own_data: Path, capsys):
    other_labels(own_data)
    true = read_labels(own_data)
    for fold in (0, 1):  # epoch 2 matches the labels in use, but its logged error, of other labels, is higher
        ids = read_valid(run / f"fold{fold}/valid_epoch01.npz").id
        np.savez(run / f"fold{fold}/valid_epoch02.npz", id=ids, pose=true.pose_mm[ids - 1] + np.float32(1))
        shutil.copy(run / f"fold{fold}/test_epoch01.csv.gz", run / f"fold{fold}/test_epoch02.csv.gz")
        with open(run / f"fold{fold}/log.jsonl", "a") as log:
            log.write(json.dumps({"epoch": 2, "valid_mpjpe": 900.0}) + "\n")
    assert command("blend", data=own_data) == 0
    (line,) = (line for line in warned(capsys) if "trained on other labels" in line)
    assert "3dhg-small" in line
    facts = json.loads((run.parent / "blend/blend.json").read_text())
    assert facts["candidates"] == ["3dhg-small:2"]
    assert facts["members"][0]["mpjpe"] == pytest.approx(3**0.5, rel=1e-4)


def test_the_board_computes_errors_with_the_labels_in_use(
    command: Command, run: Path, data: Path, own_data: Path, tmp_path: Path, capsys
):
    assert command("blend", "--method", "mean") == 0
    before = board(command, data, tmp_path)
    other_labels(own_data)
    capsys.readouterr()
    rows = board(command, own_data, tmp_path)
    lines = warned(capsys)
    assert len(lines) == 2
    assert "3dhg-small: trained on other labels" in lines[0]
    assert "not ranked: blend (other labels" in lines[1]
    assert rows["3dhg-small"]["out_of_fold"] == pytest.approx(out_of_fold(run, own_data))
    assert rows["3dhg-small"]["out_of_fold"] != pytest.approx(before["3dhg-small"]["out_of_fold"], abs=1e-3)
    assert rows["3dhg-small"]["out_of_fold_rank"] == 1
    assert rows["blend"]["out_of_fold_rank"] is None
    assert command("report", data=own_data) == 0
    assert warned(capsys) == lines
    assert f"{rows['3dhg-small']['out_of_fold']:.2f}" in (run.parent / "report.html").read_text()


@pytest.mark.parametrize("change", [other_test_list, other_images])
def test_rows_of_other_images_are_not_ranked(
    command: Command, run: Path, data: Path, own_data: Path, tmp_path: Path, change: Callable[[Path], None], capsys
):
    assert command("blend", "--method", "mean") == 0
    names = ("3dhg-small", "blend")
    for name in names:
        assert command("score", "--file", str(run.parent / name / "submission.csv.gz")) == 0
    change(own_data)
    capsys.readouterr()
    rows = board(command, own_data, tmp_path)
    (line,) = warned(capsys)
    for name in names:
        assert name in line
        assert rows[name]["why"]
        assert rows[name]["out_of_fold"] is not None
        assert rows[name]["out_of_fold_rank"] is rows[name]["public_rank"] is None
        assert (rows[name]["public"] is None) == (change is other_test_list)
    assert command("report", data=own_data) == 0
    assert line in warned(capsys)
    shutil.rmtree(own_data)
    rows = board(command, own_data, tmp_path)
    assert warned(capsys) == []
    assert rows["3dhg-small"]["public_rank"] == rows["3dhg-small"]["out_of_fold_rank"] == 1


@pytest.mark.parametrize("folds_exist", [True, False])
def test_runs_of_other_folds_are_not_ranked(
    command: Command, run: Path, data: Path, tmp_path: Path, folds_exist: bool, capsys
):
    for name in ("b", "c"):
        shutil.copytree(run, run.parent / name)
    for path in (run.parent / "b").glob("fold*/config.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"folds_sha256": "0" * 64}))
    if not folds_exist:
        shutil.rmtree(tmp_path / "folds")
    rows = board(command, data, tmp_path)
    (line,) = warned(capsys)
    assert "not ranked: b (other folds" in line
    assert {name: row["out_of_fold_rank"] for name, row in rows.items()} == {"3dhg-small": 1, "b": None, "c": 1}


def test_labels_are_read_only_where_their_hash_is_recorded(
    command: Command, run: Path, own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for fold in (0, 1):
        path = run / f"fold{fold}/config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"labels_sha256": None}))
    for name in ("labels_sha256", "labels"):
        monkeypatch.setattr(Dataset, name, property(lambda _: pytest.fail("labels were read")))
    assert board(command, own_data, tmp_path)["3dhg-small"]["out_of_fold_rank"] is not None


@pytest.mark.parametrize("name", ["submission.csv.gz", "fold0/test_epoch01.csv.gz", "blend"])
def test_files_for_another_test_list_are_neither_scored_nor_sent(
    command: Command, run: Path, own_data: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys
):
    assert command("blend", "--method", "mean") == 0
    file = run / name if name != "blend" else run.parent / "blend/submission_mean.csv.gz"
    other_test_list(own_data)
    monkeypatch.setattr("competition.leaderboard.submit.call", lambda *_: pytest.fail("the service was called"))
    with pytest.raises(RunError, match="another test set"):
        score(Dataset(own_data), file)
    for arguments in (("score",), ("submit", "--competition", "human-pose", "--message", "x", "--yes")):
        capsys.readouterr()
        assert command(*arguments, "--file", str(file), data=own_data) == 2
        assert "was made for another test set" in capsys.readouterr().err
    assert not (run.parent / "ledger.csv").exists()


@pytest.mark.parametrize("name", ["submission.csv.gz", "fold0/test_epoch01.csv.gz", "blend"])
def test_recorded_errors_of_other_labels_are_computed_again(
    command: Command, run: Path, own_data: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys
):
    assert command("blend", "--method", "mean") == 0
    file = run / name if name != "blend" else run.parent / "blend/submission.csv.gz"
    other_labels(own_data)
    sent: list[str] = []
    monkeypatch.setattr("competition.leaderboard.submit._send", lambda upload, *_: sent.append(upload.out_of_fold))
    capsys.readouterr()
    with pytest.raises(TypeError):  # nothing was sent
        command("submit", "--competition", "human-pose", "--message", "x", "--yes", "--file", str(file), data=own_data)
    (line,) = warned(capsys)
    assert "other labels" in line
    true = Dataset(own_data).true
    of_fold = read_valid(run / "fold0/valid_epoch01.npz")
    expected = {
        "submission.csv.gz": out_of_fold_mpjpe(candidates(run.parent)[0], true),
        "fold0/test_epoch01.csv.gz": mpjpe(of_fold.pose_mm, Poses(true.id, true.pose_mm).pose_mm[of_fold.id - 1]),
    }
    assert sent == ["" if name == "blend" else f"{expected[name]:.4f}"]


def test_the_board_and_the_report_need_no_readable_labels(
    command: Command, run: Path, own_data: Path, tmp_path: Path, capsys
):
    (own_data / "annot/train.h5").write_bytes(b"damaged")
    assert board(command, own_data, tmp_path)["3dhg-small"]["out_of_fold_rank"] == 1
    assert command("report", data=own_data) == 0
    assert warned(capsys) == []


def test_fold_full_must_belong_to_the_same_test_set(command: Command, run: Path, capsys):
    shutil.copytree(run / "fold0", run / "foldfull")
    (run / "foldfull/valid_epoch01.npz").unlink()
    assert command("blend", "--refit") == 0
    config = run / "foldfull/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"test_images_sha256": "0" * 64}))
    assert command("blend", "--refit") == 2
    assert "its folds were trained on different data (test_images_sha256" in capsys.readouterr().err
    assert command("blend") == 0


def test_files_for_another_test_list_are_not_blended(command: Command, run: Path, own_data: Path, capsys):
    files = [str(run / f"fold{fold}/test_epoch01.csv.gz") for fold in (0, 1)]
    assert command("blend", "--files", *files, data=own_data) == 0
    other_test_list(own_data)
    assert command("blend", "--files", *files, data=own_data) == 2
    assert "was made for another test set" in capsys.readouterr().err


def test_a_shorter_list_than_that_of_the_hidden_answers_is_named(command: Command, run: Path, own_data: Path, capsys):
    names = own_data / "annot/valid_images.txt"
    names.write_text("".join(names.read_text().splitlines(keepends=True)[:-1]))
    moved = run.parent / "moved.csv.gz"
    shutil.copy(run / "submission.csv.gz", moved)
    assert command("score", "--file", str(moved), data=own_data) == 2
    assert "12 hidden answers, but 11 names" in capsys.readouterr().err


def test_the_recorded_error_of_a_blend_of_other_images_is_left_out(
    command: Command, run: Path, own_data: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    assert command("blend", "--method", "mean") == 0
    record = run.parent / "blend/blend.json"
    facts = json.loads(record.read_text())
    facts["provenance"]["images_sha256"] = "other"
    record.write_text(json.dumps(facts))
    sent: list[str] = []
    monkeypatch.setattr("competition.leaderboard.submit._send", lambda upload, *_: sent.append(upload.out_of_fold))
    with pytest.raises(TypeError):  # nothing was sent
        command("submit", "--competition", "human-pose", "--message", "x", "--yes", data=own_data)
    assert sent == [""]
    assert any("was made with other images" in line for line in warned(capsys))
