"""SUBMISSIONS/ledger.csv: the record of uploads and their public scores."""

import csv
import io
import re
from pathlib import Path
from typing import Final, TypeAlias

from competition.common.errors import UserError
from competition.common.files import locked, read_text, write_text

LEDGER: Final = ("time", "competition", "file", "sha256", "run", "out_of_fold", "message", "ref", "status", "public")
Row: TypeAlias = dict[str, str]
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")


def read_ledger(path: Path) -> list[Row]:
    """Read the ledger, oldest row first; empty if there is none; raise UserError if the file is invalid."""
    reader = csv.DictReader(io.StringIO(read_text(path, what="ledger") if path.exists() else ",".join(LEDGER)))
    rows = list(reader)
    ragged = any(None in row or None in row.values() for row in rows)
    if ragged or tuple(reader.fieldnames or ()) != LEDGER:
        raise UserError(f"{path}: expected a header and rows of {', '.join(LEDGER)}: fix this file or move it away")
    for line, row in enumerate(rows, start=2):
        if row["public"] and not _NUMBER.fullmatch(row["public"]):
            raise UserError(f"{path}:{line}: public score {row['public'][:40]!r}, expected a number: fix this file")
    return rows


def write_row(path: Path, row: Row) -> None:
    """Add a row to the ledger, or replace its earlier state."""
    with locked(path.parent):  # another upload may be running
        rows = {tuple(one[key] for key in LEDGER[:4]): one for one in [*read_ledger(path), row]}
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([LEDGER, *(one.values() for one in rows.values())])
        write_text(path, text.getvalue())


def sent_scores(ledger: Path) -> dict[str, float]:
    """Return the latest public score of each file by sha256; empty if the ledger has several competitions."""
    scores = list(public_scores(ledger).values())
    return scores[0] if len(scores) == 1 else {}


def public_scores(ledger: Path) -> dict[str, dict[str, float]]:
    """Return the public scores by competition, then by the file's sha256."""
    sent: dict[str, dict[str, float]] = {}
    for row in read_ledger(ledger):
        if row["status"] == "complete" and row["public"]:
            sent.setdefault(row["competition"], {})[row["sha256"]] = float(row["public"])
    return sent
