"""Names of files and folders that look like poses but aren't read."""

from pathlib import Path

import pytest

from competition.runs.misnamed import misnamed


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


READ = ("mate/fold0/valid_epoch01.npz", "mate/fold0/test_epoch01.csv.gz", "mate/fold1/valid_epoch12.csv")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *((f"mate/fold0/{file}", None) for file in (
            "valid_epoch1.npz", "valid.npz", "Valid_epoch01.npz", "valid-epoch01.npz", "valid_epoch01.NPZ", "oof.npz",
            "valid_epoch01 (1).npz", "valid_epoch02.npy", "valid_epoch02.csv.bz2", "valid_epoch02", "test.csv",
            "test_epoch1.csv", "test_epoch02.csv.zip", "test_epoch02.npz", "submission.csv.gz", "submission.csv",
            "predictions.npy", "poses.h5", "poses.pkl", "poses.parquet", "poses.txt", "poses.json", "ids.npy",
            "valid_epoch001.npz",  # epoch 1 again
        )),
        ("mate/foldfull/test_epoch1.csv.gz", None),
        ("mate/fold0/poses/valid_epoch01.npz", "mate/fold0/poses"),
        ("mate/mate/fold0/valid_epoch01.npz", "mate/mate"),  # as some archives are unpacked
        *((f"mate/{folder}/valid_epoch01.npz", f"mate/{folder}") for folder in (
            "fold_0", "Fold0", "fold-0", "fold 0", "FOLD0", "folds0", "kfold0", "0", "00", "fold", "fold_full",
            "foldfull1", "validation", "first",
        )),
        ("mate/fold_0/poses.csv", "mate/fold_0"),
        ("mate/fold00/valid_epoch01.npz", "mate/fold00"),  # the same fold as fold0
        *((f"mate/{file}", None) for file in ("valid_epoch01.npz", "test_epoch01.csv.gz", "oof.npy", "Test.csv",
                                              "pred.csv", "predictions.h5", "val.npz", "fold0_valid.npz")),
        *((file, None) for file in ("valid_epoch01.npz", "test_epoch01.csv", "oof.npz", "predictions.csv")),
    ],
)  # fmt: skip
def test_misnamed_files_are_found(tmp_path: Path, name: str, path: str | None):
    (found,) = misnamed(make(tmp_path, *READ, name))
    assert found.paths == (tmp_path / (path or name),)
    line = str(found)
    assert "\n" not in line
    assert f"{tmp_path / (path or name)} is ignored" in line
    assert "fold0/valid_epoch01.npz" in line
    assert line.startswith("run mate: ") == ("/" in name)
    assert ("another file of the same epoch" in line) == (name == "mate/fold0/valid_epoch001.npz")


@pytest.mark.parametrize(
    "name",
    [
        *(f"mate/fold0/{file}" for file in (
            "config.json", "done.json", "log.jsonl", "last.pt", "best.pt", ".valid.npz", "README.md", "README.txt",
            "train.log", "test_epoch02.csv", "metrics.json", "args.json", "notes.txt", "requirements.txt",
            "history.pkl", "train_log.csv", "valid_epoch01.png", "archive.zip",
        )),
        *(f"mate/{file}" for file in (
            "submission.csv.gz", "submission.csv", "photos/valid.csv", "README.md", "notes.txt", "latest.csv",
            "testing.csv", "values.csv", "poses.csv", ".old/valid_epoch01.npz", "foldfull/test_epoch01.csv.gz",
            "scans/fold_1.csv", "valid.png", "mate/notes.txt", "mate/folds.txt",
        )),
        "blend-1a2b3c4d/blend.json", "renamed/blend.json", "report.html", "scores.csv", "ledger.csv", "README.md",
        "mine.csv", "a.csv.gz", "files/a.csv", ".tune/study/valid_epoch01.npz", ".valid.csv",
        "real/3dhg/fold0/valid_epoch01.npz", "real/3dhg/submission.csv.gz", "real/scores.csv",
    ],
)  # fmt: skip
def test_other_names_are_no_reason_for_a_warning(tmp_path: Path, name: str):
    make(tmp_path, *READ, name)
    for blend in tmp_path.glob("*/blend.json"):
        make(blend.parent, "submission.csv.gz", "submission_mean.csv.gz", "weights.csv", "study.journal", "test.csv")
    assert misnamed(tmp_path) == []
    assert misnamed(tmp_path / "missing") == []


def test_one_warning_per_run_counts_the_files(tmp_path: Path):
    make(tmp_path, "a/fold0/valid.npz", "a/fold0/test.csv", "a/fold_1/oof.npz", "b/0/valid.npz", "test.csv")
    lines = [str(found) for found in misnamed(tmp_path)]
    assert len(lines) == 3
    assert any(line.startswith(f"run a: {tmp_path}/a/fold0/test.csv and 2 more are ignored") for line in lines)
    assert [found.run for found in misnamed(tmp_path, ["b", "none"])] == ["b"]
