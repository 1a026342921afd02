"""A study that is killed, interrupted or shared ends with the trials of an undisturbed one."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from competition.runs.studies import Trial, read_study
from tests.helpers import TINY

ROOT = Path(__file__).parents[2]
TUNE = ("tune", *TINY, "--epochs", "3", "--parallel", "1", "--workers", "0", "--trials", "4", "--search", "lr,ema")
LIMIT = 180  # seconds


@pytest.fixture
def start(data: Path, tmp_path: Path, folds: None) -> Callable[..., "subprocess.Popen[bytes]"]:
    """Return a function that starts the command on a study of the given name; it appends its output to a file."""

    def started(study: str, log: str = "log.txt") -> "subprocess.Popen[bytes]":
        folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
        command = [sys.executable, "-m", "competition", *TUNE, *folders, "--study", study]
        with (tmp_path / log).open("ab") as file:
            return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)

    return started


def _trials(root: Path, study: str) -> list[Trial]:
    return read_study(root / "runs/.tune" / study).trials


def _wait_for(holds: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_study_stopped_twice_ends_with_the_same_trials(start, tmp_path: Path, number: int):
    assert start("whole").wait(LIMIT) == 0
    folder = tmp_path / "runs/.tune/stopped"
    for trial, epoch in ((0, 2), (2, 1)):
        process = start("stopped")
        _wait_for((folder / f"trial-{trial:03d}/fold0/valid_epoch{epoch:02d}.npz").exists)
        os.kill(process.pid, number)
        code = process.wait(LIMIT)
        assert code == (-number if number == signal.SIGKILL else 128 + number)
        assert len(_trials(tmp_path, "stopped")) == trial + 1
    assert start("stopped").wait(LIMIT) == 0
    hints = (tmp_path / "log.txt").read_text().count("interrupted: run the same command again")
    assert hints == (0 if number == signal.SIGKILL else 2)
    assert _trials(tmp_path, "stopped") == _trials(tmp_path, "whole")
    assert not list((folder / "processes").iterdir()) or number == signal.SIGKILL


@pytest.mark.slow
def test_two_processes_share_the_trials_of_a_study(start, tmp_path: Path):
    processes = [start("shared", name) for name in ("one.txt", "other.txt")]
    assert [process.wait(LIMIT) for process in processes] == [0, 0]
    printed = [(tmp_path / name).read_text() for name in ("one.txt", "other.txt")]
    trained = [re.findall(r"^trial (\d+): (?:[\d.]+ mm|pruned)", text, re.MULTILINE) for text in printed]
    assert sorted(trained[0] + trained[1]) == ["0", "1", "2", "3"]
    assert all(trained)
    trials = _trials(tmp_path, "shared")
    assert len(trials) == 4
    assert len({str(trial.params) for trial in trials}) == 4


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_fails_and_the_study_continues(start, tmp_path: Path):
    process = start("killed")
    _wait_for((tmp_path / "runs/.tune/killed/trial-001/fold0/valid_epoch01.npz").exists)
    workers = subprocess.run(["pgrep", "-P", _server(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    assert process.wait(LIMIT) == 0
    states = [(trial.state, trial.reason) for trial in _trials(tmp_path, "killed")]
    assert states[1] == ("failed", "its process was killed by SIGKILL: out of memory?")
    assert [state for state, _ in states].count("failed") == 1


def _server(pid: int) -> str:
    """Return the id of the process that forks the trials' processes."""
    children = subprocess.run(["pgrep", "-P", str(pid), "-a"], capture_output=True, text=True).stdout.splitlines()
    return next(line.split()[0] for line in children if "forkserver" in line)
