"""What can go wrong by the user's hand.

    UserError               anything the user can mend; the command line prints it as one line and exits with 2
    ├── DataError           the competition's folder: missing, unreadable, of another shape
    ├── FoldsError          folds.csv and folds.json
    ├── RunError            a run's folder, its configuration or its checkpoint
    └── SubmissionError     a CSV of poses

Every message says what is wrong, where, what was expected, what was found, and what to do about it.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend."""


class DataError(UserError):
    """The competition's folder is missing, unreadable or inconsistent."""


class FoldsError(UserError):
    """The folds are missing, of other data, or can't be made as asked."""


class RunError(UserError):
    """A run's folder can't be used as asked."""


class SubmissionError(UserError):
    """A CSV of poses breaks the submission format."""


def unknown_message(what: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is unknown, offering the nearest match and the whole list."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {name!r}: {hint}known are {', '.join(names)}"
