"""Reproduces the poster's table: its four models, the mean of the best three, and an Optuna blend of the same three.

The poster's authors trained each model once, with one held-out set, so only one fold is trained by default.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from competition.blending.blend import blend_dataset
from competition.common.console import duration
from competition.common.errors import FoldsError, UserError, unknown_message
from competition.common.workspace import Workspace
from competition.leaderboard.score import has_answers, score
from competition.report.poster import POSTER, POSTER_MEAN_MM
from competition.runs.candidates import candidates, select, write_submission
from competition.training.jobs import Advice, Data, Job, open_data
from competition.training.parallel import train_planned

log = logging.getLogger(__name__)

SCALES: Final = {"full": "", "small": "-small"}  # suffix of the models' names
BLENDS: Final = {  # method: setting, MPJPE of the poster's in mm
    "mean": ("per-coordinate mean of the best three", POSTER_MEAN_MM),
    "optuna": ("Optuna blend of the same three", None),
}
ADVICE: Final = Advice(  # the settings and the names of the runs are fixed
    busy="wait for it or use another folder of --submissions",
    configuration="use the old --seed or another folder of --submissions, or delete that folder",
    not_finite="use another --seed and another folder of --submissions, or --scale small",
    less_memory="lower --parallel or use --scale small",
)


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """A model or blend: errors (MPJPE) in mm, and ratios to the best single model of the column."""

    name: str
    setting: str
    poster: float | None  # on the poster; None if the poster has no such row
    out_of_fold: float | None
    test: float | None  # None without hidden answers
    poster_ratio: float | None = None
    ratio: float | None = None  # of test or, without hidden answers, of out_of_fold


def reproduce(
    workspace: Workspace, scale: str, *, fold: str = "0", parallel: int | None = None, workers: int | None = None
) -> list[Reproduced]:
    """Train the poster's models that aren't trained yet, average and blend them; return one row per model and blend.

    `fold` is a number or all; `parallel` networks (see `train_folds`) are trained at the same time, each with `workers`
    loader processes.
    """
    if scale not in SCALES:
        raise UserError(unknown_message("scale", scale, SCALES))
    data, hidden = open_data(workspace), has_answers(workspace.data)

    def test_mm(file: Path) -> float | None:
        return score(data.dataset, file).all if hidden else None

    models = {row.model + SCALES[scale]: row for row in POSTER}
    _train(workspace, data, list(models), fold, parallel, workers)
    rows = []
    for name, row in models.items():
        written = write_submission(workspace.submissions, name, data.dataset.test.id)
        if written is None:
            raise UserError(
                f"run {name} has no epoch that is complete in all its folds",
                fix="train the missing folds, or use another folder of submissions",
            )
        file, best = written
        rows.append(
            Reproduced(
                name=name,
                setting=row.setting,
                poster=row.test_mm,
                out_of_fold=best.valid_mpjpe,
                test=test_mm(file),
            )
        )
    averaged = [name for name, row in models.items() if row.averaged]
    chosen = select(candidates(workspace.submissions), averaged)
    for method, (setting, poster) in BLENDS.items():
        out = workspace.submissions / f"reproduce-{scale}-{method}"
        result = blend_dataset(chosen, data.dataset, out, method=method, seed=workspace.seed)
        rows.append(
            Reproduced(
                name=f"{method} of three",
                setting=setting,
                poster=poster,
                out_of_fold=result.record.out_of_fold,
                test=test_mm(result.submission),
            )
        )
    return _with_ratios(rows)


def _train(
    workspace: Workspace, data: Data, names: list[str], fold: str, parallel: int | None, workers: int | None
) -> None:
    """Print an estimate of the duration, then train what isn't trained yet."""
    import models
    from competition.training.capacity import plan_jobs  # loads torch
    from competition.training.cost import estimate_seconds

    every = [str(number) for number in data.fold_numbers]
    if fold not in (*every, "all"):
        raise FoldsError(f"fold {fold}: expected {every[0]} to {every[-1]}, or all")
    folds = every if fold == "all" else [fold]
    jobs = [
        Job(
            workspace=workspace,
            name=name,
            recipe=models.recipe(name),
            fold=int(number),
            run=name,
            workers=workers,
            advice=ADVICE,
        )
        for name in names
        for number in folds
    ]
    which = "all folds" if fold == "all" else f"fold {fold}"
    log.info(f"{', '.join(names)}, {which}: timing a few steps of each")
    jobs, at_once = plan_jobs(jobs, parallel)
    if seconds := estimate_seconds(jobs, data, at_once):
        order = "one network after another" if at_once == 1 else f"{at_once} networks at a time"
        log.info(f"about {duration(seconds)} on this machine, {order}; finished folds are skipped")
    train_planned(jobs, data, at_once)


def _with_ratios(rows: Sequence[Reproduced]) -> list[Reproduced]:
    """Add each row's ratios to the best single model: on the poster, and here (test, or else out of fold)."""
    measured = [row.out_of_fold if rows[0].test is None else row.test for row in rows]
    here = _ratios(measured)
    poster = _ratios([row.poster for row in rows])
    return [replace(row, poster_ratio=one, ratio=other) for row, one, other in zip(rows, poster, here, strict=True)]


def _ratios(errors_mm: Sequence[float | None]) -> list[float | None]:
    """Divide errors by the lowest of the single models, which come first."""
    best = min(mm for mm in errors_mm[: len(POSTER)] if mm is not None)
    return [None if mm is None else mm / best for mm in errors_mm]
