"""The 3D viewer that page.js draws, for the report and for photos."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from competition.common.arrays import Float64, Image
from competition.common.skeleton import BONES, JOINTS, LEFT, RIGHT

JPEG_QUALITY: Final = 82


@dataclass(frozen=True, kw_only=True)
class ShownPose:
    """A pose for the viewer: joints [17][3] in mm, camera axes, relative to the pelvis."""

    caption: str
    truth: list[list[float]] | None
    predicted: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """The poses to choose from, and the skeleton: the data of page.js."""

    poses: Sequence[ShownPose]
    joints: tuple[str, ...] = JOINTS
    bones: tuple[tuple[int, int], ...] = BONES
    left: tuple[int, ...] = LEFT
    right: tuple[int, ...] = RIGHT

    @property
    def legend(self) -> dict[str, str]:
        """The label of each colour, by its name in page.css."""
        labels = {side: f"predicted, {side}" for side in ("left", "right", "middle")}
        return labels | ({"truth": "truth"} if any(pose.truth is not None for pose in self.poses) else {})


def shown_pose(caption: str, predicted_mm: Float64, truth_mm: Float64 | None) -> ShownPose:
    """Round poses [17, 3] in mm, in camera axes and relative to the pelvis, for the viewer."""
    truth = None if truth_mm is None else np.round(truth_mm, 1).tolist()
    return ShownPose(caption=caption, truth=truth, predicted=np.round(predicted_mm, 1).tolist())


def as_data_url(image: Image) -> str:
    """Encode an RGB image as a JPEG in a data URL."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
