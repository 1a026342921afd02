"""Functions that damage a data folder, for tests of its validation."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
from PIL import Image

from competition.data.check import Findings, check

Damage = Callable[[Path], object]


def change_list(change: Callable[[str], str | bytes]) -> Damage:
    def damage(root: Path) -> None:
        path = root / "annot/train_images.txt"
        changed = change(path.read_text())
        path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())

    return damage


def change_lines(change: Callable[[list[str]], list[str]]) -> Damage:
    return change_list(lambda text: "\n".join(change(text.splitlines())) + "\n")


def change_labels(key: str, change: Callable[[np.ndarray], object], **options: object) -> Damage:
    def damage(root: Path) -> None:
        with h5py.File(root / "annot/train.h5", "r+") as file:
            value = change(file[key][:])
            del file[key]
            if isinstance(value, h5py.ExternalLink | h5py.SoftLink):
                file[key] = value
            else:
                file.create_dataset(key, data=value, **options)

    return damage


def with_value(value: float, *place: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return change


def image_path(root: Path, row: int = 0) -> Path:
    return root / "images" / (root / "annot/train_images.txt").read_text().splitlines()[row]


def encoded(content: bytes, mode: str = "RGB", kind: str = "JPEG", orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x112] = orientation
    out = io.BytesIO()
    Image.open(io.BytesIO(content)).convert(mode).save(out, kind, exif=exif)
    return out.getvalue()


def blank(height: int, width: int) -> bytes:
    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def exif_segment(orientation: int) -> bytes:
    tag = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00" + bytes([orientation])
    return b"\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + tag + bytes(6)


def check_all(root: Path) -> Findings:
    return check(root, root.parent / "folds", all_images=True)
