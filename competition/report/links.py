"""Links from the board into the report."""

from html import escape
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from competition.common.files import read_text

ANCHOR: Final = "run-"  # followed by the name of a run or blend: the id of its row in the report


def link_rows(rows: list[dict[str, Any]], report: Path) -> None:
    """Add a `link` into the report to every row of the board; None if the report doesn't contain it."""
    text = read_text(report, what="report") if report.exists() else ""
    for row in rows:
        anchor = ANCHOR + row["name"]
        known = f'id="{escape(anchor)}"' in text
        row["link"] = f"{report.resolve().as_uri()}#{quote(anchor)}" if known else None
