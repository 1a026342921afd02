"""The origin of a file of test poses: a run, one of its epochs or a blend, and its out-of-fold MPJPE."""

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from competition.common.errors import RunError, UserError
from competition.common.pose_csv import Poses
from competition.data.dataset import Dataset
from competition.runs.blends import is_blend, read_blend
from competition.runs.candidates import Candidate, best_epoch, candidates_of, out_of_fold_mpjpe, read_test_poses
from competition.runs.folders import FULL, epoch_files, fold_folder, fold_folders
from competition.runs.provenance import PARTS, Provenance, hashes_now, other_parts
from competition.runs.record import read_config, read_log

log = logging.getLogger(__name__)


class Origin(NamedTuple):
    """The origin of a file of test poses."""

    name: str  # run:epoch or the blend's folder, "" if unknown; column `run` of the ledger
    mpjpe: float | None  # mm, out of fold
    description: str


def check_test_set(file: Path, dataset: Dataset) -> None:
    """Raise RunError if the run, fold or blend that a file belongs to was made for another test set."""
    folder = file.resolve().parent
    for recorded in _recorded(folder):
        sha256 = recorded.test_images_sha256
        if sha256 not in (None, dataset.test_images_sha256):
            raise RunError(
                f"{file}: {folder.name} was made for {PARTS['test_images_sha256']} {dataset.folder}",
                fix="use the data folder that it was made for, or predict or blend again",
            )


def _recorded(folder: Path) -> list[Provenance]:
    """Return the data recorded by a run, a fold or a blend; what is damaged must not block a valid file."""
    found = []
    for path in (folder, *fold_folders(folder), fold_folder(folder, FULL)):
        with suppress(UserError):
            if is_blend(path):
                found.append(read_blend(path).provenance or Provenance())
            elif (path / "config.json").exists():
                found.append(read_config(path).provenance)
    return found


def find_origin(submissions: Path, file: Path, poses: Poses, dataset: Dataset | None = None) -> Origin:
    """Find the run, epoch or blend that a file of test poses came from, and its out-of-fold MPJPE.

    If it was made with other labels than those of `dataset`, log a warning; the error is then computed again for a run,
    and unknown for a blend.
    """
    file, submissions = file.resolve(), submissions.resolve()
    try:
        recorded = _recorded(file.parent) if dataset is not None else []
        now = hashes_now(dataset, None, recorded) if dataset is not None else Provenance()
        stale = {part for one in recorded for part in other_parts(one, now)}
        changed = next((part for part in ("images_sha256", "labels_sha256") if part in stale), None)
        what = "left out"
        if is_blend(file.parent):
            origin = _of_blend(file, known=changed is None)
        elif changed is None:
            origin = _of_run(submissions, file, poses, _logged)
        elif changed == "images_sha256" or dataset is None:
            origin = _of_run(submissions, file, poses, lambda _: None)
        else:
            true, what = dataset.true, "computed with these labels"
            origin = _of_run(submissions, file, poses, lambda c: out_of_fold_mpjpe(c, true) if c.valid_files else None)
        if changed is not None and dataset is not None:
            made = f"was made with {PARTS[changed]} {dataset.folder}"
            log.warning(f"{origin.name} {made}: its out-of-fold error is {what}")
        return origin
    except UserError as error:  # a damaged run must not block a valid file
        return Origin("", None, f"unknown ({error})")


def _logged(candidate: Candidate) -> float | None:
    return candidate.valid_mpjpe


def _of_blend(file: Path, *, known: bool = True) -> Origin:
    blend, name = read_blend(file.parent), file.parent.name
    table = {row.method: (row.mpjpe_in_sample, row.mpjpe_nested) for row in blend.table}
    unknown = (None, None)
    contents = {  # file name: description, and errors in sample and nested
        "submission": (
            f"this file is the {blend.shipped_method or blend.shipped}",
            (blend.mpjpe_blend_in_sample, blend.mpjpe_nested),
        ),
        "submission_mean": ("this file is its mean", table.get("mean", unknown)),
        "submission_coordinate": (
            "this file is its per-coordinate blend",
            table.get("coordinate", table.get("optuna", unknown)),
        ),
    }
    if (stem := file.name.removesuffix(".csv.gz")) not in contents:
        raise UserError(f"{file.name} is not a file that the blend {name} wrote")
    what, (in_sample, nested) = contents[stem]
    if not known:
        in_sample, nested = unknown
    score = f"in sample {_mm(in_sample)}" if nested is None else f"nested {_mm(nested)}"
    members = f"{len(blend.candidates)} candidates ({', '.join(blend.candidates)})"
    description = f"blend {name} of {members} by {blend.method}, {what}; out-of-fold MPJPE {score}"
    return Origin(name, in_sample if nested is None else nested, description)


def _of_run(submissions: Path, file: Path, poses: Poses, error: Callable[[Candidate], float | None]) -> Origin:
    run, *folds = (file.relative_to(submissions).parts[:-1] if file.is_relative_to(submissions) else ()) or ("",)
    if folds and (test := re.fullmatch(r"test_epoch(\d{2,})\.csv(\.gz)?", file.name)):
        epoch = int(test[1])
        logged = next((row.valid_mpjpe for row in read_log(file.parent) if row.epoch == epoch), None)
        valid = epoch_files(file.parent)[0].get(epoch)
        mpjpe = error(
            Candidate(
                run=run,
                epoch=epoch,
                valid_files=() if valid is None else (valid,),
                test_files=(file,),
                verified=True,
                valid_mpjpe=logged,
            )
        )
        description = f"run {run}, epoch {epoch}, {folds[0]} alone; out-of-fold MPJPE of this fold {_mm(mpjpe)}"
        return Origin(f"{run}:{epoch}", mpjpe, description)
    if folds or file.name != "submission.csv.gz" or not any(file.parent.glob("fold*/")):
        raise UserError("not a file of a run or a blend")
    best = best_epoch(candidates_of(submissions / run))
    if best is None:
        return Origin(run, None, f"run {run}; out-of-fold MPJPE {_mm(None)}")
    if np.abs(read_test_poses(best, poses.id) - poses.pose_mm).max() > 0.001:  # written with three decimals
        return Origin(run, None, f"run {run}, but not the poses of its best epoch, {best.epoch}: is the file older?")
    mpjpe = error(best)
    return Origin(best.name, mpjpe, f"run {run}, epoch {best.epoch}; out-of-fold MPJPE {_mm(mpjpe)}")


def _mm(mpjpe: float | None) -> str:
    return "unknown" if mpjpe is None else f"{mpjpe:.2f} mm"
