"""The command `blend` on runs, on those of others and on files alone."""

import json
import shutil
from pathlib import Path

import numpy as np

from competition.common.files import sha256_file
from competition.common.pose_csv import read_poses, write_poses
from competition.data.labels import read_labels
from tests.helpers import N_TEST, TINY, Command


def test_a_run_of_other_images_is_not_blended(command: Command, folds: None, own_data: Path, capsys):
    assert command("train", *TINY, "--epochs", "1") == 0
    names = own_data / "annot/train_images.txt"
    lines = names.read_text().splitlines()
    names.write_text("\n".join(reversed(lines)) + "\n")
    assert command("blend", data=own_data) == 2
    assert "trained on other images" in capsys.readouterr().err


def test_a_teammates_run_without_configuration_is_blended(command: Command, folds: None, data: Path, tmp_path, capsys):
    assert command("train", *TINY, "--epochs", "1") == 0
    mate = tmp_path / "runs/mate/fold0"
    mate.mkdir(parents=True)
    labels = read_labels(data)
    np.savez(mate / "valid_epoch01.npz", id=labels.id, pose=labels.pose_mm + 30 * (np.arange(17) > 0)[:, None])
    shutil.copy(tmp_path / "runs/3dhg-small/fold0/test_epoch01.csv.gz", mate / "test_epoch01.csv.gz")
    capsys.readouterr()
    assert command("blend", "--method", "exact") == 0
    said = capsys.readouterr().out
    assert "mate: its folds can't be verified" in said
    assert "are missing" not in said  # nothing is known of an outsider's folds


def test_files_alone_are_blended_by_mean_median_or_shares(command: Command, folds: None, data: Path, tmp_path, capsys):
    poses = np.random.default_rng(0).normal(0, 300, (3, N_TEST, 17, 3)).round(3)
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
    (tmp_path / "runs/blend/weights.csv").write_text("of runs")
    capsys.readouterr()
    assert command("blend", "--files", *files) == 2
    assert "holds a blend of runs" in capsys.readouterr().err
    assert command("blend", "--files", *files, "--out", str(tmp_path / "runs/blend-files")) == 0
    assert (tmp_path / "runs/blend/weights.csv").read_text() == "of runs"


def test_a_half_trained_run_is_named_with_the_folds_it_lacks(command: Command, folds: None, tmp_path: Path, capsys):
    (tmp_path / "runs/3dhg-small/fold0").mkdir(parents=True)
    begun = {"folds_sha256": sha256_file(tmp_path / "folds/folds.csv"), "recipe": "3dhg-small"}
    (tmp_path / "runs/3dhg-small/fold0/config.json").write_text(json.dumps(begun))
    for arguments in ((), ("--runs", "3dhg-small")):
        capsys.readouterr()
        assert command("blend", *arguments) == 2
        assert "3dhg-small has no epoch of all its folds: 2 of 2 are missing (fold0, fold1)" in capsys.readouterr().err
    assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 0
    assert command("blend", "--method", "mean") == 0
    assert "3dhg-small is blended on the folds it has: 1 of 2 are missing (fold1)" in capsys.readouterr().out
