"""Colours of body, clothes, furniture, floor and walls at a point; compiled."""

import math

from competition.common.arrays import Float32, Float64
from competition.synthetic.bodies import ARM, FOOT, HAND, HEAD, LEG
from competition.synthetic.compiled import jit
from competition.synthetic.scenes import (
    CHECKED,
    COLLAR,
    CUFF,
    DUTY,
    FLOOR_Z,
    HAIR,
    HAIR_STYLE,
    HEAD_X,
    HEAD_Z,
    HEM,
    HORIZONTAL,
    IRIS,
    LEG_MM,
    LIPS,
    NECK,
    PATTERN,
    PERIOD,
    PLAIN,
    PROP,
    SHIRT,
    SHIRT_2,
    SHOE_TOP,
    SHOES,
    SKIN,
    SLEEVE,
    SOCK,
    SOLE,
    TROUSERS,
)

PROP_REGION = PROP


@jit
def grain_at(noise: Float32, u: float, v: float) -> float:
    """Interpolate the tileable noise texture, 0 to 1, at u, v in cells."""
    last = noise.shape[0] - 1  # the size is a power of two
    i, j = math.floor(u), math.floor(v)
    fu, fv = u - i, v - j
    i0, j0, i1, j1 = i & last, j & last, (i + 1) & last, (j + 1) & last
    low = noise[j0, i0] * (1 - fu) + noise[j0, i1] * fu
    high = noise[j1, i0] * (1 - fu) + noise[j1, i1] * fu
    return float(low * (1 - fv) + high * fv)


@jit
def _set(colour: Float64, source: Float64, start: int, factor: float) -> None:
    for k in range(3):
        colour[k] = source[start + k] * factor


@jit
def _mix(colour: Float64, source: Float64, start: int, share: float) -> None:
    for k in range(3):
        colour[k] = colour[k] * (1 - share) + source[start + k] * share


@jit
def _shirt(along: float, across: float, clothes: Float64, colour: Float64) -> None:
    """Set the colour of the shirt; `along` runs down the trunk or the sleeve, `across` around it."""
    _set(colour, clothes, SHIRT, 1.0)
    kind = int(clothes[PATTERN])
    if kind == PLAIN:
        return
    period = clothes[PERIOD]
    lines = (along / period) % 1.0 < clothes[DUTY]
    posts = (across / period) % 1.0 < clothes[DUTY]
    if kind == HORIZONTAL:
        share = 1.0 if lines else 0.0
    elif kind == CHECKED:
        share = 0.5 * lines + 0.5 * posts
    else:
        share = 1.0 if posts else 0.0
    _mix(colour, clothes, SHIRT_2, share)


@jit
def _around_trunk(x: float, y: float, below_neck: float) -> float:
    """Return the coordinate around the trunk for vertical stripes: y in front, arc length on the flanks."""
    flank = min(1.0, abs(y) / 70) * min(1.0, max(0.0, (below_neck - 60) / 120))
    return y + math.copysign(flank * 0.8 * max(0.0, 95 - abs(x - 8)), y)


@jit
def _face(x: float, y: float, z: float, clothes: Float64, colour: Float64) -> float:
    """Set the colour of skin, hair, eyes, brows or mouth at x, y, z mm from the head's middle; return the shine."""
    style = clothes[HAIR_STYLE]
    front = 84 - 26 * math.exp(-(((abs(y) - 58) / 22) ** 2)) if z > 30 else 0.0
    hairline = z > 44 and x < front + (z - 62) * 0.9
    low = -26.0 + 0.5 * min(0.0, x + 20) if style == 0 else -60.0  # lower at the nape
    sides = z <= 44 and z > low and x < -2 + 0.3 * z - (0 if z > -10 else 12)
    nape = style >= 1 and x < -8 and z > -150 + 60 * (style == 2)
    ear = abs(y) > 73 and abs(x + 2) < 20 and -56 < z < 8 and style != 1
    if (hairline or sides or nape) and not ear:
        strands = 0.9 + 0.1 * math.sin(0.55 * y + 0.35 * x)
        _set(colour, clothes, HAIR, strands)
        return 0.12
    _set(colour, clothes, SKIN, 1.0)
    if x > 40:
        side = abs(y) - 31
        eye = (side / 15) ** 2 + ((z + 6) / 7) ** 2
        if eye < 1:
            iris = (side * side + (z + 6) ** 2) / 42
            if iris < 1:
                _set(colour, clothes, IRIS, 0.35 if iris < 0.3 else 1.0)
            else:
                colour[0], colour[1], colour[2] = 232.0, 230.0, 226.0
            return 0.2
        if eye < 1.7:
            _set(colour, clothes, SKIN, 0.72)
        if abs(side) < 19 and abs(z - 13 + 0.012 * side * side) < 4:
            _mix(colour, clothes, HAIR, 0.8)
        mouth = (y / 25) ** 2 + ((z + 72) / 9) ** 2
        if mouth < 1:
            _set(colour, clothes, LIPS, 0.6 if abs(z + 72) < 1.6 else 1.0)
        elif z < -34 and abs(abs(y) - 8) < 4 and abs(z + 51) < 3:
            _set(colour, clothes, SKIN, 0.55)
        blush = math.exp(-(((abs(y) - 42) / 18) ** 2) - ((z + 36) / 18) ** 2)
        colour[1] *= 1 - 0.08 * blush
        colour[2] *= 1 - 0.08 * blush
    return 0.1


@jit
def surface_colour(
    region: int, place: Float64, clothes: Float64, noise: Float32, colour: Float64
) -> tuple[float, float, float]:
    """Set the colour [3] at a point on body or furniture; return shine and the tilt of the normal by cloth (x, y)."""
    x, y, z, along = place[0], place[1], place[2], place[3]
    if region == PROP:
        grain = 0.94 + 0.12 * grain_at(noise, (x + z) * 0.05, y * 0.05)
        colour[0], colour[1], colour[2] = place[0] * grain, place[1] * grain, place[2] * grain
        return 0.05, 0.0, 0.0
    if region == HEAD and z > clothes[NECK] + 8:
        return _face(x - clothes[HEAD_X], y, z - clothes[HEAD_Z], clothes, colour), 0.0, 0.0
    shine, cloth = 0.06, True
    if region == HAND:
        _set(colour, clothes, SKIN, 1.0)
        cloth = along < clothes[SLEEVE]
        if cloth:
            _shirt(along, x + 0.7 * z, clothes, colour)
    elif region == ARM:
        cloth = along < clothes[SLEEVE]
        if cloth:
            _shirt(along, x + 40, clothes, colour)
            if along > clothes[SLEEVE] - 14:
                _mix(colour, clothes, SHIRT_2, 0.35)
        else:
            _set(colour, clothes, SKIN, 1.0)
    elif region in (LEG, FOOT):
        height = z - clothes[FLOOR_Z]
        if region == FOOT and height < clothes[SHOE_TOP]:
            _set(colour, clothes, SOLE if height < 15 else SHOES, 1.0)
            return 0.25, 0.0, 0.0
        cloth = along < clothes[CUFF] or clothes[CUFF] > 0.9 * clothes[LEG_MM]
        if cloth:
            _set(colour, clothes, TROUSERS, 0.82 if abs(along - clothes[CUFF] + 16) < 3 else 1.0)
        elif clothes[SOCK] > 0 and height < clothes[SHOE_TOP] + 60:
            colour[0], colour[1], colour[2] = 224.0, 222.0, 216.0
        else:
            _set(colour, clothes, SKIN, 1.0)
    else:
        collar = clothes[NECK] + clothes[COLLAR] - 0.45 * x - (25 * math.exp(-((y / 45) ** 2)) if x > 20 else 0.0)
        if z > collar and abs(y) < 66:
            _set(colour, clothes, SKIN, 1.0)
            cloth = False
        elif z > clothes[HEM]:
            _shirt(-z, _around_trunk(x, y, clothes[NECK] - z), clothes, colour)
            if (z > collar - 12 and abs(y) < 66) or z < clothes[HEM] + 10:
                _mix(colour, clothes, SHIRT_2, 0.3)
        else:
            _set(colour, clothes, TROUSERS, 1.0)
    if not cloth:
        return 0.1, 0.0, 0.0
    u, v = 0.11 * (z + 0.3 * along), 0.13 * (x + y)
    first, second = grain_at(noise, u, v), grain_at(noise, v + 60, u + 17)
    shine = 0.02
    weave = 0.95 + 0.1 * first
    colour[0], colour[1], colour[2] = colour[0] * weave, colour[1] * weave, colour[2] * weave
    return shine, 0.7 * (first - 0.5), 0.7 * (second - 0.5)


@jit
def floor_colour(x: float, y: float, room: Float64, colours: Float64, noise: Float32, colour: Float64) -> None:
    """Set the colour [3] of the floor: tiles, boards or plain."""
    kind, tile = int(room[5]), room[6]
    share = 0.0
    if kind == 0:
        share = float((math.floor(x / tile) + math.floor(y / tile)) % 2)
    elif kind == 1:
        board = math.floor(y / 140)
        share = grain_at(noise, board * 7.3, math.floor((x + board * 517.0) / 1400) * 5.1)
    grain = 0.84 + 0.32 * grain_at(noise, x * 0.012, y * (0.012 if kind != 1 else 0.06))
    grain *= 0.94 + 0.12 * grain_at(noise, x * 0.09, y * 0.09)
    for k in range(3):
        colour[k] = (colours[0, k] * (1 - share) + colours[1, k] * share) * grain


@jit
def wall_colour(
    side: int, along: float, z: float, room: Float64, colours: Float64, panels: Float64, noise: Float32, colour: Float64
) -> None:
    """Set the colour [3] of a wall: paint, skirting and panels."""
    shade = 0.93 + 0.14 * grain_at(noise, along * 0.008 + side * 50, z * 0.008)
    if room[7] > 0:
        shade *= 1 + 0.05 * math.sin(2 * math.pi * along / room[7])
    for k in range(3):
        colour[k] = colours[2 + side, k] * shade
    if z < 95:
        for k in range(3):
            colour[k] = colours[7, k]
    for i in range(panels.shape[0]):
        if int(panels[i, 0]) == side and panels[i, 1] < along < panels[i, 2] and panels[i, 3] < z < panels[i, 4]:
            edge = min(along - panels[i, 1], panels[i, 2] - along, z - panels[i, 3], panels[i, 4] - z) < 25
            cloud = 0.7 + 0.6 * grain_at(noise, along * 0.02 + 31 * i, z * 0.02)
            for k in range(3):
                colour[k] = panels[i, 5 + k] * (0.35 if edge else cloud)
