"""The competition's folder: names and labels, read and checked before anything is computed from them.

Frames: pose2d in pixels of the 256x256 crop, integers at pixel centres; pose3d in mm, camera axes (x right, y down,
z away), relative to the pelvis.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import numpy.typing as npt

from competition.errors import DataError, UserError
from competition.files import read_text, sha256_lines
from competition.geometry import resize_px
from competition.skeleton import JOINTS, ROOT

IMAGE_PX = 256  # width and height of every image of the competition
ROOT_TOLERANCE_MM = 1e-3

_IMAGE_NAME = re.compile(r"((S\d+)_([A-Za-z]+)(?:[ _](\d+))?)\.(\w+)_(\d+)\.jpe?g", re.ASCII)


@dataclass(frozen=True)
class ImageName:
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
    images = _read_names(data, "train_images.txt")
    path = data / "annot" / "train.h5"
    try:
        with h5py.File(path, "r") as file:
            pose2d = _read_array(file, path, "pose2d", len(images), 2)
            pose3d = _read_array(file, path, "pose3d", len(images), 3)
    except FileNotFoundError:
        raise DataError(f"no labels at {path}: expected an HDF5 file with pose2d and pose3d") from None
    except OSError as error:
        raise DataError(f"{path} can't be read as HDF5 ({str(error)[:80]}): copy it again") from None
    _check_frame(path, pose3d)
    return Labels(np.arange(1, len(images) + 1), images, pose2d, pose3d)


def read_test(data: Path) -> TestSet:
    """Read the test images' names; the order is that of the submission's Ids."""
    images = _read_names(data, "valid_images.txt")
    return TestSet(np.arange(1, len(images) + 1), images)


def check_images(data: Path, images: Sequence[str]) -> None:
    """Refuse a set with a missing, empty or broken-off image, naming the first; reads the ends of every file."""
    folder = data / "images"
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: expected {len(images)} images there")
    present = {entry.name for entry in os.scandir(folder)}
    missing = [name for name in images if name not in present]
    if missing:
        raise DataError(f"{len(missing)} of {len(images)} images are missing in {folder}, the first is {missing[0]}")
    for name in images:
        if (complaint := image_complaint(folder / name)) is not None:
            raise DataError(f"{folder / name}: {complaint}: copy it again")


def image_complaint(path: Path) -> str | None:
    """Say what makes a file no whole JPEG, or None; the decoder itself fills a broken-off image with grey."""
    with open(path, "rb") as handle:
        start = handle.read(2)
        size = os.fstat(handle.fileno()).st_size
        handle.seek(max(0, size - 64))
        end = handle.read()
    if size == 0:
        return "is empty"
    if start != b"\xff\xd8":
        return "is not a JPEG"
    if b"\xff\xd9" not in end:
        return "is broken off (no end-of-image mark)"
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


def _read_names(data: Path, file: str) -> list[str]:
    path = data / "annot" / file
    if not path.is_file():
        raise DataError(
            f"no competition at {data}: {path} is missing; expected images/ and annot/ there: "
            "run `make data` for the embedded one, or set DATA="
        )
    try:
        names = read_text(path, what="image list").rstrip("\n").split("\n")
    except UserError as error:
        raise DataError(str(error)) from None
    seen: dict[str, int] = {}
    for line, name in enumerate(names, start=1):
        if not name.strip():
            raise DataError(f"{path}:{line}: blank line, expected one image name a line")
        if Path(name).name != name or name in (".", "..") or "\\" in name:
            raise DataError(f"{path}:{line}: {name[:60]!r} is a path, expected a bare name of a file in {data}/images")
        if name in seen:
            raise DataError(f"{path}:{line}: {name} stands twice, first in line {seen[name]}")
        seen[name] = line
    return names


def _read_array(file: h5py.File, path: Path, key: str, rows: int, axes: int) -> npt.NDArray[np.float32]:
    if key not in file:
        raise DataError(f"{path}: no data set {key!r}, found {', '.join(sorted(file)) or 'none'}")
    data = file[key]
    expected = (rows, len(JOINTS), axes)
    if data.shape != expected:
        raise DataError(
            f"{path}: {key} has shape {data.shape}, expected {expected}: a row for each line of train_images.txt"
        )
    if data.dtype.kind != "f":
        raise DataError(f"{path}: {key} has type {data.dtype}, expected float32")
    array = np.asarray(data, np.float32)
    finite = np.isfinite(array).all(axis=(1, 2))
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise DataError(f"{path}: {key} has NaN or infinite values in {len(bad)} rows, the first is Id {bad[0] + 1}")
    return array


def _check_frame(path: Path, pose_mm: npt.NDArray[np.float32]) -> None:
    root = np.abs(pose_mm[:, ROOT]).max(axis=1)
    if (root > ROOT_TOLERANCE_MM).any():
        worst = int(root.argmax())
        raise DataError(
            f"{path}: pose3d of Id {worst + 1} has its root {root[worst]:.1f} mm off (0, 0, 0): "
            "expected poses relative to the pelvis"
        )
    mean = float(np.linalg.norm(pose_mm, axis=2).mean())
    if not 50 < mean < 5000:
        raise DataError(f"{path}: joints of pose3d lie {mean:.3g} from the root on average, expected mm (about 500)")
