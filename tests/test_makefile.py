"""What is given to make reaches the command line as it is, and no shell or make runs a word of it."""

import subprocess
from pathlib import Path

import pytest

from tests.helpers import without_make

MAKEFILE = Path(__file__).parents[1] / "Makefile"
SHOW = "PYTHON=printf '[%s]\\n'"  # shows its arguments instead of running them


def _make(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", "-s", "-f", str(MAKEFILE), "-o", "setup", SHOW, *arguments]
    return subprocess.run(command, cwd=folder, env=without_make() | environment, capture_output=True, text=True)


HOSTILE = {
    "quote": "a'; touch pwned; '",
    "line end": "a\ntouch pwned",
    "function of make": "$(shell touch pwned)",
    "variable of make": "$(HOME)",
    "substitution": "$$(touch pwned)",
}
INERT = {"backticks": "`touch pwned`", "double quote": '"; touch pwned; "', "words": "a;b c &", "comment": "a #b"}


@pytest.mark.parametrize("knob", ["RUN", "FILE", "DATA", "SUBMISSIONS", "MODEL"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_knob_that_a_shell_would_read_is_refused(tmp_path: Path, name: str, knob: str):
    done = _make(tmp_path, "score", f"{knob}={HOSTILE[name]}")
    assert done.returncode == 2
    assert f"{knob}=: expected no quote, $ or line end in it" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", INERT)
def test_other_knobs_reach_the_command_as_they_are(tmp_path: Path, name: str):
    done = _make(tmp_path, "score", f"FILE={INERT[name]}")
    assert f"[--file]\n[{INERT[name]}]\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*HOSTILE, *INERT])
def test_message_and_competition_may_hold_anything(tmp_path: Path, name: str):
    text = (HOSTILE | INERT)[name]
    done = _make(tmp_path, "submit", f"MESSAGE={text}", f"COMPETITION={text}")
    assert f"[--competition={text}]\n[--message={text}]\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run", ["..", "../up", "a/../../up", "/tmp/a", "a/.."])
def test_a_run_outside_of_submissions_is_refused(tmp_path: Path, run: str):
    done = _make(tmp_path, "verify", f"RUN={run}")
    assert done.returncode == 2
    assert f"RUN={run}: expected the name of a run" in done.stderr
    assert "[submissions/a/fold0]" in _make(tmp_path, "verify", "RUN=a/fold0").stdout


def _wrong(folder: Path, *arguments: str) -> str:
    done = _make(folder, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert list(folder.iterdir()) == []
    return done.stderr


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("MODLE=3dhg", "MODEL"), ("model=3dhg", "MODEL"), ("EPOCH=3", "EPOCHS"), ("GPU=2", "GPUS"), ("FOLDER=x", "FOLD")],
)
def test_a_knob_that_does_not_exist_is_refused_with_the_nearest(tmp_path: Path, given: str, nearest: str):
    error = _wrong(tmp_path, "train", given)
    assert f"{given.partition('=')[0]}=: unknown knob: did you mean {nearest}=? known are MODEL FOLD RUN" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["a';>pwned;'", "`touch", "$$(touch", '";touch', "FROBNICATE", "*"])
def test_a_knob_that_is_like_none_is_refused_and_not_run(tmp_path: Path, name: str):
    assert "=: unknown knob: known are MODEL" in _wrong(tmp_path, "train", f"{name}=1")


def test_variables_of_the_environment_are_no_knobs(tmp_path: Path):
    assert _make(tmp_path, "train", MODLE="3dhg").returncode == 0


def test_a_run_can_be_scored_and_sent_by_its_name(tmp_path: Path):
    assert "[--file]\n[submissions/blend/submission.csv.gz]\n" in _make(tmp_path, "score").stdout
    assert "[--file]\n[runs/a b/submission.csv.gz]\n" in _make(tmp_path, "score", "RUN=a b", "SUBMISSIONS=runs").stdout
    assert "[--file]\n[x.csv]\n" in _make(tmp_path, "submit", "RUN=a", "FILE=x.csv", "COMPETITION=c").stdout


def test_a_stray_variable_of_the_shell_changes_nothing(tmp_path: Path):
    plain, stray = _make(tmp_path, "score"), _make(tmp_path, "score", RUN="'", FILE="$(shell touch pwned)", SEED="9")
    assert plain.stdout == stray.stdout != ""
