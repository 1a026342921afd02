"""The pipeline of a blend: join the candidates on Id, choose what ships, fit all methods, write files.

    problem         the candidates' residuals on the rows that all of them have, and the groups of the rows
    fitted          what a method fits to a problem; it blends test poses float64 [M, n, 17, 3] mm to [n, 17, 3]

Most methods are always computed, for the table; `method` is the one that ships. Granularity `auto` chooses granularity
and shrinkage by cross-validation over groups, and ships the mean if the gain isn't significant.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import optuna

from competition.blending.compare import MethodResult, compare, describe, notes_on_gain
from competition.blending.fitted import Fitted, SearchedWeights, Weights
from competition.blending.join import join
from competition.blending.options import check_blend
from competition.blending.plan import Plan, make_plan
from competition.blending.problem import Problem
from competition.blending.search import journal
from competition.blending.stack import Stacked
from competition.blending.views import Viewed
from competition.common.arrays import Float64, Int64
from competition.common.files import AnyPath, to_path
from competition.common.pose_csv import Poses
from competition.common.records import to_json
from competition.data.dataset import Dataset
from competition.data.views import Views, predicted_views
from competition.runs.blends import Blend, check_folder, write_blend
from competition.runs.candidates import Candidate
from competition.runs.provenance import Provenance
from competition.runs.provenance import provenance as provenance_of

NOT_MONOCULAR: Final = (
    "poses of other cameras at the same instant are used: the result is no longer monocular, and a competition's rules "
    "decide whether it is allowed"
)
FEWER: Final = 0.9  # other cameras out of fold, relative to the test set


@dataclass(frozen=True, kw_only=True)
class BlendResult:
    """The result of a blend."""

    submission: Path
    record: Blend  # blend.json
    weights: Float64 | None  # [17, 3, M] as in weights.csv; None for a method without weights
    notes: tuple[str, ...]  # one line each

    @property
    def facts(self) -> dict[str, object]:
        """The contents of blend.json as a JSON object."""
        return to_json(self.record)


def blend(
    candidates: Sequence[Candidate],
    true: Poses,
    test_ids: Int64,
    out: AnyPath,
    *,
    method: str = "optuna",
    granularity: str = "auto",
    stack: bool | None = None,
    views: tuple[Views, Views] | None = None,
    subjects: Sequence[str] | None = None,
    sequences: Sequence[str] | None = None,
    fold_of_row: Int64 | None = None,
    provenance: Provenance | None = None,
    sampler: str = "cmaes",
    seed: int = 0,
    submissions: AnyPath | None = None,
) -> BlendResult:
    """Blend candidates and write the files to `out`.

    `stack` ships the second level (True), leaves it out (False) or lets cross-validation choose (None). `views`, of the
    training and the test images, has the poses fused with those of other cameras, see `Dataset.views`.
    `true` holds the training Ids, ascending, and their poses in mm; `subjects` and `sequences` belong to its rows.
    Candidates must belong to the images and the test set of `provenance`, which is copied to blend.json. Raises
    UserError before anything is written; files of an earlier blend in `out` remain until everything is computed, and
    are kept elsewhere if they were submitted according to the ledger beside `out` or in `submissions` (see
    `write_blend`).
    """
    started, out = time.perf_counter(), to_path(out)
    submissions = None if submissions is None else to_path(submissions)
    requested = check_blend(method, granularity, stack, views=views is not None)
    check_folder(out)
    joined = join(candidates, true, test_ids, provenance=provenance, fold_of_row=fold_of_row)
    place = np.searchsorted(true.id, joined.id)
    problem = Problem(
        residual=joined.residual,
        names=joined.names,
        true_mm=joined.true_mm,
        subjects=None if subjects is None else np.asarray(subjects)[place],
        sequences=None if sequences is None else np.asarray(sequences)[place],
        views=None if views is None else predicted_views(*views, place),
        seed=seed,
        sampler=sampler,
    )
    plan = make_plan(problem, requested, granularity, stack)
    results = compare(problem, plan)

    shipped, coordinate = results[plan.ships_as], results.get("coordinate", results["optuna"])
    poses = {
        "submission_mean.csv.gz": results["mean"].fitted.apply(joined.test_mm),
        "submission_coordinate.csv.gz": coordinate.fitted.apply(joined.test_mm),
        "submission.csv.gz": shipped.fitted.apply_with(joined.test_mm, None if views is None else views[1]),
    }
    files = {"study.journal": journal(_studies(results)), **shipped.fitted.files(joined.names)}
    facts = replace(describe(problem, plan, results), members=joined.errors, provenance=provenance)
    notes = (*joined.notes, *_notes(problem, plan, facts, views))
    facts = replace(facts, inputs=joined.inputs, seconds=round(time.perf_counter() - started, 3))
    facts = write_blend(out, facts, test_id=joined.test_id, poses=poses, files=files, submissions=submissions)
    weights = _weights(shipped.fitted)
    return BlendResult(submission=out / "submission.csv.gz", record=facts, weights=weights, notes=notes)


def blend_dataset(
    candidates: Sequence[Candidate],
    dataset: Dataset,
    out: AnyPath,
    *,
    method: str = "optuna",
    granularity: str = "auto",
    stack: bool | None = None,
    views: bool = False,
    fold_of_row: Int64 | None = None,
    sampler: str = "cmaes",
    seed: int = 0,
    submissions: AnyPath | None = None,
) -> BlendResult:
    """Blend candidates with the labels, groups and test images of a data set; see `blend`.

    With `views`, poses are fused with those of other cameras at the same instant, by the names of the images.
    """
    check_blend(method, granularity, stack, views=views)
    subjects, sequences = dataset.groups
    folds = (candidate.provenance.folds_sha256 for candidate in candidates)
    return blend(
        candidates, dataset.true, dataset.test.id, out, method=method, granularity=granularity, stack=stack,
        views=dataset.views if views else None, subjects=subjects, sequences=sequences, fold_of_row=fold_of_row,
        sampler=sampler, seed=seed, submissions=submissions,
        provenance=provenance_of(dataset, next((sha256 for sha256 in folds if sha256 is not None), None)),
    )  # fmt: skip


def _notes(problem: Problem, plan: Plan, facts: Blend, views: tuple[Views, Views] | None) -> list[str]:
    """Return what ships and why, its gain, and how many rows were searched, one line each."""
    ships = plan.ships_as if plan.ships_as in ("mean", "best single") else facts.shipped
    notes = [f"submission.csv.gz is the {ships}: {facts.why}", *notes_on_gain(facts, plan)]
    if plan.views:
        notes.append(NOT_MONOCULAR)
    if problem.views is not None and views is not None:
        own, test = problem.views.others().mean(), views[1].others().mean()
        if own < FEWER * test:
            notes.append(
                f"{own:.1f} other cameras per out-of-fold image, {test:.1f} per test image: weights may not fit"
            )
    if problem.thinned is not problem:
        notes.append(
            f"weights searched on {problem.thinned.rows} of {problem.rows} rows, from all sequences; errors are over "
            "all rows"
        )
    return notes


def _weights(fitted: Fitted) -> Float64 | None:
    """Return the weights [17, 3, M] of a blend or beneath it; None for a method without weights."""
    while isinstance(fitted, Stacked | Viewed):
        fitted = fitted.beneath
    return fitted.values if isinstance(fitted, Weights) else None


def _studies(results: dict[str, MethodResult]) -> list[optuna.Study]:
    fits = dict.fromkeys(result.raw for result in results.values())
    return [study for fitted in fits if isinstance(fitted, SearchedWeights) for study in fitted.studies]
