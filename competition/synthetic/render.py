"""Draw a posed body in its room: skinning, a z-buffer at twice the crop's resolution, shading with soft shadows.

The surface's triangles are drawn into a buffer of which triangle is where; colour is found afterwards, once for each
visible sample, from the place on the body in its rest pose. Patterns, faces and hems are therefore as sharp as the
picture, whatever the size of the triangles.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from competition.seeds import generator
from competition.synthetic.bodies import Body
from competition.synthetic.cameras import CROP_PX, Camera
from competition.synthetic.compiled import jit
from competition.synthetic.materials import PROP_REGION, floor_colour, surface_colour, wall_colour
from competition.synthetic.scenes import Scene
from competition.synthetic.skeletons import Posture

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Int = npt.NDArray[np.int32]
Image = npt.NDArray[np.uint8]

FINE = 2  # samples a pixel along each axis
SHADOW_CELLS, SHADOW_REACH_MM = 256, 1500.0  # of the map of what the light sees, around the subject
JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class Solid:
    """Everything solid at one instant, in the room's space, with what the shading needs to know of it."""

    points_mm: Float  # [V, 3]
    normal: Float  # [V, 3]
    triangles: Int  # [F, 3]
    rest: Float32  # [V, 5] place in the rest pose, along, shade; for furniture its colour
    region: Int  # [V]
    shadow: Float32  # [SHADOW_CELLS, SHADOW_CELLS] depth below the light, mm
    shadow_axes: Float  # [3, 3] across, up, towards the light
    centre_mm: Float  # [3]


@jit
def _skin(rest: Float, normal: Float, frame: Int, weight: Float, matrix: Float, shift: Float) -> tuple[Float, Float]:
    """Linear blend skinning: points and normals [V, 3] by frames' matrices [B, 3, 3] and shifts [B, 3]."""
    points, turned = np.empty_like(rest), np.empty_like(rest)
    for i in range(rest.shape[0]):
        for a in range(3):
            point, outward = 0.0, 0.0
            for k in range(4):
                b, w = frame[i, k], weight[i, k]
                if w > 0:
                    point += w * (
                        shift[b, a]
                        + matrix[b, a, 0] * rest[i, 0]
                        + matrix[b, a, 1] * rest[i, 1]
                        + matrix[b, a, 2] * rest[i, 2]
                    )
                    outward += w * (
                        matrix[b, a, 0] * normal[i, 0] + matrix[b, a, 1] * normal[i, 1] + matrix[b, a, 2] * normal[i, 2]
                    )
            points[i, a] = point
            turned[i, a] = outward
    return points, turned


@jit
def _draw_depth(points: Float, triangles: Int, depth: Float32) -> None:
    """Keep the largest third coordinate of triangles over a square map whose cells are the first two coordinates."""
    size = depth.shape[0]
    for f in range(triangles.shape[0]):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area <= 1e-9:
            continue
        low_x, high_x = max(0, math.ceil(min(ax, bx, cx))), min(size - 1, math.floor(max(ax, bx, cx)))
        low_y, high_y = max(0, math.ceil(min(ay, by, cy))), min(size - 1, math.floor(max(ay, by, cy)))
        for y in range(low_y, high_y + 1):
            for x in range(low_x, high_x + 1):
                u = ((cx - bx) * (y - by) - (cy - by) * (x - bx)) / area
                v = ((ax - cx) * (y - cy) - (ay - cy) * (x - cx)) / area
                w = 1.0 - u - v
                if u < 0 or v < 0 or w < 0:
                    continue
                value = u * points[a, 2] + v * points[b, 2] + w * points[c, 2]
                depth[y, x] = max(depth[y, x], value)


@jit
def _draw_triangles(screen: Float, triangles: Int, depth: Float32, owner: Int) -> None:
    """Find the triangle seen at each sample: screen [V, 3] holds sample x, y and inverse depth."""
    height, width = depth.shape
    for f in range(triangles.shape[0]):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        ax, ay, bx, by, cx, cy = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= -1e-9 or min(screen[a, 2], screen[b, 2], screen[c, 2]) <= 0:  # turned away, or behind the camera
            continue
        low_x, high_x = max(0, math.ceil(min(ax, bx, cx))), min(width - 1, math.floor(max(ax, bx, cx)))
        low_y, high_y = max(0, math.ceil(min(ay, by, cy))), min(height - 1, math.floor(max(ay, by, cy)))
        for y in range(low_y, high_y + 1):
            for x in range(low_x, high_x + 1):
                u = ((cx - bx) * (y - by) - (cy - by) * (x - bx)) / area
                v = ((ax - cx) * (y - cy) - (ay - cy) * (x - cx)) / area
                w = 1.0 - u - v
                if u < 0 or v < 0 or w < 0:
                    continue
                value = u * screen[a, 2] + v * screen[b, 2] + w * screen[c, 2]
                if value > depth[y, x]:
                    depth[y, x] = value
                    owner[y, x] = f


@jit
def _lit(shadow: Float32, axes: Float, centre: Float, x: float, y: float, z: float) -> float:
    """Share of the light that reaches a place: 0 in shadow, 1 outside, between at its edge."""
    size = shadow.shape[0]
    scale = size / (2 * SHADOW_REACH_MM)
    px, py, pz = x - centre[0], y - centre[1], z - centre[2]
    u = (axes[0, 0] * px + axes[0, 1] * py + axes[0, 2] * pz) * scale + 0.5 * size
    v = (axes[1, 0] * px + axes[1, 1] * py + axes[1, 2] * pz) * scale + 0.5 * size
    if u < 2 or v < 2 or u > size - 4 or v > size - 4:
        return 1.0
    depth = axes[2, 0] * px + axes[2, 1] * py + axes[2, 2] * pz + 18.0
    i, j = math.floor(u), math.floor(v)
    fu, fv = u - i, v - j
    total = 0.0
    for dv in range(-1, 3):
        wv = (1 - fv) if dv == -1 else fv if dv == 2 else 1.0
        for du in range(-1, 3):
            wu = (1 - fu) if du == -1 else fu if du == 2 else 1.0
            if shadow[j + dv, i + du] <= depth:
                total += wu * wv
    return total / 9.0


@jit
def _shade_solid(
    screen: Float, points: Float, normal: Float, triangles: Int, rest: Float32, region: Int, owner: Int, wear: Float,
    noise: Float32, light: Float, light_colour: Float, ambient: Float, shadow: Float32, axes: Float, centre: Float,
    eye: Float, total: Float32, count: Int,
) -> None:  # fmt: skip
    """Add the colour of every sample that shows something solid to its pixel."""
    colour = np.empty(3)
    place = np.empty(5)
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            f = owner[y, x]
            if f < 0:
                continue
            a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
            ax, ay, bx, by, cx, cy = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            u = ((cx - bx) * (y - by) - (cy - by) * (x - bx)) / area * screen[a, 2]
            v = ((ax - cx) * (y - cy) - (ay - cy) * (x - cx)) / area * screen[b, 2]
            w = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area * screen[c, 2]
            share = u + v + w  # perspective: weights by inverse depth
            u, v, w = u / share, v / share, w / share
            for k in range(5):
                place[k] = u * rest[a, k] + v * rest[b, k] + w * rest[c, k]
            nx = u * normal[a, 0] + v * normal[b, 0] + w * normal[c, 0]
            ny = u * normal[a, 1] + v * normal[b, 1] + w * normal[c, 1]
            nz = u * normal[a, 2] + v * normal[b, 2] + w * normal[c, 2]
            px = u * points[a, 0] + v * points[b, 0] + w * points[c, 0]
            py = u * points[a, 1] + v * points[b, 1] + w * points[c, 1]
            pz = u * points[a, 2] + v * points[b, 2] + w * points[c, 2]
            shine, bump_x, bump_y = surface_colour(region[a], place, wear, noise, colour)
            length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            nx, ny, nz = nx / length + bump_x, ny / length + bump_y, nz / length
            facing = nx * light[0] + ny * light[1] + nz * light[2]
            lit = 0.0
            if facing > 0:
                lit = facing * _lit(shadow, axes, centre, px + 14 * nx, py + 14 * ny, pz + 14 * nz)
            open_share = place[4] if region[a] != PROP_REGION else 0.9
            sky = open_share * (0.78 + 0.22 * nz)
            ex, ey, ez = eye[0] - px, eye[1] - py, eye[2] - pz
            length = math.sqrt(ex * ex + ey * ey + ez * ez)
            hx, hy, hz = ex / length + light[0], ey / length + light[1], ez / length + light[2]
            length = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
            gloss = max(0.0, (nx * hx + ny * hy + nz * hz) / length) ** 24 * shine * lit
            for k in range(3):
                total[y // 2, x // 2, k] += colour[k] * (ambient[k] * sky + light_colour[k] * lit) + 255 * gloss
            count[y // 2, x // 2] += 1


@jit
def _shade_room(
    turn: Float, eye: Float, focal: Float, middle: Float, room: Float, colours: Float, panels: Float, noise: Float32,
    light: Float, light_colour: Float, ambient: Float, shadow: Float32, axes: Float, centre: Float, feet: Float,
    total: Float32, count: Int,
) -> None:  # fmt: skip
    """Fill what is left of each pixel with the floor, wall or ceiling behind it."""
    colour = np.empty(3)
    for y in range(count.shape[0]):
        for x in range(count.shape[1]):
            left = 4 - count[y, x]
            if left == 0:
                continue
            u, v = (x - middle[0]) / focal[0], (y - middle[1]) / focal[1]
            dx = turn[0, 0] * u + turn[1, 0] * v + turn[2, 0]
            dy = turn[0, 1] * u + turn[1, 1] * v + turn[2, 1]
            dz = turn[0, 2] * u + turn[1, 2] * v + turn[2, 2]
            tx = ((room[1] if dx > 0 else room[0]) - eye[0]) / (dx if abs(dx) > 1e-9 else 1e-9)
            ty = ((room[3] if dy > 0 else room[2]) - eye[1]) / (dy if abs(dy) > 1e-9 else 1e-9)
            tz = ((room[4] if dz > 0 else 0.0) - eye[2]) / (dz if abs(dz) > 1e-9 else 1e-9)
            t = min(tx, ty, tz)
            px, py, pz = eye[0] + t * dx, eye[1] + t * dy, eye[2] + t * dz
            nx, ny, nz = 0.0, 0.0, 0.0
            sky = 1.0
            if t == tz:
                nz = -1.0 if dz > 0 else 1.0
                if dz > 0:
                    for k in range(3):
                        colour[k] = colours[6, k]
                else:
                    floor_colour(px, py, room, colours, noise, colour)
                    for i in range(feet.shape[0]):  # little of the room's light comes under a body
                        gap = ((px - feet[i, 0]) ** 2 + (py - feet[i, 1]) ** 2 + feet[i, 2] ** 2) / feet[i, 3] ** 2
                        sky *= 1.0 - 0.5 / (1.0 + gap * gap)
            else:
                along_x = t == tx
                if along_x:
                    nx = -1.0 if dx > 0 else 1.0
                    side = 1 if dx > 0 else 0
                else:
                    ny = -1.0 if dy > 0 else 1.0
                    side = 3 if dy > 0 else 2
                wall_colour(side, py if along_x else px, pz, room, colours, panels, noise, colour)
                sky = 0.82 + 0.18 * min(1.0, pz / 500.0)
            facing = max(0.0, nx * light[0] + ny * light[1] + nz * light[2])
            lit = 0.35 * nz * nz + 0.65 * facing
            if nz > 0:
                lit = facing * _lit(shadow, axes, centre, px, py, pz)
            for k in range(3):
                total[y, x, k] += left * colour[k] * (ambient[k] * sky + light_colour[k] * lit)


def make_solid(body: Body, posture: Posture, scene: Scene) -> Solid:
    """Skin the body and put the furniture beside it, and draw the map of what the light sees."""
    shift = posture.origin_mm - np.einsum("bij,bj->bi", posture.rotation, posture.rest_origin_mm)
    dressed = body.rest_mm + scene.puff_mm[:, None] * body.normal
    points, normal = _skin(dressed, body.normal, body.frame, body.weight, np.ascontiguousarray(posture.rotation), shift)
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
    _draw_depth(below, triangles, shadow)
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
    """Draw what the crop's camera sees: [CROP_PX, CROP_PX, 3] RGB, linear in the light, before the lens."""
    fine = CROP_PX * FINE
    seen = crop.see(solid.points_mm)
    screen = np.empty_like(seen)
    screen[:, 2] = 1 / np.where(seen[:, 2] > 50, seen[:, 2], -1)
    screen[:, :2] = (seen[:, :2] * screen[:, 2:] * crop.focal_px + crop.centre_px + 0.5) * FINE - 0.5
    depth, owner = np.zeros((fine, fine), np.float32), np.full((fine, fine), -1, np.int32)
    _draw_triangles(screen, solid.triangles, depth, owner)
    total, count = np.zeros((CROP_PX, CROP_PX, 3), np.float32), np.zeros((CROP_PX, CROP_PX), np.int32)
    lights = (scene.light, scene.light_colour, scene.ambient, solid.shadow, solid.shadow_axes, solid.centre_mm)
    _shade_solid(
        screen, solid.points_mm, solid.normal, solid.triangles, solid.rest, solid.region, owner, scene.wear, noise,
        *lights, crop.position_mm, total, count,
    )  # fmt: skip
    joints = posture.joints_mm
    feet = np.array([[*joints[3], 130.0], [*joints[6], 130.0], [*joints[0], 260.0]])
    _shade_room(
        crop.rotation, crop.position_mm, crop.focal_px, crop.centre_px, scene.room, scene.colours, scene.panels, noise,
        *lights, feet, total, count,
    )  # fmt: skip
    return total / np.float32(FINE**2)


def develop(picture: Float32, scene: Scene, rng: np.random.Generator, grain: Float32) -> bytes:
    """Make a JPEG of a drawing as a camera would: blur, white balance, exposure, noise."""
    blurred = cv2.GaussianBlur(picture, (0, 0), scene.blur_px)
    top, left = rng.integers(0, grain.shape[0] - CROP_PX, 2)
    strength = scene.noise
    noisy = blurred * scene.gain.astype(np.float32) + strength * grain[top : top + CROP_PX, left : left + CROP_PX]
    pixels = np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
    done, code = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done, "JPEG encoding failed"
    return bytes(code)


def make_textures() -> tuple[Float32, Float32]:
    """Make the noise of surfaces [256, 256], tileable, 0 to 1, and the camera's grain [512, 512, 3], unit variance."""
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
