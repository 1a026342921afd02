"""Room, furniture, light and clothes of a take, as arrays for the renderer.

Colours are RGB, 0 to 255. Lengths are in mm in room space; the floor is z = 0.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from competition.common.arrays import Float64, Int32
from competition.common.seeds import generator
from competition.synthetic.bodies import ARM, FOOT, HEAD, LEG, TORSO, Body
from competition.synthetic.bones import rest_joints
from competition.synthetic.cameras import Camera
from competition.synthetic.flesh import head_centre
from competition.synthetic.poses import Take
from competition.synthetic.postures import FLOOR, POSTURES
from competition.synthetic.skeletons import turn_about

PROP = 6  # region of furniture, after those of bodies; coloured by vertex
OCCLUDER_SHARE = 0.48  # of takes, each in front of one of four cameras: 12 % of images

# indices of the vector that describes clothes and skin
SKIN, HAIR, SHIRT, SHIRT_2, TROUSERS, SHOES, SOLE, IRIS, LIPS = 0, 3, 6, 9, 12, 15, 18, 21, 24
PATTERN, PERIOD, DUTY, SLEEVE, HEM, CUFF, SHOE_TOP, HAIR_STYLE = 27, 28, 29, 30, 31, 32, 33, 34
HEAD_X, HEAD_Z, NECK, FLOOR_Z, LEG_MM, SOCK, COLLAR = 35, 36, 37, 38, 39, 40, 41
CLOTHES_SIZE = 42
PLAIN, HORIZONTAL, VERTICAL, CHECKED = range(4)

SHIRTS = (
    (200, 60, 56), (64, 92, 150), (46, 110, 84), (232, 228, 220), (60, 62, 70), (222, 176, 80), (150, 84, 130),
    (110, 160, 190), (226, 140, 130), (120, 130, 70), (36, 48, 90), (180, 180, 186),
)  # fmt: skip
BOTTOMS = ((52, 70, 116), (40, 42, 50), (120, 104, 80), (90, 94, 100), (150, 138, 112), (70, 84, 64), (34, 46, 78))
FOOTWEAR = ((44, 40, 40), (230, 228, 224), (96, 62, 40), (120, 120, 126), (150, 40, 44))
WALLS = ((214, 208, 194), (196, 206, 206), (206, 196, 186), (188, 196, 204), (220, 214, 206), (184, 190, 176))
FLOORS = ((132, 98, 70), (112, 80, 56), (128, 126, 122), (96, 100, 108), (146, 128, 104), (110, 84, 78))
WOODS = ((150, 112, 74), (92, 66, 46), (88, 98, 118), (60, 60, 64), (190, 170, 140), (120, 50, 44))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Properties that are constant during a take."""

    room: Float64  # [8] walls at x low, x high, y low, y high; ceiling; floor kind, tile mm, wall stripes mm
    colours: Float64  # [8, 3] floor (two colours), four walls, ceiling, skirting
    panels: Float64  # [P, 8] wall (0-3), along low, high, z low, high, RGB
    light: Float64  # [3] unit vector towards the light
    light_colour: Float64  # [3]
    ambient: Float64  # [3]
    gain: Float64  # [3] white balance
    blur_px: float
    noise: float
    clothes: Float64  # [CLOTHES_SIZE]
    cloth_offset_mm: Float64  # [V] distance of cloth from the body
    props_mm: Float64  # [Q, 3]
    props_normal: Float64  # [Q, 3]
    props_colour: Float64  # [Q, 3]
    props_triangles: Int32  # [T, 3]


def _tint(rng: np.random.Generator, colour: tuple[int, int, int], sigma: float) -> Float64:
    return np.clip(np.array(colour) + rng.normal(0, sigma) + rng.normal(0, 0.5 * sigma, 3), 4, 250)


def draw_clothes(rng: np.random.Generator, body: Body) -> Float64:
    """Draw the clothes of a take [CLOTHES_SIZE]."""
    bones, look = body.bones, body.look
    clothes = np.zeros(CLOTHES_SIZE)
    shirt = SHIRTS[rng.integers(len(SHIRTS))]
    second = np.clip(np.array(shirt) + (75 if sum(shirt) < 380 else -95), 10, 245)
    if rng.random() < 0.35:
        second = np.array(SHIRTS[rng.integers(len(SHIRTS))], float)
    clothes[SKIN : SKIN + 3], clothes[HAIR : HAIR + 3] = look.skin, look.hair
    clothes[SHIRT : SHIRT + 3], clothes[SHIRT_2 : SHIRT_2 + 3] = _tint(rng, shirt, 12), second
    clothes[TROUSERS : TROUSERS + 3] = _tint(rng, BOTTOMS[rng.integers(len(BOTTOMS))], 10)
    shoes = FOOTWEAR[rng.integers(len(FOOTWEAR))]
    clothes[SHOES : SHOES + 3] = _tint(rng, shoes, 8)
    clothes[SOLE : SOLE + 3] = (225, 222, 214) if rng.random() < 0.5 else np.array(shoes) * 0.5
    clothes[IRIS : IRIS + 3] = (60, 42, 30) if rng.random() < 0.6 else (70, 100, 120)
    clothes[LIPS : LIPS + 3] = 0.72 * np.array(look.skin) + 0.28 * np.array([150, 40, 44])
    clothes[PATTERN] = rng.choice(4, p=[0.48, 0.2, 0.16, 0.16])
    clothes[PERIOD], clothes[DUTY] = rng.uniform(42, 90), rng.uniform(0.3, 0.55)
    clothes[SLEEVE] = bones.upper + bones.forearm - 12 if rng.random() < 0.5 else rng.uniform(0.5, 0.78) * bones.upper
    clothes[HEM] = rng.uniform(0, 70)
    clothes[CUFF] = bones.leg - 30 if rng.random() < 0.72 else rng.uniform(0.72, 0.95) * bones.thigh
    clothes[SHOE_TOP] = rng.choice([62.0, 74.0, 105.0], p=[0.4, 0.4, 0.2])
    clothes[HAIR_STYLE] = look.hair_style
    centre = head_centre(bones)
    clothes[HEAD_X], clothes[HEAD_Z], clothes[NECK] = centre[0], centre[2], bones.lumbar + bones.thoracic
    clothes[FLOOR_Z] = rest_joints(bones)["LFoot"][2] - bones.ankle
    clothes[LEG_MM], clothes[SOCK], clothes[COLLAR] = bones.leg, float(rng.random() < 0.6), rng.uniform(-25, 22)
    return clothes


def cloth_offsets(body: Body, clothes: Float64) -> Float64:
    """Return the distance of cloth from each vertex in mm [V], larger towards hems and cuffs."""
    along, z = body.along_mm, body.rest_mm[:, 2]
    result = np.zeros(len(along))
    shirt = (body.region == TORSO) & (z > clothes[HEM]) & (z < clothes[NECK] - 20)
    result[shirt] = (6 + 9 * np.clip(1 - (z - clothes[HEM]) / 160, 0, 1))[shirt]
    below = ((body.region == TORSO) & (z <= clothes[HEM])) | ((body.region == LEG) & (along < clothes[CUFF]))
    result[below] = (4 + 12 * np.clip(1 - (clothes[CUFF] - along) / 260, 0, 1) * (along > 0))[below]
    short = clothes[SLEEVE] < 260
    sleeve = (body.region == ARM) & (along < clothes[SLEEVE])
    result[sleeve] = (5 + (9 if short else 4) * np.clip(1 - (clothes[SLEEVE] - along) / 120, 0, 1))[sleeve]
    result[
        (body.region == FOOT) & (z > clothes[FLOOR_Z] + clothes[SHOE_TOP]) & (clothes[CUFF] > 0.9 * clothes[LEG_MM])
    ] = 14
    result[body.region == HEAD] = 0
    return result


def _box(low: npt.ArrayLike, high: npt.ArrayLike, colour: npt.ArrayLike) -> tuple[Float64, Float64, Float64, Int32]:
    """Return a box with 24 vertices, so that its edges are sharp."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    points: list[Float64] = []
    outward: list[Float64] = []
    faces: list[list[int]] = []
    for axis in range(3):
        u, w = (axis + 1) % 3, (axis + 2) % 3
        for end in (0, 1):
            start = len(points)
            for a, b in ((0, 0), (1, 0), (1, 1), (0, 1)):
                point = np.empty(3)
                point[axis] = high[axis] if end else low[axis]
                point[u], point[w] = (high if a else low)[u], (high if b else low)[w]
                points.append(point)
                normal = np.zeros(3)
                normal[axis] = 1 if end else -1
                outward.append(normal)
            corners = [start, start + 1, start + 2, start + 3]
            corners = corners if end else corners[::-1]
            faces += [[corners[0], corners[1], corners[2]], [corners[0], corners[2], corners[3]]]
    colours = np.broadcast_to(np.asarray(colour, float), (24, 3)).copy()
    return np.array(points), np.array(outward), colours, np.array(faces, np.int32)


Part = tuple[Float64, Float64, Float64, Int32]


def _join(parts: list[Part]) -> Part:
    if not parts:
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3), np.int32)
    starts = np.cumsum([0, *(len(part[0]) for part in parts[:-1])])
    faces = np.concatenate([part[3] + start for part, start in zip(parts, starts, strict=True)])
    points, outward, colours = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return points, outward, colours, faces.astype(np.int32)


def _move(part: Part, degrees: float, place: Float64) -> Part:
    turn = turn_about(2, degrees)
    return part[0] @ turn.T + place, part[1] @ turn.T, part[2], part[3]


def _chair(rng: np.random.Generator, seat_mm: float) -> Part:
    """Return a chair, a stool or a block with its seat at the origin and its back towards -x."""
    colour = _tint(rng, WOODS[rng.integers(len(WOODS))], 10)
    cushion = colour if rng.random() < 0.5 else _tint(rng, SHIRTS[rng.integers(len(SHIRTS))], 10)
    kind = rng.random()
    if kind < 0.15:
        return _join([_box([-230, -230, 0], [215, 230, seat_mm], colour)])
    parts = [_box([-225, -220, seat_mm - 45], [215, 220, seat_mm], cushion)]
    for x in (-215, 170):
        for y in (-210, 170):
            parts.append(_box([x, y, 0], [x + 40, y + 40, seat_mm - 45], colour))
    if kind < 0.8:
        top = seat_mm + rng.uniform(330, 480)
        if rng.random() < 0.5:
            parts.append(_box([-262, -215, seat_mm + 90], [-230, 215, top], colour))
        else:
            parts += [
                _box([-258, -215, z], [-232, 215, z + 55], colour) for z in (seat_mm + 120, seat_mm + 210, top - 55)
            ]
        parts += [_box([-265, y, seat_mm - 45], [-225, y + 40, top], colour) for y in (-220, 180)]
    return _join(parts)


def _room(rng: np.random.Generator) -> tuple[Float64, Float64, Float64]:
    """Draw walls, floor, and panels on the walls."""
    room = np.array([
        -rng.uniform(3800, 5200), rng.uniform(3800, 5200), -rng.uniform(5700, 6600), rng.uniform(5700, 6600),
        rng.uniform(2700, 3200), rng.integers(3), rng.uniform(350, 700),
        rng.choice([0.0, 160.0, 420.0], p=[0.6, 0.2, 0.2]),
    ])  # fmt: skip
    wall = _tint(rng, WALLS[rng.integers(len(WALLS))], 8)
    floor = _tint(rng, FLOORS[rng.integers(len(FLOORS))], 8)
    walls = [np.clip(wall + rng.normal(0, 5, 3), 0, 250) for _ in range(4)]
    second = floor * rng.uniform(0.82, 0.94)
    skirting = wall * 0.55 if rng.random() < 0.6 else np.clip(wall * 1.12, 0, 250)
    colours = np.stack([floor, second, *walls, np.full(3, 228.0), skirting])
    panels = []
    for side in range(4):
        for _ in range(rng.integers(0, 4)):
            middle, width = rng.uniform(-3000, 3000), rng.uniform(300, 900)
            low, height = rng.uniform(700, 1500), rng.uniform(300, 1000)
            colour = _tint(rng, SHIRTS[rng.integers(len(SHIRTS))], 20)
            panels.append([side, middle - width / 2, middle + width / 2, low, low + height, *colour])
        if rng.random() < 0.3:  # a door
            middle = rng.uniform(-3000, 3000)
            panels.append([side, middle - 450, middle + 450, 0, 2050, *_tint(rng, WOODS[rng.integers(len(WOODS))], 8)])
    return room, colours, np.array(panels).reshape(-1, 8)


def _occluder(rng: np.random.Generator, take: Take, cameras: dict[str, Camera]) -> Part:
    """Draw a box between one camera and the place of the take."""
    camera = list(cameras.values())[rng.integers(len(cameras))]
    towards = camera.position_mm[:2] - take.place[:2]
    towards = towards / np.linalg.norm(towards)
    aside = np.array([-towards[1], towards[0]])
    heights = (180, 400) if FLOOR in POSTURES[take.action] else (420, 950)  # part of the subject stays visible
    far = rng.uniform(1000, 1500) + (900 if take.walks else 0)
    width, depth, height = rng.uniform(350, 800), rng.uniform(300, 500), rng.uniform(*heights)
    place = np.append(take.place[:2] + far * towards + rng.uniform(-350, 350) * aside, 0)
    box = _box(
        [-depth / 2, -width / 2, 0], [depth / 2, width / 2, height], _tint(rng, WOODS[rng.integers(len(WOODS))], 15)
    )
    return _move(box, math.degrees(math.atan2(towards[1], towards[0])) + rng.normal(0, 15), place)


def draw_scene(take: Take, body: Body, cameras: dict[str, Camera]) -> Scene:
    """Draw the scene of a take."""
    rng = generator(take.seed, "scene", *take.name)
    room, colours, panels = _room(rng)
    clothes = draw_clothes(rng, body)
    around, high = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(42, 72))
    light = np.array([math.cos(around) * math.cos(high), math.sin(around) * math.cos(high), math.sin(high)])
    warm = rng.normal(0, 0.05)
    strength, filling = rng.uniform(0.6, 0.9), rng.uniform(0.45, 0.62)
    props = []
    if take.seat_mm is not None:
        props.append(_move(_chair(rng, take.seat_mm), take.heading, take.place))
    if rng.random() < OCCLUDER_SHARE:
        props.append(_occluder(rng, take, cameras))
    points, outward, prop_colours, faces = _join(props)
    return Scene(
        room=room, colours=colours, panels=panels, light=light,
        light_colour=strength * np.array([1 + warm, 1, 1 - 1.4 * warm]),
        ambient=filling * np.array([1 - 0.4 * warm, 1, 1 + 0.5 * warm]),
        gain=np.clip(rng.normal(1, 0.035, 3) * rng.uniform(0.92, 1.1), 0.8, 1.25),
        blur_px=float(rng.uniform(0.35, 0.75)), noise=float(rng.uniform(1.5, 3.8)),
        clothes=clothes, cloth_offset_mm=cloth_offsets(body, clothes),
        props_mm=points, props_normal=outward, props_colour=prop_colours, props_triangles=faces,
    )  # fmt: skip
