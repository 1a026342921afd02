"""The origin of a file of test poses: a run, one of its epochs or a blend, and its out-of-fold MPJPE."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from competition.common.errors import UserError
from competition.common.pose_csv import Poses
from competition.runs.blends import is_blend, read_blend
from competition.runs.candidates import best_epoch, candidates, read_test_poses
from competition.runs.record import read_log


class Origin(NamedTuple):
    """The origin of a file of test poses."""

    name: str  # run:epoch or the blend's folder, "" if unknown; column `run` of the ledger
    mpjpe: float | None  # mm, out of fold
    description: str


def find_origin(submissions: Path, file: Path, poses: Poses) -> Origin:
    """Find the run, epoch or blend that a file of test poses came from, and its out-of-fold MPJPE."""
    file, submissions = file.resolve(), submissions.resolve()
    try:
        return _of_blend(file) if is_blend(file.parent) else _of_run(submissions, file, poses)
    except UserError as error:  # a damaged run must not block a valid file
        return Origin("", None, f"unknown ({error})")


def _of_blend(file: Path) -> Origin:
    blend, name = read_blend(file.parent), file.parent.name
    table = {row.method: (row.mpjpe_in_sample, row.mpjpe_nested) for row in blend.table}
    unknown = (None, None)
    contents = {  # file name: description, and errors in sample and nested
        "submission": (f"this file is the {blend.shipped}", (blend.mpjpe_blend_in_sample, blend.mpjpe_nested)),
        "submission_mean": ("this file is its mean", table.get("mean", unknown)),
        "submission_coordinate": (
            "this file is its per-coordinate blend",
            table.get("optuna coordinate", table.get("optuna", unknown)),
        ),
    }
    if (stem := file.name.removesuffix(".csv.gz")) not in contents:
        raise UserError(f"{file.name} is not a file that the blend {name} wrote")
    what, (in_sample, nested) = contents[stem]
    score = f"in sample {_mm(in_sample)}" if nested is None else f"nested {_mm(nested)}"
    members = f"{len(blend.candidates)} candidates ({', '.join(blend.candidates)})"
    description = f"blend {name} of {members} by {blend.method}, {what}; out-of-fold MPJPE {score}"
    return Origin(name, in_sample if nested is None else nested, description)


def _of_run(submissions: Path, file: Path, poses: Poses) -> Origin:
    run, *folds = (file.relative_to(submissions).parts[:-1] if file.is_relative_to(submissions) else ()) or ("",)
    if folds and (test := re.fullmatch(r"test_epoch(\d{2,})\.csv(\.gz)?", file.name)):
        epoch = int(test[1])
        mpjpe = next((row.valid_mpjpe for row in read_log(file.parent) if row.epoch == epoch), None)
        description = f"run {run}, epoch {epoch}, {folds[0]} alone; out-of-fold MPJPE of this fold {_mm(mpjpe)}"
        return Origin(f"{run}:{epoch}", mpjpe, description)
    if folds or file.name != "submission.csv.gz" or not any(file.parent.glob("fold*/")):
        raise UserError("not a file of a run or a blend")
    best = best_epoch([candidate for candidate in candidates(submissions) if candidate.run == run])
    if best is None:
        return Origin(run, None, f"run {run}; out-of-fold MPJPE {_mm(None)}")
    if np.abs(read_test_poses(best, poses.id) - poses.pose_mm).max() > 0.001:  # written with three decimals
        return Origin(run, None, f"run {run}, but not the poses of its best epoch, {best.epoch}: is the file older?")
    description = f"run {run}, epoch {best.epoch}; out-of-fold MPJPE {_mm(best.valid_mpjpe)}"
    return Origin(best.name, best.valid_mpjpe, description)


def _mm(mpjpe: float | None) -> str:
    return "unknown" if mpjpe is None else f"{mpjpe:.2f} mm"
