"""Reproducing the poster: its four rows, the mean of the best predictions of three of them, and our blend of those.

The poster trained one network a row and held one set of images out, so one fold is what is trained unless all are asked
for.
"""

from typing import Any, Final, TypeAlias

from competition.blending.blend import blend
from competition.common.console import Console, duration
from competition.common.errors import FoldsError, UserError, unknown
from competition.common.pose_csv import Poses
from competition.common.workspace import Workspace
from competition.data.labels import read_labels, read_test
from competition.data.names import name_groups
from competition.leaderboard.score import has_answers, score
from competition.report.poster import POSTER, POSTER_MEAN_MM
from competition.runs.candidates import candidates, select, write_submission
from competition.runs.provenance import provenance
from competition.training.jobs import Job, fold_numbers
from competition.training.parallel import train_folds

SCALES: Final = {"full": "", "small": "-small"}


Row: TypeAlias = dict[str, Any]


def reproduce(workspace: Workspace, scale: str, console: Console, *, fold: str = "0", at_once: int = 1) -> list[Row]:
    """Train the poster's rows that aren't trained yet, average and blend; return the table, a row a model or blend.

    `fold` is a number or all; `at_once` networks are trained at a time. A row: {"name", "setting", "poster",
    "poster_ratio", "out_of_fold", "test", "ratio"}; mm, ratios to the best single model of the column, test null where
    there are no hidden answers.
    """
    if scale not in SCALES:
        raise UserError(unknown("scale", scale, SCALES))
    labels, test = read_labels(workspace.data), read_test(workspace.data)
    hidden = has_answers(workspace.data)
    names = [row.entrant + SCALES[scale] for row in POSTER]
    _train(workspace, names, fold, console, at_once)
    rows: list[Row] = []
    for row, name in zip(POSTER, names, strict=True):
        written = write_submission(workspace.submissions, name, test.id)
        if written is None:
            raise UserError(f"run {name} has no epoch of all its folds: train the others, or set SUBMISSIONS=")
        test_mm = score(workspace.data, written[0])["all"] if hidden else None
        rows.append(_row(name, row.setting, row.test_mm, written[1].valid_mpjpe, test_mm))
    averaged = [name for row, name in zip(POSTER, names, strict=True) if row.averaged]
    chosen = select(candidates(workspace.submissions), averaged)
    subjects, sequences = name_groups(labels.images)
    for method, setting in (
        ("mean", "per-coordinate mean of the best"),
        ("optuna", "Optuna blend of the same"),
    ):
        result = blend(
            chosen,
            Poses(labels.id, labels.pose_mm.astype("float64")),
            test.id,
            workspace.submissions / f"reproduce-{scale}-{method}",
            method=method,
            subjects=subjects,
            sequences=sequences,
            images_sha256=labels.images_sha256,
            provenance=provenance(workspace.data, test, labels, chosen[0].folds_sha256),
            seed=workspace.seed,
        )
        nested = result.facts["mpjpe_nested"]
        test_mm = score(workspace.data, result.submission)["all"] if hidden else None
        poster = POSTER_MEAN_MM if method == "mean" else None
        out_of_fold = result.facts["mpjpe_blend_in_sample"] if nested is None else nested
        rows.append(_row(f"{method} of three", setting, poster, out_of_fold, test_mm))
    _add_ratios(rows)
    return rows


def _train(workspace: Workspace, names: list[str], fold: str, console: Console, at_once: int) -> None:
    """Train what isn't trained yet, and say before what it will cost."""
    import models
    from competition.training.cost import estimate_seconds  # here: it loads torch

    every = [str(number) for number in fold_numbers(workspace)]
    if fold not in (*every, "all"):
        raise FoldsError(f"fold {fold}: expected {every[0]} to {every[-1]}, or all")
    folds = every if fold == "all" else [fold]
    jobs = [
        Job(workspace=workspace, name=name, recipe=models.recipe(name), fold=int(number), run=name, workers=None)
        for name in names
        for number in folds
    ]
    of = "all folds" if fold == "all" else f"fold {fold}"
    console.note(f"{', '.join(names)}, {of}: measuring a few steps of each")
    at_once = max(1, min(at_once, len(jobs)))
    if seconds := estimate_seconds(jobs, at_once):
        told = "one network after another" if at_once == 1 else f"{at_once} networks at a time"
        console.note(f"about {duration(seconds)} here, {told}; what is finished is skipped")
    train_folds(jobs, console, parallel=at_once)


def _row(name: str, setting: str, poster: float | None, out_of_fold: float | None, test: float | None) -> Row:
    return {"name": name, "setting": setting, "poster": poster, "out_of_fold": out_of_fold, "test": test}


def _add_ratios(rows: list[Row]) -> None:
    """Add each row's ratio to the best single model: of the poster's figures, and of ours (test, or out of fold)."""
    ours = "test" if rows[0]["test"] is not None else "out_of_fold"
    for column, into in (("poster", "poster_ratio"), (ours, "ratio")):
        best = min(row[column] for row in rows[: len(POSTER)])
        for row in rows:
            row[into] = None if row[column] is None else row[column] / best
