"""Draws a predicted pose as a PNG picture."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from competition.common.arrays import Float64, Image
from competition.common.console import printable
from competition.common.figures import png
from competition.common.skeleton import AXES, BONES, side_colour

VIEWS = {  # title: (horizontal axis, vertical axis), description
    "camera view": ((0, 1), "x and height"),
    "from the right of the image": ((2, 1), "depth z and height"),
    "from above": ((0, 2), "x and depth z"),
}


def pose_picture(image: Image, pose_px: Float64, pose_mm: Float64, caption: str) -> bytes:
    """Draw a pose over its RGB crop [S, S, 3], at pixels [17, 2], and in three views, from [17, 3] mm."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    flat, *sides = figure.subplots(1, 1 + len(VIEWS))
    flat.imshow(image, interpolation="bilinear")
    _draw_bones(flat, pose_px, "white", 4.5)
    _draw_bones(flat, pose_px, None, 2.5)
    flat.set_axis_off()
    flat.set_title("scaled and centred to fit the crop", fontsize=9)
    reach = 1.08 * (float(np.abs(pose_mm).max()) or 1.0)
    for axes, (title, ((across, up), names)) in zip(sides, VIEWS.items(), strict=True):
        sign = -1 if up == AXES.index("y") else 1
        _draw_bones(axes, np.stack([pose_mm[:, across], sign * pose_mm[:, up]], axis=1), None, 2.5)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.set_title(f"{title}: {names}, mm", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(color="#dfe2e5")
    legend = (
        "blue: joints named left, orange: right; relative to the pelvis; the distance to the camera is not estimated"
    )
    title = "\n".join([*textwrap.wrap(printable(caption), 150), legend])
    figure.suptitle(title, fontsize=9, parse_math=False)
    return png(figure)


def _draw_bones(axes: Axes, points: Float64, colour: str | None, width: float) -> None:
    """Draw the bones between points [17, 2], coloured by side unless a colour is given."""
    for parent, joint in BONES:
        shade = side_colour(joint) if colour is None else colour
        axes.plot(*points[[parent, joint]].T, color=shade, linewidth=width, solid_capstyle="round")
