"""The board: runs and blends with their scores and ranks, and warnings against choosing by the public score.

The public score covers only a part of the test set, so the best of many submissions is partly lucky; the rest of the
test set decides the final ranking.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

from competition.common.errors import UserError, unknown_message
from competition.common.files import sha256_file
from competition.data.dataset import Dataset
from competition.leaderboard.comparison import Comparison, compare, describe_apart
from competition.leaderboard.scores import ScoredFile, latest_scores, rank, scores_of
from competition.runs.blends import Blend, blend_folders, read_blend
from competition.runs.candidates import Candidate, best_epoch, candidates_of, predicted_from
from competition.runs.folders import fold_folders, run_folders
from competition.runs.ledger import public_scores, sent_scores
from competition.runs.misnamed import misnamed
from competition.runs.missing import describe_missing, describe_shortened, expected_folds, missing_files, shortened_logs
from competition.runs.provenance import Provenance

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BoardRow:
    """A run or a blend on the board; scores are MPJPE in mm, None if unknown."""

    name: str
    kind: str  # run, run (predicted from RUN) or blend (METHOD)
    folds: int | None = None  # with files; None for a blend, as are the next three
    of_folds: int | None = None  # of the folds that the run was trained on, if they are those in use
    epochs: int | None = None  # complete in all folds
    best_epoch: int | None = None
    out_of_fold: float | None = None
    in_sample: bool = False  # a blend scored on the rows that its weights were fitted on
    why: str = ""  # there is no out-of-fold score, or the row isn't ranked
    all: float | None = None
    public: float | None = None
    private: float | None = None
    out_of_fold_rank: int | None = None
    public_rank: int | None = None
    private_rank: int | None = None

    @property
    def is_run(self) -> bool:
        return self.folds is not None

    @property
    def is_complete(self) -> bool:
        """Whether no fold is known to be missing."""
        return self.folds is None or self.of_folds in (None, self.folds)


COLUMNS: Final = tuple(field.name for field in fields(BoardRow))


def sort_rows(rows: Sequence[BoardRow], column: str) -> list[BoardRow]:
    """Sort by one of COLUMNS, unknown values last; raise UserError for another column."""
    if column not in COLUMNS:
        raise UserError(unknown_message("column", column, COLUMNS))
    return sorted(rows, key=lambda row: (getattr(row, column) is None, getattr(row, column)))


def with_ranks(rows: Sequence[BoardRow]) -> list[BoardRow]:
    """Rank the rows by each score.

    The out-of-fold rank leaves out runs with missing folds, and blends scored on the rows that their weights were
    fitted on.
    """
    out_of_fold = rank([row.out_of_fold if row.is_complete and not row.in_sample else None for row in rows])
    public, private = rank([row.public for row in rows]), rank([row.private for row in rows])
    return [
        replace(row, out_of_fold_rank=of_fold, public_rank=of_public, private_rank=of_private)
        for row, of_fold, of_public, of_private in zip(rows, out_of_fold, public, private, strict=True)
    ]


NOTABLE = 1.01  # ratio of out-of-fold errors; smaller differences are no reason to distrust a score


def warnings(rows: Sequence[BoardRow]) -> list[str]:
    """Warn if the public score and the out-of-fold error disagree on the best row; `rows` come from `with_ranks`."""
    both = [
        (row.out_of_fold, row.public, row.name)
        for row in rows
        if row.out_of_fold_rank is not None and row.out_of_fold is not None and row.public is not None
    ]
    if len(both) > 1:
        by_public, by_fold = min(both, key=lambda one: one[1]), min(both, key=lambda one: one[0])
        if by_public[0] > NOTABLE * by_fold[0]:
            return [
                f"{by_public[2]} is best on the public score, {by_fold[2]} out of fold: prefer {by_fold[2]}; "
                "the out-of-fold score is computed on more rows, and the public score is easily overfitted"
            ]
    return []


def notes(ledger: Path) -> list[str]:
    """List how many files a competition has scored, as the best of many scores is lucky; the ledger may be missing."""
    return [
        f"{len(scores)} files were scored by {competition}: the best score, {min(scores.values()):.2f}, is partly due "
        "to luck; expect a higher private score"
        for competition, scores in sorted(public_scores(ledger).items())
        if len(scores) > 1
    ]


def board(submissions: Path, folds: Path, dataset: Dataset | None = None) -> list[BoardRow]:
    """List runs and blends with their out-of-fold MPJPE, their public and private scores if known, and their ranks.

    Without a score on hidden answers, the public score is the one in the ledger for the same file. Rows of other data
    than `dataset` and `folds` aren't ranked. Warnings name these rows, and runs with missing or misnamed files.
    """
    runs = {run: candidates_of(run) for run in run_folders(submissions)}
    blends = {folder: read_blend(folder) for folder in blend_folders(submissions)}
    of_runs = [of_run[0].provenance if of_run else Provenance() for of_run in runs.values()]
    of_blends = [blend.provenance or Provenance() for blend in blends.values()]
    comparison = compare(of_runs, of_blends, folds, dataset)
    rows = [_run_row(run, comparison.rescored(of_run), folds) for run, of_run in runs.items()]
    rows += [_blend_row(folder, blend) for folder, blend in blends.items()]
    whys = [comparison.why(one) for one in of_runs] + [comparison.why(one, of_blend=True) for one in of_blends]
    _warn(submissions, list(runs), comparison, of_runs, {row.name: why for row, why in zip(rows, whys, strict=True)})

    latest, sent = latest_scores(submissions), sent_scores(submissions / "ledger.csv")
    scored = []
    for row, why, recorded in zip(rows, whys, of_runs + of_blends, strict=True):
        if not comparison.has_other_test_set(recorded):
            row = _with_scores(row, submissions / row.name / "submission.csv.gz", latest, sent)
        scored.append(replace(row, why="; ".join(filter(None, (why, row.why)))))
    ranked = iter(with_ranks([row for row, why in zip(scored, whys, strict=True) if not why]))
    return [row if why else next(ranked) for row, why in zip(scored, whys, strict=True)]


def _with_scores(row: BoardRow, file: Path, latest: dict[str, ScoredFile], sent: dict[str, float]) -> BoardRow:
    found = scores_of(file, latest)
    public = found.public
    if public is None and sent and file.exists():
        public = sent.get(sha256_file(file))
    return replace(row, all=found.all, public=public, private=found.private)


def _warn(
    submissions: Path, runs: Sequence[Path], comparison: Comparison, of_runs: Sequence[Provenance], whys: dict[str, str]
) -> None:
    """Warn about files that aren't read, epochs that are left out, and rows that can't be compared."""
    for found in misnamed(submissions):
        log.warning(str(found))
    for run in runs:
        if logs := shortened_logs(run):
            log.warning(describe_shortened(run.name, logs))
        if missing := missing_files(run):
            log.warning(describe_missing(run.name, missing))
    stale = [run.name for run, recorded in zip(runs, of_runs, strict=True) if comparison.is_stale(recorded)]
    if stale:
        log.warning(comparison.describe_stale(stale))
    if any(whys.values()):
        log.warning(describe_apart(whys))


def _run_row(run: Path, of_run: Sequence[Candidate], folds: Path) -> BoardRow:
    best, source = best_epoch(of_run), predicted_from(run)
    return BoardRow(
        name=run.name,
        kind="run" if source is None else f"run (predicted from {source})",
        folds=len(fold_folders(run)),
        of_folds=expected_folds(run, folds),
        epochs=len(of_run),
        best_epoch=best.epoch if best else None,
        out_of_fold=best.valid_mpjpe if best else None,
        why="" if best else _unscored(run, of_run),
    )


def _blend_row(folder: Path, blend: Blend) -> BoardRow:
    return BoardRow(
        name=folder.name,
        kind=f"blend ({blend.method})",
        out_of_fold=blend.out_of_fold,
        in_sample=blend.in_sample,
        why="" if blend.out_of_fold is not None else "a blend of files, which has no out-of-fold poses",
    )


def _unscored(run: Path, of_run: Sequence[Candidate]) -> str:
    """Explain why a run has no out-of-fold MPJPE."""
    if of_run:
        return "log.jsonl is missing; a blend with this run reports its error"
    if fold_folders(run):
        return "no epoch is complete in all folds"
    return "trained on everything, so no images were held out"
