"""The 3D viewer that page.js draws, and images with a pose drawn over them; for the report and for photos."""

import base64
from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np

from competition.common.arrays import Float64, Floats, Image
from competition.common.skeleton import BONES, JOINTS, LEFT, LEFT_COLOUR, RIGHT, RIGHT_COLOUR

JPEG_QUALITY: Final = 82
SUBPIXEL_BITS: Final = 4  # OpenCV draws at sixteenths of a pixel
DARK, LIGHT = (20, 20, 20), (245, 245, 245)

HELP: Final = "Drag to rotate, or focus the view and press the arrow keys; + and − zoom, Home resets the view."
LEGEND: Final = {"left": "predicted, left", "right": "predicted, right", "middle": "predicted, middle"}


def viewer(*, truth: bool) -> str:
    """Build the container of the viewer; with `truth`, its legend includes the true skeleton."""
    legend = LEGEND | ({"truth": "truth"} if truth else {})
    items = "".join(f'<li class="{key}">{name}</li>' for key, name in legend.items())
    return (
        '<div class="viewer"><div id="viewer-plot" tabindex="0" role="application" aria-label="3D skeletons" '
        'aria-describedby="viewer-help"></div><p id="viewer-caption" aria-live="polite"></p>'
        f'<ul class="legend">{items}</ul>'
        f'<p id="viewer-help" class="aside">{HELP}</p></div>'
    )


def shown_pose(caption: str, predicted_mm: Float64, truth_mm: Float64 | None) -> dict[str, Any]:
    """Return one entry of the viewer: poses [17, 3] in mm, camera axes, relative to the pelvis."""
    truth = None if truth_mm is None else np.round(truth_mm, 1).tolist()
    return {"caption": caption, "truth": truth, "predicted": np.round(predicted_mm, 1).tolist()}


def viewer_data(shown: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the viewer's data for page.js: the results of `shown_pose`, and the skeleton's joints and bones."""
    return {"poses": list(shown), "joints": JOINTS, "bones": BONES, "left": LEFT, "right": RIGHT}


def draw_pose(image: Image, pose_px: Floats, *, sides: bool = False) -> Image:
    """Draw a pose [17, 2], in pixels, over a copy of an RGB image [H, W, 3].

    Lines are white with a dark rim; with `sides`, left and right have their own colours and a white rim.
    """
    drawn = image.copy()
    points = [tuple(int(v) for v in point) for point in np.rint(pose_px * (1 << SUBPIXEL_BITS))]
    colours = [_side(joint) if sides else LIGHT for joint in range(len(points))]
    rim = [LIGHT if sides else DARK] * len(points)
    for colour, width, radius in ((rim, 4, 3.5), (colours, 2, 2.2)):
        for parent, joint in BONES:
            cv2.line(drawn, points[parent], points[joint], colour[joint], width, cv2.LINE_AA, SUBPIXEL_BITS)
        for point, of_point in zip(points, colour, strict=True):
            cv2.circle(drawn, point, int(radius * (1 << SUBPIXEL_BITS)), of_point, -1, cv2.LINE_AA, SUBPIXEL_BITS)
    return drawn


def as_data_url(image: Image) -> str:
    """Encode an RGB image as a JPEG in a data URL."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _side(joint: int) -> tuple[int, int, int]:
    """Return the RGB colour of a joint and of the bone from its parent."""
    if joint not in (*LEFT, *RIGHT):
        return DARK
    red, green, blue = bytes.fromhex((LEFT_COLOUR if joint in LEFT else RIGHT_COLOUR)[1:])
    return red, green, blue
