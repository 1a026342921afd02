"""Verifying and reproducing: what was written is found again, what was changed is named."""

import json
import os
import shutil
from pathlib import Path

import pytest

from competition.cli.main import main
from competition.common.files import sha256_file, sha256_lines
from competition.common.pose_csv import read_poses, write_poses
from tests.helpers import TINY, Command


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
    assert "submission.csv.gz: has changed since" in capsys.readouterr().out
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
    own = runs / "3dhg-small/fold1/done.json"
    own.write_text(json.dumps(json.loads(own.read_text()) | {"valid_mpjpe": 1.5}))
    assert command("verify", str(runs / "3dhg-small/fold1"), data=own_data) == 2
    assert "done.json: valid_mpjpe is 1.5, but the other files say " in capsys.readouterr().out


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make data, folds, a run and a blend; tests change copies."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(data, root / "data")
    for name, *more in (
        ("folds", "--k", "2"),
        ("train", *TINY, "--epochs", "1"),
        ("train", *TINY, "--epochs", "1", "--run", "other", "--seed", "1"),
        ("blend", "--granularity", "coordinate"),
    ):
        assert main([name, *_folders(root), *more]) == 0
    return root


def _folders(root: Path) -> list[str]:
    return ["--data", str(root / "data"), "--folds", str(root / "folds"), "--submissions", str(root / "runs")]


def _verify(root: Path, name: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["verify", *_folders(root), str(root / "runs" / name)])
    told = capsys.readouterr()
    return code, told.out + told.err


def _next(byte: int) -> int:
    """Return another digit, letter or byte, so that text stays text."""
    return b"1234567890"[byte - 48] if 48 <= byte < 58 else byte ^ 1


# file: the first byte after this text is changed; what tells of it, besides its name
RUN, FOLD = "runs/3dhg-small", "runs/3dhg-small/fold1"
BYTES = {
    "data/annot/train_images.txt": (b"S1_", "other images"),
    "data/annot/valid_images.txt": (b".", "another test set"),
    "data/annot/train.h5": (b"", "other labels"),
    "folds/folds.csv": (b"fold\n1", "other folds"),
    "folds/folds.json": (b'"k": ', "folds.json is not of the"),
    f"{FOLD}/config.json": (b'"seed": ', "config.json: has changed since"),
    f"{FOLD}/last.pt": (b"", "last.pt: has changed since"),
    f"{FOLD}/best.pt": (b"", "best.pt: has changed since"),
    f"{FOLD}/valid_epoch01.npz": (b"", "valid_epoch01.npz: has changed since"),
    f"{FOLD}/test_epoch01.csv.gz": (b"", "test_epoch01.csv.gz: has changed since"),
    f"{FOLD}/log.jsonl": (b'"train_loss": ', "done.json: log_sha256 is"),
    "runs/blend/blend.json": (b'"mpjpe_mean": ', "blend.json: has changed since"),
    "runs/blend/submission.csv.gz": (b"", "submission.csv.gz: has changed since"),
    "runs/blend/submission_mean.csv.gz": (b"", "submission_mean.csv.gz: has changed since"),
    "runs/blend/submission_coordinate.csv.gz": (b"", "submission_coordinate.csv.gz: has changed since"),
    "runs/blend/weights.csv": (b"Hip,x,", "weights.csv: has changed since"),
    "runs/blend/weights.png": (b"", "weights.png: has changed since"),
}


@pytest.mark.parametrize("file", BYTES)
def test_one_byte_that_changes_in_any_file_is_named(made: Path, tmp_path: Path, capsys, file: str):
    root = shutil.copytree(made, tmp_path / "root", copy_function=os.link)
    after, message = BYTES[file]
    content = bytearray((root / file).read_bytes())
    place = content.index(after) + len(after) if after else len(content) // 2
    content[place] = _next(content[place])
    (root / file).unlink()
    (root / file).write_bytes(content)
    code, told = _verify(root, "blend" if "blend" in file else "3dhg-small", capsys)
    assert code == 2
    assert message in told
    if file.startswith(("data", "folds")) or "epoch" in file:  # what a blend is made of, too
        code, told = _verify(root, "blend", capsys)
        assert code == 2
        assert message in told


def test_any_value_of_a_manifest_that_changes_is_named(made: Path, tmp_path: Path, capsys):
    root = shutil.copytree(made, tmp_path / "root")
    for file, name in (("runs/3dhg-small/fold0/done.json", "3dhg-small"), ("runs/blend/blend.json", "blend")):
        facts = json.loads((root / file).read_text())
        assert _verify(root, name, capsys)[0] == 0
        for key in facts:
            value = facts[key] + 1 if isinstance(facts[key], int | float) else {} if facts[key] else ["x"]
            if key in ("seconds", "table") and name == "blend":  # timings alone are its own
                continue
            (root / file).write_text(json.dumps(facts | {key: value}))
            code, told = _verify(root, name, capsys)
            assert (code, key, Path(file).name in told or "is new since" in told) == (2, key, True), told
        (root / file).write_text(json.dumps(facts))


def test_a_file_that_came_later_and_another_submission_are_named(made: Path, tmp_path: Path, capsys):
    root = shutil.copytree(made, tmp_path / "root")
    code, told = _verify(root, "3dhg-small", capsys)
    assert code == 0
    assert "the folds' means at 3dhg-small:1 differ from submission.csv.gz by at most 0.000" in told
    submission = root / RUN / "submission.csv.gz"
    poses = read_poses(submission)
    write_poses(submission, poses.id, poses.pose_mm + 0.01)
    code, told = _verify(root, "3dhg-small", capsys)
    assert code == 2
    assert "wrong: " in told
    assert "differ from submission.csv.gz by at most 0.010" in told
    shutil.copy(root / FOLD / "valid_epoch01.npz", root / FOLD / "valid_epoch02.npz")
    code, told = _verify(root, "3dhg-small", capsys)
    assert code == 2
    assert "valid_epoch02.npz: is new since" in told


def test_a_blend_s_scores_and_submission_are_computed_again(made: Path, tmp_path: Path, capsys):
    """Where there are no hashes, or new ones."""
    root = shutil.copytree(made, tmp_path / "root")
    file = root / "runs/blend/blend.json"
    facts = json.loads(file.read_text())
    del facts["facts_sha256"], facts["outputs"]
    for key in ("mpjpe_mean", "mpjpe_blend_in_sample"):
        file.write_text(json.dumps(facts | {key: facts[key] - 0.01}))
        code, told = _verify(root, "blend", capsys)
        assert code == 2
        assert f"{key} is {facts[key]:.3f} mm, but blend.json says" in told
    file.write_text(json.dumps(facts))
    submission = root / "runs/blend/submission.csv.gz"
    poses = read_poses(submission)
    write_poses(submission, poses.id, poses.pose_mm + 1)
    code, told = _verify(root, "blend", capsys)
    assert code == 2
    assert "differ from submission.csv.gz by at most 1.00" in told
