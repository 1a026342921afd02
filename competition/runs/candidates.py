"""Run folders: what an epoch leaves behind, and what of it can be blended.

SUBMISSIONS/<run>/fold<k>/  config.json log.jsonl valid_epoch01.npz test_epoch01.csv.gz last.pt best.pt done.json
SUBMISSIONS/<run>/submission.csv.gz     the run's best epoch, test poses averaged over its folds
"""

import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.common.errors import RunError, SubmissionError
from competition.common.files import atomic
from competition.common.pose_csv import Poses, in_order, read_poses, write_poses
from competition.common.skeleton import JOINTS
from competition.data.folds import read_meta
from competition.runs.record import read_config, read_log

_VALID = re.compile(r"valid_epoch(\d{2,})\.(npz|csv|csv\.gz)")
_TEST = re.compile(r"test_epoch(\d{2,})\.(csv|csv\.gz)")
_FOLD = re.compile(r"fold\d+")
MAX_NPZ_BYTES = 1 << 29  # 2.6 million poses; a compressed bomb is larger


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One epoch of one run: its out-of-fold poses are the folds' files together, its test poses their mean."""

    run: str
    epoch: int
    valid_files: tuple[Path, ...]  # one a fold, npz or csv(.gz)
    test_files: tuple[Path, ...]  # one a fold
    verified: bool  # False for outsiders: without config.json nothing is known of their folds
    folds_sha256: str | None  # None for outsiders
    images_sha256: str | None  # of the training images' list; None for outsiders
    valid_mpjpe: float | None  # mm out of fold, from the logs, weighted by rows; None for outsiders

    @property
    def name(self) -> str:
        return f"{self.run}:{self.epoch}"


def valid_file(folder: Path, epoch: int) -> Path:
    """Return the file of an epoch's out-of-fold poses."""
    return folder / f"valid_epoch{epoch:02d}.npz"


def test_file(folder: Path, epoch: int) -> Path:
    """Return the file of an epoch's test poses."""
    return folder / f"test_epoch{epoch:02d}.csv.gz"


def write_valid(path: Path, ids: npt.NDArray[np.int64], pose_mm: npt.NDArray[np.floating]) -> None:
    """Write out-of-fold poses [n, 17, 3] in mm by training Id; raise SubmissionError on what no reader takes."""
    with np.errstate(over="ignore"):  # what float32 can't hold is refused as infinite
        poses = in_order(path, ids, np.asarray(pose_mm).astype(np.float32))
    with atomic(path) as handle:
        np.savez(handle, id=poses.id, pose=poses.pose_mm.astype(np.float32))


def read_valid(path: Path) -> Poses:
    """Read out-of-fold poses, npz or CSV, by ascending training Id; raise RunError on anything unusable."""
    if path.suffix != ".npz":
        try:
            return read_poses(path)
        except SubmissionError as error:
            raise RunError(str(error)) from None
    ids, pose = _read_arrays(path, "id", "pose")
    shapes = ids.ndim == 1 and pose.shape == (len(ids), len(JOINTS), 3)
    if not shapes or ids.dtype.kind not in "iu" or pose.dtype.kind not in "fiu":
        found = f"id {ids.dtype}{ids.shape} and pose {pose.dtype}{pose.shape}"
        raise RunError(f"{path}: {found}, expected int64 [n] and float32 [n, 17, 3]")
    order = np.argsort(ids, kind="stable")
    ids = ids[order].astype(np.int64)
    if (np.diff(ids) == 0).any():
        raise RunError(f"{path}: Id {ids[:-1][np.diff(ids) == 0][0]} stands twice")
    pose = pose[order].astype(np.float64)
    finite = np.isfinite(pose).all(axis=(1, 2))
    if not finite.all():
        raise RunError(f"{path}: the pose of Id {ids[~finite][0]} is not finite")
    return Poses(ids, pose)


def _read_arrays(path: Path, *names: str) -> list[npt.NDArray[Any]]:
    """Read arrays of an npz file, which may be anyone's: nothing in it is run, and it may not fill the memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size <= MAX_NPZ_BYTES:
            with np.load(path, allow_pickle=False) as file:
                arrays = [file[name] for name in names]
            if not all(isinstance(array, np.ndarray) for array in arrays):  # an entry that isn't of numpy
                raise ValueError("other contents")
            return arrays
    except Exception as error:  # zipfile, zlib and numpy raise what they like on damaged bytes
        reason = " ".join(str(error).split())[:80]
        raise RunError(f"{path}: expected an npz with arrays id and pose ({reason})") from None
    raise RunError(f"{path}: more than {MAX_NPZ_BYTES >> 20} MiB when decompressed: no poses")


def fold_folders(run: Path) -> list[Path]:
    """List the fold folders of a run by number; fold `full` has no out-of-fold poses and isn't among them."""
    folders = [p for p in run.iterdir() if p.is_dir() and _FOLD.fullmatch(p.name)] if run.is_dir() else []
    return sorted(folders, key=lambda p: int(p.name.removeprefix("fold")))


def run_folders(submissions: Path) -> list[Path]:
    """List the runs: folders that hold folds."""
    if not submissions.is_dir():
        return []
    return sorted(p for p in submissions.iterdir() if p.is_dir() and any(p.glob("fold*/")))


def candidates(submissions: Path) -> list[Candidate]:
    """List every epoch for which each fold folder of its run holds both files, sorted by run and epoch."""
    return [candidate for run in run_folders(submissions) for candidate in candidates_of(run)]


def folds_of(run: Path, folds: Path) -> int | None:
    """Return how many folds a run has to have; None where it wasn't trained on those in `folds`."""
    configs = [folder for folder in fold_folders(run) if (folder / "config.json").exists()]
    if not configs or not (folds / "folds.json").exists():
        return None
    meta = read_meta(folds)
    return int(meta["k"]) if read_config(configs[0]).get("folds_sha256") == meta["folds_sha256"] else None


def untrained(run: Path, folds: Path) -> str:
    """Say which folds of a run have no whole epoch yet, of all in `folds` where it was trained on those.

    "" when there are none, and for outsiders, of whose folds nothing is known.
    """
    folders, of_folds = fold_folders(run), folds_of(run, folds)
    if not any((folder / "config.json").exists() for folder in folders):
        return ""
    done = {folder.name for folder in folders if _epochs_of(folder)}
    there = {folder.name for folder in folders} | {f"fold{number}" for number in range(of_folds or 0)}
    missing = sorted(there - done, key=lambda name: int(name.removeprefix("fold")))
    if not missing:
        return ""
    recipe = next(read_config(folder).get("recipe") for folder in folders if (folder / "config.json").exists())
    goes_on = f"`make train MODEL={recipe} RUN={run.name}`, with the ARGS it was begun with, goes on"
    return f"{len(missing)} of {len(there)} are missing ({', '.join(missing)}): {goes_on}"


def trained_on(run: Path) -> tuple[str | None, str | None]:
    """Return the hashes of the folds and of the images that a run was trained on; None, None for an outsider.

    Raise RunError when they differ from fold to fold.
    """
    read = [read_config(folder) for folder in fold_folders(run) if (folder / "config.json").exists()]
    hashes = {(config.get("folds_sha256"), config.get("images_sha256")) for config in read}
    if len(hashes) > 1:
        raise RunError(
            f"{run}: its folds were trained on different images or folds.csv: train it again under another RUN="
        )
    return next(iter(hashes), (None, None))


def read_test_poses(candidate: Candidate, test_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Read a candidate's test poses in mm, the mean over its folds: [n, 17, 3] by ascending Id."""
    folds = [read_poses(path, test_ids).pose_mm for path in candidate.test_files]
    return np.asarray(np.mean(folds, axis=0))


def best_epoch(of_run: Sequence[Candidate]) -> Candidate | None:
    """Return a run's epoch of the lowest out-of-fold MPJPE, the first of equals; None when nothing is scored."""
    scored = [candidate for candidate in of_run if candidate.valid_mpjpe is not None]
    return min(scored, key=lambda candidate: candidate.valid_mpjpe or 0.0) if scored else None


def refitted(candidate: Candidate) -> Candidate:
    """Return a candidate whose test poses are those of its run trained on everything, at the same epoch."""
    run = candidate.test_files[0].parent.parent
    file = test_file(run / "foldfull", candidate.epoch)
    if not file.exists():
        command = f"`make train MODEL=... RUN={candidate.run} FOLD=full`"
        raise RunError(f"no {file}: train {candidate.run} on everything first, {command}")
    return replace(candidate, test_files=(file,))


def write_submission(submissions: Path, run: str, test_ids: npt.NDArray[np.int64]) -> tuple[Path, Candidate] | None:
    """Write a run's own submission.csv.gz from its best epoch; None while no epoch is there for all its folds."""
    best = best_epoch(candidates_of(submissions / run))
    if best is None:
        return None
    path = submissions / run / "submission.csv.gz"
    write_poses(path, np.sort(test_ids), read_test_poses(best, test_ids))
    return path, best


def candidates_of(run: Path) -> list[Candidate]:
    """List the epochs of one run that all its folds have."""
    folds = fold_folders(run)
    if not folds:
        return []
    valid, test = zip(*map(_files_of, folds), strict=True)
    epochs = sorted(set.intersection(*map(set, (*valid, *test))))
    if not epochs:
        return []
    logs = [{row["epoch"]: row["valid_mpjpe"] for row in read_log(folder)} for folder in folds]
    sizes = [_rows(v[epochs[0]]) for v in valid] if all(logs) else []
    folds_sha256, images_sha256 = trained_on(run)
    return [
        Candidate(
            run=run.name,
            epoch=epoch,
            valid_files=tuple(v[epoch] for v in valid),
            test_files=tuple(t[epoch] for t in test),
            verified=all((folder / "config.json").exists() for folder in folds),
            folds_sha256=folds_sha256,
            images_sha256=images_sha256,
            valid_mpjpe=_weighted([log.get(epoch) for log in logs], sizes),
        )
        for epoch in epochs
    ]


def _epochs_of(folder: Path) -> set[int]:
    """Return the epochs of which a fold holds both files."""
    valid, test = _files_of(folder)
    return set(valid) & set(test)


def _files_of(folder: Path) -> tuple[dict[int, Path], dict[int, Path]]:
    """Return a fold's files of out-of-fold and of test poses by epoch."""
    names = sorted(os.listdir(folder))
    valid, test = (
        {int(match[1]): folder / name for name in names if (match := pattern.fullmatch(name))}
        for pattern in (_VALID, _TEST)
    )
    return valid, test


def _rows(valid: Path) -> int:
    if valid.suffix != ".npz":
        return len(read_valid(valid).id)
    return int(_read_arrays(valid, "id")[0].size)


def _weighted(scores: list[float | None], rows: list[int]) -> float | None:
    known = [score for score in scores if score is not None]
    if not rows or len(known) < len(rows):
        return None
    return sum(score * n for score, n in zip(known, rows, strict=True)) / sum(rows)
