"""Where a competition's files lie."""

import re
from dataclasses import dataclass
from pathlib import Path

from competition.common.errors import UserError

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
