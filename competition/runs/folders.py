"""Folders of runs: paths of their files, and reading and writing of out-of-fold poses.

SUBMISSIONS/<run>/fold<k>/  config.json log.jsonl valid_epoch01.npz test_epoch01.csv.gz last.pt best.pt done.json
"""

import lzma
import os
import re
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.common.arrays import Floats, Int64
from competition.common.errors import RunError, SubmissionError
from competition.common.files import AnyPath, atomic, to_path
from competition.common.pose_csv import Poses, read_poses, sort_by_id
from competition.common.skeleton import JOINTS

FULL = "full"  # the fold that trains on all images and has no validation set
_VALID = re.compile(r"valid_epoch(\d{2,})\.(npz|csv|csv\.gz)")
_TEST = re.compile(r"test_epoch(\d{2,})\.(csv|csv\.gz)")
_FOLD = re.compile(r"fold\d+", re.ASCII)
_DAMAGED = (  # raised by zipfile, the decompressors and numpy for damaged bytes
    OSError, EOFError, ValueError, LookupError, TypeError, ArithmeticError, RuntimeError, SyntaxError, MemoryError,
    struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
MAX_NPZ_BYTES = 1 << 29  # 2.6 million poses; larger files are rejected as decompression bombs


def valid_file(folder: Path, epoch: int) -> Path:
    """Return the path of an epoch's out-of-fold poses."""
    return folder / f"valid_epoch{epoch:02d}.npz"


def test_file(folder: Path, epoch: int) -> Path:
    """Return the path of an epoch's test poses."""
    return folder / f"test_epoch{epoch:02d}.csv.gz"


def write_valid(path: AnyPath, ids: Int64, pose_mm: Floats) -> None:
    """Write out-of-fold poses [n, 17, 3] in mm, sorted by training Id; raise SubmissionError if they are invalid."""
    path = to_path(path)
    if path.suffix != ".npz":
        raise SubmissionError(f"{path}: out-of-fold poses need a name that ends in .npz, such as valid_epoch01.npz")
    with np.errstate(over="ignore"):  # an overflow of float32 becomes infinite and is rejected
        poses = sort_by_id(path, ids, np.asarray(pose_mm).astype(np.float32))
    with atomic(path) as handle:
        np.savez(handle, id=poses.id, pose=poses.pose_mm.astype(np.float32))


def read_valid(path: AnyPath) -> Poses:
    """Read out-of-fold poses, npz or CSV, sorted by training Id; raise RunError if the file is invalid."""
    path = to_path(path)
    if path.suffix != ".npz":
        try:
            return read_poses(path)
        except SubmissionError as error:
            raise error.as_(RunError) from None
    ids, pose = read_arrays(path, "id", "pose")
    shapes_match = ids.ndim == 1 and pose.shape == (len(ids), len(JOINTS), 3)
    if not shapes_match or ids.dtype.kind not in "iu" or pose.dtype.kind not in "fiu":
        found = f"id {ids.dtype}{ids.shape} and pose {pose.dtype}{pose.shape}"
        raise RunError(f"{path}: {found}, expected int64 [n] and float32 [n, 17, 3]")
    order = np.argsort(ids, kind="stable")
    ids = ids[order].astype(np.int64)
    if (np.diff(ids) == 0).any():
        raise RunError(f"{path}: Id {ids[:-1][np.diff(ids) == 0][0]} is duplicated")
    pose = pose[order].astype(np.float64)
    finite = np.isfinite(pose).all(axis=(1, 2))
    if not finite.all():
        raise RunError(f"{path}: the pose of Id {ids[~finite][0]} is not finite")
    return Poses(ids, pose)


def read_arrays(path: Path, *names: str) -> list[npt.NDArray[Any]]:
    """Read arrays of an untrusted npz file: nothing is unpickled, and the decompressed size is limited."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size <= MAX_NPZ_BYTES:
            with np.load(path, allow_pickle=False) as file:
                arrays = [file[name] for name in names]
            if not all(isinstance(array, np.ndarray) for array in arrays):  # an entry that isn't an .npy file
                raise ValueError("not an array")
            return arrays
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:80]
        raise RunError(f"{path}: expected an npz with arrays {', '.join(names)} ({reason})") from None
    raise RunError(f"{path}: more than {MAX_NPZ_BYTES >> 20} MiB when decompressed: too large for poses")


def fold_folders(run: Path) -> list[Path]:
    """List the fold folders of a run by number, without fold `full`, which has no out-of-fold poses.

    Of several names of one number, such as fold0 and fold00, only the shortest counts.
    """
    folders = [p for p in run.iterdir() if p.is_dir() and _FOLD.fullmatch(p.name)] if run.is_dir() else []
    by_number = {int(p.name.removeprefix("fold")): p for p in sorted(folders, key=lambda p: -len(p.name))}
    return [folder for _, folder in sorted(by_number.items())]


def run_folders(submissions: Path) -> list[Path]:
    """List the folders of runs: those that contain fold folders, and aren't hidden, as those of studies are."""
    if not submissions.is_dir():
        return []
    visible = [path for path in submissions.iterdir() if not path.name.startswith(".")]
    return sorted(path for path in visible if fold_folders(path) or fold_folder(path, FULL).is_dir())


def complete_epochs(folder: Path) -> set[int]:
    """Return the epochs for which a fold has both files."""
    valid, test = epoch_files(folder)
    return set(valid) & set(test)


def epoch_files(folder: Path) -> tuple[dict[int, Path], dict[int, Path]]:
    """Return the files of a fold's out-of-fold poses and of its test poses, each by epoch."""
    names = sorted(os.listdir(folder))
    valid, test = (
        {int(match[1]): folder / name for name in names if (match := pattern.fullmatch(name))}
        for pattern in (_VALID, _TEST)
    )
    return valid, test


def epoch_of(path: Path) -> int | None:
    """Return the epoch in the name of a file of out-of-fold or test poses; None for other files."""
    match = _VALID.fullmatch(path.name) or _TEST.fullmatch(path.name)
    return int(match[1]) if match else None


def row_count(valid: Path) -> int:
    """Return the number of rows of a file of out-of-fold poses."""
    if valid.suffix != ".npz":
        return len(read_valid(valid).id)
    return int(read_arrays(valid, "id")[0].size)


def fold_folder(run: Path, fold: int | str) -> Path:
    """Return the folder of one fold of a run: a number, or FULL."""
    return run / f"fold{fold}"
