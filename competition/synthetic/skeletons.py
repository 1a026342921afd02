"""Convert the angles of a pose to joints in space and to the frames of the skinned surface.

Stage frame, mm: the floor is z = 0, the subject faces x, y is to its left, z up. Angles are in degrees. Legs are placed
by their ankles (two-bone inverse kinematics), arms by angles or, in proportion to `reach`, by a target relative to the
head, so that a phone stays at the ear while the head turns.
"""

import math
from dataclasses import dataclass

import numpy as np

from competition.common.arrays import Float64
from competition.synthetic.bones import (
    FRAME,
    HEAD_LEAN,
    NOSE_LEAN,
    SHOULDER_BACK,
    SHOULDER_DOWN,
    SIDES,
    Bones,
    arm_direction,
    leg_direction,
    rest_joints,
)

TRUNK_KEYS = (
    "x", "y", "height", "yaw", "pitch", "roll",  # of the pelvis; height in mm above the floor
    "lumbar_flex", "lumbar_side", "lumbar_twist", "chest_flex", "chest_side", "chest_twist",
    "neck_flex", "neck_side", "neck_twist", "head_flex", "head_twist",
)  # fmt: skip
ARM_KEYS = (
    "elevation", "plane", "turn", "elbow",  # plane: 0 sideways, 90 forward; turn: of the upper arm, positive inward
    "pronation", "wrist", "reach", "target_x", "target_y", "target_z",  # target in mm from the Nose, head frame
)  # fmt: skip
LEG_KEYS = ("ankle_x", "ankle_y", "ankle_z", "knee_out", "knee_up", "toe_out", "toe_down", "flat")
KEYS = (*TRUNK_KEYS, *(s + k for s, _ in SIDES for k in ARM_KEYS), *(s + k for s, _ in SIDES for k in LEG_KEYS))
INDEX = {key: index for index, key in enumerate(KEYS)}

FORWARD, UP = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
LEAST_TOE_MM = 8.0  # above the floor
STRAIGHT = 0.9995  # of a limb's length: knees and elbows are never completely straight


@dataclass(frozen=True, kw_only=True)
class Posture:
    """One instant of a subject in mm: joints in the competition's order, and the frames of the surface."""

    joints_mm: Float64  # [17, 3]
    tips_mm: Float64  # [4, 3] left and right fingertip, left and right toe
    rotation: Float64  # [frames, 3, 3]
    origin_mm: Float64  # [frames, 3], posed position of rest_origin_mm
    rest_origin_mm: Float64  # [frames, 3]


def turn_about(axis: int, degrees: float) -> Float64:
    """Return the rotation matrix about x (0), y (1) or z (2)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def bend(flex: float, side: float, twist: float) -> Float64:
    """Return the rotation of a trunk segment on the one below: bend forward and to the left, turn to the left."""
    return turn_about(2, twist) @ turn_about(1, flex) @ turn_about(0, -side)


def _unit(vector: Float64) -> Float64:
    return vector / max(math.sqrt(float(vector @ vector)), 1e-12)


def _cross(first: Float64, second: Float64) -> Float64:
    """Return the cross product of two vectors [3]; much faster than numpy's for single vectors."""
    a, b, c = first.tolist()
    x, y, z = second.tolist()
    return np.array([b * z - c * y, c * x - a * z, a * y - b * x])


def _swing(start: Float64, end: Float64) -> Float64:
    """Return the smallest rotation from one unit vector to another."""
    cross = _cross(start, end)
    cosine = float(start @ end)
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    return np.asarray(np.eye(3) + skew + skew @ skew / max(1 + cosine, 1e-6))


def _half(first: Float64, second: Float64) -> Float64:
    """Return the rotation halfway between two."""
    u, _, vt = np.linalg.svd(first + second)
    turn = u @ vt
    if np.linalg.det(turn) < 0:
        u[:, 2] *= -1
        turn = u @ vt
    return np.asarray(turn)


def _limb_frame(direction: Float64, bending: Float64, rest_direction: Float64, rest_bending: Float64) -> Float64:
    """Return the rotation from a limb's rest axes (its direction, its bending direction) to the posed ones."""
    posed = np.stack([direction, bending, _cross(direction, bending)], axis=1)
    rest = np.stack([rest_direction, rest_bending, _cross(rest_direction, rest_bending)], axis=1)
    return np.asarray(posed @ rest.T)


def two_bones(start: Float64, target: Float64, first: float, second: float, pole: Float64) -> tuple[Float64, Float64]:
    """Return middle and end of a chain of two bones that reaches for `target`, bent towards `pole`."""
    line = target - start
    distance = min(max(math.sqrt(float(line @ line)), abs(first - second) + 1.0), STRAIGHT * (first + second))
    along = _unit(line)
    aside = _unit(pole - float(pole @ along) * along)
    cosine = (first**2 + distance**2 - second**2) / (2 * first * distance)
    sine = math.sqrt(max(0.0, 1 - cosine * cosine))
    middle = start + first * (cosine * along + sine * aside)
    end = start + distance * along
    return middle, middle + second * _unit(end - middle)


def pose_body(values: Float64, bones: Bones) -> Posture:
    """Pose a body by values in the order of KEYS; lift it when a part would be below the floor."""
    v = dict(zip(KEYS, values.tolist(), strict=True))
    points: dict[str, Float64] = {}
    turns: dict[str, Float64] = {}
    origins: dict[str, Float64] = {}
    _pose_trunk(v, bones, points, turns, origins)
    for side, sign in SIDES:
        _pose_leg(v, bones, side, sign, points, turns, origins)
        _pose_arm(v, bones, side, sign, points, turns, origins)
    order = (
        "Hip", "RHip", "RKnee", "RFoot", "LHip", "LKnee", "LFoot", "Spine", "Thorax", "Nose", "Head",
        "LShoulder", "LElbow", "LWrist", "RShoulder", "RElbow", "RWrist",
    )  # fmt: skip
    joints = np.stack([points[name] for name in order])
    tips = np.stack([points[name] for name in ("LTip", "RTip", "LToe", "RToe")])
    lift = np.array([0, 0, max(0.0, -_clearance(joints, tips, bones))])
    rest = _rest_origins(bones)
    return Posture(
        joints_mm=joints + lift,
        tips_mm=tips + lift,
        rotation=np.stack([turns[name] for name in FRAME]),
        origin_mm=np.stack([origins[name] for name in FRAME]) + lift,
        rest_origin_mm=np.stack([rest[name] for name in FRAME]),
    )


def _clearance(joints: Float64, tips: Float64, bones: Bones) -> float:
    """Return the height of the lowest body part above the floor in mm, allowing for flesh around the joints."""
    flesh = np.array([95, 85, 60, 42, 85, 60, 42, 95, 95, 110, 90, 60, 45, 32, 60, 45, 32.0])
    return min(float((joints[:, 2] - flesh).min()), float((tips[:, 2] - [12, 12, 8, 8]).min()))


def _rest_origins(bones: Bones) -> dict[str, Float64]:
    joints = rest_joints(bones)
    origins = {name: joints[joint] for name, joint in TRUNK_ORIGINS.items()}
    for side, _ in SIDES:
        origins |= {side + name: joints[side + joint] for name, joint in LIMB_ORIGINS.items()}
    return origins


TRUNK_ORIGINS = {"pelvis": "Hip", "lumbar": "Hip", "chest": "Spine", "neck": "Thorax", "head": "Nose"}
LIMB_ORIGINS = {
    "hip_half": "Hip", "thigh": "Hip", "knee_half": "Knee", "shank": "Knee", "foot": "Foot",
    "shoulder_half": "Shoulder", "upper_swing": "Shoulder", "upper": "Shoulder",
    "elbow_half": "Elbow", "forearm": "Elbow", "forearm_twist": "Elbow",
    "hand": "Wrist",
}  # fmt: skip


def _pose_trunk(
    v: dict[str, float],
    bones: Bones,
    points: dict[str, Float64],
    turns: dict[str, Float64],
    origins: dict[str, Float64],
) -> None:
    pelvis = turn_about(2, v["yaw"]) @ turn_about(1, v["pitch"]) @ turn_about(0, -v["roll"])
    lumbar = pelvis @ bend(v["lumbar_flex"], v["lumbar_side"], v["lumbar_twist"])
    chest = lumbar @ bend(v["chest_flex"], v["chest_side"], v["chest_twist"])
    neck = chest @ bend(v["neck_flex"], v["neck_side"], v["neck_twist"])
    head = neck @ bend(v["head_flex"], 0, v["head_twist"])
    points["Hip"] = np.array([v["x"], v["y"], v["height"]])
    points["Spine"] = points["Hip"] + bones.lumbar * lumbar[:, 2]
    points["Thorax"] = points["Spine"] + bones.thoracic * chest[:, 2]
    points["Nose"] = points["Thorax"] + bones.neck * (neck @ [math.sin(NOSE_LEAN), 0, math.cos(NOSE_LEAN)])
    points["Head"] = points["Nose"] + bones.head * (head @ [-math.sin(HEAD_LEAN), 0, math.cos(HEAD_LEAN)])
    turns |= {"pelvis": pelvis, "lumbar": lumbar, "chest": chest, "neck": neck, "head": head}
    origins |= {name: points[joint] for name, joint in TRUNK_ORIGINS.items()}


def _pose_leg(
    v: dict[str, float], bones: Bones, side: str, sign: float,
    points: dict[str, Float64], turns: dict[str, Float64], origins: dict[str, Float64],
) -> None:  # fmt: skip
    pelvis = turns["pelvis"]
    hip = points["Hip"] + sign * bones.hip * pelvis[:, 1]
    out, up = math.radians(v[side + "knee_out"]), math.radians(v[side + "knee_up"])
    pole = np.array([math.cos(out) * math.cos(up), sign * math.sin(out) * math.cos(up), math.sin(up)])
    pole = turn_about(2, v["yaw"]) @ pole
    target = np.array([v[side + k] for k in ("ankle_x", "ankle_y", "ankle_z")])
    knee, ankle = two_bones(hip, target, bones.thigh, bones.shank, pole)
    thigh, shank = _unit(knee - hip), _unit(ankle - knee)
    hinge = _unit(_cross(pole, ankle - hip))  # towards the subject's left
    rest, back = leg_direction(sign), -FORWARD
    thigh_turn = _limb_frame(thigh, _cross(hinge, thigh), rest, back)
    shank_turn = _limb_frame(shank, _cross(hinge, shank), rest, back)
    # the sole is flat on the floor, or the foot follows the shank
    heading = turn_about(2, v["yaw"]) @ turn_about(2, sign * v[side + "toe_out"])
    level = heading @ turn_about(1, v[side + "toe_down"])
    carried = shank_turn @ turn_about(1, v[side + "toe_down"])
    flat = min(max(v[side + "flat"], 0.0), 1.0)
    foot = level if flat > 0.999 else carried if flat < 0.001 else _between(carried, level, flat)
    toe = np.array([bones.toe, 0, -bones.ankle + 10])
    foot = _above_floor(foot, heading, toe, LEAST_TOE_MM - float(ankle[2]))
    points |= {side + "Hip": hip, side + "Knee": knee, side + "Foot": ankle}
    points[side + "Toe"] = ankle + foot @ toe
    turns |= {
        side + "hip_half": _half(pelvis, thigh_turn), side + "thigh": thigh_turn,
        side + "knee_half": _half(thigh_turn, shank_turn), side + "shank": shank_turn, side + "foot": foot,
    }  # fmt: skip
    origins |= {side + name: points[side + joint] for name, joint in LIMB_ORIGINS.items() if side + joint in points}


def _above_floor(foot: Float64, level: Float64, toe: Float64, least: float) -> Float64:
    """Rotate a foot towards `level` until its toe is at least `least` mm (usually negative) above the ankle."""
    if float(foot[2] @ toe) >= least:
        return foot
    low, high = 0.0, 1.0
    for _ in range(6):
        middle = 0.5 * (low + high)
        if float(_between(foot, level, middle)[2] @ toe) >= least:
            high = middle
        else:
            low = middle
    return _between(foot, level, high)


def _between(first: Float64, second: Float64, share: float) -> Float64:
    """Interpolate two rotations approximately, which suffices for the small angles of a foot."""
    u, _, vt = np.linalg.svd((1 - share) * first + share * second)
    return np.asarray(u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt)


def arm_directions(chest: Float64, sign: float, v: dict[str, float], side: str) -> tuple[Float64, Float64, Float64]:
    """Return, in stage space, the upper arm's direction and the elbow's bending direction with and without `turn`."""
    elevation, plane = math.radians(v[side + "elevation"]), math.radians(v[side + "plane"])
    sine = math.sin(elevation)
    direction = np.array([sine * math.sin(plane), sign * sine * math.cos(plane), -math.cos(elevation)])
    swung = _swing(-UP, direction) @ FORWARD
    turn = math.radians(v[side + "turn"]) * -sign
    bending = math.cos(turn) * swung + math.sin(turn) * _cross(-direction, swung)
    return chest @ direction, chest @ bending, chest @ swung


def _pose_arm(
    v: dict[str, float], bones: Bones, side: str, sign: float,
    points: dict[str, Float64], turns: dict[str, Float64], origins: dict[str, Float64],
) -> None:  # fmt: skip
    chest, head = turns["chest"], turns["head"]
    offset = np.array([-SHOULDER_BACK, sign * bones.shoulder_side, -SHOULDER_DOWN])
    shoulder = points["Thorax"] + chest @ offset
    upper, bending, swung = arm_directions(chest, sign, v, side)
    flex = math.radians(v[side + "elbow"])
    elbow = shoulder + bones.upper * upper
    fore = math.cos(flex) * upper + math.sin(flex) * bending
    wrist = elbow + bones.forearm * fore
    reach = min(max(v[side + "reach"], 0.0), 1.0)
    if reach > 0:
        target = points["Nose"] + head @ np.array([v[side + k] for k in ("target_x", "target_y", "target_z")])
        down = chest @ np.array([0.15, 0.55 * sign, -1.0])
        pole = reach * _unit(down) + (1 - reach) * _unit(elbow - 0.5 * (shoulder + wrist))
        elbow, wrist = two_bones(shoulder, (1 - reach) * wrist + reach * target, bones.upper, bones.forearm, pole)
        upper, fore = _unit(elbow - shoulder), _unit(wrist - elbow)
        across = fore - float(fore @ upper) * upper
        bent = float(across @ across) > 1e-4
        bending = _unit(across) if bent else _unit(bending - float(bending @ upper) * upper)
        swung = chest @ (_swing(-UP, chest.T @ upper) @ FORWARD)
    rest = arm_direction(sign)
    swing_turn = _limb_frame(upper, swung, rest, FORWARD)
    upper_turn = _limb_frame(upper, bending, rest, FORWARD)
    fore_turn = _limb_frame(fore, _unit(_cross(_cross(upper, bending), fore)), rest, FORWARD)
    twisted = fore_turn @ _axis_turn(rest, sign * v[side + "pronation"])  # the thumb turns inward
    hand = twisted @ _axis_turn(FORWARD, -sign * v[side + "wrist"])  # the fingers bend towards the palm
    points |= {side + "Shoulder": shoulder, side + "Elbow": elbow, side + "Wrist": wrist}
    points[side + "Tip"] = wrist + bones.hand * (hand @ rest)
    turns |= {
        side + "shoulder_half": _half(chest, swing_turn), side + "upper_swing": swing_turn,
        side + "upper": upper_turn, side + "elbow_half": _half(upper_turn, fore_turn), side + "forearm": fore_turn,
        side + "forearm_twist": twisted, side + "hand": hand,
    }  # fmt: skip
    origins |= {side + name: points[side + joint] for name, joint in LIMB_ORIGINS.items() if side + joint in points}


def _axis_turn(axis: Float64, degrees: float) -> Float64:
    """Return the rotation about a unit axis (Rodrigues)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y, z = axis.tolist()
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + s * skew + (1 - c) * (skew @ skew))
