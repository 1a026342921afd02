"""SUBMISSIONS/scores.csv: scores of files on the hidden answers, and their ranks."""

import csv
import datetime
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from competition.common.errors import UserError
from competition.common.files import locked, read_text, sha256_file, write_text

DIGITS: Final = 4  # of the recorded scores; scores equal in them are tied
SCORES = ("time", "file", "sha256", "all", "public", "private")


def record_score(submissions: Path, file: Path, scores: dict[str, Any]) -> None:
    """Append a row to SUBMISSIONS/scores.csv."""
    path = submissions / "scores.csv"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    row = [now, str(file), sha256_file(file), *map(_cell, (scores["all"], scores["public"], scores["private"]))]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    with locked(submissions):  # another process may score a file at the same time
        if not path.exists():
            writer.writerow(SCORES)
        writer.writerow(row)
        before = read_text(path, what="scores") if path.exists() else ""
        write_text(path, before + buffer.getvalue())


def describe_ranks(submissions: Path, file: Path) -> str:
    """Describe a file's ranks among all scored files that still exist unchanged; "" if it has none."""
    latest = latest_scores(submissions)
    scores = {path: scores_of(path, latest) for path in latest}
    known = {path: score for path, score in scores.items() if score["all"] is not None}
    parts = []
    for part in ("public", "private"):
        position = dict(zip(known, rank([score[part] for score in known.values()]), strict=True))[file.resolve()]
        if position is not None:
            parts.append(f"{part} {position}")
    return f"rank among {len(known)} files scored here: {', '.join(parts)} (equal scores share a rank)" if parts else ""


def _cell(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"


def latest_scores(submissions: Path) -> dict[Path, dict[str, str]]:
    """Read the last row of each file in scores.csv, by absolute path; raise UserError if the file is invalid."""
    path = submissions / "scores.csv"
    if not path.exists():
        return {}
    reader = csv.DictReader(io.StringIO(read_text(path, what="scores")))
    if tuple(reader.fieldnames or ()) != SCORES:
        raise UserError(f"{path}:1: columns {reader.fieldnames}, expected {', '.join(SCORES)}: move the file away")
    return {Path(row["file"]).resolve(): row for row in reader}


def scores_of(file: Path, scores: dict[Path, dict[str, str]]) -> dict[str, float | None]:
    """Return a file's latest scores, all None if it has no scores or has changed since."""
    row = scores.get(file.resolve())
    known = row is not None and file.exists() and row["sha256"] == sha256_file(file)
    return {key: float(row[key]) if known and row and row[key] else None for key in ("all", "public", "private")}


def rank(scores: Sequence[float | None]) -> list[int | None]:
    """Rank scores, 1 for the lowest; equal scores share a rank and the next rank is skipped: 1, 1, 3."""
    rounded = [None if score is None else round(score, DIGITS) for score in scores]
    known = sorted(score for score in rounded if score is not None)
    return [None if score is None else 1 + known.index(score) for score in rounded]
