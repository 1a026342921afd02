"""What goes wrong at night: after each fault no half-written file has a final name, and the same command ends the run
with the files of one that nothing disturbed."""

import errno
import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from competition.cli.main import main
from competition.training import loader
from competition.training import loop as train
from tests.helpers import Command, contents, failing, names_in
from tests.training.helpers import TRAIN

FOLD = "runs/3dhg-small/fold0"


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Train without a fault, and return what is in the fold's folder."""
    root = tmp_path_factory.mktemp("whole")
    folders = ["--data", str(data), "--folds", str(root / "folds"), "--submissions", str(root / "runs")]
    assert main(["folds", *folders, "--k", "2"]) == 0
    assert main([TRAIN[0], *folders, *TRAIN[1:]]) == 0
    return contents(root / FOLD)


def told_once(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_a_full_disk_at_any_file_loses_nothing(
    command: Command, folds: None, whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    """Every file in turn can't be written, each for a reason of its own; the same command goes on after each."""
    faults = {
        "config.json": errno.EACCES,
        "valid_epoch01.npz": errno.ENOSPC,
        "test_epoch01.csv.gz": errno.EDQUOT,
        "log.jsonl": errno.EROFS,
        "last.pt": errno.ENOSPC,
        "done.json": errno.ENOSPC,
        "submission.csv.gz": errno.ENOSPC,
    }
    for name, code in faults.items():
        capsys.readouterr()
        with failing(monkeypatch, name, code):
            assert command(*TRAIN) == 2
        told_once(capsys, os.strerror(code), "make room or mend the permissions")
        assert name not in names_in(tmp_path / "runs")
        assert not [left for left in names_in(tmp_path / "runs") if left.endswith(".tmp")]
    (tmp_path / FOLD / ".last.pt.1.0a.tmp").write_bytes(b"half")  # as a killed process leaves it
    assert command(*TRAIN) == 0
    assert contents(tmp_path / FOLD) == whole
    assert (tmp_path / "runs/3dhg-small/submission.csv.gz").exists()


def test_an_epoch_s_files_bind_the_name_without_a_checkpoint(
    command: Command, folds: None, monkeypatch: pytest.MonkeyPatch, capsys
):
    with failing(monkeypatch, "last.pt", errno.ENOSPC):
        assert command(*TRAIN) == 2
    capsys.readouterr()
    assert command(*TRAIN, "--lr", "0.5") == 2
    told_once(capsys, "fold0 was trained with another configuration (lr 0.001 -> 0.5)")


def test_a_disk_that_takes_no_large_files_is_told(
    command: Command, folds: None, whole: dict[str, object], tmp_path: Path, capsys
):
    """The system's own limit, met in the middle of a file by the code that really writes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    capsys.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        assert command(*TRAIN) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told_once(capsys, "File too large", "make room")
    assert names_in(tmp_path / "runs") == {"config.json", "valid_epoch01.npz", "test_epoch01.csv.gz", "log.jsonl"}
    assert command(*TRAIN) == 0
    assert contents(tmp_path / FOLD) == whole


def test_a_folder_that_can_not_be_made_is_told(command: Command, folds: None, tmp_path: Path, capsys):
    (tmp_path / "runs").write_text("a file in the folder's place")
    assert command(*TRAIN) == 2
    told_once(capsys, str(tmp_path / "runs"), "make room or mend the permissions")
    (tmp_path / "runs").unlink()


def test_a_data_folder_that_vanishes_is_told(
    command: Command, folds: None, own_data: Path, whole: dict[str, object], tmp_path: Path, capsys,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    images, away = own_data / "images", own_data / "away"
    step = train.train_step

    def vanish(*arguments: object) -> object:
        if images.exists():
            images.rename(away)
        return step(*arguments)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", vanish)
        assert command(*TRAIN, data=own_data) == 2
    told_once(capsys, str(images), "does not exist")
    assert command(*TRAIN, data=own_data) == 2  # still away
    told_once(capsys, f"no folder {images}")
    away.rename(images)
    assert names_in(tmp_path / "runs") == {"config.json"}
    assert command(*TRAIN, data=own_data) == 0
    assert contents(tmp_path / FOLD) == whole


def test_a_loading_process_that_dies_is_told(
    command: Command, folds: None, whole: dict[str, object], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    parent, read = os.getpid(), loader.read_image

    def dies(*arguments: object) -> object:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loader, "read_image", dies)
        assert command(*TRAIN, "--workers", "1") == 2
    told_once(capsys, "a process that loads images died", "lower --workers", "goes on after the last checkpoint")
    assert command(*TRAIN, "--workers", "1") == 0
    assert contents(tmp_path / FOLD) == whole


def test_what_is_no_longer_finite_leaves_the_checkpoint(
    command: Command, folds: None, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    """A loss that is NaN in the second epoch; weights that are, just when the training is told to end."""
    last = tmp_path / FOLD / "last.pt"
    calls, step = 0, train.train_step

    def not_finite(trainer: train.Trainer, *arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return step(trainer, *arguments) * (float("nan") if calls == 2 else 1.0)

    def not_finite_and_told(trainer: train.Trainer, *arguments: object) -> torch.Tensor:
        loss = step(trainer, *arguments)
        with torch.no_grad():
            next(iter(trainer.model.parameters())).fill_(float("inf"))
        signal.raise_signal(signal.SIGTERM)
        return loss

    assert command(*TRAIN) == 0
    before = last.read_bytes()
    monkeypatch.setattr(train, "LOOK_EVERY", 1)
    monkeypatch.setattr(train, "train_step", not_finite)
    assert command(*TRAIN, "--epochs", "2") == 2
    told_once(capsys, "no longer finite in epoch 2", "Ids [", "last finite mean: ", " at step 1", "untouched")
    assert last.read_bytes() == before
    monkeypatch.setattr(train, "train_step", not_finite_and_told)
    assert command(*TRAIN, "--epochs", "2") == 2
    told_once(capsys, "the weights are no longer finite (epoch 2, step 1)", "untouched")
    assert last.read_bytes() == before


@pytest.mark.parametrize(("work", "steps"), [("train_step", 1), ("predict", 2)])
def test_told_to_end_it_keeps_the_steps_and_stops(
    command: Command, folds: None, whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], work: str, steps: int,
):  # fmt: skip
    """While it trains, and while it predicts what was held out."""
    do = getattr(train, work)

    def told(*arguments: object, **keywords: object) -> object:
        signal.raise_signal(signal.SIGTERM)
        return do(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(train, work, told)
        capsys.readouterr()
        assert command(*TRAIN) == 143
    assert capsys.readouterr().err == "interrupted: the same command goes on where this one stopped\n"
    assert torch.load(tmp_path / FOLD / "last.pt", weights_only=True)["part"]["step"] == steps
    assert names_in(tmp_path / FOLD) == {"config.json", "last.pt"}
    assert command(*TRAIN) == 0
    assert contents(tmp_path / FOLD) == whole


def test_a_checkpoint_is_written_within_an_epoch_when_it_is_due(
    command: Command, folds: None, whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    step, last, kept = train.train_step, tmp_path / FOLD / "last.pt", []

    def look(*arguments: object) -> object:
        kept.append(torch.load(last, weights_only=True)["part"]["step"] if last.exists() else 0)
        return step(*arguments)

    monkeypatch.setattr(train, "train_step", look)
    assert command(*TRAIN, "--checkpoint-minutes", "0") == 0
    assert kept == [0, 1]
    assert contents(tmp_path / FOLD) == whole


def test_labels_or_a_test_set_that_changed_meanwhile_are_refused(
    command: Command, folds: None, own_data: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    with failing(monkeypatch, "done.json", errno.ENOSPC):
        assert command(*TRAIN, data=own_data) == 2
    names = own_data / "annot/valid_images.txt"
    lines = names.read_text()
    names.write_text("\n".join(reversed(lines.splitlines())) + "\n")
    capsys.readouterr()
    assert command(*TRAIN, data=own_data) == 2
    told_once(capsys, "test_images_sha256")
    names.write_text(lines)
    labels = own_data / "annot/train.h5"
    before = labels.read_bytes()
    labels.write_bytes(before + b"more")  # which HDF5 doesn't mind
    assert command(*TRAIN, data=own_data) == 2
    told_once(capsys, "(labels_sha256 ")
    labels.write_bytes(before)
    assert command(*TRAIN, data=own_data) == 0
