"""Signed distance fields of smoothly blended round cones and ellipsoids, and their triangle meshes (surface nets).

A primitive is a row of 14 numbers, in mm:
    cone        0, start x y z, start radius, end x y z, end radius, blend
    ellipsoid   1, centre x y z, 0, semi-axes x y z, 0, blend
`blend` is the width of the smooth transition to the preceding primitives. The last four are the centre and radius of
a bounding sphere.
"""

import math

import numpy as np
import numpy.typing as npt

from competition.common.arrays import Float64, Int32
from competition.synthetic.compiled import jit

CONE, ELLIPSOID = 0, 1
BLOCK = 4  # cells along an edge of the blocks that are skipped when far from the surface


def cone(start: npt.ArrayLike, start_radius: float, end: npt.ArrayLike, end_radius: float, blend: float) -> Float64:
    """Return the row of a round cone: two spheres and the volume between them."""
    first, last = np.asarray(start, float), np.asarray(end, float)
    around = 0.5 * float(np.linalg.norm(last - first)) + max(start_radius, end_radius)
    return np.concatenate([[CONE], first, [start_radius], last, [end_radius, blend], 0.5 * (first + last), [around]])


def ellipsoid(centre: npt.ArrayLike, axes: npt.ArrayLike, blend: float) -> Float64:
    """Return the row of an ellipsoid with semi-axes along x, y and z."""
    middle, axis = np.asarray(centre, float), np.asarray(axes, float)
    return np.concatenate([[ELLIPSOID], middle, [0], axis, [0, blend], middle, [axis.max()]])


@jit
def _distance(row: Float64, x: float, y: float, z: float) -> float:
    px, py, pz = x - row[1], y - row[2], z - row[3]
    if row[0] == ELLIPSOID:
        k0 = math.sqrt((px / row[5]) ** 2 + (py / row[6]) ** 2 + (pz / row[7]) ** 2)
        k1 = math.sqrt((px / row[5] ** 2) ** 2 + (py / row[6] ** 2) ** 2 + (pz / row[7] ** 2) ** 2)
        if k1 < 1e-9:
            return float(-min(row[5], row[6], row[7]))
        return float(k0 * (k0 - 1) / k1)
    bx, by, bz = row[5] - row[1], row[6] - row[2], row[7] - row[3]
    length2 = bx * bx + by * by + bz * bz
    along = min(1.0, max(0.0, (px * bx + py * by + pz * bz) / max(length2, 1e-9)))
    dx, dy, dz = px - along * bx, py - along * by, pz - along * bz
    return float(math.sqrt(dx * dx + dy * dy + dz * dz) - (row[4] + along * (row[8] - row[4])))


@jit
def field(primitives: Float64, x: float, y: float, z: float) -> float:
    """Return the signed distance in mm of a point to the surface; approximate where primitives blend."""
    value = 1e9
    for i in range(primitives.shape[0]):
        blend = primitives[i, 9]
        reach = value + blend + primitives[i, 13]
        dx, dy, dz = x - primitives[i, 10], y - primitives[i, 11], z - primitives[i, 12]
        if reach > 0 and dx * dx + dy * dy + dz * dz > reach * reach:
            continue
        distance = _distance(primitives[i], x, y, z)
        overlap = max(blend - abs(value - distance), 0.0) / blend
        value = min(value, distance) - overlap * overlap * blend * 0.25
    return value


@jit
def fields(primitives: Float64, points: Float64) -> Float64:
    """Return the signed distances [N] of points [N, 3]."""
    values = np.empty(points.shape[0])
    for i in range(points.shape[0]):
        values[i] = field(primitives, points[i, 0], points[i, 1], points[i, 2])
    return values


@jit
def _fill(primitives: Float64, low: Float64, step: float, grid: Float64) -> None:
    """Evaluate the field on a grid; blocks far from the surface get the value at their centre."""
    reach = step * BLOCK * 0.9 + 40.0
    for i in range(0, grid.shape[0], BLOCK):
        for j in range(0, grid.shape[1], BLOCK):
            for k in range(0, grid.shape[2], BLOCK):
                middle = (BLOCK - 1) / 2
                x, y, z = low[0] + (i + middle) * step, low[1] + (j + middle) * step, low[2] + (k + middle) * step
                value = field(primitives, x, y, z)
                near = abs(value) < reach
                for a in range(i, min(i + BLOCK, grid.shape[0])):
                    for b in range(j, min(j + BLOCK, grid.shape[1])):
                        for c in range(k, min(k + BLOCK, grid.shape[2])):
                            if near:
                                x, y, z = low[0] + a * step, low[1] + b * step, low[2] + c * step
                                grid[a, b, c] = field(primitives, x, y, z)
                            else:
                                grid[a, b, c] = value


@jit
def _nets(grid: Float64, low: Float64, step: float) -> tuple[Float64, Int32]:
    """Return one vertex per cell, and two triangles per grid edge, that the surface crosses."""
    size_x, size_y, size_z = grid.shape
    index = np.full(grid.shape, -1, np.int32)
    vertices = np.empty((grid.size // 4 + 8, 3))
    triangles = np.empty((grid.size // 2 + 8, 3), np.int32)
    count, faces = 0, 0
    for i in range(size_x - 1):
        for j in range(size_y - 1):
            for k in range(size_z - 1):
                sx, sy, sz, crossings = 0.0, 0.0, 0.0, 0
                for axis in range(3):
                    for corner in range(4):
                        u, w = corner & 1, corner >> 1
                        if axis == 0:
                            a, b, c = i, j + u, k + w
                            end = grid[i + 1, j + u, k + w]
                        elif axis == 1:
                            a, b, c = i + u, j, k + w
                            end = grid[i + u, j + 1, k + w]
                        else:
                            a, b, c = i + u, j + w, k
                            end = grid[i + u, j + w, k + 1]
                        start = grid[a, b, c]
                        if (start < 0) != (end < 0):
                            along = start / (start - end)
                            sx += a + (along if axis == 0 else 0.0)
                            sy += b + (along if axis == 1 else 0.0)
                            sz += c + (along if axis == 2 else 0.0)
                            crossings += 1
                if crossings:
                    index[i, j, k] = count
                    vertices[count, 0] = low[0] + step * sx / crossings
                    vertices[count, 1] = low[1] + step * sy / crossings
                    vertices[count, 2] = low[2] + step * sz / crossings
                    count += 1
    for i in range(1, size_x - 1):
        for j in range(1, size_y - 1):
            for k in range(1, size_z - 1):
                inside = grid[i, j, k] < 0
                for axis in range(3):
                    if axis == 0:
                        other = grid[i + 1, j, k] < 0
                        a, b, c, d = index[i, j - 1, k - 1], index[i, j, k - 1], index[i, j, k], index[i, j - 1, k]
                    elif axis == 1:
                        other = grid[i, j + 1, k] < 0
                        a, b, c, d = index[i - 1, j, k - 1], index[i - 1, j, k], index[i, j, k], index[i, j, k - 1]
                    else:
                        other = grid[i, j, k + 1] < 0
                        a, b, c, d = index[i - 1, j - 1, k], index[i, j - 1, k], index[i, j, k], index[i - 1, j, k]
                    if inside == other:
                        continue
                    if not inside:
                        b, d = d, b
                    triangles[faces, 0], triangles[faces, 1], triangles[faces, 2] = a, b, c
                    triangles[faces + 1, 0], triangles[faces + 1, 1], triangles[faces + 1, 2] = a, c, d
                    faces += 2
    return vertices[:count].copy(), triangles[:faces].copy()


def normals(primitives: Float64, points: Float64, step: float = 2.0) -> Float64:
    """Return the unit outward normals [N, 3] of the field at points, by finite differences over `step` mm."""
    gradient = np.zeros_like(points)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):  # of a tetrahedron
        offset = np.array(corner, float)
        gradient += offset * fields(primitives, points + step * offset)[:, None]
    return np.asarray(gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-9))


def mesh(primitives: Float64, step: float, low: npt.ArrayLike, high: npt.ArrayLike) -> tuple[Float64, Int32]:
    """Mesh the surface within a box with cells of `step` mm; return vertices [V, 3] in mm and triangles [F, 3]."""
    start = np.asarray(low, float)
    shape = np.ceil((np.asarray(high, float) - start) / step).astype(int) + 1
    grid = np.empty((int(shape[0]), int(shape[1]), int(shape[2])))
    _fill(primitives, start, step, grid)
    vertices, triangles = _nets(grid, start, step)
    for _ in range(2):  # project the vertices onto the surface
        normal = normals(primitives, vertices)
        vertices = vertices - np.clip(fields(primitives, vertices), -step, step)[:, None] * normal
    return vertices, triangles
