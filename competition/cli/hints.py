"""Hints: the commands named in messages, completed so that they work on the same folders."""

import re
import shlex

from competition.common.workspace import Workspace

# a command between backticks: the target, and what follows it
_MAKE = re.compile(r"`make (check|folds|train|predict|blend|score|board|report|submit|verify|reproduce|data)\b([^`]*)`")


def with_knobs(text: str, workspace: Workspace) -> str:
    """Give every command between backticks, such as `make board`, the knobs that lead it to the workspace's folders."""
    own = {"DATA": workspace.data, "FOLDS": workspace.folds, "SUBMISSIONS": workspace.submissions}
    usual = Workspace()
    defaults = {"DATA": usual.data, "FOLDS": usual.folds, "SUBMISSIONS": usual.submissions}

    def spell(command: re.Match[str]) -> str:
        target, rest = command.groups()
        heeded = () if target == "data" else tuple(own)  # data draws people: never into a folder by a slip
        knobs = [
            f" {knob}={shlex.quote(str(own[knob]))}"
            for knob in heeded
            if own[knob] != defaults[knob] and f"{knob}=" not in rest
        ]
        return f"`make {target}{rest}{''.join(knobs)}`"

    return _MAKE.sub(spell, text)
