"""What is given to make reaches the command line as it is, and no shell or make runs a word of it."""

import os
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"
SHOW = "PYTHON=printf '[%s]\\n'"  # shows its arguments instead of running them


def _make(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    command = ["make", "-s", "-f", str(MAKEFILE), "-o", "setup", SHOW, *arguments]
    return subprocess.run(command, cwd=folder, env=clean | environment, capture_output=True, text=True)


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


def test_a_stray_variable_of_the_shell_changes_nothing(tmp_path: Path):
    plain, stray = _make(tmp_path, "score"), _make(tmp_path, "score", RUN="'", FILE="$(shell touch pwned)", SEED="9")
    assert plain.stdout == stray.stdout != ""
