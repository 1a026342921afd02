"""Reproduces the poster's table: its four models, the mean of the best three, and an Optuna blend of the same three.

The poster's authors trained each model once, with one held-out set, so only one fold is trained by default.
"""

from dataclasses import asdict
from typing import Any, Final, TypeAlias

from competition.blending.blend import blend
from competition.common.console import Console, duration
from competition.common.errors import FoldsError, UserError, unknown_message
from competition.common.pose_csv import Poses
from competition.common.workspace import Workspace
from competition.data.names import subjects_and_sequences
from competition.leaderboard.score import has_answers, score
from competition.report.poster import POSTER, POSTER_MEAN_MM
from competition.runs.candidates import candidates, select, write_submission
from competition.runs.provenance import provenance
from competition.training.jobs import Data, Job, open_data
from competition.training.parallel import train_folds

SCALES: Final = {"full": "", "small": "-small"}  # suffix of the models' names

Row: TypeAlias = dict[str, Any]


def reproduce(workspace: Workspace, scale: str, console: Console, *, fold: str = "0", parallel: int = 1) -> list[Row]:
    """Train the poster's models that aren't trained yet, average and blend them; return one row per model and blend.

    `fold` is a number or all; `parallel` networks are trained at the same time. Keys of a row: name, setting, poster,
    poster_ratio, out_of_fold, test, ratio. Errors are in mm, ratios relative to the best single model of the column,
    and test is None without hidden answers.
    """
    if scale not in SCALES:
        raise UserError(unknown_message("scale", scale, SCALES))
    data = open_data(workspace)
    labels, test = data.dataset.labels, data.dataset.test
    hidden = has_answers(workspace.data)
    names = [row.model + SCALES[scale] for row in POSTER]
    _train(workspace, data, names, fold, console, parallel)
    rows: list[Row] = []
    for row, name in zip(POSTER, names, strict=True):
        written = write_submission(workspace.submissions, name, test.id)
        if written is None:
            raise UserError(
                f"run {name} has no epoch that is complete in all its folds: train the missing folds, or set "
                "another SUBMISSIONS="
            )
        test_mm = score(data.dataset, written[0]).all if hidden else None
        rows.append(_row(name, row.setting, row.test_mm, written[1].valid_mpjpe, test_mm))
    averaged = [name for row, name in zip(POSTER, names, strict=True) if row.averaged]
    chosen = select(candidates(workspace.submissions), averaged)
    subjects, sequences = subjects_and_sequences(labels.images)
    for method, setting in (
        ("mean", "per-coordinate mean of the best three"),
        ("optuna", "Optuna blend of the same three"),
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
            provenance=asdict(provenance(data.dataset, chosen[0].folds_sha256)),
            seed=workspace.seed,
        )
        nested = result.facts["mpjpe_nested"]
        test_mm = score(data.dataset, result.submission).all if hidden else None
        poster = POSTER_MEAN_MM if method == "mean" else None
        out_of_fold = result.facts["mpjpe_blend_in_sample"] if nested is None else nested
        rows.append(_row(f"{method} of three", setting, poster, out_of_fold, test_mm))
    _add_ratios(rows)
    return rows


def _train(workspace: Workspace, data: Data, names: list[str], fold: str, console: Console, parallel: int) -> None:
    """Print an estimate of the duration, then train what isn't trained yet."""
    import models
    from competition.training.cost import estimate_seconds  # loads torch

    every = [str(number) for number in data.fold_numbers]
    if fold not in (*every, "all"):
        raise FoldsError(f"fold {fold}: expected {every[0]} to {every[-1]}, or all")
    folds = every if fold == "all" else [fold]
    jobs = [
        Job(workspace=workspace, name=name, recipe=models.recipe(name), fold=int(number), run=name, workers=None)
        for name in names
        for number in folds
    ]
    which = "all folds" if fold == "all" else f"fold {fold}"
    console.note(f"{', '.join(names)}, {which}: timing a few steps of each")
    parallel = max(1, min(parallel, len(jobs)))
    if seconds := estimate_seconds(jobs, data, parallel):
        order = "one network after another" if parallel == 1 else f"{parallel} networks at a time"
        console.note(f"about {duration(seconds)} on this machine, {order}; finished folds are skipped")
    train_folds(jobs, data, parallel=parallel)


def _row(name: str, setting: str, poster: float | None, out_of_fold: float | None, test: float | None) -> Row:
    return {"name": name, "setting": setting, "poster": poster, "out_of_fold": out_of_fold, "test": test}


def _add_ratios(rows: list[Row]) -> None:
    """Add each row's ratios to the best single model: on the poster, and here (test, or else out of fold)."""
    measured = "test" if rows[0]["test"] is not None else "out_of_fold"
    for column, into in (("poster", "poster_ratio"), (measured, "ratio")):
        best = min(row[column] for row in rows[: len(POSTER)])
        for row in rows:
            row[into] = None if row[column] is None else row[column] / best
