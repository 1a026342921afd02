"""Verifying and reproducing: what was written is found again, what was changed is named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY

import models
from competition.files import sha256_file, sha256_lines
from competition.table import read_poses, write_poses

Command = Callable[..., int]


def test_what_was_written_is_verified_and_what_was_changed_is_named(command: Command, tmp_path: Path, capsys):
    assert command("folds", "--k", "2") == 0
    for run in ("a", "b"):
        assert command("train", *TINY, "--epochs", "1", "--run", run, "--seed", str(ord(run))) == 0
    assert command("blend", "--granularity", "coordinate") == 0
    runs = tmp_path / "runs"
    capsys.readouterr()
    for folder in (runs / "a", runs / "a/fold1", runs / "blend"):
        assert command("verify", str(folder)) == 0
    told = capsys.readouterr().out
    assert "5 of 5 files" in told
    assert "out of fold" in told
    assert "differ from submission.csv.gz by at most 0.000" in told

    log = runs / "b/fold0/log.jsonl"
    row = json.loads(log.read_text())
    log.write_text(json.dumps(row | {"valid_mpjpe": row["valid_mpjpe"] - 5}) + "\n")
    submission = runs / "blend/submission.csv.gz"
    poses = read_poses(submission)
    write_poses(submission, poses.id, poses.pose_mm + 1)
    assert command("verify", str(runs / "b")) == 2
    assert "but the log says" in capsys.readouterr().out
    assert command("verify", str(runs / "blend")) == 2
    assert "by at most 1.00" in capsys.readouterr().out
    (runs / "a/fold0/last.pt").write_bytes(b"other")
    (runs / "a/fold1/test_epoch01.csv.gz").unlink()
    assert command("verify", str(runs / "a")) == 2
    told = capsys.readouterr().out
    assert "last.pt: has changed since" in told
    assert "test_epoch01.csv.gz: is gone" in told
    assert command("verify", str(runs)) == 2
    assert "expected a run's folder" in capsys.readouterr().err


def test_what_something_was_made_of_is_recorded_and_held_to(command: Command, own_data: Path, tmp_path: Path, capsys):
    assert command("folds", "--k", "2", data=own_data) == 0
    assert command("train", *TINY, "--epochs", "1", data=own_data) == 0
    assert command("blend", "--method", "mean", data=own_data) == 0
    runs = tmp_path / "runs"
    done = json.loads((runs / "3dhg-small/fold0/done.json").read_text())
    blend = json.loads((runs / "blend/blend.json").read_text())
    assert "config.json" in done["files"]
    assert {name.rpartition("/")[2] for name in blend["inputs"]} == {"valid_epoch01.npz", "test_epoch01.csv.gz"}
    made = blend["provenance"]
    assert made == done["provenance"]
    assert made["labels_sha256"] == sha256_file(own_data / "annot/train.h5")
    assert made["folds_sha256"] == sha256_file(tmp_path / "folds/folds.csv")
    assert made["test_images_sha256"] == sha256_lines((own_data / "annot/valid_images.txt").read_text().splitlines())
    assert set(made["versions"]) == {"python", "torch", "timm", "numpy"}
    assert set(made) == {"images_sha256", "labels_sha256", "test_images_sha256", "folds_sha256", "versions", "git"}
    assert made["git"] is None or len(made["git"]) == 40

    file = str(runs / "3dhg-small/submission.csv.gz")
    assert command("blend", "--files", file, "--out", str(runs / "files"), data=own_data) == 0
    alone = json.loads((runs / "files/blend.json").read_text())["provenance"]
    assert alone == made | dict.fromkeys(("folds_sha256", "images_sha256", "labels_sha256"))
    for changed, told in (("train.h5", "other labels than"), ("valid_images.txt", "another test set than")):
        path = own_data / "annot" / changed
        before = path.read_bytes()
        path.write_bytes(before + b"more.jpg\n")
        for folder in ("3dhg-small", "blend"):
            capsys.readouterr()
            assert command("verify", str(runs / folder), data=own_data) == 2
            assert told in capsys.readouterr().out
        path.write_bytes(before)
    assert command("verify", str(runs / "blend"), data=own_data) == 0
    (runs / "3dhg-small/fold0/config.json").write_text("{}")
    assert command("verify", str(runs / "blend"), data=own_data) == 0  # its poses are those that were blended
    assert command("verify", str(runs / "3dhg-small/fold0"), data=own_data) == 2
    assert "config.json: has changed since" in capsys.readouterr().out
    (runs / "3dhg-small/fold1/done.json").write_text(json.dumps(done | {"valid_mpjpe": 1.5}))
    assert command("verify", str(runs / "3dhg-small/fold1"), data=own_data) == 2
    assert "the best epoch of done.json is not that of the log" in capsys.readouterr().out


def test_the_posters_table_is_trained_averaged_and_blended(command: Command, tmp_path: Path, monkeypatch, capsys):
    small = {"epochs": 1, "channels": 16, "input_size": 64, "batch": 8}
    for name in ("2dhg-small", "2dhg-decay-small", "3dhg-small", "3dhg-aug-small"):
        recipe = models.recipe(name)
        depths = {"depths": (1, 8)} if name.startswith("3") else {"lifter_width": 16}
        monkeypatch.setitem(models.ENTRANTS, name, replace(recipe, **small, **depths))
    assert command("folds", "--k", "2") == 0
    table = tmp_path / "table.json"
    assert command("reproduce", "--scale", "small", "--json", str(table)) == 0
    said = capsys.readouterr().out
    assert "compare ratios, not mm" in said
    assert "s here, one network after another" in said
    rows = json.loads(table.read_text())
    assert [row["poster"] for row in rows] == [109.02, 110.34, 99.17, 118.28, 89.69, None]
    assert rows[4]["poster_ratio"] == pytest.approx(0.904, abs=5e-4)
    assert min(row["ratio"] for row in rows[:4]) == 1
    runs = tmp_path / "runs"
    members = [read_poses(runs / f"{name}-small/submission.csv.gz").pose_mm for name in ("2dhg", "2dhg-decay", "3dhg")]
    mean = read_poses(runs / "reproduce-small-mean/submission.csv.gz").pose_mm
    np.testing.assert_allclose(mean, np.mean(members, axis=0), atol=0.0011)
    assert {folder.name for folder in (runs / "3dhg-small").glob("fold*")} == {"fold0"}
    assert command("reproduce", "--scale", "small") == 0
    said = capsys.readouterr().out
    assert said.count("finished already") == 4
    assert "one network after another" not in said  # nothing left to pay
    (runs / "2dhg-small/fold1").mkdir()
    (runs / "2dhg-small/fold1/config.json").write_text("{}")
    assert command("reproduce", "--scale", "small") == 2
    assert "2dhg-small has no epoch of all its folds" in capsys.readouterr().err
    assert command("reproduce", "--scale", "small", "--fold", "2") == 2
    assert "fold 2: expected 0 to 1, or all" in capsys.readouterr().err
    assert command("reproduce", "--scale", "tiny") == 2
