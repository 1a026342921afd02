"""Files of poses without which an epoch that would be chosen is left out."""

import json
from pathlib import Path

import numpy as np
import pytest

from competition.runs.folders import write_valid
from competition.runs.missing import describe_missing, missing_files

ERRORS = {1: 90.0, 2: 80.0, 3: 85.0}  # mm by epoch


def write_fold(folder: Path, errors: dict[int, float], *, logged: bool = True, done: bool = True) -> None:
    folder.mkdir(parents=True)
    for epoch in errors:
        write_valid(folder / f"valid_epoch{epoch:02d}.npz", np.arange(1, 4), np.zeros((3, 17, 3)))
        (folder / f"test_epoch{epoch:02d}.csv.gz").touch()
    if logged:
        rows = [json.dumps({"epoch": epoch, "valid_mpjpe": error}) for epoch, error in errors.items()]
        (folder / "log.jsonl").write_text("".join(f"{row}\n" for row in rows))
        (folder / "config.json").write_text("{}")
        if done:
            (folder / "done.json").write_text("{}")


@pytest.mark.parametrize(
    ("epochs", "deleted", "missing"),
    [
        ("best", ["fold1/valid_epoch02.npz"], {"fold1/valid_epoch02.npz": 2}),
        ("best", ["fold0/test_epoch02.csv.gz"], {"fold0/test_epoch02.csv.gz": 2}),
        ("best", ["*/*_epoch02.*"], {f"fold{k}/{name}": 2 for k in (0, 1) for name in (
            "valid_epoch02.npz", "test_epoch02.csv.gz")}),
        ("best", ["fold1/*_epoch*"], {"fold1/valid_epoch02.npz": 2, "fold1/test_epoch02.csv.gz": 2}),
        ("best", ["fold1/*_epoch01*", "fold0/*_epoch03*"], {}),
        ("best", ["*/*_epoch01*", "*/*_epoch03*"], {}),
        ("last", ["*/*_epoch01*", "*/*_epoch02*"], {}),
        ("last", ["fold0/valid_epoch03.npz"], {"fold0/valid_epoch03.npz": 3}),
        ("all", ["fold0/valid_epoch03.npz", "fold1/valid_epoch01.npz"], {"fold1/valid_epoch01.npz": 1,
                                                                          "fold0/valid_epoch03.npz": 3}),
        ("1, 3", ["fold0/valid_epoch02.npz"], {}),
        ("1,3,4", ["fold0/valid_epoch03.npz"], {"fold0/valid_epoch03.npz": 3}),
        ("4", [], {}),
    ],
)  # fmt: skip
def test_files_of_chosen_epochs_are_missed(tmp_path: Path, epochs: str, deleted: list[str], missing: dict[str, int]):
    run = tmp_path / "a"
    for fold in (0, 1):
        write_fold(run / f"fold{fold}", ERRORS)
    assert missing_files(run, epochs) == {}
    for pattern in deleted:
        for path in run.glob(pattern):
            path.unlink()
    found = missing_files(run, epochs)
    assert found == {run / name: epoch for name, epoch in missing.items()}
    if found:
        line = describe_missing("a", found)
        assert str(next(iter(found))) in line
        assert ("1 more" in line) == (len(found) == 2)


def test_the_best_epoch_is_that_of_all_folds(tmp_path: Path):
    write_fold(tmp_path / "fold0", {1: 90.0, 2: 80.0})
    write_fold(tmp_path / "fold1", {1: 60.0, 2: 80.0})
    (tmp_path / "fold0/valid_epoch02.npz").unlink()
    assert missing_files(tmp_path) == {}
    (tmp_path / "fold0/valid_epoch01.npz").unlink()
    assert missing_files(tmp_path) == {tmp_path / "fold0/valid_epoch01.npz": 1}


@pytest.mark.parametrize("epochs", ["best", "last", "all", "1,2,3"])
def test_a_run_in_training_lacks_nothing(tmp_path: Path, epochs: str):
    write_fold(tmp_path / "a/fold0", ERRORS)
    write_fold(tmp_path / "a/fold1", {1: 95.0}, done=False)
    (tmp_path / "a/fold1/valid_epoch02.npz").touch()  # the log is written last
    (tmp_path / "a/fold2").mkdir()
    (tmp_path / "a/fold2/config.json").write_text("{}")
    assert missing_files(tmp_path / "a", epochs) == {}
    (tmp_path / "first/fold0").mkdir(parents=True)
    (tmp_path / "first/fold0/config.json").write_text("{}")
    (tmp_path / "first/fold0/valid_epoch01.npz").touch()
    (tmp_path / "full/foldfull").mkdir(parents=True)
    assert missing_files(tmp_path / "first", epochs) == missing_files(tmp_path / "full", epochs) == {}


@pytest.mark.parametrize(
    ("deleted", "count"), [("fold1/*_epoch02*", 2), ("*/valid_epoch02*", 2), ("fold0/test_*3*", 1)]
)
def test_epochs_of_external_predictions_with_some_files_are_missed(tmp_path: Path, deleted: str, count: int):
    for fold in (0, 1):
        write_fold(tmp_path / f"fold{fold}", ERRORS, logged=False)
    assert missing_files(tmp_path) == {}
    for path in tmp_path.glob(deleted):
        path.unlink()
    assert len(missing_files(tmp_path)) == count
    assert missing_files(tmp_path, "1") == {}
