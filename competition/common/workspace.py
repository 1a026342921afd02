"""The folders of a competition."""

import re
from dataclasses import dataclass
from pathlib import Path

from competition.common.errors import Command, RunError, UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The three folders that every command uses, and the root seed."""

    data: Path = Path("data/synthetic")  # images and labels; only `data` writes here
    folds: Path = Path("folds")  # folds.csv, folds.json
    submissions: Path = Path("submissions")  # one folder per run or blend, scores
    seed: int = 0  # all other seeds are derived from it

    def run(self, name: str) -> Path:
        """Return the folder of a run; raise UserError for a name that isn't a plain folder name."""
        if not _NAME.fullmatch(name):
            raise UserError(
                f"run {name[:60]!r}: expected letters, digits, '.', '_' and '-', at most 100, the first a "
                "letter or digit"
            )
        return self.submissions / name

    def existing_run(self, name: str) -> Path:
        """Return the folder of a run; raise RunError if there is none."""
        folder = self.run(name)
        if not folder.is_dir():
            raise RunError(f"no run at {folder}", fix="the board lists the runs", command=Command("board"))
        return folder

    def no_runs(self) -> RunError:
        """Return the error for a folder of submissions without any run."""
        return RunError(
            f"no runs under {self.submissions}", fix="train one", command=Command("train", {"model": "3dhg-small"})
        )
