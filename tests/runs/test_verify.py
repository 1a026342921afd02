"""`verify`: unchanged folders pass, and every changed file, score or hash is reported."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from competition.cli.main import main
from competition.common.files import sha256_file, sha256_lines
from competition.common.pose_csv import read_poses, write_poses
from competition.data.labels import read_labels
from competition.data.views import Views
from tests.helpers import TINY, Command


def test_unchanged_folders_pass_and_changed_files_are_reported(command: Command, run: Path, capsys):
    runs = run.parent
    run.rename(runs / "a")
    assert command("train", *TINY, "--epochs", "1", "--run", "b", "--seed", "1") == 0
    assert command("blend", "--granularity", "coordinate") == 0
    capsys.readouterr()
    for folder in (runs / "a", runs / "a/fold1", runs / "blend"):
        assert command("verify", str(folder)) == 0
    printed = capsys.readouterr().out
    assert "5 of 5 files" in printed
    assert "out of fold" in printed
    assert "differ from submission.csv.gz by at most 0.000" in printed

    log = runs / "b/fold0/log.jsonl"
    row = json.loads(log.read_text())
    log.write_text(json.dumps(row | {"valid_mpjpe": row["valid_mpjpe"] - 5}) + "\n")
    submission = runs / "blend/submission.csv.gz"
    poses = read_poses(submission)
    write_poses(submission, poses.id, poses.pose_mm + 1)
    assert command("verify", str(runs / "b")) == 2
    assert "but its log has" in capsys.readouterr().out
    assert command("verify", str(runs / "blend")) == 2
    assert "submission.csv.gz: has changed" in capsys.readouterr().out
    (runs / "a/fold0/last.pt").write_bytes(b"other")
    (runs / "a/fold1/test_epoch01.csv.gz").unlink()
    assert command("verify", str(runs / "a")) == 2
    printed = capsys.readouterr().out
    assert "last.pt: has changed" in printed
    assert "test_epoch01.csv.gz: is missing" in printed
    assert command("verify", str(runs)) == 2
    assert "expected a run's folder" in capsys.readouterr().err


def test_provenance_is_recorded_and_compared_with_the_data(command: Command, run: Path, own_data: Path, capsys):
    assert command("blend", "--method", "mean", data=own_data) == 0
    runs = run.parent
    done = json.loads((runs / "3dhg-small/fold0/done.json").read_text())
    blend = json.loads((runs / "blend/blend.json").read_text())
    assert "config.json" in done["files"]
    assert {name.rpartition("/")[2] for name in blend["inputs"]} == {"valid_epoch01.npz", "test_epoch01.csv.gz"}
    made = blend["provenance"]
    assert made == done["provenance"]
    assert made["labels_sha256"] == sha256_file(own_data / "annot/train.h5")
    assert made["folds_sha256"] == sha256_file(runs.parent / "folds/folds.csv")
    assert made["test_images_sha256"] == sha256_lines((own_data / "annot/valid_images.txt").read_text().splitlines())
    assert set(made["versions"]) == {"python", "torch", "timm", "numpy"}
    assert set(made) == {"images_sha256", "labels_sha256", "test_images_sha256", "folds_sha256", "versions", "git"}
    assert made["git"] is None or len(made["git"]) == 40

    file = str(runs / "3dhg-small/submission.csv.gz")
    assert command("blend", "--files", file, "--out", str(runs / "files"), data=own_data) == 0
    alone = json.loads((runs / "files/blend.json").read_text())["provenance"]
    assert alone == made | dict.fromkeys(("folds_sha256", "images_sha256", "labels_sha256"))
    for changed, message in (("train.h5", "other labels than"), ("valid_images.txt", "another test set than")):
        path = own_data / "annot" / changed
        before = path.read_bytes()
        path.write_bytes(before + b"more.jpg\n")
        for folder in ("3dhg-small", "blend"):
            capsys.readouterr()
            assert command("verify", str(runs / folder), data=own_data) == 2
            assert message in capsys.readouterr().out
        path.write_bytes(before)
    assert command("verify", str(runs / "blend"), data=own_data) == 0
    (runs / "3dhg-small/fold0/config.json").write_text("{}")
    assert command("verify", str(runs / "blend"), data=own_data) == 0  # the blended poses are unchanged
    assert command("verify", str(runs / "3dhg-small/fold0"), data=own_data) == 2
    assert "config.json: has changed" in capsys.readouterr().out
    own = runs / "3dhg-small/fold1/done.json"
    own.write_text(json.dumps(json.loads(own.read_text()) | {"valid_mpjpe": 1.5}))
    assert command("verify", str(runs / "3dhg-small/fold1"), data=own_data) == 2
    assert "done.json: valid_mpjpe is 1.5, but the other files " in capsys.readouterr().out


def test_a_second_level_is_applied_again(command: Command, run: Path, capsys):
    assert command("blend", "--stack") == 0
    blend = run.parent / "blend"
    assert command("verify", str(blend)) == 0
    assert "the weights and stack.npz applied to the inputs differ" in capsys.readouterr().out
    facts, level = json.loads((blend / "blend.json").read_text()), blend / "stack.npz"
    with np.load(level) as arrays:
        np.savez(level, **dict(arrays) | {"offset_mm": arrays["offset_mm"] + 1})
    facts["outputs"]["stack.npz"] = sha256_file(level)
    del facts["facts_sha256"]
    (blend / "blend.json").write_text(json.dumps(facts))
    assert command("verify", str(blend)) == 2
    assert "wrong: " in capsys.readouterr().out


@pytest.mark.parametrize("array", ["offset_mm", "views", "views_offset_mm"])
def test_other_cameras_are_applied_again(
    array: str, command: Command, run: Path, data: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    mate, labels = run.parent / "mate/fold0", read_labels(data)
    mate.mkdir(parents=True)
    np.savez(mate / "valid_epoch01.npz", id=labels.id[3:], pose=labels.pose_mm[3:])  # lacks some images
    shutil.copy(run / "fold0/test_epoch01.csv.gz", mate)
    for module in ("data.views", "runs.fusion"):
        monkeypatch.setattr(f"competition.{module}.LEAST_SHARED", 1)  # the test set is small
    assert command("blend", "--stack", "--views") == 0
    assert "no longer monocular" in capsys.readouterr().out
    blend = run.parent / "blend"
    assert command("verify", str(blend)) == 0
    assert "the weights and stack.npz applied to the inputs differ" in capsys.readouterr().out
    facts, level = json.loads((blend / "blend.json").read_text()), blend / "stack.npz"
    assert facts["shipped_method"] == facts["table"][-1]["method"] == "views"
    with np.load(level) as arrays:
        np.savez(level, **dict(arrays) | {array: 2 * arrays[array] + 1})
    facts["outputs"]["stack.npz"] = sha256_file(level)
    del facts["facts_sha256"]
    (blend / "blend.json").write_text(json.dumps(facts))
    assert command("verify", str(blend)) == 2
    assert "wrong: " in capsys.readouterr().out


def test_training_images_use_as_many_other_cameras_as_test_images_have(
    command: Command, run: Path, monkeypatch: pytest.MonkeyPatch
):
    for module in ("data.views", "runs.fusion"):
        monkeypatch.setattr(f"competition.{module}.LEAST_SHARED", 1)
    monkeypatch.setattr(Views, "others", lambda views: np.zeros(len(views.instant), int))  # of the test images
    assert command("blend", "--views", "--granularity", "coordinate") == 0
    facts = {row["method"]: row for row in json.loads((run.parent / "blend/blend.json").read_text())["table"]}
    assert facts["views"]["mpjpe_in_sample"] == pytest.approx(facts["optuna"]["mpjpe_in_sample"], abs=1e-3)
    assert command("verify", str(run.parent / "blend")) == 0


@pytest.fixture(scope="module")
def made(data: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collect data, folds, two runs and a blend, which tests copy before changing them."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(data, root / "data")
    shutil.copytree(finished, root, dirs_exist_ok=True)
    for name, *more in (
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
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def _next(byte: int) -> int:
    """Return a different digit, letter or byte, so that text remains valid text."""
    return b"1234567890"[byte - 48] if 48 <= byte < 58 else byte ^ 1


# file: the text after which one byte is changed (empty: in the middle of the file), and the expected message
RUN, FOLD = "runs/3dhg-small", "runs/3dhg-small/fold1"
BYTES = {
    "data/annot/train_images.txt": (b"S1_", "other images"),
    "data/annot/valid_images.txt": (b".", "another test set"),
    "data/annot/train.h5": (b"", "other labels"),
    "folds/folds.csv": (b"fold\n1", "other folds"),
    "folds/folds.json": (b'"k": ', "folds.json does not match"),
    f"{FOLD}/config.json": (b'"seed": ', "config.json: has changed"),
    f"{FOLD}/last.pt": (b"", "last.pt: has changed"),
    f"{FOLD}/best.pt": (b"", "best.pt: has changed"),
    f"{FOLD}/valid_epoch01.npz": (b"", "valid_epoch01.npz: has changed"),
    f"{FOLD}/test_epoch01.csv.gz": (b"", "test_epoch01.csv.gz: has changed"),
    f"{FOLD}/log.jsonl": (b'"train_loss": ', "done.json: log_sha256 is"),
    "runs/blend/blend.json": (b'"mpjpe_mean": ', "blend.json: has changed"),
    "runs/blend/submission.csv.gz": (b"", "submission.csv.gz: has changed"),
    "runs/blend/submission_mean.csv.gz": (b"", "submission_mean.csv.gz: has changed"),
    "runs/blend/submission_coordinate.csv.gz": (b"", "submission_coordinate.csv.gz: has changed"),
    "runs/blend/weights.csv": (b"Hip,x,", "weights.csv: has changed"),
    "runs/blend/weights.png": (b"", "weights.png: has changed"),
}


@pytest.mark.parametrize("file", BYTES)
def test_one_changed_byte_in_any_file_is_reported(made: Path, tmp_path: Path, capsys, file: str):
    root = shutil.copytree(made, tmp_path / "root", copy_function=os.link)
    after, message = BYTES[file]
    content = bytearray((root / file).read_bytes())
    place = content.index(after) + len(after) if after else len(content) // 2
    content[place] = _next(content[place])
    (root / file).unlink()
    (root / file).write_bytes(content)
    code, printed = _verify(root, "blend" if "blend" in file else "3dhg-small", capsys)
    assert code == 2
    assert message in printed
    if file.startswith(("data", "folds")) or "epoch" in file:  # these are inputs of the blend, too
        code, printed = _verify(root, "blend", capsys)
        assert code == 2
        assert message in printed


def test_any_changed_value_of_a_manifest_is_reported(made: Path, tmp_path: Path, capsys):
    root = shutil.copytree(made, tmp_path / "root")
    for file, name in (("runs/3dhg-small/fold0/done.json", "3dhg-small"), ("runs/blend/blend.json", "blend")):
        facts = json.loads((root / file).read_text())
        assert _verify(root, name, capsys)[0] == 0
        for key in facts:
            value = facts[key] + 1 if isinstance(facts[key], int | float) else {} if facts[key] else ["x"]
            if key in ("seconds", "table") and name == "blend":  # contain only timings
                continue
            (root / file).write_text(json.dumps(facts | {key: value}))
            code, printed = _verify(root, name, capsys)
            assert (code, key, Path(file).name in printed or "was added later" in printed) == (2, key, True), printed
        (root / file).write_text(json.dumps(facts))


def test_added_files_and_a_changed_submission_are_reported(made: Path, tmp_path: Path, capsys):
    root = shutil.copytree(made, tmp_path / "root")
    code, printed = _verify(root, "3dhg-small", capsys)
    assert code == 0
    assert "the averaged folds of 3dhg-small:1 differ from submission.csv.gz by at most 0.000" in printed
    submission = root / RUN / "submission.csv.gz"
    poses = read_poses(submission)
    write_poses(submission, poses.id, poses.pose_mm + 0.01)
    code, printed = _verify(root, "3dhg-small", capsys)
    assert code == 2
    assert "wrong: " in printed
    assert "differ from submission.csv.gz by at most 0.010" in printed
    shutil.copy(root / FOLD / "valid_epoch01.npz", root / FOLD / "valid_epoch02.npz")
    code, printed = _verify(root, "3dhg-small", capsys)
    assert code == 2
    assert "valid_epoch02.npz: was added later" in printed


def test_the_scores_and_the_submission_of_a_blend_are_recomputed(made: Path, tmp_path: Path, capsys):
    """Without the hashes in blend.json, recomputing is the only check."""
    root = shutil.copytree(made, tmp_path / "root")
    file = root / "runs/blend/blend.json"
    facts = json.loads(file.read_text())
    del facts["facts_sha256"], facts["outputs"]
    for key in ("mpjpe_mean", "mpjpe_blend_in_sample"):
        file.write_text(json.dumps(facts | {key: facts[key] - 0.01}))
        code, printed = _verify(root, "blend", capsys)
        assert code == 2
        assert f"{key} is {facts[key]:.3f} mm, but blend.json has" in printed
    file.write_text(json.dumps(facts))
    submission = root / "runs/blend/submission.csv.gz"
    poses = read_poses(submission)
    write_poses(submission, poses.id, poses.pose_mm + 1)
    code, printed = _verify(root, "blend", capsys)
    assert code == 2
    assert "differ from submission.csv.gz by at most 1.00" in printed
