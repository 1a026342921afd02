"""The command `blend` on runs, external predictions and CSV files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from competition.common.files import sha256_file
from competition.common.pose_csv import read_poses, write_poses
from competition.data.labels import read_labels
from competition.runs.ledger import Upload, record_upload
from tests.helpers import N_TEST, Command


def test_a_run_trained_on_other_images_is_rejected(command: Command, run: Path, own_data: Path, capsys):
    names = own_data / "annot/train_images.txt"
    lines = names.read_text().splitlines()
    names.write_text("\n".join(reversed(lines)) + "\n")
    assert command("blend", data=own_data) == 2
    assert "trained on other images" in capsys.readouterr().err


def test_external_predictions_are_blended_with_a_note(command: Command, run: Path, data: Path, tmp_path, capsys):
    external = tmp_path / "runs/mate/fold0"
    external.mkdir(parents=True)
    labels = read_labels(data)
    np.savez(external / "valid_epoch01.npz", id=labels.id, pose=labels.pose_mm + 30 * (np.arange(17) > 0)[:, None])
    shutil.copy(tmp_path / "runs/3dhg-small/fold0/test_epoch01.csv.gz", external / "test_epoch01.csv.gz")
    capsys.readouterr()
    assert command("blend", "--method", "exact") == 0
    output = capsys.readouterr().out
    assert "mate: its folds can't be verified" in output
    assert "folds missing" not in output  # the number of its folds is unknown


def test_files_are_blended_by_mean_median_or_shares(command: Command, folds: None, data: Path, tmp_path, capsys):
    moving = (np.arange(17) > 0)[:, None]
    poses = (np.random.default_rng(0).normal(0, 300, (3, N_TEST, 17, 3)) * moving).round(3)
    files = [str(tmp_path / f"{name}.csv") for name in "abc"]
    for file, pose in zip(files, poses, strict=True):
        write_poses(Path(file), np.arange(1, N_TEST + 1), pose)
    expected = {(): poses.mean(axis=0), ("--method", "median"): np.median(poses, axis=0)}
    expected["--shares", "2,1,1"] = poses[0] / 2 + poses[1] / 4 + poses[2] / 4
    for arguments, pose in expected.items():
        assert command("blend", "--files", *files, *arguments) == 0
        written = read_poses(tmp_path / "runs/blend/submission.csv.gz").pose_mm
        np.testing.assert_allclose(written, pose, atol=0.00051)
    wrong = {"1,x,2": "numbers separated", "1,2": "expected 3 numbers", "-1,2,3": "at least 0"}
    for shares, message in wrong.items():
        capsys.readouterr()
        assert command("blend", "--files", *files, f"--shares={shares}") == 2
        assert message in capsys.readouterr().err
    assert command("blend", "--files", *files, "--method", "exact") == 2
    assert command("blend", "--files", *files, "--views") == 2
    (tmp_path / "runs/blend/weights.csv").write_text("of runs")
    capsys.readouterr()
    assert command("blend", "--files", *files) == 2
    assert "holds a blend of runs" in capsys.readouterr().err
    assert command("blend", "--files", *files, "--out", str(tmp_path / "runs/blend-files")) == 0
    assert (tmp_path / "runs/blend/weights.csv").read_text() == "of runs"


def test_missing_folds_of_a_run_are_reported(command: Command, run: Path, capsys):
    shutil.rmtree(run / "fold1")
    test = (run / "fold0/test_epoch01.csv.gz").rename(run / "fold0/elsewhere")
    for arguments in ((), ("--runs", "3dhg-small")):
        capsys.readouterr()
        assert command("blend", *arguments) == 2
        error = capsys.readouterr().err
        assert "run 3dhg-small has no epoch that is complete" in error
        assert "2 of 2" in error
        assert "(fold0, fold1)" in error
    test.rename(run / "fold0/test_epoch01.csv.gz")
    assert command("blend", "--method", "mean") == 0
    (warning,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: run 3dhg-small"))
    assert "1 of 2" in warning
    assert "(fold1)" in warning


@pytest.mark.parametrize("out", ["runs/blend", "elsewhere/of-runs"])
def test_submitted_blends_of_runs_and_of_files_are_kept(command: Command, run: Path, tmp_path, capsys, out: str):
    folder = tmp_path / out
    where = ("--out", str(folder))
    files = ("--files", str(run / "submission.csv.gz"), str(run / "fold0/test_epoch01.csv.gz"))
    for arguments in (("--method", "exact"), files):
        assert command("blend", *arguments, *where) == 0
        sha256 = sha256_file(folder / "submission.csv.gz")
        record_upload(tmp_path / "runs/ledger.csv", Upload(sha256=sha256))
        capsys.readouterr()
        assert command("blend", "--method", "mean", *where) == 0
        kept = folder.with_name(f"{folder.name}-{sha256[:8]}")
        assert sha256_file(kept / "submission.csv.gz") == sha256
        assert capsys.readouterr().out.count(f"{folder} was submitted: it is kept as {kept}\n") == 1
        assert command("verify", str(kept)) == 0
    capsys.readouterr()
    assert command("board") == 0
    assert ("blend-" in capsys.readouterr().out) == (out == "runs/blend")


@pytest.mark.parametrize("flag", ["--views", "--stack"])
def test_a_member_without_out_of_fold_poses_is_rejected_with_one_line(flag: str, command: Command, run: Path, capsys):
    shutil.copytree(run, run.parent / "mate")
    for file in (run.parent / "mate").glob("fold*/valid_*"):
        file.unlink()
    capsys.readouterr()
    assert command("blend", flag, "--runs", "mate,3dhg-small") == 2
    output = capsys.readouterr()
    assert "mate has test poses, but no out-of-fold poses" in output.err
    assert (output.err + output.out).count("\n") == 1
    assert not (run.parent / "blend").exists()
    command("blend", flag)  # of all runs, it is left out
    assert "mate has test poses, but no" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, _: name, "subject S11: at most 1 of its takes and frames have images of the same two cameras"),
        (lambda name, line: f"photo_{line:06d}.jpg", "'photo_000000.jpg' doesn't contain subject, take, camera"),
        (lambda name, line: f"TS1_{line:06d}.jpg", "subject TS1: no take and frame has images of two cameras"),
        (lambda name, line: f"S9_Walking_1.{name[-17:-11]}_{line:06d}.jpg", "subject S9: no take and frame has"),
    ],
)
def test_names_without_other_cameras_are_rejected_with_one_line(
    change: Callable[[str, int], str], message: str, command: Command, run: Path, own_data: Path, capsys
):
    names = own_data / "annot/valid_images.txt"
    lines = names.read_text().splitlines()
    names.write_text("".join(f"{change(name, line)}\n" for line, name in enumerate(lines)))
    capsys.readouterr()
    assert command("blend", "--views", data=own_data) == 2
    output = capsys.readouterr()
    assert "--views: valid_images.txt: " in output.err
    assert message in output.err
    assert (output.err + output.out).count("\n") == 1
    assert not (run.parent / "blend").exists()
