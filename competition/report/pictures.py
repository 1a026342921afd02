"""Draws a predicted pose as a PNG picture."""

import textwrap

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from competition.common.arrays import Float64, Image
from competition.common.console import printable
from competition.common.drawing import draw_pose
from competition.common.figures import png
from competition.common.skeleton import AXES, BONES, LEFT_COLOUR, RIGHT_COLOUR, side_colour

VIEWS = {  # title: (horizontal axis, vertical axis), description
    "camera view": ((0, 1), "x and height"),
    "from the right of the image": ((2, 1), "depth z and height"),
    "from above": ((0, 2), "x and depth z"),
}


def pose_picture(image: Image, pose_px: Float64, pose_mm: Float64, caption: str) -> bytes:
    """Draw a pose over its RGB crop [S, S, 3], at pixels [17, 2], and in three views, from [17, 3] mm."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    flat, *sides = figure.subplots(1, 1 + len(VIEWS))
    flat.imshow(draw_enlarged(image, pose_px), interpolation="antialiased")
    flat.set_axis_off()
    flat.set_title("scaled and centred to fit the crop", fontsize=9)
    reach = 1.08 * (float(np.abs(pose_mm).max()) or 1.0)
    for axes, (title, ((across, up), names)) in zip(sides, VIEWS.items(), strict=True):
        sign = -1 if up == AXES.index("y") else 1
        for bone in BONES:
            x, y = pose_mm[bone, across], sign * pose_mm[bone, up]
            axes.plot(x, y, color=side_colour(bone[1]), linewidth=2.5, solid_capstyle="round")
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.set_title(f"{title}: {names}, mm", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(color="#dfe2e5")
    sides_of_body = {"joints named left": LEFT_COLOUR, "joints named right": RIGHT_COLOUR}
    handles = [Line2D([], [], color=colour, label=name, linewidth=2.5) for name, colour in sides_of_body.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    note = "relative to the pelvis; the distance to the camera is not estimated"
    title = "\n".join([*textwrap.wrap(printable(caption), 150), note])
    figure.suptitle(title, fontsize=9, parse_math=False)
    return png(figure)


def draw_enlarged(crop: Image, pose_px: Float64) -> Image:
    """Draw a pose [17, 2], in pixels of its RGB crop [S, S, 3], over the crop at twice its size, for finer lines."""
    size = 2 * len(crop)
    large = np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
    return draw_pose(large, 2 * pose_px + 0.5, sides=True)  # integers at pixel centres
