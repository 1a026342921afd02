"""Read and validate the data folder's image lists and labels.

Frames: pose2d in pixels of the 256x256 crop, integers at pixel centres; pose3d in mm, camera axes (x right, y down,
z away), relative to the pelvis.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from competition.common.arrays import Float32, Int64
from competition.common.errors import Command, UserError
from competition.common.files import AnyPath, read_text, sha256_lines, to_path
from competition.common.skeleton import IMAGE_PX, JOINTS
from competition.data.faults import (
    Fault,
    find_list_faults,
    find_pixel_faults,
    find_pose_faults,
    raise_first,
)
from competition.data.matching import find_doubtful_rows, find_pose_mismatches
from competition.data.names import parse_name
from competition.data.row_order import find_order_faults, order_facts

TRAIN_LIST, TEST_LIST = "train_images.txt", "valid_images.txt"
FILTERS = {  # those of hdf5plugin, by the numbers that the HDF Group has registered
    307: "bzip2", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32026: "blosc2",
}  # fmt: skip
MOST_ROWS = 5_000_000  # limit when the number of images is unknown; a decompression bomb has any number


@dataclass(frozen=True)
class Labels:
    """The labelled images; row i has Id i + 1."""

    id: Int64  # [N]
    images: list[str]  # [N] file names under DATA/images
    pose2d_px: Float32  # [N, 17, 2]
    pose_mm: Float32  # [N, 17, 3]

    @property
    def images_sha256(self) -> str:
        return sha256_lines(self.images)


@dataclass(frozen=True)
class TestSet:
    """The images to predict; row i has Id i + 1."""

    id: Int64  # [N]
    images: list[str]  # [N]


def read_labels(data: AnyPath) -> Labels:
    """Read the training images' names and poses; raise DataError for any fault."""
    data = to_path(data)
    images, faults = read_list(data, TRAIN_LIST)
    raise_first(faults)
    pose2d, pose3d, faults = read_label_arrays(data, len(images))
    raise_first(faults)
    assert pose2d is not None
    assert pose3d is not None
    facts = order_facts([parse_name(name) for name in images], pose3d)
    raise_first(find_order_faults(data / "annot" / TRAIN_LIST, images, facts)[0])
    return Labels(np.arange(1, len(images) + 1), images, pose2d, pose3d)


def find_doubts(data: Path, labels: Labels) -> list[Fault]:
    """Return what is odd about labels that were read without a fault."""
    facts = order_facts([parse_name(name) for name in labels.images], labels.pose_mm)
    order = find_order_faults(data / "annot" / TRAIN_LIST, labels.images, facts)[1]
    return order + find_doubtful_rows(data / "annot" / "train.h5", labels.pose2d_px, labels.pose_mm)


def read_test(data: AnyPath) -> TestSet:
    """Read the test images' names, ordered by the submission's Ids; raise DataError for any fault."""
    images, faults = read_list(to_path(data), TEST_LIST)
    raise_first(faults)
    return TestSet(np.arange(1, len(images) + 1), images)


def read_list(data: Path, file: str) -> tuple[list[str], list[Fault]]:
    """Read a list of image names, where line n is Id n; return it with its faults.

    A byte order mark, CRLF, trailing spaces and blank lines at the end are dropped.
    """
    path = data / "annot" / file
    if not path.is_file():
        fix = "expected images/ and annot/ there: choose the folder of a competition, or generate a synthetic one"
        return [], [Fault(f"no competition at {data}", f"{path} is missing", fix, command=Command("data"))]
    try:
        lines = read_text(path, what="image list").split("\n")
    except UserError as error:
        return [], [Fault(path, error.what.removeprefix(f"image list: {path} "), error.fix or "copy it again")]
    names = [line.rstrip(" \t") for line in lines]
    while names and not names[-1]:
        names.pop()
    return names, find_list_faults(path, names, labelled=file == TRAIN_LIST)


def read_label_arrays(data: Path, rows: int | None) -> tuple[Float32 | None, Float32 | None, list[Fault]]:
    """Read pose2d [N, 17, 2] and pose3d [N, 17, 3], None where unreadable; return them with their faults.

    `rows` is the number of images, None when unknown; of longer arrays only the first `rows` are read.
    """
    path = data / "annot" / "train.h5"
    if not path.is_file():
        return None, None, [Fault(path, "no labels", "expected an HDF5 file with pose2d and pose3d: copy it again")]
    try:
        with _open(path) as file:
            pose2d, faults2d = _read_array(file, path, "pose2d", rows, 2)
            pose3d, faults3d = _read_array(file, path, "pose3d", rows, 3)
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # raised by h5py for damaged files
        return None, None, [Fault(path, *_explain(error))]
    faults = faults2d + faults3d
    if pose2d is not None:
        faults += find_pixel_faults(path, pose2d, IMAGE_PX)
    if pose3d is not None:
        faults += find_pose_faults(path, pose3d)
    if pose2d is not None and pose3d is not None and len(pose3d) and not faults:
        faults += find_pose_mismatches(path, pose2d, pose3d)
    return pose2d, pose3d, faults


def _open(path: Path) -> h5py.File:
    """Open an HDF5 file for reading, without its lock if the file system has none."""
    try:
        return h5py.File(path, "r")
    except BlockingIOError:
        raise
    except OSError as error:
        if "unable to lock file" not in str(error):
            raise
        return h5py.File(path, "r", locking=False)


def _explain(error: Exception) -> tuple[str, str]:
    """Return why an HDF5 file can't be read, and what to do."""
    if isinstance(error, BlockingIOError):
        return "locked by another program, such as a notebook", "close it there, or restart the notebook's kernel"
    if "already open for" in str(error):
        fix = "close it there; if a program crashed and left it open, run h5clear -s or copy it again"
        return "open for writing in another program, such as a notebook", fix
    if isinstance(error, PermissionError):
        return "can't be read (permission denied)", "change its permissions"
    return f"can't be read as HDF5 ({str(error)[:80]!r})", "copy it again"


def _missing_filters(data: h5py.Dataset) -> list[str]:
    """List the filters of a dataset, by name or number, that this HDF5 library lacks."""
    settings = data.id.get_create_plist()
    filters = [settings.get_filter(index) for index in range(settings.get_nfilters())]
    missing = [(code, name.decode()) for code, _, _, name in filters if not h5py.h5z.filter_avail(code)]
    return [f"{name or FILTERS.get(code, 'filter')} ({code})" for code, name in missing]


def _read_array(
    file: h5py.File, path: Path, key: str, rows: int | None, axes: int
) -> tuple[Float32 | None, list[Fault]]:
    expected = f"expected {key} [N, {len(JOINTS)}, {axes}] of float32"
    link = file.get(key, getlink=True) if key in file else None
    if link is None:
        return None, [
            Fault(path, f"no dataset {key!r}, found {', '.join(sorted(map(repr, file)))[:80] or 'none'}", expected)
        ]
    data = file[key] if isinstance(link, h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        return None, [Fault(path, f"{key} is not a dataset stored in this file", expected)]
    if data.shape is None or data.shape[1:] != (len(JOINTS), axes):
        return None, [
            Fault(path, f"{key} has shape {data.shape}, expected (N, {len(JOINTS)}, {axes})", "write it in this shape")
        ]
    if data.dtype.kind != "f" or data.dtype.itemsize < 4:
        return None, [Fault(path, f"{key} has type {data.dtype}, expected float32", "write it as float32")]
    if filters := _missing_filters(data):
        return None, [
            Fault(
                path,
                f"{key} is compressed with an HDF5 filter that isn't installed: {', '.join(filters)}",
                "where it is installed, such as with hdf5plugin, write the file with gzip or uncompressed",
            )
        ]
    faults = []
    if rows not in (None, len(data)):
        what = f"{key} has {len(data)} rows, but {TRAIN_LIST} has {rows} lines"
        faults.append(Fault(path, what, "expected one row per line, in the same order: take both from one source"))
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are reported as such
        return np.asarray(data[: MOST_ROWS if rows is None else rows], np.float32), faults
