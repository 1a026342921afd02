"""Decoding images, and pixel positions in resized images."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from competition.common import console
from competition.common.console import Console
from competition.common.errors import DataError
from competition.data.images import check_images, read_image, to_input_px
from competition.data.labels import read_test
from tests.data.damage import exif_segment, image_path


def test_images_are_decoded_at_the_requested_size(data: Path):
    path = image_path(data)
    full = read_image(path).astype(float)
    assert full.shape == (256, 256, 3)
    for size, tolerance in ((128, 3), (64, 3), (96, 4)):
        small = read_image(path, size).astype(float)
        assert small.shape == (size, size, 3)
        expected = cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)
        assert np.abs(small - expected).mean() < tolerance
    red = path.parent / "red.jpg"
    cv2.imwrite(str(red), np.full((256, 256, 3), (0, 0, 250), np.uint8))  # OpenCV writes blue, green, red
    assert read_image(red)[0, 0, 0] > 240
    red.unlink()
    rotated = path.parent / "rotated.jpg"
    rotated.write_bytes(path.read_bytes()[:2] + exif_segment(6) + path.read_bytes()[2:])
    for size in (256, 128):  # the orientation is ignored, as labels refer to the stored image
        np.testing.assert_array_equal(read_image(rotated, size), read_image(path, size))
    rotated.unlink()


def test_pixel_positions_are_scaled_with_the_image():
    np.testing.assert_allclose(to_input_px(np.array([[0, 255]], np.float32), 128), [[-0.25, 127.25]])


def test_the_check_of_all_images_shows_its_progress(data: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0)
    monkeypatch.setattr(console, "_active", Console())
    names = read_test(data).images
    check_images(data, names)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"checking images: {number} of {len(names)}" for number in range(1, len(names) + 1)]


def test_a_missing_image_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        read_image(tmp_path / "none.jpg")
