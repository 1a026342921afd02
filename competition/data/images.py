"""Find missing or unusable images, and decode images."""

import io
import os
import re
import struct
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ExifTags
from PIL.JpegImagePlugin import JpegImageFile

from competition.common.arrays import Float32, Image
from competition.common.console import bar
from competition.common.errors import Command, DataError
from competition.common.geometry import resize_px
from competition.common.skeleton import IMAGE_PX
from competition.data.faults import Fault, raise_first
from competition.data.jpeg import find_damage

_MOST_BYTES = 1 << 24  # of a file that are read; an image of this size is far smaller, whatever follows it
_EXTENSION = re.compile(r"\.(jpe?g|png|bmp|tiff?|webp)$", re.IGNORECASE)
_COPY_AGAIN = "copy it again"
_CONVERT = f"save it as an upright RGB JPEG of {IMAGE_PX}x{IMAGE_PX} px"
_MODES = {"CMYK": "CMYK, expected RGB", "L": "greyscale, expected RGB"}


def check_images(data: Path, images: Sequence[str]) -> None:
    """Raise DataError for the first missing or unusable image; reads every file, but decodes none."""
    folder = data / "images"
    missing = missing_images(folder, images)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(images)} images are missing in {folder}, the first is {missing[0]}",
            fix=missing_fix(folder, missing),
            command=Command("check"),
        )
    with bar("checking images", len(images)) as advance:  # threads are no faster
        for name in images:
            if (fault := find_image_fault(folder / name)) is not None:
                raise_first([Fault(folder / name, fault.what + fault.detail, fault.fix)])
            advance(1, "")


def missing_images(folder: Path, images: Sequence[str]) -> list[str]:
    """List the images that are not in the folder; raise DataError when there is no folder."""
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: expected {len(images)} images there")
    present = set(os.listdir(folder))
    return [name for name in images if name not in present]


def missing_fix(folder: Path, missing: Sequence[str]) -> str:
    """Return what to do about missing images: their files may have another extension, letter case or Unicode form."""
    present = {_bare(file): file for file in os.listdir(folder)}
    similar = next(((name, present[_bare(name)]) for name in missing if _bare(name) in present), None)
    if similar is None:
        return "copy them there, or correct the names"
    return "{!a} is called {!a} there: correct the names in the list, or rename the files".format(*similar)


def _bare(name: str) -> str:
    """Return a name without its extension and whatever often changes when files are copied or listed."""
    return _EXTENSION.sub("", unicodedata.normalize("NFC", name).strip()).casefold()


class ImageFault(NamedTuple):
    """Reason why an image file can't be used."""

    what: str
    fix: str
    detail: str = ""  # about this file


def find_image_fault(path: Path) -> ImageFault | None:
    """Return why a file isn't a complete RGB JPEG of the competition's size, or None; decode nothing but odd files.

    The decoder wouldn't notice: it fills the missing parts of a damaged image with grey or other pixels, converts
    other colour modes, and ignores an EXIF orientation, with which the labels could refer to the stored or to the
    rotated image.
    """
    try:
        with open(path, "rb") as handle:
            content = handle.read(min(os.fstat(handle.fileno()).st_size, _MOST_BYTES))
        if not content:
            return ImageFault("an empty file", _COPY_AGAIN)
        if not content.startswith(b"\xff\xd8"):
            return ImageFault("not a JPEG", _CONVERT)
        with warnings.catch_warnings(action="ignore"), JpegImageFile(io.BytesIO(content)) as header:
            if (fault := _header_fault(header)) is not None:
                return fault
    except OSError as error:
        return ImageFault("can't be read", _COPY_AGAIN, f" ({error.strerror or error})")
    except (SyntaxError, ValueError, TypeError, LookupError, struct.error):  # raised by PIL for damaged headers
        return ImageFault("can't be decoded as an image", _COPY_AGAIN)
    damage = find_damage(content)
    return ImageFault(damage, _COPY_AGAIN) if damage else None


def _header_fault(header: JpegImageFile) -> ImageFault | None:
    if header.size != (IMAGE_PX, IMAGE_PX):
        width, height = header.size
        return ImageFault(f"not {IMAGE_PX}x{IMAGE_PX} px, labels would not match it", _CONVERT, f" ({width}x{height})")
    if header.mode != "RGB":
        return ImageFault(_MODES.get(header.mode, "not RGB"), _CONVERT)
    orientation = header.getexif().get(ExifTags.Base.Orientation, 1) if "exif" in header.info else 1
    if orientation not in (0, 1):
        return ImageFault("has an EXIF orientation", _CONVERT, f" ({orientation})")
    return None


def read_image(path: Path, size: int = IMAGE_PX) -> Image:
    """Decode an image as RGB [size, size, 3]; half, quarter and eighth size are decoded directly.

    Raise DataError when it can't be decoded or isn't 256x256 px.
    """
    factor = IMAGE_PX // size if IMAGE_PX % size == 0 else 1
    flag = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}.get(factor)
    if flag is None:
        factor, flag = 1, cv2.IMREAD_COLOR
    image = cv2.imread(str(path), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        state = "does not exist" if not path.exists() else "can't be decoded as an image"
        raise DataError(f"{path} {state}", fix="list all such files", command=Command("check"))
    if image.shape[:2] != (IMAGE_PX // factor, IMAGE_PX // factor):
        height, width = (factor * side for side in image.shape[:2])
        raise DataError(f"{path} is {width}x{height} px, expected {IMAGE_PX}x{IMAGE_PX}: labels would not match it")
    if image.shape[0] != size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if size < IMAGE_PX else cv2.INTER_LINEAR)
    rgb: Image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def to_input_px(pose2d_px: Float32, size: int) -> Float32:
    """Convert pixel positions of the 256-pixel image to those of an image of `size` pixels."""
    return resize_px(pose2d_px, size / IMAGE_PX).astype(np.float32)
