"""Renders the commands in messages as `make` command lines for the folders and the seed that the user chose.

Where make would reject a value (see .guards.mk), they are rendered as `python -m competition` command lines.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from competition.common.errors import Command, UserError
from competition.common.workspace import Workspace

VARIABLES: Final = {  # flags that are variables of the command's target in the Makefile; all others go into ARGS
    "data": ("n", "n-test"),
    "train": ("model", "fold", "run", "epochs", "gpus"),
    "tune": ("model", "fold", "epochs", "trials"),
    "predict": ("run",),
    "blend": ("method",),
    "score": ("file",),
    "submit": ("file", "competition", "message", "yes"),
    "verify": ("run",),
    "reproduce": ("fold",),
}
BLANK: Final = "<name>"
REQUIRED: Final = {  # what the user has to fill in where a command doesn't name it
    "predict": {"run": BLANK},
    "verify": {"run": BLANK},
    "submit": {"competition": BLANK, "message": '"<text>"'},
}
ANY: Final = ("competition", "message")  # variables whose values make doesn't check
REJECTED: Final = re.compile(r"['$\n]")
REJECTED_IN_FOLDS: Final = re.compile(r"['$\n;*?[]")
SEEDED: Final = ("data", "folds", "train", "tune", "blend", "report", "reproduce")


def render(command: Command, workspace: Workspace) -> str:
    """Return the command line, in backticks, that runs a subcommand on the user's folders.

    An option without value is a switch. `make data` gets no folder, so that a copied command never generates images in
    a folder of real data; `bench` uses none.
    """
    options = {name: BLANK if value is None else _quote(value) for name, value in command.options.items()}
    options = {name: value for name, value in REQUIRED.get(command.name, {}).items() if name not in options} | options
    variables = VARIABLES.get(command.name, ())
    folders = _workspace_variables(command, workspace)
    checked = [command.options.get(name) or "" for name in variables if name not in ANY] + [*folders.values()]
    if any(map(REJECTED.search, checked)) or REJECTED_IN_FOLDS.search(folders.get("FOLDS", "")):
        return _render_for_python(command, options, folders, workspace)
    words = [f"{name.upper().replace('-', '_')}={value}" for name, value in options.items() if name in variables]
    words += [f"{name}={_quote(value)}" for name, value in folders.items()]
    flags = [f"--{name} {value}".rstrip() for name, value in options.items() if name not in variables]
    if flags:
        words.append(f'ARGS="{" ".join(flags)}"')
    return f"`{' '.join(['make', command.name, *words])}`"


def _render_for_python(
    command: Command, options: Mapping[str, str], folders: Mapping[str, str], workspace: Workspace
) -> str:
    """Return the command line without make; `options` are quoted, `folders` are variables of the Makefile."""
    words = ["python -m competition", command.name]
    words += [f"--{name.lower()} {_quote(value)}" for name, value in folders.items()]
    if command.name == "verify":
        words.append(_quote(str(workspace.submissions / (command.options.get("run") or BLANK))))
    else:
        words += [f"--{name}" if name == "yes" else f"--{name} {value}".rstrip() for name, value in options.items()]
    return f"`{' '.join(words)}`"


def next_line(workspace: Workspace, *commands: Command) -> str:
    """Return the line that suggests what to run next."""
    return f"next: {', '.join(render(command, workspace) for command in commands)}"


def describe(error: UserError, workspace: Workspace) -> str:
    """Return the line for an error: what is wrong, what to do, and the command to run next."""
    return f"{error}; next: {render(error.command, workspace)}" if error.command else str(error)


def _workspace_variables(command: Command, workspace: Workspace) -> dict[str, str]:
    """Return the folders and the seed, as variables of the Makefile, where they differ from the defaults."""
    default = Workspace()
    variables = {
        "DATA": (workspace.data, default.data),
        "FOLDS": (_folds_to_make(workspace) if command.name == "folds" else workspace.folds, default.folds),
        "SUBMISSIONS": (workspace.submissions, default.submissions),
    }
    if command.name in ("data", "bench"):
        variables = {}
    found = {name: str(path) for name, (path, usual) in variables.items() if path != usual}
    if command.name in SEEDED and workspace.seed != default.seed:
        found["SEED"] = str(workspace.seed)
    return found


def _folds_to_make(workspace: Workspace) -> Path:
    """Return the folder for new folds: where the default one is taken, another data folder gets one of its own."""
    default = Workspace()
    taken = workspace.folds == default.folds and (workspace.folds / "folds.csv").exists()
    own = workspace.data != default.data and taken
    return workspace.folds / workspace.data.resolve().name if own else workspace.folds


def _quote(value: str) -> str:
    return shlex.quote(value) if value else ""
