"""Links from the board into the report."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from markupsafe import escape

from competition.common.files import read_text

ANCHOR: Final = "run-"  # followed by the name of a run or blend: the id of its row in the report


def find_links(names: Iterable[str], report: Path) -> dict[str, str]:
    """Return the addresses of the rows of runs and blends in the report, by name; only of those that it contains."""
    text = read_text(report, what="report") if report.exists() else ""
    known = [name for name in names if f'id="{escape(ANCHOR + name)}"' in text]
    return {name: f"{report.resolve().as_uri()}#{quote(ANCHOR + name)}" for name in known}
