"""Where a competition's files lie."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from competition.common.errors import UserError

# a command between backticks: the target, and what follows it
_MAKE = re.compile(r"`make (check|folds|train|predict|blend|score|board|report|submit|verify|reproduce|data)\b([^`]*)`")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The three folders every command works on, and the root seed."""

    data: Path = Path("data/synthetic")  # images, labels: read only
    folds: Path = Path("folds")  # folds.csv, folds.json
    submissions: Path = Path("submissions")  # a folder a run, blends, scores
    seed: int = 0  # every other seed derives from it

    def run(self, name: str) -> Path:
        """Return the folder of a run; refuse names that would leave `submissions`."""
        if not _NAME.fullmatch(name):
            raise UserError(
                f"run {name[:60]!r}: expected letters, digits, '.', '_' and '-', the first a letter or digit"
            )
        return self.submissions / name

    def tell(self, text: str) -> str:
        """Give every command between backticks, such as `make board`, the knobs that lead it to these folders."""
        ours = {"DATA": self.data, "FOLDS": self.folds, "SUBMISSIONS": self.submissions}
        usual = Workspace()
        defaults = {"DATA": usual.data, "FOLDS": usual.folds, "SUBMISSIONS": usual.submissions}

        def spell(command: re.Match[str]) -> str:
            target, rest = command.groups()
            heeded = () if target == "data" else tuple(ours)  # data draws people: never into a folder by a slip
            knobs = [
                f" {knob}={shlex.quote(str(ours[knob]))}"
                for knob in heeded
                if ours[knob] != defaults[knob] and f"{knob}=" not in rest
            ]
            return f"`make {target}{rest}{''.join(knobs)}`"

        return _MAKE.sub(spell, text)
