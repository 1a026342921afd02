"""Candidates: the epochs of runs that can be blended, the selection among them, and their poses.

SUBMISSIONS/<run>/submission.csv.gz     test poses of the run's best epoch, averaged over its folds
"""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from competition.common.arrays import Float64, Int64
from competition.common.choices import check_epochs
from competition.common.errors import Command, RunError, unknown_message
from competition.common.files import AnyPath, sha256_text, to_path
from competition.common.metrics import mpjpe
from competition.common.pose_csv import Poses, read_poses, write_poses
from competition.runs.folders import epoch_files, fold_folders, read_valid, row_count, run_folders, test_file
from competition.runs.provenance import PARTS, Provenance, has_other_labels
from competition.runs.record import RunConfig, read_config, read_log
from competition.runs.studies import study_folders

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One epoch of one run: out-of-fold poses from all folds, test poses averaged over folds."""

    run: str
    epoch: int
    valid_files: tuple[Path, ...]  # one per fold, npz or csv(.gz)
    test_files: tuple[Path, ...]  # one per fold
    verified: bool  # False for external predictions: without config.json their folds are unknown
    provenance: Provenance = field(default_factory=Provenance)  # only hashes; they are None for external predictions
    predicted_from: str | None = None  # the run whose networks predicted the poses; None if this run was trained
    valid_mpjpe: float | None  # mm, out of fold, from the logs, weighted by rows; None without logs

    @property
    def name(self) -> str:
        return f"{self.run}:{self.epoch}"


def candidates(submissions: AnyPath) -> list[Candidate]:
    """List every epoch for which all fold folders of its run hold both files, sorted by run and epoch."""
    return [candidate for run in run_folders(to_path(submissions)) for candidate in candidates_of(run)]


def _data_of(run: Path, configs: Sequence[RunConfig]) -> Provenance:
    """Return the hashes of the data that a run was trained on; raise RunError if two of its folds differ."""
    known: dict[str, Any] = {}  # str; mypy would compare it with the fields that aren't hashes
    for part, config in itertools.product(PARTS, configs):
        sha256 = getattr(config, part)
        if sha256 is not None and known.setdefault(part, sha256) != sha256:
            raise RunError(
                f"{run}: its folds were trained on different data ({part} in config.json)",
                fix="train it again as another run",
            )
    return Provenance(**known)


def predicted_from(run: Path) -> str | None:
    """Return the run whose networks predicted a run's poses; None if it was trained, or is unknown."""
    configs = [read_config(folder) for folder in fold_folders(run) if (folder / "config.json").exists()]
    return next((config.predicted_from for config in configs if config.predicted_from), None)


def rescored(
    found: Sequence[Candidate], now: Provenance, score: Callable[[Candidate], float | None]
) -> list[Candidate]:
    """Replace the logged errors of runs that were trained on the same images with other labels."""
    return [replace(c, valid_mpjpe=score(c)) if has_other_labels(c.provenance, now) else c for c in found]


def read_test_poses(candidate: Candidate, test_ids: Int64) -> Float64:
    """Read a candidate's test poses in mm, averaged over its folds: [n, 17, 3], sorted by Id."""
    folds = [read_poses(path, test_ids).pose_mm for path in candidate.test_files]
    return np.asarray(np.mean(folds, axis=0))


def best_epoch(of_run: Sequence[Candidate]) -> Candidate | None:
    """Return the epoch with the lowest out-of-fold MPJPE, the earliest on a tie; None if none has a score."""
    scored = [candidate for candidate in of_run if candidate.valid_mpjpe is not None]
    return min(scored, key=lambda candidate: candidate.valid_mpjpe or 0.0) if scored else None


def refitted(candidate: Candidate) -> Candidate:
    """Return the candidate with the test poses of its run's fold `full`, which trains on everything; same epoch."""
    run = candidate.test_files[0].parent.parent
    file = test_file(run / "foldfull", candidate.epoch)
    if not file.exists():
        configs = [folder for folder in fold_folders(run) if (folder / "config.json").exists()]
        recipe = read_config(configs[0]).recipe if configs else None
        raise RunError(
            f"no {file}",
            fix=f"first train {candidate.run} on everything, with the same settings",
            command=Command("train", {"model": recipe, "run": candidate.run, "fold": "full"}),
        )
    folders = [folder for folder in (*fold_folders(run), file.parent) if (folder / "config.json").exists()]
    return replace(candidate, test_files=(file,), provenance=_data_of(run, [read_config(path) for path in folders]))


def write_submission(submissions: Path, run: str, test_ids: Int64) -> tuple[Path, Candidate] | None:
    """Write a run's submission.csv.gz from its best epoch; return None while no epoch is complete in all folds."""
    best = best_epoch(candidates_of(submissions / run))
    if best is None:
        return None
    path = submissions / run / "submission.csv.gz"
    write_poses(path, np.sort(test_ids), read_test_poses(best, test_ids))
    return path, best


def candidates_of(run: Path) -> list[Candidate]:
    """List the epochs of one run that are complete in all its folds."""
    folds = fold_folders(run)
    if not folds:
        return []
    valid, test = zip(*map(epoch_files, folds), strict=True)
    epochs = sorted(set.intersection(*map(set, (*valid, *test))))
    if not epochs:
        return []
    logs = [{row.epoch: row.valid_mpjpe for row in read_log(folder)} for folder in folds]
    sizes = [row_count(v[epochs[0]]) for v in valid] if all(logs) else []
    configs = [read_config(folder) for folder in folds if (folder / "config.json").exists()]
    data, source = _data_of(run, configs), predicted_from(run)
    return [
        Candidate(
            run=run.name,
            epoch=epoch,
            valid_files=tuple(v[epoch] for v in valid),
            test_files=tuple(t[epoch] for t in test),
            verified=len(configs) == len(folds),
            provenance=data,
            predicted_from=source,
            valid_mpjpe=weighted([of_fold.get(epoch) for of_fold in logs], sizes),
        )
        for epoch in epochs
    ]


def weighted(scores: Sequence[float | None], rows: Sequence[int]) -> float | None:
    """Return the mean of the folds' scores, weighted by rows; None if one is unknown."""
    known = [score for score in scores if score is not None]
    if not rows or len(known) < len(rows):
        return None
    if len(known) == 1:
        return known[0]  # without rounding
    return sum(score * n for score, n in zip(known, rows, strict=True)) / sum(rows)


def runs_using_folds(submissions: Path, folder: Path) -> list[str]:
    """List the runs, and the folders of studies, under `submissions` that were trained on the folds in `folder`."""
    path = folder / "folds.csv"
    if not path.exists():
        return []
    sha256 = sha256_text(path)
    configs = [(path.parent.parent.name, path) for path in sorted(submissions.glob("*/fold*/config.json"))]
    for study in study_folders(submissions):
        configs += [(f"{study.parent.name}/{study.name}", path) for path in sorted(study.glob("*/fold*/config.json"))]
    using = (name for name, path in configs if read_config(path.parent).folds_sha256 == sha256)
    return list(dict.fromkeys(using))


def select(
    found: Sequence[Candidate],
    runs: Sequence[str] | None = None,
    epochs: str = "best",
    score: Callable[[Candidate], float] | None = None,
) -> list[Candidate]:
    """Select candidates by run and epoch, sorted: `epochs` is best, last, all, or numbers such as 3,4.

    Without `runs`, runs that were predicted with the networks of another run are skipped.
    The best epoch has the lowest out-of-fold MPJPE, the earliest on a tie; `score` computes it if the logs lack it.
    """
    names = sorted({candidate.run for candidate in found})
    if not names:
        raise RunError(
            "nothing to blend: no run has an epoch that is complete in all its folds", command=Command("train")
        )
    for run in runs or ():
        if run not in names:
            raise RunError(unknown_message("run", run, names))
    chosen: list[Candidate] = []
    for run in _trained(found, names) if runs is None else sorted(set(runs)):
        of_run = sorted((c for c in found if c.run == run), key=lambda c: c.epoch)
        chosen += _select_epochs(of_run, epochs, score)
    return chosen


def _trained(found: Sequence[Candidate], names: Sequence[str]) -> list[str]:
    """Return the names of the runs that weren't predicted from others; raise RunError if there are none."""
    sources = {candidate.run: candidate.predicted_from for candidate in found if candidate.predicted_from is not None}
    described = ", ".join(f"{run} (from {source})" for run, source in sorted(sources.items()))
    trained = [name for name in names if name not in sources]
    if not trained:
        raise RunError(
            f"nothing to blend: the only runs were predicted with the networks of others: {described}",
            fix="select them by name, with --runs",
        )
    if sources:
        log.info(f"skipped, as predicted with the networks of other runs: {described}; --runs selects them by name")
    return trained


def _select_epochs(of_run: list[Candidate], epochs: str, score: Callable[[Candidate], float] | None) -> list[Candidate]:
    if epochs == "all":
        return of_run
    if epochs == "last":
        return of_run[-1:]
    if epochs == "best":
        if len(of_run) == 1:
            return of_run
        scores = [score(c) if c.valid_mpjpe is None and score is not None else c.valid_mpjpe for c in of_run]
        if any(value is None for value in scores):
            raise RunError(
                f"run {of_run[0].run}: its logs lack the score of an epoch: choose with --epochs last or numbers"
            )
        return [of_run[int(np.argmin(np.array(scores, np.float64)))]]
    chosen = [c for c in of_run if c.epoch in {int(cell) for cell in check_epochs(epochs).split(",")}]
    if not chosen:
        complete = ", ".join(str(c.epoch) for c in of_run)
        raise RunError(f"run {of_run[0].run} has no epoch {epochs}: those complete in all its folds are {complete}")
    return chosen


def out_of_fold_mpjpe(candidate: Candidate, true: Poses) -> float:
    """Return a candidate's MPJPE in mm over all its out-of-fold rows."""
    poses = read_out_of_fold(candidate, true)
    return mpjpe(poses.pose_mm, true.pose_mm[np.searchsorted(true.id, poses.id)])


def read_out_of_fold(candidate: Candidate, true: Poses) -> Poses:
    """Read a candidate's out-of-fold poses from all folds, sorted by Id; raise RunError if they are invalid."""
    return read_out_of_fold_parts(candidate, true)[0]


def read_out_of_fold_parts(candidate: Candidate, true: Poses) -> tuple[Poses, Int64]:
    """Read as `read_out_of_fold`; return the poses and, for each row [N], the index of its file in `valid_files`."""
    parts = [read_valid(file) for file in candidate.valid_files]
    for file, part in zip(candidate.valid_files, parts, strict=True):
        foreign = np.setdiff1d(part.id, true.id)
        if len(foreign):
            raise RunError(
                f"{file}: Id {foreign[0]} is not among the {len(true.id)} training images",
                fix="Ids count the lines of train_images.txt from 1; or do the poses belong to other data?",
            )
    ids = np.concatenate([part.id for part in parts])
    order = np.argsort(ids, kind="stable")
    duplicate = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(duplicate):
        raise RunError(
            f"{candidate.name}: Id {ids[order][duplicate[0]]} is held out in several folds "
            f"({', '.join(file.parent.name for file in candidate.valid_files)})",
            fix="Ids count the lines of train_images.txt, not the rows of a fold; train overlapping folds again",
        )
    if not len(ids):
        raise RunError(f"{candidate.name}: its out-of-fold files contain no rows")
    poses = Poses(ids[order], np.concatenate([part.pose_mm for part in parts])[order])
    return poses, np.repeat(np.arange(len(parts)), [len(part.id) for part in parts])[order]
