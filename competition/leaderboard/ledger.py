"""SUBMISSIONS/ledger.csv: the record of what was sent, and the public scores that came back."""

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
    """Read what was sent, oldest first; empty when nothing was; raise UserError on another file of that name."""
    reader = csv.DictReader(io.StringIO(read_text(path, what="ledger") if path.exists() else ",".join(LEDGER)))
    rows = list(reader)
    ragged = any(None in row or None in row.values() for row in rows)
    if ragged or tuple(reader.fieldnames or ()) != LEDGER:
        raise UserError(f"{path}: expected a header and rows of {', '.join(LEDGER)}: mend this file or move it away")
    for line, row in enumerate(rows, start=2):
        if row["public"] and not _NUMBER.fullmatch(row["public"]):
            raise UserError(f"{path}:{line}: public score {row['public'][:40]!r}, expected a number: mend this file")
    return rows


def write_row(path: Path, row: Row) -> None:
    """Write a row of the ledger, in the place of its earlier state if there is one."""
    with locked(path.parent):  # another upload may be under way
        rows = {tuple(one[key] for key in LEDGER[:4]): one for one in [*read_ledger(path), row]}
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([LEDGER, *(one.values() for one in rows.values())])
        write_text(path, text.getvalue())


def sent_scores(ledger: Path) -> dict[str, float]:
    """Return the latest public score of each file by its sha256; none where several competitions were asked."""
    scores = list(public_scores(ledger).values())
    return scores[0] if len(scores) == 1 else {}


def public_scores(ledger: Path) -> dict[str, dict[str, float]]:
    """Collect the public scores that each competition gave, by the file's sha256."""
    sent: dict[str, dict[str, float]] = {}
    for row in read_ledger(ledger):
        if row["status"] == "complete" and row["public"]:
            sent.setdefault(row["competition"], {})[row["sha256"]] = float(row["public"])
    return sent
