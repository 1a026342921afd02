"""Training with DDP: invalid input is rejected before processes start, and training resumes after one dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from competition.common.errors import RunError, UserError
from competition.common.pose_csv import read_poses
from competition.runs import folders
from competition.runs.folders import read_valid, valid_file
from competition.runs.record import read_log
from competition.training import calls, launch, parallel
from tests.helpers import N_TEST, TINY, Command, contents
from tests.training.helpers import DIVERGING

EPOCHS = 4


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGKILL, 2, "error: a training process was killed by SIGKILL"),
        pytest.param(signal.SIGINT, 130, "interrupted: ", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, "interrupted: ", marks=pytest.mark.slow),
    ],
)
def test_when_one_of_two_processes_is_stopped_both_end_and_the_same_command_resumes(
    command: Command, folds: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], number: int, code: int, line: str
):
    forkserver._forkserver._stop()  # the next one prints to the captured output
    fold = tmp_path / "runs/3dhg-small/fold0"
    train = ("train", *TINY, "--epochs", str(EPOCHS), "--fold", "0", "--gpus", "2")

    def stop_one_after_an_epoch() -> None:
        deadline = time.monotonic() + 300
        while not (fold / "last.pt").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(_process_of_rank(1).pid or 0, number)

    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(stop_one_after_an_epoch)
        assert command(*train) == code
        stopping.result()
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert line in error
    before = read_log(fold)
    assert not (fold / "done.json").exists()

    assert command(*train) == 0
    assert (fold / "done.json").exists()
    rows = read_log(fold)
    assert rows[: len(before)] == before
    assert [row.epoch for row in rows] == list(range(1, EPOCHS + 1))
    assert read_poses(folders.test_file(fold, EPOCHS)).id.tolist() == list(range(1, N_TEST + 1))
    assert len(read_valid(valid_file(fold, EPOCHS)).id) == 24
    output = capfd.readouterr().out
    assert f"from epoch {len(before) + 1}" in output
    assert output.count(f"fold 0 epoch {EPOCHS}/{EPOCHS}") == 1  # only the main process prints
    if not torch.cuda.is_available():
        assert output.count("warning: --gpus 2: this machine has 0 GPUs: 3dhg-small fold 0 trains on the CPU") == 1


ENDS: dict[str, tuple[int, type[BaseException], str]] = {  # of the first process: raised, with words
    "SIGKILL": (-signal.SIGKILL, UserError, "killed by SIGKILL"),
    "SIGTERM": (-signal.SIGTERM, SystemExit, "143"),
    "ended by SIGTERM": (143, SystemExit, "143"),
    "Ctrl-C": (-signal.SIGINT, KeyboardInterrupt, "^$"),
    "ended by Ctrl-C": (130, KeyboardInterrupt, "^$"),
    "a crash": (-signal.SIGSEGV, RuntimeError, "a training process died"),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_the_first_process_decides_how_the_command_ends(name: str, tmp_path: Path):
    code, kind, words = ENDS[name]
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file="")
    reports = MagicMock(empty=lambda: True)
    with pytest.raises(kind, match=words):
        launch._raise_failure(ChildFailedError("training", {0: failure}), reports, tmp_path)


def test_an_error_in_both_processes_is_printed_once(command: Command, folds: None, capfd: pytest.CaptureFixture[str]):
    assert command("train", *TINY, "--epochs", "1", "--fold", "0", "--gpus", "2", *DIVERGING) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "no longer finite" in error


@pytest.mark.parametrize(("processes", "kind"), [(1, RunError), (2, RuntimeError)])
def test_the_end_of_another_process_during_the_backward_pass_is_no_error_of_the_model(
    processes: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    def lose_connection(_: torch.Tensor) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(dist, "is_initialized", lambda: processes > 1)
    weight = torch.ones(3, requires_grad=True)
    weight.register_hook(lose_connection)
    with pytest.raises(kind, match="Connection closed by peer"):
        calls.backward("3dhg-small", weight.sum())


def _process_of_rank(rank: int) -> multiprocessing.Process:
    """Return the process with this rank of those that a training in this process has started."""
    return sorted(multiprocessing.active_children(), key=lambda process: process.pid or 0)[rank]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_ends_all_processes_and_training_resumes_with_the_same_files(
    command: Command, folds: None, data: Path, tmp_path: Path, number: int, code: int
):
    """SIGTERM reaches only the command, Ctrl-C its whole process group."""
    train = (*TINY, "--epochs", "3", "--fold", "0", "--gpus", "2", "--batch", "4")
    folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
    process = subprocess.Popen(
        [sys.executable, "-m", "competition", "train", *folders, *train, "--run", "stopped"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    next(line for line in process.stdout if "epoch 1/3" in line)
    (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == code
    assert error.startswith("interrupted: ")
    assert error.count("\n") == 1
    deadline = time.monotonic() + 30  # multiprocessing's resource tracker ends a moment after the others
    while _members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _members(process.pid)
    state = torch.load(tmp_path / "runs/stopped/fold0/last.pt", weights_only=True)
    assert state["epoch"] >= 1
    assert command("train", *train, "--run", "stopped") == 0
    assert command("train", *train, "--run", "reference") == 0
    stopped, reference = (contents(tmp_path / f"runs/{run}/fold0") for run in ("stopped", "reference"))
    for files in (stopped, reference):  # the logged loss of the interrupted epoch is that of the main process
        del files["log.jsonl"], files["done.json"]
    assert stopped == reference


def _members(group: int) -> list[int]:
    """Return the processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended in the meantime
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
def test_torchrun_starts_the_processes_of_one_training(command: Command, folds: None, data: Path, tmp_path: Path):
    train = ("train", *TINY, "--epochs", "1", "--fold", "0")
    folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
    # "--", as torchrun would take --run for one of its own flags
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    done = subprocess.run(
        [sys.executable, *launcher, "competition", *train, *folders, "--run", "external"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fold 0 epoch 1/1") == 1
    assert command(*train, "--gpus", "2", "--run", "own") == 0
    external, own = (contents(tmp_path / f"runs/{run}/fold0") for run in ("external", "own"))
    assert external == own


@pytest.mark.parametrize(
    ("environment", "rank", "checks"),
    [
        ({}, None, 1),
        ({"RANK": "3"}, None, 1),  # left over from something else
        ({"RANK": "0", "WORLD_SIZE": "2"}, 0, 1),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 1, 0),
    ],
)
def test_only_the_first_process_of_torchrun_checks_the_images(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], rank: int | None, checks: int
):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    check, data = MagicMock(), MagicMock()
    monkeypatch.setattr(parallel, "check_images", check)
    parallel.train_planned([], data, 1)
    assert parallel.torchrun_rank() == rank
    assert check.call_count == checks


WRONG = {
    "a batch that isn't divisible": (("--gpus", "3"), "--gpus 3: expected a positive divisor of --batch 8"),
    "no processes": (("--gpus", "0"), "--gpus 0: expected a positive divisor"),
    "folds in parallel": (("--gpus", "2", "--parallel", "2"), "no --parallel"),
    "an unknown fold": (("--gpus", "2", "--fold", "7"), "fold 7: expected 0 to 1"),
    "a setting out of range": (("--gpus", "2", "--lr", "-1"), "lr"),
    "an unknown setting": (("--gpus", "2", "--learn", "1"), "unknown flag '--learn'"),
}


@pytest.fixture
def no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise AssertionError("processes were started")

    monkeypatch.setattr(launch, "train_on_gpus", start)


@pytest.mark.parametrize("name", WRONG)
def test_invalid_input_is_rejected_before_processes_start(
    command: Command, folds: None, no_launch: None, capsys: pytest.CaptureFixture[str], name: str
):
    flags, message = WRONG[name]
    assert command("train", *TINY, *flags) == 2
    assert message in capsys.readouterr().err


def test_a_missing_image_is_rejected_before_processes_start(
    command: Command, folds: None, no_launch: None, own_data: Path, capsys: pytest.CaptureFixture[str]
):
    next((own_data / "images").iterdir()).unlink()
    assert command("train", *TINY, "--gpus", "2", data=own_data) == 2
    error = capsys.readouterr().err
    assert "1 of " in error
    assert "missing" in error
