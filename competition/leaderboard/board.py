"""The board: runs and blends with their scores and ranks, and warnings against choosing by the public score.

The public score covers only a part of the test set, so the best of many submissions is partly lucky; the rest of the
test set decides the final ranking.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from competition.common.files import sha256_file
from competition.leaderboard.ledger import public_scores, sent_scores
from competition.leaderboard.scores import latest_scores, rank, scores_of
from competition.runs.blends import blend_folders, read_blend
from competition.runs.candidates import Candidate, best_epoch, candidates, expected_folds
from competition.runs.folders import fold_folders, run_folders

Row: TypeAlias = dict[str, Any]

RANKED: Final = ("out_of_fold", "public", "private")


def with_ranks(rows: Sequence[Row]) -> list[Row]:
    """Add ranks such as `public_rank` to every row of the board.

    The out-of-fold rank leaves out runs with missing folds, and blends scored on the rows that their weights were
    fitted on.
    """
    ranked = [dict(row) for row in rows]
    for key in RANKED:
        scores = [row[key] if key != "out_of_fold" or _comparable(row) else None for row in ranked]
        for row, position in zip(ranked, rank(scores), strict=True):
            row[f"{key}_rank"] = position
    return ranked


def _comparable(row: Row) -> bool:
    return not row["in_sample"] and row["folds"] in (None, row["of_folds"] or row["folds"])


def warnings(rows: Sequence[Row], ledger: Path) -> list[str]:
    """Warn if the public score and the out-of-fold error disagree on the best row, and if many files were scored.

    `rows` come from `with_ranks`; the file `ledger` may be missing.
    """
    lines = []
    both = [row for row in rows if row["out_of_fold_rank"] is not None and row["public"] is not None]
    if len(both) > 1:
        by_public = min(both, key=lambda row: row["public"])
        by_fold = min(both, key=lambda row: row["out_of_fold"])
        if by_public["out_of_fold"] > by_fold["out_of_fold"]:
            lines.append(
                f"warning: {by_public['name']} is best on the public score, {by_fold['name']} out of fold: prefer "
                f"{by_fold['name']}; the out-of-fold score is computed on more rows, and "
                "the public score is easily overfitted"
            )
    for competition, scores in sorted(public_scores(ledger).items()):
        if len(scores) > 1:
            lines.append(
                f"note: {len(scores)} files were scored by {competition}: the best score, {min(scores.values()):.2f}, "
                "is partly due to luck; expect a higher private score"
            )
    return lines


def board(submissions: Path, folds: Path) -> list[dict[str, Any]]:
    """List runs and blends with their out-of-fold MPJPE, their public and private scores if known, and their ranks.

    `of_folds` is the number of folds in `folds` for runs trained on them. Without a score on hidden answers, the
    public score is the one in the ledger for the same file.
    """
    scores = latest_scores(submissions)
    by_run: dict[str, list[Any]] = {}
    for candidate in candidates(submissions):
        by_run.setdefault(candidate.run, []).append(candidate)
    rows = []
    for run in run_folders(submissions):
        of_run = by_run.get(run.name, [])
        best = best_epoch(of_run)
        row = {"name": run.name, "kind": "run", "folds": len(fold_folders(run)), "of_folds": expected_folds(run, folds)}
        row["epochs"] = len(of_run)
        row |= {"best_epoch": best.epoch if best else None, "out_of_fold": best.valid_mpjpe if best else None}
        row["in_sample"], row["why"] = False, "" if row["out_of_fold"] is not None else _unscored(run, of_run)
        rows.append(row | scores_of(run / "submission.csv.gz", scores))
    for folder in blend_folders(submissions):
        blend = read_blend(folder)
        row = {
            "name": folder.name,
            "kind": f"blend ({blend.method})",
            "folds": None,
            "of_folds": None,
            "epochs": None,
        }
        row |= {"best_epoch": None, "out_of_fold": blend.out_of_fold, "in_sample": blend.in_sample}
        row["why"] = "" if row["out_of_fold"] is not None else "a blend of files, which has no out-of-fold poses"
        rows.append(row | scores_of(folder / "submission.csv.gz", scores))
    sent = sent_scores(submissions / "ledger.csv")
    for row in rows:
        file = submissions / str(row["name"]) / "submission.csv.gz"
        if row["public"] is None and sent and file.exists():
            row["public"] = sent.get(sha256_file(file))
    return with_ranks(rows)


def _unscored(run: Path, of_run: Sequence[Candidate]) -> str:
    """Explain why a run has no out-of-fold MPJPE."""
    if of_run:
        return "log.jsonl is missing; `make blend` reports the error of a blend with this run"
    if fold_folders(run):
        return "no epoch is complete in all folds"
    return "trained on everything, so no images were held out"
