"""Commands in messages apply to the folders and the seed that the user chose, and are complete."""

import shlex
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import pytest

from competition.cli.hints import describe, next_line, render
from competition.cli.main import main
from competition.cli.options import VerifyOptions
from competition.cli.parser import COMMANDS, parse
from competition.common.errors import Command, UserError
from competition.common.workspace import Workspace
from tests.helpers import without_make

OWN = Workspace(data=Path("/data/pose"), folds=Path("folds/real"), submissions=Path("my runs"), seed=3)
FOLDERS = "DATA=/data/pose FOLDS=folds/real SUBMISSIONS='my runs'"

RENDERED = {
    "defaults": (Command("board"), Workspace(), "make board"),
    "folders": (Command("board"), OWN, f"make board {FOLDERS}"),
    "a command that uses the seed": (Command("folds"), OWN, f"make folds {FOLDERS} SEED=3"),
    "data gets no folder": (Command("data", {"n-test": "9"}), OWN, "make data N_TEST=9 SEED=3"),
    "a value that the user has to fill in": (
        Command("train", {"model": None, "run": "a"}),
        Workspace(),
        "make train MODEL=<name> RUN=a",
    ),
    "variables": (Command("train", {"model": "3dhg", "fold": "0"}), Workspace(), "make train MODEL=3dhg FOLD=0"),
    "flags": (
        Command("folds", {"strategy": "sequence", "force": ""}),
        Workspace(),
        'make folds ARGS="--strategy sequence --force"',
    ),
    "both": (
        Command("score", {"file": "a b.csv", "json": "c d.json"}),
        Workspace(),
        "make score FILE='a b.csv' ARGS=\"--json 'c d.json'\"",
    ),
    "what the user has to fill in": (
        Command("submit", {"file": "a.csv"}),
        Workspace(),
        'make submit COMPETITION=<name> MESSAGE="<text>" FILE=a.csv',
    ),
    "a flag that has a variable only in other targets": (
        Command("blend", {"method": "mean", "epochs": "3,4"}),
        Workspace(),
        'make blend METHOD=mean ARGS="--epochs 3,4"',
    ),
    "no folders": (Command("bench", {"only": "csv"}), OWN, 'make bench ARGS="--only csv"'),
    "nothing to fill in": (Command("verify", {"run": "3dhg"}), Workspace(), "make verify RUN=3dhg"),
}


@pytest.mark.parametrize("name", RENDERED)
def test_commands_are_rendered_for_make(name: str):
    command, workspace, expected = RENDERED[name]
    assert render(command, workspace) == f"`{expected}`"


@pytest.mark.parametrize("name", COMMANDS)
def test_make_passes_every_option_of_a_rendered_command_on(name: str):
    flags = {field.name.replace("_", "-") for field in fields(COMMANDS[name].options)} - {"recipe"}
    if name == "verify":
        flags = {"run"}
    line = render(Command(name, dict.fromkeys(flags, "1")), OWN).strip("`")
    makefile = Path(__file__).parents[2] / "Makefile"
    command = ["make", "-n", "-f", str(makefile), "-o", "setup", *shlex.split(line)[1:]]
    done = subprocess.run(command, cwd=makefile.parent, env=without_make(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = shlex.split(done.stdout.replace("\\\n", " "))
    passed = {word.partition("=")[0] for word in printed}
    assert name == "verify" or {f"--{flag}" for flag in flags} <= passed
    assert name in ("data", "bench") or "/data/pose" in printed


AWKWARD = {
    "/home/o'brien/pose": (Command("train", {"model": "3dhg", "fold": "0", "lr": "1e-3"}), "data"),
    "a$b": (Command("submit", {"file": "a b.csv", "yes": "1"}), "submissions"),
    "two\nlines": (Command("verify", {"run": "3dhg"}), "submissions"),
    "a;b": (Command("reproduce", {"fold": "1", "scale": "small"}), "folds"),
    "folds*": (Command("folds", {"strategy": "sequence", "force": ""}), "folds"),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_a_command_with_a_value_that_make_rejects_runs_without_make(name: str):
    command, folder = AWKWARD[name]
    words = shlex.split(
        render(command, replace(OWN, **{folder: Path(name)})).strip("`").replace("<", "").replace(">", "")
    )
    assert words[:3] == ["python", "-m", "competition"]
    parsed = parse(words[3:])
    assert getattr(parsed.workspace, folder) == Path(name)
    for option, value in command.options.items():
        if command.name == "verify":
            assert parsed.options == VerifyOptions(folder=Path(name) / "3dhg")
        else:
            assert str(vars(parsed.options).get(option, value)) in (value, str(value in ("1", "")))


def test_values_that_make_accepts_are_rendered_for_make():
    odd = replace(OWN, data=Path("a; b"), folds=Path("it (1): & #2"))
    command = Command("submit", {"message": "John's $1", "competition": "c"})
    assert shlex.split(render(command, odd).strip("`"))[:2] == ["make", "submit"]


def test_a_filled_in_command_is_a_line_of_shell():
    line = render(Command("submit"), OWN).strip("`").replace("<name>", "pose").replace("<text>", "John's first")
    assert shlex.split(line)[2:4] == ["COMPETITION=pose", "MESSAGE=John's first"]


def test_new_folds_of_other_data_get_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    real = Workspace(data=Path("/data/pose"))
    assert render(Command("folds"), real) == "`make folds DATA=/data/pose`"
    Path("folds").mkdir()
    Path("folds/folds.csv").write_text("of other data")
    assert render(Command("folds"), real) == "`make folds DATA=/data/pose FOLDS=folds/pose`"
    assert render(Command("folds"), Workspace()) == "`make folds`"
    assert render(Command("train"), real) == "`make train DATA=/data/pose`"


def test_an_error_ends_with_its_command():
    error = UserError("no folds", fix="make them", command=Command("folds"))
    assert describe(error, OWN) == f"no folds: make them; next: `make folds {FOLDERS} SEED=3`"
    assert describe(UserError("no folds"), OWN) == "no folds"
    assert (
        next_line(OWN, Command("board"), Command("report"))
        == f"next: `make board {FOLDERS}`, `make report {FOLDERS} SEED=3`"
    )


def test_commands_in_errors_name_the_users_folders(data: Path, tmp_path: Path, capsys):
    folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
    assert main(["train", "--model", "3dhg-small", *folders]) == 2
    assert f"`make folds DATA={data} FOLDS={tmp_path}/folds SUBMISSIONS={tmp_path}/runs`" in capsys.readouterr().err
