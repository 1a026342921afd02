"""Render a posed body in a room: skinning, a z-buffer at twice the crop's resolution, shading with soft shadows.

Shading is deferred: triangle indices are rasterised first; then the colour of each visible sample is computed from its
position in the rest pose. Patterns, faces and hems are therefore as sharp as the image, whatever the triangles' size.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from competition.common.arrays import Float32, Float64, Int32
from competition.common.seeds import generator
from competition.synthetic import kernels
from competition.synthetic.bodies import Body
from competition.synthetic.cameras import CROP_PX, Camera
from competition.synthetic.kernels import FINE, SHADOW_CELLS, SHADOW_REACH_MM
from competition.synthetic.materials import PROP_REGION
from competition.synthetic.scenes import Scene
from competition.synthetic.skeletons import Posture

JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class Solid:
    """Body and furniture at one instant in room space, with the inputs of shading."""

    points_mm: Float64  # [V, 3]
    normal: Float64  # [V, 3]
    triangles: Int32  # [F, 3]
    rest: Float32  # [V, 5] position in the rest pose, along, shade; for furniture its colour
    region: Int32  # [V]
    shadow: Float32  # [SHADOW_CELLS, SHADOW_CELLS] distance towards the light, mm
    shadow_axes: Float64  # [3, 3] across, up, towards the light
    centre_mm: Float64  # [3]


def make_solid(body: Body, posture: Posture, scene: Scene) -> Solid:
    """Skin the body, add the furniture and draw the shadow map."""
    shift = posture.origin_mm - np.einsum("bij,bj->bi", posture.rotation, posture.rest_origin_mm)
    dressed = body.rest_mm + scene.cloth_offset_mm[:, None] * body.normal
    points, normal = kernels.skin(
        dressed, body.normal, body.frame, body.weight, np.ascontiguousarray(posture.rotation), shift
    )
    rest = np.concatenate([body.rest_mm, body.along_mm[:, None], body.shade[:, None]], axis=1)
    count = len(scene.props_mm)
    everything = np.concatenate([points, scene.props_mm])
    triangles = np.concatenate([body.triangles, scene.props_triangles + len(points)]).astype(np.int32)
    centre = posture.joints_mm[0] * [1, 1, 0.8]
    across = np.cross([0, 0, 1.0], scene.light)
    across /= np.linalg.norm(across)
    axes = np.stack([across, np.cross(scene.light, across), scene.light])
    below = (everything - centre) @ axes.T
    below[:, :2] = below[:, :2] * (SHADOW_CELLS / (2 * SHADOW_REACH_MM)) + 0.5 * SHADOW_CELLS
    shadow = np.full((SHADOW_CELLS, SHADOW_CELLS), -1e9, np.float32)
    kernels.draw_depth(below, triangles, shadow)
    return Solid(
        points_mm=everything,
        normal=np.concatenate([normal, scene.props_normal]),
        triangles=triangles,
        rest=np.concatenate([rest, np.concatenate([scene.props_colour, np.zeros((count, 2))], axis=1)]).astype(
            np.float32
        ),
        region=np.concatenate([body.region, np.full(count, PROP_REGION, np.int32)]),
        shadow=shadow,
        shadow_axes=axes,
        centre_mm=np.asarray(centre),
    )


def draw(solid: Solid, posture: Posture, scene: Scene, crop: Camera, noise: Float32) -> Float32:
    """Render the crop: [CROP_PX, CROP_PX, 3] RGB, linear, before blur and noise."""
    fine = CROP_PX * FINE
    screen = kernels.project(solid.points_mm, crop.rotation, crop.position_mm, crop.focal_px, crop.centre_px)
    depth, owner = np.zeros((fine, fine), np.float32), np.full((fine, fine), -1, np.int32)
    kernels.draw_triangles(screen, solid.triangles, depth, owner)
    total, count = np.zeros((CROP_PX, CROP_PX, 3), np.float32), np.zeros((CROP_PX, CROP_PX), np.int32)
    lights = (scene.light, scene.light_colour, scene.ambient, solid.shadow, solid.shadow_axes, solid.centre_mm)
    samples = kernels.choose_samples(owner, solid.triangles, solid.region, count)
    kernels.shade_solid(
        samples, screen, solid.points_mm, solid.normal, solid.triangles, solid.rest, solid.region, owner, scene.clothes,
        noise, *lights, crop.position_mm, total,
    )  # fmt: skip
    joints = posture.joints_mm
    feet = np.array([[*joints[3], 130.0], [*joints[6], 130.0], [*joints[0], 260.0]])
    kernels.shade_room(
        crop.rotation, crop.position_mm, crop.focal_px, crop.centre_px, scene.room, scene.colours, scene.panels, noise,
        *lights, feet, total, count,
    )  # fmt: skip
    return total / np.float32(FINE**2)


def to_jpeg(image: Float32, scene: Scene, rng: np.random.Generator, grain: Float32) -> bytes:
    """Simulate a camera (blur, white balance, exposure, noise) and encode the image as JPEG."""
    blurred = cv2.GaussianBlur(image, (0, 0), scene.blur_px)
    top, left = rng.integers(0, grain.shape[0] - CROP_PX, 2)
    strength = scene.noise
    noisy = blurred * scene.gain.astype(np.float32) + strength * grain[top : top + CROP_PX, left : left + CROP_PX]
    pixels = np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
    done, code = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done, "JPEG encoding failed"
    return bytes(code)


def make_textures() -> tuple[Float32, Float32]:
    """Return surface noise [256, 256], tileable, 0 to 1, and camera noise [512, 512, 3] with unit variance."""
    rng = generator(0, "textures")
    surface = np.zeros((256, 256))
    for cells, strength in ((8, 0.4), (32, 0.3), (128, 0.3)):
        tile = rng.random((cells, cells))
        wrapped = np.pad(tile, 2, mode="wrap").astype(np.float32)
        scale = 256 // cells
        big = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        surface += strength * big[2 * scale : -2 * scale, 2 * scale : -2 * scale]
    grain = rng.normal(size=(512, 512, 3)).astype(np.float32)
    grain = 0.8 * grain + 0.6 * cv2.GaussianBlur(grain, (0, 0), 0.8) * 1.8
    return np.clip(surface, 0, 1).astype(np.float32), (grain / grain.std()).astype(np.float32)
