"""Faults of disk, data and processes during training.

After each fault no incomplete file has its final name, and repeating the command ends with the same files as a training
without faults.
"""

import errno
import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from competition.cli.main import main
from competition.training import loader, loop, trainer
from competition.training.trainer import Trainer
from tests.helpers import Command, contents, failing, names_in
from tests.training.helpers import TRAIN

FOLD = "runs/3dhg-small/fold0"


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Train without a fault and return the content of the fold's folder."""
    root = tmp_path_factory.mktemp("whole")
    folders = ["--data", str(data), "--folds", str(root / "folds"), "--submissions", str(root / "runs")]
    assert main(["folds", *folders, "--k", "2"]) == 0
    assert main([TRAIN[0], *folders, *TRAIN[1:]]) == 0
    return contents(root / FOLD)


def assert_one_error(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """Check that stderr is one error line that contains these words."""
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_training_resumes_after_a_write_error_at_any_file(
    command: Command, folds: None, whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    """Each file in turn can't be written, for different reasons."""
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
        assert_one_error(capsys, os.strerror(code), "permissions")
        assert name not in names_in(tmp_path / "runs")
        assert not [file for file in names_in(tmp_path / "runs") if file.endswith(".tmp")]
    (tmp_path / FOLD / ".last.pt.1.0a.tmp").write_bytes(b"half")  # as left by a killed process
    assert command(*TRAIN) == 0
    assert contents(tmp_path / FOLD) == whole
    assert (tmp_path / "runs/3dhg-small/submission.csv.gz").exists()


def test_another_configuration_is_refused_once_an_epochs_files_exist_even_without_a_checkpoint(
    command: Command, folds: None, monkeypatch: pytest.MonkeyPatch, capsys
):
    with failing(monkeypatch, "last.pt", errno.ENOSPC):
        assert command(*TRAIN) == 2
    capsys.readouterr()
    assert command(*TRAIN, "--lr", "0.5") == 2
    assert_one_error(capsys, "fold0", "(lr 0.001 -> 0.5)")


def test_a_file_size_limit_is_reported_and_leaves_no_incomplete_file(
    command: Command, folds: None, whole: dict[str, object], tmp_path: Path, capsys
):
    """The system's limit is reached in the middle of a file, without replacing the code that writes it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    capsys.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        assert command(*TRAIN) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_one_error(capsys, "File too large", "permissions")
    assert names_in(tmp_path / "runs") == {"config.json", "valid_epoch01.npz", "test_epoch01.csv.gz", "log.jsonl"}
    assert command(*TRAIN) == 0
    assert contents(tmp_path / FOLD) == whole


def test_a_folder_that_cannot_be_created_is_reported(command: Command, folds: None, tmp_path: Path, capsys):
    (tmp_path / "runs").write_text("a file instead of the folder")
    assert command(*TRAIN) == 2
    assert_one_error(capsys, str(tmp_path / "runs"), "permissions")
    (tmp_path / "runs").unlink()


def test_images_that_disappear_during_training_are_reported(
    command: Command, folds: None, own_data: Path, whole: dict[str, object], tmp_path: Path, capsys,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    images, moved = own_data / "images", own_data / "moved"
    step = Trainer.update_weights

    def move_images(*arguments: object) -> object:
        if images.exists():
            images.rename(moved)
        return step(*arguments)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update_weights", move_images)
        assert command(*TRAIN, data=own_data) == 2
    assert_one_error(capsys, str(images), "does not exist")
    assert command(*TRAIN, data=own_data) == 2  # still missing
    assert_one_error(capsys, f"no folder {images}")
    moved.rename(images)
    assert names_in(tmp_path / "runs") == {"config.json"}
    assert command(*TRAIN, data=own_data) == 0
    assert contents(tmp_path / FOLD) == whole


def test_a_loader_process_that_dies_is_reported(
    command: Command, folds: None, whole: dict[str, object], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    parent, read = os.getpid(), loader.read_image

    def die(*arguments: object) -> object:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loader, "read_image", die)
        assert command(*TRAIN, "--workers", "1") == 2
    assert_one_error(capsys, "a loader process died", "lower --workers", "resumes from the last checkpoint")
    assert command(*TRAIN, "--workers", "1") == 0
    assert contents(tmp_path / FOLD) == whole


def test_a_loss_or_weights_that_are_not_finite_leave_the_checkpoint_unchanged(
    command: Command, folds: None, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    """A NaN loss in the second epoch; infinite weights when SIGTERM arrives."""
    last = tmp_path / FOLD / "last.pt"
    calls, step = 0, Trainer.update_weights

    def nan_loss(trainer: Trainer, *arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return step(trainer, *arguments) * (float("nan") if calls == 2 else 1.0)

    def infinite_weights_and_sigterm(trainer: Trainer, *arguments: object) -> torch.Tensor:
        loss = step(trainer, *arguments)
        with torch.no_grad():
            next(iter(trainer.model.parameters())).fill_(float("inf"))
        signal.raise_signal(signal.SIGTERM)
        return loss

    assert command(*TRAIN) == 0
    before = last.read_bytes()
    monkeypatch.setattr(trainer, "CHECK_STEPS", 1)
    monkeypatch.setattr(Trainer, "update_weights", nan_loss)
    assert command(*TRAIN, "--epochs", "2") == 2
    assert_one_error(capsys, "no longer finite in epoch 2", "Ids [", "last finite mean: ", " at step 1", "unchanged")
    assert last.read_bytes() == before
    monkeypatch.setattr(Trainer, "update_weights", infinite_weights_and_sigterm)
    assert command(*TRAIN, "--epochs", "2") == 2
    assert_one_error(capsys, "the weights are no longer finite (epoch 2, step 1)", "unchanged")
    assert last.read_bytes() == before


@pytest.mark.parametrize(("owner", "work", "steps"), [(Trainer, "update_weights", 1), (loop, "predict", 2)])
def test_sigterm_saves_the_steps_taken_and_stops(
    command: Command, folds: None, whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], owner: object, work: str, steps: int,
):  # fmt: skip
    """During training, and during the prediction of held-out rows."""
    do = getattr(owner, work)

    def terminated(*arguments: object, **keywords: object) -> object:
        signal.raise_signal(signal.SIGTERM)
        return do(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(owner, work, terminated)
        capsys.readouterr()
        assert command(*TRAIN) == 143
    error = capsys.readouterr().err
    assert error.startswith("interrupted")
    assert error.count("\n") == 1
    assert torch.load(tmp_path / FOLD / "last.pt", weights_only=True)["part"]["step"] == steps
    assert names_in(tmp_path / FOLD) == {"config.json", "last.pt"}
    assert command(*TRAIN) == 0
    assert contents(tmp_path / FOLD) == whole


def test_a_checkpoint_is_written_within_an_epoch_when_it_is_due(
    command: Command, folds: None, whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    step, last, saved_steps = Trainer.update_weights, tmp_path / FOLD / "last.pt", []

    def record(*arguments: object) -> object:
        saved_steps.append(torch.load(last, weights_only=True)["part"]["step"] if last.exists() else 0)
        return step(*arguments)

    monkeypatch.setattr(Trainer, "update_weights", record)
    assert command(*TRAIN, "--checkpoint-minutes", "0") == 0
    assert saved_steps == [0, 1]
    assert contents(tmp_path / FOLD) == whole


def test_resuming_with_changed_labels_or_test_set_is_refused(
    command: Command, folds: None, own_data: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    with failing(monkeypatch, "done.json", errno.ENOSPC):
        assert command(*TRAIN, data=own_data) == 2
    names = own_data / "annot/valid_images.txt"
    lines = names.read_text()
    names.write_text("\n".join(reversed(lines.splitlines())) + "\n")
    capsys.readouterr()
    assert command(*TRAIN, data=own_data) == 2
    assert_one_error(capsys, "test_images_sha256")
    names.write_text(lines)
    labels = own_data / "annot/train.h5"
    before = labels.read_bytes()
    labels.write_bytes(before + b"more")  # ignored by HDF5
    assert command(*TRAIN, data=own_data) == 2
    assert_one_error(capsys, "(labels_sha256 ")
    labels.write_bytes(before)
    assert command(*TRAIN, data=own_data) == 0
