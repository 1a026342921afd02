"""Variables given to make reach the command line unchanged; neither the shell nor make executes any part of them."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers import without_make

MAKEFILE = Path(__file__).parents[1] / "Makefile"
SHOW = "PYTHON=printf '[%s]\\n'"  # prints its arguments instead of running them


def _make(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", "-s", "-f", str(MAKEFILE), "-o", "setup", SHOW, *arguments]
    return subprocess.run(command, cwd=folder, env=without_make() | environment, capture_output=True, text=True)


HOSTILE = {
    "quote": "a'; touch pwned; '",
    "newline": "a\ntouch pwned",
    "function of make": "$(shell touch pwned)",
    "variable of make": "$(HOME)",
    "substitution": "$$(touch pwned)",
}
INERT = {"backticks": "`touch pwned`", "double quote": '"; touch pwned; "', "words": "a;b c &", "comment": "a #b"}


@pytest.mark.parametrize("variable", ["RUN", "FILE", "DATA", "SUBMISSIONS", "MODEL"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_value_that_the_shell_or_make_would_expand_is_rejected(tmp_path: Path, name: str, variable: str):
    done = _make(tmp_path, "score", f"{variable}={HOSTILE[name]}")
    assert done.returncode == 2
    assert f"{variable}=: expected no quote, $ or newline in it" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", INERT)
def test_other_values_reach_the_command_unchanged(tmp_path: Path, name: str):
    done = _make(tmp_path, "score", f"FILE={INERT[name]}")
    assert f"[--file]\n[{INERT[name]}]\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*HOSTILE, *INERT])
def test_message_and_competition_may_hold_any_characters(tmp_path: Path, name: str):
    text = (HOSTILE | INERT)[name]
    done = _make(tmp_path, "submit", f"MESSAGE={text}", f"COMPETITION={text}")
    assert f"[--competition={text}]\n[--message={text}]\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run", ["..", "../up", "a/../../up", "/tmp/a", "a/.."])
def test_a_run_outside_submissions_is_rejected(tmp_path: Path, run: str):
    done = _make(tmp_path, "verify", f"RUN={run}")
    assert done.returncode == 2
    assert f"RUN={run}: expected the name of a run" in done.stderr
    assert "[submissions/a/fold0]" in _make(tmp_path, "verify", "RUN=a/fold0").stdout


def test_python_finds_the_package_in_this_folder_whatever_the_environment_says(tmp_path: Path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho path=$PYTHONSAFEPATH\n")
    python.chmod(0o755)
    assert _make(tmp_path, "board", f"PYTHON={python}", PYTHONSAFEPATH="1").stdout == "path=\n"


def test_synthetic_data_are_made_only_in_the_default_folder(tmp_path: Path):
    assert "[data]\n" in _make(tmp_path, "check").stdout
    for name in ("data/synthetic copy", "my data/synthetic", "/data/pose"):
        assert "[data]\n" not in _make(tmp_path, "check", f"DATA={name}").stdout


AWKWARD = ["a b", "a:b", "a  b ", "C:\\folds", "a%b", "a|b", "a=b", "a#b", "it (1), 2 & 3"]


@pytest.mark.parametrize("name", AWKWARD)
def test_folds_in_a_folder_of_any_name_are_made_only_once(tmp_path: Path, name: str):
    given = (f"FOLDS={name}", "DATA=/pose")
    assert f"[folds]\n[--data]\n[/pose]\n[--folds]\n[{name}]" in _make(tmp_path, "train", *given).stdout
    (tmp_path / name).mkdir()
    (tmp_path / name / "folds.csv").touch()
    printed = _make(tmp_path, "train", *given).stdout
    assert "[folds]\n" not in printed
    assert f"[train]\n[--data]\n[/pose]\n[--folds]\n[{name}]" in printed


def test_folds_in_the_home_folder_are_made_only_once(tmp_path: Path):
    (tmp_path / "home/folds").mkdir(parents=True)
    (tmp_path / "home/folds/folds.csv").touch()
    done = _make(tmp_path, "train", "FOLDS=~/folds", "DATA=/pose", HOME=str(tmp_path / "home"))
    assert done.stdout.startswith("[-m]\n[competition]\n[train]\n"), done.stdout


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("FOLDS=a;b", "FOLDS=a;b: expected no ; in it"),
        ("FOLDS=a*", "FOLDS=a*: expected no * in it"),
        ("FOLDS=", "FOLDS=: expected a folder"),
        ("DATA=", "DATA=: expected a folder"),
        ("SUBMISSIONS= ", "SUBMISSIONS=: expected a folder"),
    ],
)
def test_a_folder_that_make_cannot_use_is_rejected(tmp_path: Path, argument: str, expected: str):
    error = _error_of(tmp_path, "train", argument)
    assert expected in error
    assert error.count("\n") == 1


def _error_of(folder: Path, *arguments: str) -> str:
    done = _make(folder, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert list(folder.iterdir()) == []
    return done.stderr


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [("MODLE=3dhg", "MODEL"), ("model=3dhg", "MODEL"), ("EPOCH=3", "EPOCHS"), ("GPU=2", "GPUS"), ("FOLDER=x", "FOLD")],
)
def test_an_unknown_variable_is_rejected_with_the_nearest_name(tmp_path: Path, argument: str, nearest: str):
    error = _error_of(tmp_path, "train", argument)
    name = argument.partition("=")[0]
    assert f"{name}=: unknown variable: did you mean {nearest}=? expected one of MODEL FOLD RUN" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["a';>pwned;'", "`touch", "$$(touch", '";touch', "FROBNICATE", "*"])
def test_an_unknown_variable_without_a_similar_name_is_rejected_and_not_executed(tmp_path: Path, name: str):
    assert "=: unknown variable: expected one of MODEL" in _error_of(tmp_path, "train", f"{name}=1")


def test_unknown_variables_of_the_environment_are_ignored(tmp_path: Path):
    assert _make(tmp_path, "train", MODLE="3dhg").returncode == 0


def test_a_run_can_be_scored_and_submitted_by_name(tmp_path: Path):
    assert "[--file]\n[submissions/blend/submission.csv.gz]\n" in _make(tmp_path, "score").stdout
    assert "[--file]\n[runs/a b/submission.csv.gz]\n" in _make(tmp_path, "score", "RUN=a b", "SUBMISSIONS=runs").stdout
    assert "[--file]\n[x.csv]\n" in _make(tmp_path, "submit", "FILE=x.csv", "COMPETITION=c").stdout
    for target in ("score", "submit"):
        assert "RUN= and FILE=: expected only one" in _error_of(tmp_path, target, "RUN=a", "FILE=x.csv")
    assert _make(tmp_path, "score", "RUN=a", FILE="x.csv").returncode == 0  # of the environment


def test_environment_variables_of_the_same_names_are_ignored(tmp_path: Path):
    expected, done = _make(tmp_path, "score"), _make(tmp_path, "score", RUN="'", FILE="$(shell touch pwned)", SEED="9")
    assert expected.stdout == done.stdout != ""


@pytest.mark.parametrize(("target", "variable"), [("predict", "RUN"), ("verify", "RUN"), ("submit", "COMPETITION")])
def test_a_missing_variable_is_named(tmp_path: Path, target: str, variable: str):
    assert f"{variable}= is missing: " in _error_of(tmp_path, target)


def test_targets_run_in_order_however_many_jobs_are_allowed(tmp_path: Path):
    slow_score = tmp_path / "slow_score"
    slow_score.write_text('#!/bin/sh\n[ "$3" = score ] && sleep 0.5\necho "$3"\n')
    slow_score.chmod(0o755)
    done = _make(tmp_path, "-j4", "score", "board", "report", f"PYTHON={slow_score}")
    assert done.stdout.split() == ["score", "board", "report"]


def test_help_lists_every_target_and_every_variable(tmp_path: Path):
    makefile = MAKEFILE.read_text()
    phony, variables = (
        re.search(rf"^{name} (.*)$", makefile, re.MULTILINE) for name in (r"\.PHONY:", "override VARIABLES =")
    )
    assert phony is not None
    assert variables is not None
    printed = _make(tmp_path, "help").stdout
    assert sorted(re.findall(r"^  ([a-z-]+) ", printed, re.MULTILINE)) == sorted(phony[1].split())
    assert f"variables: {variables[1]}\n" in printed
    assigned = re.findall(r"^([A-Z_]+) =", makefile.partition("\nVENV =")[0], re.MULTILINE)
    assert sorted(assigned) == sorted(variables[1].split())


def _lines(pattern: str, text: str) -> dict[str, str]:
    """Return the text after each match at the start of a line, by the first group."""
    found: dict[str, str] = {}
    for match in re.finditer(pattern, text, re.MULTILINE):
        found[match[1]] = f"{found.get(match[1], '')} {match[2]}"
    return found


TEXT = (MAKEFILE.read_text() + MAKEFILE.with_name(".guards.mk").read_text()).replace("\\\n", "")
VALUES = _lines(r"^(?:override )?([A-Z_]+) :?= ?(.*)$", TEXT)
RULES = _lines(r"^([^\s#:=]+): (.*(?:\n\t.*)*)", TEXT)  # prerequisites and recipe
VARIABLES = VALUES["VARIABLES"].split()


def _used_in(text: str) -> set[str]:
    """Return the names of the variables that a text refers to, directly or through other variables."""
    names = set(re.findall(r"\$\((?:value )?([A-Z_]+)\)", text)) - {"VARIABLES"}
    return names.union(*(_used_in(VALUES.get(name, "")) for name in names))


def _used_by(target: str, data: str) -> set[str]:
    """Return the variables of a target's recipe and of those that make its prerequisites."""
    prerequisites, _, recipe = RULES[target].partition("\n")
    prerequisites = prerequisites.partition("##")[0]
    if data == "data/synthetic":
        prerequisites = prerequisites.replace("$(SYNTHETIC)", "data/synthetic/manifest.json")
    used = _used_in(prerequisites + recipe) & {*VARIABLES}
    return used.union(*(_used_by(name, data) for name in prerequisites.split() if name in RULES))


TARGETS = [(target, "data/synthetic") for target in RULES[".PHONY"].split()]
TARGETS += [(target, "/data/pose") for target, data in TARGETS if "DATA" in _used_by(target, data)]


@pytest.mark.parametrize(("target", "data"), TARGETS)
def test_exactly_the_variables_of_the_recipes_are_accepted(tmp_path: Path, target: str, data: str):
    used = _used_by(target, data)
    unused = next(name for name in VARIABLES if name not in used)
    given = [f"DATA={data}"] if "DATA" in used else []
    error = _error_of(tmp_path, "-n", target, *given, f"{unused}=1")
    assert f"{unused}=: not used by {target}: {target} uses " in error
    assert error.count("\n") == 1
    listed = error.partition(" uses ")[2].partition(".")[0].split()
    assert listed == (sorted(used, key=listed.index) or ["no", "variables"])


UNUSED = {
    "blend RUN=x": "RUN=: not used by blend: ",
    "reproduce EPOCHS=1": "EPOCHS=: not used by reproduce: ",
    "check MODEL=x": "MODEL=: not used by check: ",
    "board FOLD=0": "FOLD=: not used by board: ",
    "train blend N_TEST=5 DATA=/x": "N_TEST=: not used by train blend: they use MODEL",
    "MODEL=x": "MODEL=: not used by help: help uses no variables",
    "blend RUN=": "RUN=: not used by blend: ",
    "blend RUN=x MODLE=x": "MODLE=: unknown variable",
}


@pytest.mark.parametrize("command", UNUSED)
def test_an_unused_variable_is_rejected(tmp_path: Path, command: str):
    error = _error_of(tmp_path, *command.split())
    assert UNUSED[command] in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        "train blend MODEL=x METHOD=mean",
        "train N=5 N_TEST=5",
        "own/folds.csv FOLDS=own N=5 MODEL=x",
        "score SHELL=/bin/sh",
    ],
)
def test_a_variable_that_one_goal_uses_is_accepted(tmp_path: Path, command: str):
    done = _make(tmp_path, "-n", *command.split(), METHOD="mean", MODEL="x")
    assert done.returncode == 0, done.stderr
