"""Draws skeletons over images."""

from typing import Final

import cv2
import numpy as np

from competition.common.arrays import Floats, Image
from competition.common.skeleton import BONES, side_colour

_SUBPIXEL_BITS: Final = 4  # OpenCV draws at sixteenths of a pixel
DARK, LIGHT = (20, 20, 20), (245, 245, 245)


def draw_pose(image: Image, pose_px: Floats, *, sides: bool = False) -> Image:
    """Draw a pose [17, 2], in pixels, over a copy of an RGB image [H, W, 3].

    Lines are white with a dark rim; with `sides`, left and right have their own colours and a white rim.
    """
    drawn = image.copy()
    points = [tuple(int(v) for v in point) for point in np.rint(pose_px * (1 << _SUBPIXEL_BITS))]
    colours = [_rgb(side_colour(joint)) if sides else LIGHT for joint in range(len(points))]
    rim = [LIGHT if sides else DARK] * len(points)
    for colour, width, radius in ((rim, 4, 3.5), (colours, 2, 2.2)):
        for parent, joint in BONES:
            cv2.line(drawn, points[parent], points[joint], colour[joint], width, cv2.LINE_AA, _SUBPIXEL_BITS)
        for point, of_point in zip(points, colour, strict=True):
            cv2.circle(drawn, point, int(radius * (1 << _SUBPIXEL_BITS)), of_point, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return drawn


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
