"""SUBMISSIONS/scores.csv: scores of files on the hidden answers, and their ranks."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from competition.common.files import locked, read_text, sha256_file, write_text
from competition.common.table_csv import read_table, table_csv
from competition.leaderboard.score import Scores

DIGITS: Final = 4  # of the recorded scores; scores equal in them are tied
PARTS: Final = ("all", "public", "private")


@dataclass(frozen=True, kw_only=True)
class ScoredFile:
    """The scores of one file, MPJPE in mm: its fields are the columns of scores.csv."""

    time: str = ""
    file: str = ""
    sha256: str = ""
    all: float | None = None
    public: float | None = None
    private: float | None = None


SCORES: Final = tuple(field.name for field in fields(ScoredFile))
UNSCORED: Final = ScoredFile()


def record_score(submissions: Path, file: Path, scores: Scores) -> None:
    """Append a file's scores to SUBMISSIONS/scores.csv."""
    path = submissions / "scores.csv"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    cells = [now, str(file), sha256_file(file), *map(_cell, (scores.all, scores.public, scores.private))]
    with locked(submissions):  # another process may score a file at the same time
        before = read_text(path, what="scores") if path.exists() else table_csv(SCORES, [])
        write_text(path, before + table_csv(None, [cells]))


def describe_ranks(submissions: Path, file: Path) -> str:
    """Describe a file's ranks among all scored files that still exist unchanged; "" if it has none."""
    latest = latest_scores(submissions)
    recorded = [Path(row.file) for row in read_scores(submissions)]
    paths = {path.resolve() for path in (*recorded, *submissions.glob("*/submission.csv.gz"))}  # some were renamed
    known = {path: found for path in paths if (found := scores_of(path, latest)).all is not None}
    ranks = {
        "public": rank([found.public for found in known.values()]),
        "private": rank([found.private for found in known.values()]),
    }
    place = list(known).index(file.resolve())
    parts = [f"{part} {of_part[place]}" for part, of_part in ranks.items() if of_part[place] is not None]
    return f"rank among {len(known)} files scored here: {', '.join(parts)} (equal scores share a rank)" if parts else ""


def _cell(score: float | None) -> str:
    return "" if score is None else f"{score:.{DIGITS}f}"


def read_scores(submissions: Path) -> list[ScoredFile]:
    """Read scores.csv, oldest row first; empty if there is none; raise UserError if the file is invalid."""
    path = submissions / "scores.csv"
    found = []
    for row in read_table(path, SCORES, what="scores", numbers=PARTS) if path.exists() else []:
        whole, public, private = (float(row[part]) if row[part] else None for part in PARTS)
        kept = {key: row[key] for key in ("time", "file", "sha256")}
        found.append(ScoredFile(**kept, all=whole, public=public, private=private))
    return found


def latest_scores(submissions: Path) -> dict[str, ScoredFile]:
    """Return the last scores of each file in scores.csv by its sha256, which stays when its folder is renamed."""
    return {row.sha256: row for row in read_scores(submissions)}


def scores_of(file: Path, latest: dict[str, ScoredFile]) -> ScoredFile:
    """Return a file's latest scores, UNSCORED if it has none or has changed since."""
    return latest.get(sha256_file(file), UNSCORED) if latest and file.is_file() else UNSCORED


def rank(scores: Sequence[float | None]) -> list[int | None]:
    """Rank scores, 1 for the lowest; equal scores share a rank and the next rank is skipped: 1, 1, 3."""
    rounded = [None if score is None else round(score, DIGITS) for score in scores]
    known = sorted(score for score in rounded if score is not None)
    return [None if score is None else 1 + known.index(score) for score in rounded]
