"""The four cameras of the room, and crops around the subject.

Camera axes, mm: x right, y down, z away. Pixels: integers at the centres.
"""

import math
from dataclasses import dataclass

import numpy as np

from competition.common.arrays import Float64
from competition.common.seeds import generator
from competition.common.skeleton import CAMERAS

CROP_PX = 256
MARGIN_PX = 40.0  # added to the longer side of the joints' box, in pixels of the full image
# focal lengths and centre in px, pitch and roll in degrees, azimuth in degrees, height and distance in mm
_MEASURED = {
    "54138969": (1145.0, 1143.8, 512.5, 515.5, -10.7, 1.5, -114.0, 1560.0, 5300.0),
    "55011271": (1149.7, 1147.6, 508.8, 508.1, -12.4, 0.1, 111.8, 1610.0, 5400.0),
    "58860488": (1149.1, 1148.8, 519.8, 501.4, -12.4, -2.6, -65.6, 1490.0, 5500.0),
    "60457274": (1145.5, 1144.8, 515.0, 501.9, -16.0, 3.6, 65.3, 1570.0, 4200.0),
}


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera in the room: x_camera = rotation @ (x_room - position)."""

    rotation: Float64  # [3, 3]
    position_mm: Float64  # [3]
    focal_px: Float64  # [2]
    centre_px: Float64  # [2]

    def to_camera(self, points_mm: Float64) -> Float64:
        """Transform points [..., 3] from room space to camera space."""
        return np.asarray((points_mm - self.position_mm) @ self.rotation.T)

    def project(self, seen_mm: Float64) -> Float64:
        """Project points [..., 3] in camera space to pixels [..., 2]."""
        return np.asarray(seen_mm[..., :2] / seen_mm[..., 2:] * self.focal_px + self.centre_px)

    def crop(self, joints_px: Float64) -> "Camera":
        """Return the camera of the square crop around joints [17, 2] in pixels, resized to CROP_PX pixels."""
        low, high = joints_px.min(axis=0), joints_px.max(axis=0)
        side = float((high - low).max()) + MARGIN_PX
        scale = CROP_PX / side
        corner = 0.5 * (low + high) - 0.5 * side  # in continuous coordinates; pixel 0 begins at -.5
        return Camera(
            rotation=self.rotation,
            position_mm=self.position_mm,
            focal_px=self.focal_px * scale,
            centre_px=(self.centre_px - corner) * scale - 0.5,
        )


def make_camera(seed: int, subject: str, name: str) -> Camera:
    """Set up a camera for a subject: the measured position with small variations between subjects."""
    fx, fy, cx, cy, pitch, roll, azimuth, height, distance = _MEASURED[name]
    rng = generator(seed, "camera", subject, name)
    pitch, roll = pitch + rng.normal(0, 0.6), roll + rng.normal(0, 0.8)
    azimuth, height, distance = azimuth + rng.normal(0, 2), height + rng.normal(0, 30), distance + rng.normal(0, 80)
    a, p, r = math.radians(azimuth), math.radians(pitch), math.radians(roll)
    position = np.array([distance * math.cos(a), distance * math.sin(a), height])
    away = np.array([-math.cos(a) * math.cos(p), -math.sin(a) * math.cos(p), math.sin(p)])
    right = np.array([away[1], -away[0], 0]) / math.cos(p)
    down = np.array([
        away[1] * right[2] - away[2] * right[1],
        away[2] * right[0] - away[0] * right[2],
        away[0] * right[1] - away[1] * right[0],
    ])  # fmt: skip
    right, down = math.cos(r) * right + math.sin(r) * down, -math.sin(r) * right + math.cos(r) * down
    return Camera(
        rotation=np.stack([right, down, away]),
        position_mm=position,
        focal_px=np.array([fx, fy]),
        centre_px=np.array([cx, cy]),
    )


def make_cameras(seed: int, subject: str) -> dict[str, Camera]:
    """Return the four cameras of a subject by name."""
    return {name: make_camera(seed, subject, name) for name in CAMERAS}
