"""Errors that the user can fix.

    UserError               the command line prints it as one line and exits with 2
    ├── DataError           a data folder: missing, unreadable or inconsistent
    ├── FoldsError          folds.csv and folds.json
    ├── RunError            a run's folder, configuration or checkpoint
    │   └── DivergedError   a training whose loss or weights are no longer finite
    └── SubmissionError     a CSV of poses

An error states what is wrong (what, where, expected, got) and, separately, what to do next: `fix` is advice to every
user, `command` the subcommand to run, which only the command line renders.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

USER_ERROR: Final = 2  # exit code of the command line

E = TypeVar("E", bound="UserError")


@dataclass(frozen=True)
class Command:
    """A subcommand to run next: its name and its options, by the name of the flag; None is for the user to fill in."""

    name: str
    options: Mapping[str, str | None] = field(default_factory=dict)


class UserError(Exception):
    """An error that the user can fix: what is wrong, advice, and the command to run next, if there is one."""

    def __init__(self, what: str, *, fix: str = "", command: Command | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.command = command

    def __str__(self) -> str:
        return f"{self.what}: {self.fix}" if self.fix else self.what

    def as_(self, kind: type[E]) -> E:
        """Return the same error in another class."""
        return kind(self.what, fix=self.fix, command=self.command)


class DataError(UserError):
    """The data folder is missing, unreadable or inconsistent."""


class FoldsError(UserError):
    """The folds are missing, belong to other data, or can't be made with the given settings."""


class RunError(UserError):
    """A run's folder, configuration or checkpoint can't be used."""


class DivergedError(RunError):
    """The loss or the weights of a training are no longer finite."""


class SubmissionError(UserError):
    """A CSV of poses violates the submission format."""


def unknown_message(what: str, name: str, known: Iterable[str]) -> str:
    """Return an error message for an unknown name, with the nearest match and the list of known names."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {name!r}: {hint}expected one of {', '.join(names)}"
