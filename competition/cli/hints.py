"""Completes the `make` commands in messages, so that they apply to the folders that the user chose."""

import re
import shlex

from competition.common.errors import Command, UserError
from competition.common.workspace import Workspace

VARIABLES = ("model", "fold", "run", "epochs", "gpus", "method", "file", "competition", "message")  # of the Makefile

# a command in backticks: the target, and the rest of the command
_MAKE = re.compile(r"`make (check|folds|train|predict|blend|score|board|report|submit|verify|reproduce|data)\b([^`]*)`")


def render(command: Command, workspace: Workspace) -> str:
    """Return the `make` command, in backticks, that runs a subcommand on the folders that the user chose.

    `make data` gets no folder, so that a copied command never generates images in a folder of real data.
    """
    default = Workspace()
    folders = {
        "DATA": (workspace.data, default.data),
        "FOLDS": (workspace.folds, default.folds),
        "SUBMISSIONS": (workspace.submissions, default.submissions),
    }
    words = ["make", command.name]
    words += [f"{name.upper()}={shlex.quote(value)}" for name, value in command.options.items() if name in VARIABLES]
    if command.name != "data":
        words += [f"{name}={shlex.quote(str(path))}" for name, (path, usual) in folders.items() if path != usual]
    if flags := [f"--{name} {value}" for name, value in command.options.items() if name not in VARIABLES]:
        words.append(f'ARGS="{" ".join(flags)}"')
    return f"`{' '.join(words)}`"


def describe(error: UserError, workspace: Workspace) -> str:
    """Return the line for an error: what is wrong, what to do, and the command to run next."""
    return f"{error}; next: {render(error.command, workspace)}" if error.command else str(error)


def complete_commands(text: str, workspace: Workspace) -> str:
    """Append DATA=, FOLDS= and SUBMISSIONS= to each `make` command in backticks, where they differ from the defaults.

    `make data` stays unchanged, so that a copied command never generates images in a folder of real data.
    """
    folders = {"DATA": workspace.data, "FOLDS": workspace.folds, "SUBMISSIONS": workspace.submissions}
    default = Workspace()
    defaults = {"DATA": default.data, "FOLDS": default.folds, "SUBMISSIONS": default.submissions}

    def complete(command: re.Match[str]) -> str:
        target, rest = command.groups()
        variables = () if target == "data" else tuple(folders)
        assignments = [
            f" {variable}={shlex.quote(str(folders[variable]))}"
            for variable in variables
            if folders[variable] != defaults[variable] and f"{variable}=" not in rest
        ]
        return f"`make {target}{rest}{''.join(assignments)}`"

    return _MAKE.sub(complete, text)
