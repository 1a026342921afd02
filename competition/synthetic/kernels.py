"""Compiled inner loops of the renderer: skinning, projection, two z-buffers, shading."""

import math

import numpy as np

from competition.common.arrays import Float32, Float64, Int32
from competition.synthetic.compiled import jit
from competition.synthetic.materials import PROP_REGION, floor_colour, surface_colour, wall_colour

FINE = 2  # samples per pixel along each axis
SHADOW_CELLS, SHADOW_REACH_MM = 256, 1500.0  # of the shadow map around the subject


@jit
def skin(
    rest: Float64, normal: Float64, frame: Int32, weight: Float64, matrix: Float64, shift: Float64
) -> tuple[Float64, Float64]:
    """Apply linear blend skinning to points and normals [V, 3], with matrices [B, 3, 3] and shifts [B, 3]."""
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
def project(points: Float64, rotation: Float64, position: Float64, focal: Float64, centre: Float64) -> Float64:
    """Project points [V, 3] to sample x, y and inverse depth (negative behind the camera)."""
    screen = np.empty_like(points)
    for i in range(points.shape[0]):
        x, y, z = points[i, 0] - position[0], points[i, 1] - position[1], points[i, 2] - position[2]
        depth = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z
        inverse = 1.0 / depth if depth > 50.0 else -1.0
        across = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z
        down = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z
        screen[i, 0] = (across * inverse * focal[0] + centre[0] + 0.5) * FINE - 0.5
        screen[i, 1] = (down * inverse * focal[1] + centre[1] + 0.5) * FINE - 0.5
        screen[i, 2] = inverse
    return screen


@jit
def draw_depth(points: Float64, triangles: Int32, depth: Float32) -> None:
    """Rasterise triangles into a square map by their first two coordinates; keep the largest third coordinate."""
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
def draw_triangles(screen: Float64, triangles: Int32, depth: Float32, owner: Int32) -> None:
    """Rasterise triangles with a z-buffer: screen [V, 3] is sample x, y, inverse depth; owner the triangle's index."""
    height, width = depth.shape
    for f in range(triangles.shape[0]):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        ax, ay, bx, by, cx, cy = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= -1e-9 or min(screen[a, 2], screen[b, 2], screen[c, 2]) <= 0:  # back face, or behind the camera
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
def _lit(shadow: Float32, axes: Float64, centre: Float64, x: float, y: float, z: float) -> float:
    """Return the share of the light that reaches a point: 0 in shadow, 1 outside, in between at the edge."""
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
def choose_samples(owner: Int32, triangles: Int32, region: Int32, count: Int32) -> Int32:
    """List the samples to shade, [S, 3] of x, y, weight: all four of a mixed pixel, two of any other.

    Set `count` [H, W] to the number of samples in each pixel that show body or furniture.
    """
    samples = np.empty((owner.size, 3), np.int32)
    size = 0
    for y in range(count.shape[0]):
        for x in range(count.shape[1]):
            covered, first, mixed = 0, -1, False
            for k in range(4):
                f = owner[2 * y + (k >> 1), 2 * x + (k & 1)]
                if f >= 0:
                    kind = region[triangles[f, 0]]
                    mixed = mixed or (covered > 0 and kind != first)
                    first = kind
                    covered += 1
            count[y, x] = covered
            inner = covered == 4 and not mixed
            for k in range(4):
                sx, sy = 2 * x + (k & 1), 2 * y + (k >> 1)
                if owner[sy, sx] >= 0 and not (inner and (k == 1 or k == 2)):
                    samples[size, 0], samples[size, 1], samples[size, 2] = sx, sy, 2 if inner else 1
                    size += 1
    return samples[:size]


@jit
def shade_solid(
    samples: Int32, screen: Float64, points: Float64, normal: Float64, triangles: Int32, rest: Float32,
    region: Int32, owner: Int32, clothes: Float64, noise: Float32, light: Float64, light_colour: Float64,
    ambient: Float64, shadow: Float32, axes: Float64, centre: Float64, eye: Float64, total: Float32,
) -> None:  # fmt: skip
    """Add the colour of every listed sample to its pixel."""
    colour = np.empty(3)
    place = np.empty(5)
    for s in range(samples.shape[0]):
        x, y, weight = samples[s, 0], samples[s, 1], samples[s, 2]
        f = owner[y, x]
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        ax, ay, bx, by, cx, cy = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        u = ((cx - bx) * (y - by) - (cy - by) * (x - bx)) * screen[a, 2]
        v = ((ax - cx) * (y - cy) - (ay - cy) * (x - cx)) * screen[b, 2]
        w = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * screen[c, 2]
        share = 1.0 / (u + v + w)  # perspective-correct barycentric weights
        u, v, w = u * share, v * share, w * share
        for k in range(5):
            place[k] = u * rest[a, k] + v * rest[b, k] + w * rest[c, k]
        nx = u * normal[a, 0] + v * normal[b, 0] + w * normal[c, 0]
        ny = u * normal[a, 1] + v * normal[b, 1] + w * normal[c, 1]
        nz = u * normal[a, 2] + v * normal[b, 2] + w * normal[c, 2]
        px = u * points[a, 0] + v * points[b, 0] + w * points[c, 0]
        py = u * points[a, 1] + v * points[b, 1] + w * points[c, 1]
        pz = u * points[a, 2] + v * points[b, 2] + w * points[c, 2]
        shine, bump_x, bump_y = surface_colour(region[a], place, clothes, noise, colour)
        length = 1.0 / (math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9)
        nx, ny, nz = nx * length + bump_x, ny * length + bump_y, nz * length
        facing = nx * light[0] + ny * light[1] + nz * light[2]
        lit = 0.0
        if facing > 0:
            lit = facing * _lit(shadow, axes, centre, px + 14 * nx, py + 14 * ny, pz + 14 * nz)
        open_share = place[4] if region[a] != PROP_REGION else 0.9
        sky = open_share * (0.78 + 0.22 * nz)
        gloss = 0.0
        if lit > 0 and shine > 0:
            ex, ey, ez = eye[0] - px, eye[1] - py, eye[2] - pz
            length = 1.0 / math.sqrt(ex * ex + ey * ey + ez * ez)
            hx, hy, hz = ex * length + light[0], ey * length + light[1], ez * length + light[2]
            length = 1.0 / (math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9)
            halfway = max(0.0, (nx * hx + ny * hy + nz * hz) * length)
            halfway *= halfway  # to the 16th power, by squaring
            halfway *= halfway
            halfway *= halfway
            halfway *= halfway
            gloss = 255 * halfway * shine * lit
        for k in range(3):
            total[y >> 1, x >> 1, k] += weight * (colour[k] * (ambient[k] * sky + light_colour[k] * lit) + gloss)


@jit
def shade_room(
    turn: Float64, eye: Float64, focal: Float64, middle: Float64, room: Float64, colours: Float64, panels: Float64,
    noise: Float32, light: Float64, light_colour: Float64, ambient: Float64, shadow: Float32, axes: Float64,
    centre: Float64, feet: Float64, total: Float32, count: Int32,
) -> None:  # fmt: skip
    """Fill the remaining samples of each pixel with the floor, wall or ceiling behind it."""
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
                    for i in range(feet.shape[0]):  # ambient occlusion of the floor under the body
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
