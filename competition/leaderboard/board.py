"""Places on the board as a leaderboard gives them, and warnings where a choice would follow the public score.

The public score is that of a part of the test set: the best of many submissions on it is partly luck, and the final
places are those of the rest. Nothing here knows why a file was sent; what can be known is which scores disagree.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from competition.common.files import sha256_file
from competition.leaderboard.ledger import public_scores, sent_scores
from competition.leaderboard.scores import latest_scores, places, scores_of
from competition.runs.blends import SCORED, blend_folders, read_facts
from competition.runs.candidates import Candidate, best_epoch, candidates, expected_folds
from competition.runs.folders import fold_folders, run_folders

Row: TypeAlias = dict[str, Any]

RANKED: Final = ("out_of_fold", "public", "private")


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
    for competition, scores in sorted(public_scores(ledger).items()):
        if len(scores) > 1:
            found.append(
                f"note: {len(scores)} files were scored by {competition}: the best, {min(scores.values()):.2f}, is the "
                "luckiest of them too; expect the private score to be higher"
            )
    return found


def board(submissions: Path, folds: Path) -> list[dict[str, Any]]:
    """List runs and blends with their out-of-fold MPJPE and, where they were scored, the public and private one.

    A run trained on the folds in `folds` has to have all of them. Where no hidden answers gave a public score, it is
    the one that the competition gave the same file. Places are added as in `with_places`.
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
        facts = read_facts(folder, SCORED)
        row = {
            "name": folder.name,
            "kind": f"blend ({facts['method']})",
            "folds": None,
            "of_folds": None,
            "epochs": None,
        }
        nested = facts["mpjpe_nested"]
        row |= {"best_epoch": None, "out_of_fold": facts["mpjpe_blend_in_sample"] if nested is None else nested}
        row["in_sample"] = nested is None and facts.get("shipped") != "mean"
        row["why"] = "" if row["out_of_fold"] is not None else "a blend of files, of whose error nothing is known"
        rows.append(row | scores_of(folder / "submission.csv.gz", scores))
    sent = sent_scores(submissions / "ledger.csv")
    for row in rows:
        file = submissions / str(row["name"]) / "submission.csv.gz"
        if row["public"] is None and sent and file.exists():
            row["public"] = sent.get(sha256_file(file))
    return with_places(rows)


def _unscored(run: Path, of_run: Sequence[Candidate]) -> str:
    """Say why a run has no out-of-fold MPJPE."""
    if of_run:
        return "no log.jsonl tells it; the table of `make blend` has what it is worth in a blend"
    if fold_folders(run):
        return "no epoch has its files in every fold"
    return "trained on everything, so nothing was held out"
