"""Completes the `make` commands in messages, so that they apply to the folders that the user chose."""

import re
import shlex

from competition.common.workspace import Workspace

# a command in backticks: the target, and the rest of the command
_MAKE = re.compile(r"`make (check|folds|train|predict|blend|score|board|report|submit|verify|reproduce|data)\b([^`]*)`")


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
