"""Data that would make results wrong are rejected before anything is computed."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from competition.common.skeleton import IMAGE_PX
from competition.data import labels as dataset
from competition.data.faults import find_pixel_faults
from competition.data.images import read_image
from tests.data.damage import (
    Damage,
    blank,
    change_labels,
    change_lines,
    change_list,
    check_all,
    encoded,
    exif_segment,
    image_path,
    with_value,
)
from tests.helpers import TINY, Command


def _negated(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array * np.where(np.arange(3) == axis, -1, 1).astype(np.float32)


def _change_test_list(change: Callable[[list[str]], list[str]]) -> Damage:
    def damage(root: Path) -> None:
        path = root / "annot/valid_images.txt"
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return damage


def _renamed(change: Callable[[str], str]) -> Damage:
    return lambda root: image_path(root).rename(image_path(root).with_name(change(image_path(root).name)))


def change_image(change: Callable[[bytes], bytes], row: int = 0) -> Damage:
    def damage(root: Path) -> None:
        path = image_path(root, row)
        content = path.read_bytes()
        path.unlink()  # a hard link to the shared file
        path.write_bytes(change(content))

    return damage


def _png16() -> bytes:
    return cv2.imencode(".png", np.zeros((256, 256, 3), np.uint16))[1].tobytes()


def _elsewhere(create: Callable[[h5py.File, Path, np.ndarray], object]) -> Damage:
    """Remove pose2d from the file, and let `create` put something else in its place."""

    def damage(root: Path) -> None:
        with h5py.File(root / "annot/train.h5", "r+") as file:
            values = file["pose2d"][:]
            del file["pose2d"]
            create(file, root / "annot/other", values)

    return damage


def _external(file: h5py.File, other: Path, values: np.ndarray) -> None:
    file.create_dataset("pose2d", data=values, external=[(str(other), 0, values.nbytes)])


def _virtual(file: h5py.File, other: Path, values: np.ndarray) -> None:
    with h5py.File(other, "w") as source:
        source["pose2d"] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource(str(other), "pose2d", values.shape)
    file.create_virtual_dataset("pose2d", layout)


def _unknown_float(file: h5py.File, _: Path, values: np.ndarray) -> None:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(1 << 20)  # exponents that no type of NumPy has
    h5py.h5d.create(file.id, b"pose2d", kind, h5py.h5s.create_simple(values.shape))


def _byte(place: int, value: int) -> Damage:
    def damage(root: Path) -> None:
        path = root / "annot/train.h5"
        content = bytearray(path.read_bytes())
        content[place] = value
        path.write_bytes(content)

    return damage


def _cut(share: float) -> Damage:
    def damage(root: Path) -> None:
        path = root / "annot/train.h5"
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return damage


BAD_LISTS: dict[str, tuple[Damage, str]] = {
    "no list": (lambda root: (root / "annot/train_images.txt").unlink(), "no competition at .* is missing"),
    "an empty list": (change_list(lambda text: ""), "lists no images"),
    "not UTF-8": (change_list(lambda text: text.encode("utf-16")), r"txt: is UTF-16 text: save it as UTF-8"),
    "old line ends": (change_list(lambda text: text.replace("\n", "\r")), "a path or control characters"),
    "a line too few": (change_lines(lambda lines: lines[1:]), "has 40 rows, but train_images.txt has 39 lines"),
    "a duplicate line": (
        change_lines(lambda lines: [*lines, lines[0]]),
        "duplicate names .1, the first is line 41 .* same as line 1",
    ),
    "a blank line": (change_lines(lambda lines: ["", *lines]), "blank lines, .* .1, the first is line 1"),
    "a line of spaces": (
        change_lines(lambda lines: [lines[0], " \t", *lines[1:]]),
        "blank lines, .* .1, the first is line 2",
    ),
    "a path up": (change_list(lambda text: "../" + text), r"a path .* line 1 '../S\d"),
    "two dots": (change_lines(lambda lines: [*lines[:-1], ".."]), "a path .* line 40 '..'"),
    "a dot": (change_lines(lambda lines: [*lines[:-1], "."]), "a path .* line 40 '.'"),
    "a folder within": (
        change_list(lambda text: "more/" + text),
        r"a path .* line 1 'more/S\d.* all files into images/",
    ),
    "a path in the test list": (
        lambda root: (root / "annot/valid_images.txt").write_text("../up.jpg\n"),
        "valid_images.txt: a path .* line 1 '../up.jpg'",
    ),
    "an absolute path": (change_list(lambda text: "/etc/" + text), "a path"),
    "a Windows path": (change_list(lambda text: "images\\" + text), "a path"),
    "a blank line in the test list": (
        _change_test_list(lambda lines: [lines[0], "", *lines[1:]]),
        "valid_images.txt: blank lines, .* copy it again; .* the submission",
    ),
    "a duplicate in the test list": (
        _change_test_list(lambda lines: [*lines, lines[0]]),
        "valid_images.txt: duplicate names .* copy it again; .* the submission",
    ),
    "control characters": (change_list(lambda text: "\x1b[2J" + text), r"line 1 '\\x1b\[2J"),
}
BAD_LABELS: dict[str, tuple[Damage, str]] = {
    "no labels": (lambda root: (root / "annot/train.h5").unlink(), "no labels"),
    "no HDF5": (lambda root: (root / "annot/train.h5").write_bytes(b"pose"), "can't be read as HDF5"),
    "an empty file": (_cut(0), "can't be read as HDF5"),
    "half a file": (_cut(0.5), "can't be read as HDF5"),
    "a byte too few": (_cut(0.9999), "can't be read as HDF5"),
    "a wrong end": (_byte(16, 0xD6), "can't be read as HDF5"),
    "a wrong size": (_byte(24, 0x2C), "can't be read as HDF5"),
    "an unknown float": (_elsewhere(_unknown_float), "can't be read as HDF5"),
    "a key too few": (lambda root: drop(root, "pose2d"), "no dataset 'pose2d', found 'pose3d'"),
    "an external link": (
        change_labels("pose2d", lambda a: h5py.ExternalLink("other.h5", "pose2d")),
        "not a dataset stored",
    ),
    "a soft link": (
        change_labels("pose2d", lambda a: h5py.SoftLink("/pose3d")),
        "pose2d is not a dataset stored",
    ),
    "a group": (_elsewhere(lambda file, *_: file.create_group("pose2d")), "pose2d is not a dataset stored"),
    "values in another file": (_elsewhere(_external), "pose2d is not a dataset stored"),
    "values of another file": (_elsewhere(_virtual), "pose2d is not a dataset stored"),
    "no shape": (change_labels("pose3d", lambda a: h5py.Empty("f4")), r"shape None, expected \(N, 17, 3\)"),
    "an axis too few": (change_labels("pose3d", lambda a: a[..., :2]), r"shape \(40, 17, 2\), expected \(N, 17, 3\)"),
    "fewer rows of one": (change_labels("pose2d", lambda a: a[:30]), "pose2d has 30 rows, but .* 40 lines"),
    "too few joints": (change_labels("pose3d", lambda a: a[:, :5]), r"shape \(40, 5, 3\), expected \(N, 17, 3\)"),
    "flat": (change_labels("pose3d", lambda a: a.reshape(40, 51)), r"shape \(40, 51\)"),
    "axes exchanged": (change_labels("pose2d", lambda a: a.transpose(0, 2, 1)), r"shape \(40, 2, 17\)"),
    "whole numbers": (change_labels("pose3d", lambda a: a.astype(np.int32)), "type int32, expected float32"),
    "half precision": (change_labels("pose3d", lambda a: a.astype(np.float16)), "type float16"),
    "text": (change_labels("pose2d", lambda a: a.astype("S8")), "type |S8"),
    "NaN": (
        change_labels("pose3d", with_value(np.nan, 7, 3, 1)),
        r"NaN .*the first is Id 8\): [\w ]+ in train_images\.txt$",
    ),
    "NaN alone": (change_labels("pose3d", lambda a: a * np.nan), r"pose3d has NaN .*\(40, the first is Id 1"),
    "infinite pixels": (change_labels("pose2d", with_value(np.inf, 0, 0, 0)), "pose2d has NaN or infinite"),
    "too large a number": (
        change_labels("pose3d", lambda a: with_value(1e300, 0, 5, 0)(a.astype(float))),
        "pose3d has NaN or infin",
    ),
    "metres": (change_labels("pose3d", lambda a: a / 1000), r"implausible size.*\(40, the first is Id 1\): metres\?"),
    "centimetres": (change_labels("pose3d", lambda a: a / 10), r"centimetres\?"),
    "an empty row": (change_labels("pose3d", with_value(0, 6)), r"\(1, the first is Id 7\): empty rows\?"),
    "not root-centred": (change_labels("pose3d", lambda a: a + 100), r"not at \(0, 0, 0\), off by up to 100 mm"),
    "a root slightly off": (
        change_labels("pose3d", with_value(-0.01, 3, 0, 2)),
        r"not at \(0, 0, 0\), off by up to 0.01 mm \(1, the first is Id 4\)",
    ),
    "micrometres": (change_labels("pose3d", lambda a: a * 1000), r"implausible size.*\(40, .*another unit\?"),
    "y upwards": (
        change_labels("pose3d", _negated(1)),
        "y of pose3d doesn't match pose2d .* expected y down: multiply y by -1",
    ),
    "mirrored": (change_labels("pose3d", _negated(0)), "x of pose3d doesn't match pose2d"),
    "rows mixed up": (
        change_labels("pose3d", lambda a: a[np.random.default_rng(0).permutation(40)]),
        "another order",
    ),
    "pixels of 0 to 1": (change_labels("pose2d", lambda a: a / 256), "poses in pose2d smaller than 8 px"),
    "pixels of -1 to 1": (change_labels("pose2d", lambda a: a / 128 - 1), "poses in pose2d smaller than 8 px"),
    "pixels around the middle": (change_labels("pose2d", lambda a: a - 128), "of pose2d is outside the image"),
    "pixels far to the right": (
        change_labels("pose2d", lambda a: a + np.float32([200, 0])),
        "of pose2d is outside the image",
    ),
    "pixels of the video": (change_labels("pose2d", lambda a: a * 4), "of pose2d is outside the image"),
}
BAD_IMAGES: dict[str, tuple[Damage, str]] = {
    "missing": (lambda root: image_path(root).unlink(), "missing"),
    "missing an extension": (
        _renamed(lambda name: name.removesuffix(".jpg")),
        r"jpg' is called 'S.*\d' there: correct",
    ),
    "of another extension": (
        _renamed(lambda name: name.replace("jpg", "JPG")),
        r"jpg' is called 'S.*JPG' there: correct",
    ),
    "of another case": (_renamed(str.lower), r"jpg' is called 's.*jpg' there: correct"),
    "no folder": (lambda root: shutil.rmtree(root / "images"), "no (such )?folder"),
    "empty": (change_image(lambda content: b""), "an empty file"),
    "text": (change_image(lambda content: b"hello"), "not a JPEG"),
    "a folder": (
        lambda root: (image_path(root).unlink(), image_path(root).mkdir()),
        r"can't be read.*\(Is a directory\)",
    ),
    "truncated": (change_image(lambda content: content[:2000]), ": truncated"),
    "the last one truncated": (change_image(lambda content: content[:2000], row=-1), ": truncated"),
    "truncated after an embedded end marker": (
        change_image(lambda content: content[:2] + b"\xff\xfe\x00\x04\xff\xd9" + content[2:-500]),
        ": truncated",
    ),
    "no image data": (
        change_image(lambda content: content[: content.index(b"\xff\xda")] + b"\xff\xd9"),
        "can't be decoded as an image",
    ),
    "only a part of the header": (change_image(lambda content: content[:100]), "can't be decoded|can't be read"),
    "noise": (change_image(lambda content: b"\xff\xd8hello\xff\xd9"), "can't be decoded"),
    "a hole": (change_image(lambda content: content[:6000] + bytes(500) + content[6500:]), ": damaged"),
    "a sector of another file": (
        change_image(lambda content: content[:6000] + b"\xff\xf0 text" * 64 + content[6512:]),
        ": damaged",
    ),
    "CMYK": (change_image(lambda content: encoded(content, "CMYK")), "CMYK, expected RGB"),
    "greyscale": (change_image(lambda content: encoded(content, "L")), "greyscale, expected RGB"),
    "PNG": (change_image(lambda content: encoded(content, kind="PNG")), "not a JPEG"),
    "16 bits": (change_image(lambda content: _png16()), "not a JPEG"),
    "an EXIF rotation": (change_image(lambda content: encoded(content, orientation=6)), r"EXIF orientation.*\(6\)"),
    "an EXIF reflection": (
        change_image(lambda content: content[:2] + exif_segment(2) + content[2:]),
        r"EXIF orientation.*\(2\)",
    ),
    "low": (change_image(lambda content: blank(200, 256)), r"not 256x256 px.*\(256x200\)"),
    "narrow": (change_image(lambda content: blank(256, 200)), r"not 256x256 px.*\(200x256\)"),
    "huge": (
        change_image(lambda content: blank(256, 256).replace(b"\x01\x00\x01\x00", b"\xff\xff\xff\xff")),
        "65535x65535",
    ),
}
BAD = {
    f"{kind}: {name}": damage
    for kind, cases in (("list", BAD_LISTS), ("labels", BAD_LABELS), ("image", BAD_IMAGES))
    for name, damage in cases.items()
}


def drop(root: Path, key: str) -> None:
    with h5py.File(root / "annot/train.h5", "r+") as file:
        del file[key]


@pytest.fixture
def error_of_train(command: Command, own_data: Path, capsys) -> Callable[[], str]:
    """Make folds, and return a function that trains on the damaged data and returns the error, one line."""
    assert command("folds", "--k", "2", data=own_data) == 0

    def train() -> str:
        capsys.readouterr()
        assert command("train", *TINY, "--epochs", "1", data=own_data) == 2
        error: str = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    return train


@pytest.mark.parametrize("name", BAD)
def test_training_and_check_reject_bad_data(error_of_train: Callable[[], str], own_data: Path, name: str):
    damage, message = BAD[name]
    damage(own_data)
    error = error_of_train()
    assert re.search(message, error), error
    problems = [str(problem) for problem in check_all(own_data).problems]
    assert any(re.search(message, problem) for problem in problems), problems


HARMLESS: dict[str, Damage] = {
    "CRLF": change_list(lambda text: text.replace("\n", "\r\n")),
    "a byte order mark": change_list(lambda text: text.encode("utf-8-sig")),
    "no last line end": change_list(lambda text: text.rstrip("\n")),
    "blank last lines": change_list(lambda text: text + "\n \n\n"),
    "trailing spaces": change_list(lambda text: text.replace("\n", " \t\n")),
    "double precision": change_labels("pose3d", lambda a: a.astype(np.float64)),
    "other byte order": change_labels("pose2d", lambda a: a.astype(">f4")),
    "compressed": change_labels("pose3d", lambda a: a, compression="gzip", chunks=(7, 17, 3)),
    "an upright image": change_image(lambda content: content[:2] + exif_segment(1) + content[2:]),
    "an image of unknown orientation": change_image(lambda content: content[:2] + exif_segment(0) + content[2:]),
    "zeros after an image": change_image(lambda content: content + bytes(8)),
    "an appendix": change_image(lambda content: content + b"appendix" * 100),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_variants_give_the_same_data(data: Path, own_data: Path, name: str):
    HARMLESS[name](own_data)
    expected, labels = dataset.read_labels(data), dataset.read_labels(own_data)
    assert labels.images == expected.images
    assert labels.images_sha256 == expected.images_sha256
    for key in ("id", "pose2d_px", "pose_mm"):
        np.testing.assert_array_equal(getattr(labels, key), getattr(expected, key))
        assert getattr(labels, key).dtype == getattr(expected, key).dtype
    np.testing.assert_array_equal(*(read_image(root / "images" / labels.images[0]) for root in (own_data, data)))
    assert not check_all(own_data).problems


def test_labels_without_a_list_are_read_up_to_a_limit(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset, "MOST_ROWS", 10)
    pose2d_px, pose_mm, faults = dataset.read_label_arrays(data, None)
    assert pose2d_px is not None
    assert pose_mm is not None
    assert (len(pose2d_px), len(pose_mm), faults) == (10, 10, [])


def test_a_narrow_pose_is_not_too_small(data: Path):
    pose2d_px = dataset.read_labels(data).pose2d_px * np.float32([0.02, 1])
    assert not find_pixel_faults(data, pose2d_px, IMAGE_PX)


def test_a_fifth_of_the_joints_may_be_outside_the_image(data: Path):
    pose2d_px = dataset.read_labels(data).pose2d_px
    pose2d_px[:, :3] -= 300
    assert not find_pixel_faults(data, pose2d_px, IMAGE_PX)
    pose2d_px[:, :4] -= 300
    assert len(find_pixel_faults(data, pose2d_px, IMAGE_PX)) == 1
