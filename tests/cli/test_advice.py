"""Advice in messages: the flags exist, and are those of the command that prints it."""

import argparse
import ast
import errno
import os
import re
from pathlib import Path

import pytest

import models
from competition.cli import main as entry
from competition.cli import reproduce as reproducing
from competition.cli.main import main
from competition.cli.parser import COMMANDS, _create_parsers
from competition.training import cost
from competition.training.jobs import Advice, Job
from models.recipes import settings_of
from tests.helpers import Command

COMPETITION = Path(entry.__file__).parents[1]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def _parser(command: str) -> argparse.ArgumentParser:
    return _create_parsers()[1][command]


def _flags(command: str) -> set[str]:
    """Return the flags of a command; those of `train` include the settings of all models."""
    settings = {name for model in models.names() for name in settings_of(type(models.recipe(model)))}
    of_models = {f"--{'no-' * off}{name.replace('_', '-')}" for name in settings for off in (0, 1)}
    found = {flag for action in _parser(command)._actions for flag in action.option_strings}
    return found | of_models if command == "train" else found


def _texts(path: Path) -> list[str]:
    """Return the text of a module's strings, without docstrings."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return [
        n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docstrings
    ]


def test_every_flag_in_a_message_exists():
    known = {"--shm-size", *set.union(*map(_flags, COMMANDS))}  # the first is Docker's
    for path in COMPETITION.rglob("*.py"):
        if path.parent.name not in ("bench", "leaderboard"):  # they have the flags of other programs
            unknown = {flag for text in _texts(path) for flag in FLAG.findall(text)} - known
            assert not unknown, f"{path}: {unknown}"


# modules whose messages can come from any of the commands; others belong to one command or name it in the message
SHARED = {
    "common/pose_csv.py": ("score", "submit", "blend"),
    "common/workspace.py": ("train", "predict", "board"),
    "runs/record.py": ("train", "reproduce"),
    "data/images.py": ("train", "predict", "reproduce"),
    "data/labels.py": ("train", "predict", "blend", "reproduce"),
    "training/predict.py": ("train", "predict", "reproduce"),
    "training/loader.py": ("train", "predict", "reproduce"),
    "training/meter.py": ("train", "reproduce"),
    "training/trainer.py": ("train", "reproduce"),
    "training/predict_run.py": ("predict",),
    "training/cost.py": ("reproduce",),
    "data/folds.py": ("folds",),
    "cli/reproduce.py": ("reproduce",),
}


@pytest.mark.parametrize("module", SHARED)
def test_messages_name_only_flags_that_all_commands_accept(module: str):
    named = {flag for text in _texts(COMPETITION / module) for flag in FLAG.findall(text)}
    for command in SHARED[module]:
        assert named <= _flags(command), command


def test_advice_on_training_names_flags_of_the_command_that_trains(
    command: Command, folds: None, monkeypatch: pytest.MonkeyPatch
):
    given: list[Job] = []
    monkeypatch.setattr(cost, "estimate_seconds", lambda *_: 0.0)

    def keep(jobs: list[Job], *_: object, **__: object) -> None:
        given.extend(jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(reproducing, "train_planned", keep)
    assert command("reproduce", "--scale", "small", "--workers", "0") == 130
    assert len(given) == 4
    for advice, name in ((given[0].advice, "reproduce"), (Advice(), "train")):
        texts = (advice.busy, advice.configuration, advice.not_finite, advice.out_of_memory(8))
        named = {flag for text in texts for flag in FLAG.findall(text)}
        assert named, name
        assert named <= _flags(name)


SYSTEM = {
    errno.ENOSPC: "No space left on device (a.csv): free disk space",
    errno.EACCES: "Permission denied (a.csv): free disk space or fix the permissions",
    errno.EROFS: "Read-only file system (a.csv): free disk space or fix the permissions",
    errno.EISDIR: "Is a directory (a.csv): expected a file",
    errno.EMFILE: "Too many open files (a.csv): raise the limit",
    errno.EIO: "Input/output error (a.csv): the disk or the network drive failed",
}


@pytest.mark.parametrize("code", SYSTEM)
def test_an_error_of_the_system_is_explained_by_its_code(code: int, monkeypatch: pytest.MonkeyPatch, capsys):
    def failing(_: object) -> None:
        raise OSError(code, os.strerror(code), "a.csv")

    monkeypatch.setattr(entry, "parse", failing)
    assert main(["board"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {SYSTEM[code]}")
