"""The skeleton drawn over images."""

from importlib.resources import files

import numpy as np

from competition.common.drawing import draw_pose
from competition.common.skeleton import LEFT_COLOUR, MIDDLE_COLOUR, RIGHT_COLOUR


def test_draw_pose_uses_pixel_positions():
    pose_px = np.full((17, 2), (20, 10), np.float32)
    image = np.full((32, 48, 3), 100, np.uint8)
    drawn = draw_pose(image, pose_px)
    assert (drawn[10, 20] > 200).all()
    assert (drawn[10, 16] < 60).all()  # the dark rim
    assert (drawn[20, 10] == 100).all()
    assert (image == 100).all()


def test_left_and_right_have_their_colours():
    points = np.zeros((17, 2), np.float32)
    points[[5, 6]] = (8, 8), (24, 8)  # left shank
    points[[2, 3]] = (8, 40), (24, 40)  # right shank
    drawn = draw_pose(np.full((48, 48, 3), 100, np.uint8), points, sides=True)
    assert drawn[8, 20].tolist() == [0x00, 0x72, 0xB2]
    assert drawn[40, 20].tolist() == [0xD5, 0x5E, 0x00]


def test_the_report_has_the_colours_of_the_pictures():
    css = files("competition.report").joinpath("page.css").read_text()
    for side, colour in (("left", LEFT_COLOUR), ("right", RIGHT_COLOUR), ("middle", MIDDLE_COLOUR)):
        assert f"--{side}: {colour};" in css
