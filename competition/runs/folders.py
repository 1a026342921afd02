"""Run folders: what an epoch leaves behind, where, and how its out-of-fold poses are read and written.

SUBMISSIONS/<run>/fold<k>/  config.json log.jsonl valid_epoch01.npz test_epoch01.csv.gz last.pt best.pt done.json
"""

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.common.arrays import Floats, Int64
from competition.common.errors import RunError, SubmissionError
from competition.common.files import atomic
from competition.common.pose_csv import Poses, read_poses, sort_by_id
from competition.common.skeleton import JOINTS

FULL = "full"  # the fold that trains on everything and validates nothing
_VALID = re.compile(r"valid_epoch(\d{2,})\.(npz|csv|csv\.gz)")
_TEST = re.compile(r"test_epoch(\d{2,})\.(csv|csv\.gz)")
_FOLD = re.compile(r"fold\d+")
MAX_NPZ_BYTES = 1 << 29  # 2.6 million poses; a compressed bomb is larger


def valid_file(folder: Path, epoch: int) -> Path:
    """Return the file of an epoch's out-of-fold poses."""
    return folder / f"valid_epoch{epoch:02d}.npz"


def test_file(folder: Path, epoch: int) -> Path:
    """Return the file of an epoch's test poses."""
    return folder / f"test_epoch{epoch:02d}.csv.gz"


def write_valid(path: Path, ids: Int64, pose_mm: Floats) -> None:
    """Write out-of-fold poses [n, 17, 3] in mm by training Id; raise SubmissionError on what no reader takes."""
    with np.errstate(over="ignore"):  # what float32 can't hold is refused as infinite
        poses = sort_by_id(path, ids, np.asarray(pose_mm).astype(np.float32))
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


def epochs_of(folder: Path) -> set[int]:
    """Return the epochs of which a fold holds both files."""
    valid, test = files_of(folder)
    return set(valid) & set(test)


def files_of(folder: Path) -> tuple[dict[int, Path], dict[int, Path]]:
    """Return a fold's files of out-of-fold and of test poses by epoch."""
    names = sorted(os.listdir(folder))
    valid, test = (
        {int(match[1]): folder / name for name in names if (match := pattern.fullmatch(name))}
        for pattern in (_VALID, _TEST)
    )
    return valid, test


def row_count(valid: Path) -> int:
    if valid.suffix != ".npz":
        return len(read_valid(valid).id)
    return int(_read_arrays(valid, "id")[0].size)


def fold_folder(run: Path, fold: int | str) -> Path:
    """Return the folder of one fold of a run; `full` is the fold that trains on everything."""
    return run / f"fold{fold}"
