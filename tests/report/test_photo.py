"""The HTML page of a photo."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from competition.common.skeleton import LEFT_COLOUR, RIGHT_COLOUR
from competition.report.photo import photo_page
from competition.report.pictures import pose_picture
from tests.report.helpers import CHROMIUM, HOSTILE, Page, turn


def a_photo(name: str = "holiday.jpg") -> tuple[str, np.ndarray]:
    """Return the page of a photo and its pose in mm."""
    pose_mm = np.random.default_rng(0).normal(0, 300, (17, 3))
    crop, pose_px = np.full((256, 256, 3), 99, np.uint8), 128 + pose_mm[:, :2] / 10
    return photo_page(name, f"run {name}", crop, pose_px, pose_mm), pose_mm


def test_the_photo_page_contains_its_pose_and_loads_nothing():
    text, pose_mm = a_photo(HOSTILE)
    page = Page(text)
    assert "<script>alert" not in text
    assert page.text.count(HOSTILE) == 3  # title, heading, and the run's name
    (shown,) = page.block("gallery-poses")["poses"]
    assert shown["truth"] is None
    np.testing.assert_allclose(shown["predicted"], pose_mm, atol=0.051)
    assert f"{pose_mm[16, 2]:.1f}" in page.text
    assert "truth" not in page.text
    assert all((a.get("src") or "data:").startswith("data:") for _, a in page.elements)
    assert not [a for tag, a in page.elements if tag == "nav"]


def test_the_picture_has_the_colours_of_both_sides_in_the_crop_and_in_the_views():
    pose_mm = np.random.default_rng(0).normal(0, 300, (17, 3))
    content = pose_picture(np.full((256, 256, 3), 99, np.uint8), 128 + pose_mm[:, :2] / 5, pose_mm, "run $a")
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    for part in np.array_split(picture, 4, axis=1):
        for colour in (LEFT_COLOUR, RIGHT_COLOUR):
            near = np.abs(part - list(bytes.fromhex(colour[1:]))).max(axis=2) < 25
            assert near.sum() > 50


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: the page's scripts aren't run")
def test_the_skeleton_on_the_photo_page_rotates(tmp_path: Path):
    before, first, after, last, drawn, names = turn(a_photo()[0], tmp_path)
    assert before != after
    assert first == last == "mean of the networks"
    assert drawn == 0
    assert names == ["predicted"] * 3
