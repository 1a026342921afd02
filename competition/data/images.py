"""Images: which are missing or unusable, and how they are decoded."""

import os
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ExifTags
from PIL.JpegImagePlugin import JpegImageFile

from competition.common.arrays import Float32, Image
from competition.common.errors import DataError
from competition.common.geometry import resize_px
from competition.common.skeleton import IMAGE_PX
from competition.data.faults import Fault, refuse

_AGAIN = "copy it again"
_CONVERT = f"save it as an upright RGB JPEG of {IMAGE_PX}x{IMAGE_PX} px"
_MODES = {"CMYK": "CMYK, expected RGB", "L": "greyscale, expected RGB"}


def check_images(data: Path, images: Sequence[str]) -> None:
    """Refuse a set with a missing or unusable image, naming the first; reads the ends of every file."""
    folder = data / "images"
    missing = missing_images(folder, images)
    if missing:
        raise DataError(f"{len(missing)} of {len(images)} images are missing in {folder}, the first is {missing[0]}")
    for name in images:
        if (complaint := image_complaint(folder / name)) is not None:
            refuse([Fault(folder / name, complaint.what + complaint.detail, complaint.fix)])


def missing_images(folder: Path, images: Sequence[str]) -> list[str]:
    """List the images that the folder lacks; raise DataError when there is no folder."""
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: expected {len(images)} images there")
    present = set(os.listdir(folder))
    return [name for name in images if name not in present]


class Complaint(NamedTuple):
    """What makes an image file unusable."""

    what: str
    fix: str
    detail: str = ""  # of this file


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


def read_image(path: Path, size: int = IMAGE_PX) -> Image:
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
    rgb: Image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def to_input_px(pose2d_px: Float32, size: int) -> Float32:
    """Move pixel positions from the 256-pixel image to one of `size` pixels."""
    return resize_px(pose2d_px, size / IMAGE_PX).astype(np.float32)
