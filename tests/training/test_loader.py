"""Loader processes that are stuck, can't send their batches or can't be started never make a training hang."""

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from competition.data.labels import read_test
from competition.training import loader
from competition.training.loader import Batch, KeyedBatches, PoseImages, make_loader
from tests.helpers import Command, contents
from tests.training.helpers import TRAIN

PARENT = os.getpid()
FOLD = "runs/3dhg-small/fold0"
WORKER = ("--workers", "1")


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the loader process stop at its twelfth image, in the second batch; return a file that it writes before."""
    read, count, reached = loader.read_image, 0, tmp_path / "stuck"

    def read_or_stop(*arguments: object) -> object:
        nonlocal count
        count += os.getpid() != PARENT
        if count == 12:
            time.sleep(0.5)  # until the first batch is sent
            reached.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loader, "read_image", read_or_stop)
    return reached


def test_a_stuck_loader_process_ends_the_training_with_one_line(
    command: Command, folds: None, stuck: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(loader, "WAIT_SECONDS", 1)
    capsys.readouterr()
    assert command(*TRAIN, *WORKER) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no images from the 1 loader processes for 1 s")
    assert "lower --workers" in error
    assert error.count("\n") == 1
    assert not _stopped_children()


def test_an_error_of_the_code_in_a_loader_process_is_not_blamed_on_memory(
    command: Command, folds: None, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> object:
        raise RuntimeError("a fault of the augmentation")

    monkeypatch.setattr(loader, "read_image", fail)
    with pytest.raises(RuntimeError, match="a fault of the augmentation"):
        command(*TRAIN, *WORKER)


@pytest.mark.slow  # waits for a step without seeing its end
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_waiting_for_a_batch_saves_and_ends_the_training(
    command: Command, folds: None, stuck: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, number: int,
    code: int,
):  # fmt: skip
    sent = []

    def send() -> None:
        while not stuck.exists():
            time.sleep(0.05)
        time.sleep(5)  # the step of the first batch is complete
        sent.append(time.monotonic())
        os.kill(PARENT, number)

    capsys.readouterr()
    thread = threading.Thread(target=send)
    thread.start()
    assert command(*TRAIN, *WORKER) == code
    thread.join()
    assert time.monotonic() - sent[0] < 30  # far less than the wait for a batch
    assert capsys.readouterr().err.startswith("interrupted: ")
    assert not _stopped_children()
    assert torch.load(tmp_path / FOLD / "last.pt", weights_only=True)["part"]["step"] == 1
    monkeypatch.undo()
    assert command(*TRAIN) == 0
    assert command(*TRAIN, "--run", "whole") == 0
    assert contents(tmp_path / FOLD) == contents(tmp_path / "runs/whole/fold0")


def test_without_room_in_shared_memory_batches_are_sent_through_pipes(
    command: Command, folds: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_: Batch) -> Batch:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch>: No space left on device (28)")

    assert command(*TRAIN, *WORKER, "--run", "shared") == 0
    monkeypatch.setattr(Batch, "share", full)
    assert command(*TRAIN, *WORKER, "--run", "piped") == 0
    shared, piped = (contents(tmp_path / f"runs/{run}/fold0") for run in ("shared", "piped"))
    assert shared == piped


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EMFILE, errno.ENOMEM])
def test_loader_processes_that_cannot_be_started_are_reported(
    command: Command, folds: None, monkeypatch: pytest.MonkeyPatch, capsys, code: int
):
    def fork() -> int:
        raise OSError(code, os.strerror(code))

    capsys.readouterr()
    monkeypatch.setattr(os, "fork", fork)
    assert command(*TRAIN, *WORKER) == 2
    error = capsys.readouterr().err
    assert os.strerror(code) in error
    assert "lower --workers" in error
    assert error.count("\n") == 1


def _stopped_children() -> list[int]:
    """Return the children of this process that are stopped."""
    children = Path(f"/proc/{PARENT}/task/{PARENT}/children").read_text().split()
    states = {int(pid): Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children}
    return [pid for pid, state in states.items() if state in "Tt"]


@pytest.mark.parametrize(("workers", "ahead"), [(2, 5), (0, None)])
def test_loader_processes_prepare_as_many_batches_as_there_is_room_for(
    data: Path, workers: int, ahead: int | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loader, "AHEAD", 5)
    test = read_test(data)
    images, keys = PoseImages(data, test, size=64), KeyedBatches(test.id - 1, 8)
    assert make_loader(images, keys, workers=workers, device=torch.device("cpu")).prefetch_factor == ahead
