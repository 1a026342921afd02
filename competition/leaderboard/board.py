"""Places on the board as a leaderboard gives them, and warnings where a choice would follow the public score.

The public score is that of a part of the test set: the best of many submissions on it is partly luck, and the final
places are those of the rest. Nothing here knows why a file was sent; what can be known is which scores disagree.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from competition.common.files import read_text
from competition.leaderboard.submit import read_ledger

Row: TypeAlias = dict[str, Any]

RANKED: Final = ("out_of_fold", "public", "private")
ANCHOR: Final = "run-"  # and the name of a run or a blend: its row in the report
DIGITS: Final = 4  # of the recorded scores: what is equal in them is a tie


def places(scores: Sequence[float | None]) -> list[int | None]:
    """Give each score its place, 1 for the lowest; equal ones share it and the next is left out: 1, 1, 3."""
    rounded = [None if score is None else round(score, DIGITS) for score in scores]
    known = sorted(score for score in rounded if score is not None)
    return [None if score is None else 1 + known.index(score) for score in rounded]


def with_places(rows: Sequence[Row]) -> list[Row]:
    """Add to every row of the board its places, such as `public_rank`; out of fold only what can be compared.

    Left out are runs that lack folds, and weights judged on the rows that they were found on.
    """
    ranked = [dict(row) for row in rows]
    for key in RANKED:
        scores = [row[key] if key != "out_of_fold" or _comparable(row) else None for row in ranked]
        for row, place in zip(ranked, places(scores), strict=True):
            row[f"{key}_rank"] = place
    return ranked


def _comparable(row: Row) -> bool:
    return not row["in_sample"] and row["folds"] in (None, row["of_folds"] or row["folds"])


def warnings(rows: Sequence[Row], ledger: Path) -> list[str]:
    """Say where the public score would choose another row than out-of-fold errors do, and how often it was asked.

    `rows` are those of `with_places`; `ledger` is the record of what was sent, which may be missing.
    """
    found = []
    both = [row for row in rows if row["out_of_fold_rank"] is not None and row["public"] is not None]
    if len(both) > 1:
        by_public = min(both, key=lambda row: row["public"])
        by_fold = min(both, key=lambda row: row["out_of_fold"])
        if by_public["out_of_fold"] > by_fold["out_of_fold"]:
            found.append(
                f"warning: {by_public['name']} leads on the public score, {by_fold['name']} out of fold: choosing the "
                "former would tune on the public part of the test; out of fold has more rows and decides better"
            )
    for competition, scores in sorted(_sent(ledger).items()):
        if len(scores) > 1:
            found.append(
                f"note: {len(scores)} files were scored by {competition}: the best, {min(scores.values()):.2f}, is the "
                "luckiest of them too; expect the private score to be higher"
            )
    return found


def sent_scores(ledger: Path) -> dict[str, float]:
    """Return the latest public score of each file by its sha256; none where several competitions were asked."""
    scores = list(_sent(ledger).values())
    return scores[0] if len(scores) == 1 else {}


def link_rows(rows: list[dict[str, Any]], report: Path) -> None:
    """Add to every row of the board its `link` into a report; None where the report doesn't tell of it."""
    text = read_text(report, what="report") if report.exists() else ""
    for row in rows:
        anchor = ANCHOR + row["name"]
        known = f'id="{escape(anchor)}"' in text
        row["link"] = f"{report.resolve().as_uri()}#{quote(anchor)}" if known else None


def _sent(ledger: Path) -> dict[str, dict[str, float]]:
    """Collect the public scores that each competition gave, by the file's sha256."""
    sent: dict[str, dict[str, float]] = {}
    for row in read_ledger(ledger):
        if row["status"] == "complete" and row["public"]:
            sent.setdefault(row["competition"], {})[row["sha256"]] = float(row["public"])
    return sent
