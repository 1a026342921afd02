"""The competition's folder: names and labels, read and checked before anything is computed from them.

Frames: pose2d in pixels of the 256x256 crop, integers at pixel centres; pose3d in mm, camera axes (x right, y down,
z away), relative to the pelvis.
"""

import os
import re
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import numpy as np
import numpy.typing as npt
from PIL import ExifTags
from PIL.JpegImagePlugin import JpegImageFile

from competition.common.errors import DataError, UserError
from competition.common.files import read_text, sha256_lines
from competition.common.geometry import resize_px
from competition.common.skeleton import JOINTS
from competition.data.faults import Fault, agreement_faults, list_faults, pixel_faults, pose_faults, refuse

IMAGE_PX = 256  # width and height of every image of the competition
TRAIN_LIST, TEST_LIST = "train_images.txt", "valid_images.txt"
MOST_ROWS = 5_000_000  # read of labels whose list is unreadable; a compressed bomb claims any number

_IMAGE_NAME = re.compile(r"((S\d+)_([A-Za-z]+)(?:[ _](\d+))?)\.(\w+)_(\d+)\.jpe?g", re.ASCII)


class ImageName(NamedTuple):
    """What a file name says: S1_Directions_1.54138969_000001.jpg."""

    sequence: str  # subject_action_subaction, over all cameras
    subject: str
    action: str
    camera: str
    frame: int


@dataclass(frozen=True)
class Labels:
    """The labelled images; row i has Id i + 1."""

    id: npt.NDArray[np.int64]  # [N]
    images: list[str]  # [N] file names under DATA/images
    pose2d_px: npt.NDArray[np.float32]  # [N, 17, 2]
    pose_mm: npt.NDArray[np.float32]  # [N, 17, 3]

    @property
    def images_sha256(self) -> str:
        return sha256_lines(self.images)


@dataclass(frozen=True)
class TestSet:
    """The images to predict; row i has Id i + 1."""

    id: npt.NDArray[np.int64]  # [N]
    images: list[str]  # [N]


def parse_name(name: str) -> ImageName | None:
    """Split an image's file name into its parts; None when it doesn't follow the competition's pattern."""
    match = _IMAGE_NAME.fullmatch(name)
    if match is None:
        return None
    sequence, subject, action, _, camera, frame = match.groups()
    return ImageName(sequence, subject, action, camera, int(frame))


def read_labels(data: Path) -> Labels:
    """Read the training images' names and poses; raise DataError on anything that would make wrong results."""
    images, faults = look_at_list(data, TRAIN_LIST)
    refuse(faults)
    pose2d, pose3d, faults = look_at_labels(data, len(images))
    refuse(faults)
    assert pose2d is not None
    assert pose3d is not None
    return Labels(np.arange(1, len(images) + 1), images, pose2d, pose3d)


def read_test(data: Path) -> TestSet:
    """Read the test images' names; the order is that of the submission's Ids."""
    images, faults = look_at_list(data, TEST_LIST)
    refuse(faults)
    return TestSet(np.arange(1, len(images) + 1), images)


def look_at_list(data: Path, file: str) -> tuple[list[str], list[Fault]]:
    """Read a list of image names, line n being Id n, and what is wrong with it.

    A byte order mark, CRLF, blanks at a line's end and blank lines at the file's end are harmless, and dropped.
    """
    path = data / "annot" / file
    if not path.is_file():
        where = f"no competition at {data}"
        there = "expected images/ and annot/ there: run `make data` for the embedded one, or set DATA="
        return [], [Fault(where, f"{path} is missing", there)]
    try:
        lines = read_text(path, what="image list").split("\n")
    except UserError as error:
        return [], [Fault(path, str(error).removeprefix(f"image list: {path} "), "copy it again")]
    names = [line.rstrip(" \t") for line in lines]
    while names and not names[-1]:
        names.pop()
    return names, list_faults(path, names)


def look_at_labels(
    data: Path, rows: int | None
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None, list[Fault]]:
    """Read pose2d [N, 17, 2] and pose3d [N, 17, 3], None where unreadable, and all that is wrong with them.

    `rows` is the number of images, None when it isn't known; of longer arrays the first `rows` are read.
    """
    path = data / "annot" / "train.h5"
    if not path.is_file():
        return None, None, [Fault(path, "no labels", "expected an HDF5 file with pose2d and pose3d: copy it again")]
    try:
        with h5py.File(path, "r") as file:
            pose2d, faults2d = _read_array(file, path, "pose2d", rows, 2)
            pose3d, faults3d = _read_array(file, path, "pose3d", rows, 3)
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # what h5py makes of damaged files
        return None, None, [Fault(path, f"can't be read as HDF5 ({str(error)[:80]!r})", "copy it again")]
    faults = faults2d + faults3d
    if pose2d is not None:
        faults += pixel_faults(path, pose2d, IMAGE_PX)
    if pose3d is not None:
        faults += pose_faults(path, pose3d)
    if pose2d is not None and pose3d is not None and not faults:
        faults += agreement_faults(path, pose2d, pose3d)
    return pose2d, pose3d, faults


def check_images(data: Path, images: Sequence[str]) -> None:
    """Refuse a set with a missing or unusable image, naming the first; reads the ends of every file."""
    folder = data / "images"
    missing = missing_images(folder, images)
    if missing:
        raise DataError(f"{len(missing)} of {len(images)} images are missing in {folder}, the first is {missing[0]}")
    for name in images:
        if (complaint := image_complaint(folder / name)) is not None:
            refuse([Fault(folder / name, complaint.what + complaint.detail, complaint.remedy)])


def missing_images(folder: Path, images: Sequence[str]) -> list[str]:
    """List the images that the folder lacks; raise DataError when there is no folder."""
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: expected {len(images)} images there")
    present = set(os.listdir(folder))
    return [name for name in images if name not in present]


class Complaint(NamedTuple):
    """What makes an image file unusable."""

    what: str
    remedy: str
    detail: str = ""  # of this file


_AGAIN = "copy it again"
_CONVERT = f"save it as an upright RGB JPEG of {IMAGE_PX}x{IMAGE_PX} px"
_MODES = {"CMYK": "CMYK, expected RGB", "L": "greyscale, expected RGB"}


def image_complaint(path: Path) -> Complaint | None:
    """Say what makes a file no whole RGB JPEG of the competition's size, or None; reads its ends, decodes nothing.

    The decoder itself fills a broken-off image with grey, makes colours out of any file, and ignores a mark that says
    the image should be turned, which leaves open whether the labels fit it as stored or as shown.
    """
    try:
        with open(path, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            start = handle.read(2)
            handle.seek(max(0, size - 64))
            end = handle.read()
            if size == 0:
                return Complaint("an empty file", _AGAIN)
            if start != b"\xff\xd8":
                return Complaint("not a JPEG", _CONVERT)
            handle.seek(0)
            with warnings.catch_warnings(action="ignore"), JpegImageFile(handle) as header:
                if (complaint := _header_complaint(header)) is not None:
                    return complaint
    except OSError as error:
        return Complaint("can't be read", _AGAIN, f" ({error.strerror or error})")
    except (SyntaxError, ValueError, TypeError, LookupError, struct.error):  # what PIL makes of damaged headers
        return Complaint("can't be decoded as an image", _AGAIN)
    return None if b"\xff\xd9" in end else Complaint("broken off (no end-of-image mark)", _AGAIN)


def _header_complaint(header: JpegImageFile) -> Complaint | None:
    if header.size != (IMAGE_PX, IMAGE_PX):
        width, height = header.size
        return Complaint(f"not {IMAGE_PX}x{IMAGE_PX} px, labels would not fit it", _CONVERT, f" ({width}x{height})")
    if header.mode != "RGB":
        return Complaint(_MODES.get(header.mode, "not RGB"), _CONVERT)
    turned = header.getexif().get(ExifTags.Base.Orientation, 1) if "exif" in header.info else 1
    if turned not in (0, 1):
        return Complaint("marked to be turned (EXIF orientation)", _CONVERT, f" ({turned})")
    return None


def read_image(path: Path, size: int = IMAGE_PX) -> npt.NDArray[np.uint8]:
    """Decode an image as RGB [size, size, 3]; half, quarter and eighth are decoded directly at that size.

    Raise DataError when it can't be decoded or isn't square at the competition's 256 px.
    """
    factor = IMAGE_PX // size if IMAGE_PX % size == 0 else 1
    flag = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}.get(factor)
    if flag is None:
        factor, flag = 1, cv2.IMREAD_COLOR
    image = cv2.imread(str(path), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        state = "does not exist" if not path.exists() else "can't be decoded as an image"
        raise DataError(f"{path} {state}: run `make check` to find all such files")
    if image.shape[:2] != (IMAGE_PX // factor, IMAGE_PX // factor):
        height, width = (factor * side for side in image.shape[:2])
        raise DataError(f"{path} is {width}x{height} px, expected {IMAGE_PX}x{IMAGE_PX}: labels would not fit it")
    if image.shape[0] != size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if size < IMAGE_PX else cv2.INTER_LINEAR)
    rgb: npt.NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def to_input_px(pose2d_px: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Move pixel positions from the 256-pixel image to one of `size` pixels."""
    return resize_px(pose2d_px, size / IMAGE_PX).astype(np.float32)


def _read_array(
    file: h5py.File, path: Path, key: str, rows: int | None, axes: int
) -> tuple[npt.NDArray[np.float32] | None, list[Fault]]:
    again = f"expected {key} [N, {len(JOINTS)}, {axes}] of float32 there"
    link = file.get(key, getlink=True) if key in file else None
    if link is None:
        return None, [
            Fault(path, f"no data set {key!r}, found {', '.join(sorted(map(repr, file)))[:80] or 'none'}", again)
        ]
    data = file[key] if isinstance(link, h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        return None, [Fault(path, f"{key} is not a data set of this file", again)]
    if data.shape is None or data.shape[1:] != (len(JOINTS), axes):
        return None, [Fault(path, f"{key} has shape {data.shape}, expected (N, {len(JOINTS)}, {axes})", again)]
    if data.dtype.kind != "f" or data.dtype.itemsize < 4:
        return None, [Fault(path, f"{key} has type {data.dtype}, expected float32", "write it as float32")]
    faults = []
    if rows not in (None, len(data)):
        what = f"{key} has {len(data)} rows, but {TRAIN_LIST} has {rows} lines"
        faults.append(Fault(path, what, "expected a row for each line, in the same order: take both from one source"))
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is told as that
        return np.asarray(data[: MOST_ROWS if rows is None else rows], np.float32), faults
