"""The competition's folder: what would make wrong results is refused before anything is computed."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from conftest import TINY, N

from competition import dataset
from competition.check import check
from competition.errors import DataError

Command = Callable[..., int]


def _list(root: Path, change: Callable[[str], str]) -> None:
    path = root / "annot/train_images.txt"
    path.write_text(change(path.read_text()))


def _label(root: Path, key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with h5py.File(root / "annot/train.h5", "r+") as file:
        value = change(file[key][:])
        del file[key]
        file[key] = value


def _put(value: float, *place: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return change


def _first_image(root: Path) -> Path:
    return root / "images" / (root / "annot/train_images.txt").read_text().split("\n")[0]


def _replace(path: Path, content: bytes) -> None:
    path.unlink()  # a link to the shared one
    path.write_bytes(content)


def _jpeg(height: int, width: int) -> bytes:
    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


DAMAGE = {
    "no folder": (lambda root: (root / "annot/train_images.txt").unlink(), "no competition at"),
    "no labels": (lambda root: (root / "annot/train.h5").unlink(), "no labels at"),
    "labels cut off": (lambda root: (root / "annot/train.h5").write_bytes(b"\x89HDF\r\n\x1a\n"), "as HDF5"),
    "a line too few": (lambda root: _list(root, lambda text: text.split("\n", 1)[1]), r"shape \(40, 17, 2\), expected"),
    "a line twice": (lambda root: _list(root, lambda text: text + text.split("\n")[0] + "\n"), "stands twice"),
    "a blank line": (lambda root: _list(root, lambda text: "\n" + text), "txt:1: blank line"),
    "a path": (lambda root: _list(root, lambda text: "../" + text), r"txt:1: '../\w+.* is a path"),
    "an absolute path": (lambda root: _list(root, lambda text: "/tmp/" + text), "is a path"),
    "NaN": (lambda root: _label(root, "pose3d", _put(np.nan, 7, 3, 1)), "NaN .* the first is Id 8"),
    "infinite pixels": (lambda root: _label(root, "pose2d", _put(np.inf, 0, 0, 0)), "pose2d has NaN or infinite"),
    "whole numbers": (lambda root: _label(root, "pose3d", lambda a: a.astype(np.int32)), "type int32"),
    "metres": (lambda root: _label(root, "pose3d", lambda a: a / 1000), "expected mm"),
    "not root-centred": (lambda root: _label(root, "pose3d", lambda a: a + 100), "relative to the pelvis"),
    "no such data set": (lambda root: _label(root, "pose3d", lambda a: a[:, :5]), r"shape \(40, 5, 3\)"),
    "an image missing": (lambda root: _first_image(root).unlink(), "1 of 52 images are missing"),
    "an empty image": (lambda root: _replace(_first_image(root), b""), "is empty"),
    "no image": (lambda root: _replace(_first_image(root), b"hello"), "is not a JPEG"),
    "half an image": (
        lambda root: _replace(_first_image(root), _first_image(root).read_bytes()[:2000]),
        "is broken off",
    ),
    "wrong size": (lambda root: _replace(_first_image(root), _jpeg(256, 200)), "is 200x256 px, expected 256x256"),
    "noise": (lambda root: _replace(_first_image(root), b"\xff\xd8hello\xff\xd9"), "can't be decoded"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_training_and_check_refuse_damaged_data(command: Command, own_data: Path, name: str, capsys):
    assert command("folds", "--k", "2", data=own_data) == 0
    damage, message = DAMAGE[name]
    damage(own_data)
    capsys.readouterr()
    assert command("train", *TINY, "--epochs", "1", data=own_data) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    found = check(own_data, everything=True, advance=lambda count, text: None)
    assert found.problems
    if "missing" not in message:  # told in other words there
        assert any(re.search(message, problem) for problem in found.problems), found.problems
    assert command("check", data=own_data) == 2


def test_a_sound_folder_passes_the_check(command: Command, data: Path, capsys):
    assert command("check", data=data) == 0
    out = capsys.readouterr().out
    assert "as named" in out
    assert f"{N}" in out


def test_images_are_decoded_at_the_size_that_is_asked_for(data: Path):
    path = _first_image(data)
    full = dataset.read_image(path).astype(float)
    assert full.shape == (256, 256, 3)
    for size, tolerance in ((128, 3), (64, 3), (96, 4)):
        small = dataset.read_image(path, size).astype(float)
        assert small.shape == (size, size, 3)
        expected = cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)
        assert np.abs(small - expected).mean() < tolerance
    red = path.parent / "red.jpg"
    cv2.imwrite(str(red), np.full((256, 256, 3), (0, 0, 250), np.uint8))  # OpenCV writes blue, green, red
    assert dataset.read_image(red)[0, 0, 0] > 240
    red.unlink()


def test_pixel_positions_follow_the_image_down():
    np.testing.assert_allclose(dataset.to_input_px(np.array([[0, 255]], np.float32), 128), [[-0.25, 127.25]])


def test_a_missing_image_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        dataset.read_image(tmp_path / "none.jpg")
