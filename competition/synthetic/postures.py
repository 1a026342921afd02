"""Keyframes of the 15 actions, drawn within the joint angles measured in Human3.6M.

Trunk and legs depend on the kind of posture (standing, bent, crouching, seated, on the floor), arms on the action.
"""

import math

import numpy as np

from competition.common.arrays import Float64
from competition.synthetic.bones import SIDES, Bones
from competition.synthetic.skeletons import KEYS, pose_body

STAND_BEFORE_SEAT_MM, LIE_BEFORE_SEAT_MM = 430.0, 1000.0  # space for the legs, and for the head when lying
KNEELING_MM = 62.0  # height of a kneeling knee

STAND, BEND, CROUCH, SIT, FLOOR, WALK = range(6)
POSTURES: dict[str, dict[int, float]] = {
    "Directions": {STAND: 0.93, BEND: 0.05, CROUCH: 0.02},
    "Discussion": {STAND: 0.94, BEND: 0.04, CROUCH: 0.02},
    "Eating": {SIT: 0.48, STAND: 0.52},
    "Greeting": {STAND: 0.83, BEND: 0.14, CROUCH: 0.03},
    "Phoning": {SIT: 0.42, STAND: 0.58},
    "Photo": {STAND: 0.74, BEND: 0.12, CROUCH: 0.14},
    "Posing": {STAND: 0.78, BEND: 0.1, CROUCH: 0.12},
    "Purchases": {STAND: 0.62, BEND: 0.24, CROUCH: 0.14},
    "Sitting": {SIT: 0.86, STAND: 0.14},
    "SittingDown": {FLOOR: 0.78, SIT: 0.14, CROUCH: 0.08},
    "Smoking": {SIT: 0.45, STAND: 0.55},
    "Waiting": {STAND: 0.85, SIT: 0.1, BEND: 0.05},
    "WalkDog": {WALK: 0.68, BEND: 0.19, CROUCH: 0.13},
    "Walking": {WALK: 1.0},
    "WalkTogether": {WALK: 1.0},
}
# elbow flexion, shoulder elevation, shoulder plane: degrees at the 5th, 50th and 95th percentile
ARMS = {
    "walk": ((9, 56, 141), (16, 29, 68), (-57, -1, 57)),
    "dog": ((7, 40, 120), (19, 42, 99), (-26, 44, 91)),
    "stand": ((18, 96, 145), (18, 38, 95), (-36, 20, 76)),
    "sit": ((20, 96, 145), (19, 38, 82), (-30, 41, 90)),
    "floor": ((3, 60, 139), (18, 47, 106), (-81, 22, 92)),
}
ARM_GROUP = {
    "Walking": "walk", "WalkTogether": "walk", "WalkDog": "dog", "SittingDown": "floor",
    "Eating": "sit", "Phoning": "sit", "Sitting": "sit", "Smoking": "sit",
}  # fmt: skip
EAR, MOUTH, EYES = (-52.0, 108.0, 22.0), (62.0, 22.0, -34.0), (112.0, 46.0, 42.0)  # mm from the Nose joint, left side

FLOOR_KINDS = ("crossed", "knees up", "stretched", "lying", "heels")
FLOOR_SHARES = (0.2, 0.1, 0.32, 0.18, 0.2)


def between(rng: np.random.Generator, low: float, middle: float, high: float) -> float:
    """Draw from a skewed normal distribution given by its 5th, 50th and 95th percentile."""
    z = float(np.clip(rng.normal(), -2.2, 2.2))
    return middle + (high - middle if z > 0 else middle - low) * z / 1.645


def draw_key(
    rng: np.random.Generator, action: str, kind: int, bones: Bones, seat_mm: float | None, right_handed: bool
) -> Float64:
    """Draw a keyframe: trunk and legs by kind, then arms by action, repeated while they collide with the body."""
    v = dict.fromkeys(KEYS, 0.0)
    v |= {side + "knee_up": 20.0 for side, _ in SIDES} | {side + "flat": 1.0 for side, _ in SIDES}
    if kind == SIT:
        assert seat_mm is not None
        _sit(rng, v, bones, seat_mm)
    else:
        {STAND: _stand, WALK: _stand, BEND: _bend, CROUCH: _crouch, FLOOR: _floor}[kind](rng, v, bones)
    v["neck_flex"] = between(rng, -24, 12, 36) - 0.45 * (v["pitch"] + v["lumbar_flex"] + v["chest_flex"])
    v["neck_side"], v["neck_twist"] = rng.normal(0, 7), rng.normal(0, 22)
    v["head_flex"], v["head_twist"] = rng.normal(0, 5), 0.4 * v["neck_twist"]
    if seat_mm is not None and kind != SIT:
        for name in ("x", "Lankle_x", "Rankle_x"):
            v[name] += LIE_BEFORE_SEAT_MM if kind == FLOOR else STAND_BEFORE_SEAT_MM
    v |= {side + "elevation": 90.0 for side, _ in SIDES}  # keeps an arm that isn't drawn yet out of collisions
    for side, _ in SIDES:
        for attempt in range(14):
            _draw_arm(rng, v, side, action, kind, attempt, right_handed)
            if not _collides(v, bones, side):
                break
    return np.array([v[key] for key in KEYS])


def _spine(rng: np.random.Generator, v: dict[str, float], lean: float, spread: float = 1.0) -> None:
    """Distribute a forward lean (degrees) over pelvis and spine, with some side bend and twist."""
    v["pitch"] = 0.45 * lean + rng.normal(0, 3)
    v["lumbar_flex"] = 0.45 * lean + rng.normal(0, 3)
    v["chest_flex"] = 0.25 * lean + rng.normal(0, 4)
    for part, sigma in (("lumbar", 4.0), ("chest", 4.0)):
        v[part + "_side"], v[part + "_twist"] = rng.normal(0, sigma * spread), rng.normal(0, 1.6 * sigma * spread)
    v["yaw"] = rng.normal(0, 9 * spread)


def _stance(rng: np.random.Generator, v: dict[str, float], bones: Bones, knee: float) -> None:
    """Stand on both feet; the straighter leg is bent by `knee` degrees at the knee."""
    width = max(70.0, between(rng, 75, 115, 200))
    for side, sign in SIDES:
        v[side + "ankle_x"] = -125 + rng.normal(0, 70)
        v[side + "ankle_y"] = sign * width + rng.normal(0, 15)
        v[side + "ankle_z"] = bones.ankle
        v[side + "toe_out"] = rng.normal(14, 8)
        v[side + "knee_out"] = v[side + "toe_out"] * 0.7
    v["x"], v["y"] = -20 + rng.normal(0, 25), rng.normal(0, 35)
    v["roll"] = -v["y"] * 0.06 + rng.normal(0, 2)
    c = math.cos(math.radians(knee))
    reach = math.sqrt(bones.thigh**2 + bones.shank**2 + 2 * bones.thigh * bones.shank * c)
    heights = []
    for side, sign in SIDES:
        across = math.hypot(v[side + "ankle_x"] - v["x"], v[side + "ankle_y"] - v["y"] - sign * bones.hip)
        heights.append(math.sqrt(max(reach**2 - across**2, 1.0)))
    v["height"] = bones.ankle + min(heights)


def _stand(rng: np.random.Generator, v: dict[str, float], bones: Bones) -> None:
    _spine(rng, v, between(rng, -5, 2, 14))
    _stance(rng, v, bones, max(3.0, between(rng, 4, 13, 26)))


def _bend(rng: np.random.Generator, v: dict[str, float], bones: Bones) -> None:
    _spine(rng, v, rng.uniform(35, 95))
    _stance(rng, v, bones, rng.uniform(8, 45))
    v["x"] -= 90


def _crouch(rng: np.random.Generator, v: dict[str, float], bones: Bones) -> None:
    """Squat on both feet, or kneel on one knee."""
    _spine(rng, v, rng.uniform(10, 45))
    if rng.random() < 0.5:
        _stance(rng, v, bones, 20)
        v["height"] = bones.ankle + rng.uniform(0.38, 0.62) * bones.leg
        v["x"] = -150 + rng.normal(0, 30)
        v["pitch"] += 10
        for side, _ in SIDES:
            v[side + "knee_out"] = rng.uniform(12, 35)
        return
    front, back = (("L", 1.0), ("R", -1.0))[:: 1 if rng.random() < 0.5 else -1]
    v["yaw"] = 0.0
    knee = rng.uniform(-60, 40)  # of the kneeling leg, in front of the hip
    v["height"] = KNEELING_MM + math.sqrt(bones.thigh**2 - knee**2)
    behind = knee - math.sqrt(bones.shank**2 - (95 - KNEELING_MM) ** 2)
    for (side, sign), place in ((front, 300.0 + rng.normal(0, 25)), (back, behind)):
        v[side + "ankle_x"] = place
        v[side + "ankle_y"] = sign * (bones.hip + rng.normal(0, 20))
        v[side + "ankle_z"] = bones.ankle
        v[side + "knee_out"] = rng.uniform(0, 15)
    v[back[0] + "ankle_z"] = 95.0
    v[back[0] + "knee_up"] = -35.0
    v[back[0] + "toe_down"], v[back[0] + "flat"] = 48.0, 0.0


def _sit(rng: np.random.Generator, v: dict[str, float], bones: Bones, seat_mm: float) -> None:
    """Sit on the chair; its seat is at the stage's origin."""
    _spine(rng, v, between(rng, -14, 4, 42), 0.8)
    v["pitch"] -= 6
    v["height"] = seat_mm + 92 + rng.normal(0, 6)
    v["x"], v["y"] = -40 + rng.normal(0, 35), rng.normal(0, 15)
    crossed = rng.random() < 0.15
    for side, sign in SIDES:
        bent = between(rng, 58, 90, 116)  # of the knee
        angle = math.radians(90 - bent + rng.normal(0, 3))
        v[side + "ankle_x"] = v["x"] + bones.thigh * 0.97 + bones.shank * math.sin(angle) * 0.9
        v[side + "ankle_y"] = sign * max(60.0, between(rng, 70, 140, 230))
        v[side + "ankle_z"] = bones.ankle
        v[side + "knee_out"] = max(-6.0, between(rng, -4, 9, 26))
        v[side + "knee_up"] = 60.0
        v[side + "toe_out"] = rng.normal(10, 8)
    if crossed:
        side, sign = SIDES[int(rng.random() < 0.5)]
        v[side + "ankle_x"] = v["x"] + bones.thigh + 130
        v[side + "ankle_y"] = -sign * 90
        v[side + "ankle_z"] = seat_mm - 60 + rng.normal(0, 30)
        v[side + "knee_out"], v[side + "flat"], v[side + "toe_down"] = 5.0, 0.0, 15.0


def _floor(rng: np.random.Generator, v: dict[str, float], bones: Bones) -> None:
    """Sit on the floor: legs crossed, knees up, or stretched out; kneel on the heels, or lie on the back."""
    kind = rng.choice(FLOOR_KINDS, p=FLOOR_SHARES)
    if kind == "lying":
        lean = -rng.uniform(66, 78)
    else:
        lean = -rng.uniform(8, 50) if rng.random() < 0.62 else rng.uniform(2, 62)
    _spine(rng, v, lean, 0.4 if kind == "lying" else 1.0)
    if kind == "heels":
        v["height"], v["yaw"] = rng.uniform(235, 300), 0.0
    else:
        v["height"] = 105 + abs(rng.normal(0, 12))
    for side, sign in SIDES:
        v[side + "knee_up"] = 60.0
        if kind == "crossed":
            v[side + "ankle_x"], v[side + "ankle_y"] = rng.uniform(270, 360), -sign * rng.uniform(60, 140)
            v[side + "ankle_z"], v[side + "knee_out"] = 62.0, rng.uniform(58, 75)
            v[side + "knee_up"], v[side + "flat"], v[side + "toe_down"] = 25.0, 0.0, 35.0
        elif kind == "knees up":
            v[side + "ankle_x"], v[side + "ankle_y"] = rng.uniform(330, 600), sign * rng.uniform(90, 190)
            v[side + "ankle_z"], v[side + "knee_out"] = bones.ankle, rng.uniform(0, 20)
            v[side + "toe_out"] = rng.normal(8, 6)
        elif kind in ("stretched", "lying"):  # each leg at its own angle
            v[side + "ankle_x"], v[side + "ankle_y"] = rng.uniform(640, 895), sign * rng.uniform(110, 260)
            v[side + "ankle_z"], v[side + "knee_out"] = 52.0, rng.uniform(0, 30)
            v[side + "flat"], v[side + "toe_down"] = 0.0, rng.uniform(5, 30)
        else:  # knees and insteps on the floor
            out = rng.uniform(0, 14)
            knee = math.sqrt(bones.thigh**2 - (v["height"] - KNEELING_MM) ** 2)  # in front of the hip
            v[side + "ankle_x"] = (knee - bones.shank) * math.cos(math.radians(out))
            v[side + "ankle_y"] = sign * (bones.hip + (knee - bones.shank) * math.sin(math.radians(out)))
            v[side + "ankle_z"], v[side + "knee_out"], v[side + "knee_up"] = KNEELING_MM, out, 0.0
            v[side + "flat"], v[side + "toe_down"] = 0.0, 78.0


def _draw_arm(
    rng: np.random.Generator, v: dict[str, float], side: str, action: str, kind: int, attempt: int, right_handed: bool
) -> None:
    """Draw one arm: a gesture of the action or angles of its group; hanging after 12 collisions."""
    leading = (side == "R") == right_handed
    v[side + "reach"] = 0.0
    v[side + "pronation"], v[side + "wrist"] = rng.normal(25, 22), rng.normal(10, 10)
    elbow, elevation, plane = ARMS[ARM_GROUP.get(action, "stand")]
    v[side + "elbow"] = max(3.0, between(rng, *elbow))
    v[side + "elevation"] = max(8.0, between(rng, *elevation))
    v[side + "plane"] = between(rng, *plane)
    v[side + "turn"] = rng.normal(28, 26)
    if attempt >= 12:
        v[side + "elevation"], v[side + "plane"] = (60.0, 60.0) if kind == FLOOR else (26.0, 0.0)
        v[side + "elbow"], v[side + "turn"] = (40.0, 20.0) if kind == FLOOR else (12.0, 0.0)
        return
    chance = rng.random()
    if action == "Phoning" and leading and chance < 0.85:
        _aim(rng, v, side, EAR, 8)
    elif action in ("Eating", "Smoking") and leading and chance < 0.45:
        _aim(rng, v, side, MOUTH, 10)
    elif action == "Photo" and kind != BEND and chance < 0.75:
        _aim(rng, v, side, EYES, 10)
    elif action == "Greeting" and leading and chance < 0.4:
        v[side + "elevation"], v[side + "plane"] = rng.uniform(70, 120), rng.uniform(-10, 50)
        v[side + "elbow"], v[side + "turn"] = rng.uniform(40, 115), rng.normal(-60, 20)
    elif action == "Directions" and chance < 0.35:
        v[side + "elevation"], v[side + "plane"] = rng.uniform(50, 105), rng.uniform(0, 90)
        v[side + "elbow"] = rng.uniform(5, 40)
    elif action == "Posing" and chance < 0.12:
        v[side + "elevation"], v[side + "elbow"] = rng.uniform(110, 165), rng.uniform(5, 90)
    elif action in ("Posing", "Waiting", "Discussion") and chance < 0.3:  # hand on the hip
        v[side + "elevation"], v[side + "plane"] = rng.uniform(38, 50), rng.uniform(-35, -15)
        v[side + "elbow"], v[side + "turn"] = rng.uniform(88, 108), rng.uniform(62, 80)
    elif kind in (STAND, WALK) and chance > (0.78 if kind == WALK else 0.92):
        v[side + "elevation"], v[side + "elbow"] = rng.uniform(12, 24), rng.uniform(8, 30)
        v[side + "plane"], v[side + "turn"] = rng.uniform(-20, 30), rng.normal(10, 10)
    elif kind == SIT and chance > 0.55:  # hand on the thigh
        v[side + "elevation"], v[side + "plane"] = rng.uniform(20, 32), rng.uniform(35, 70)
        v[side + "elbow"], v[side + "turn"] = rng.uniform(48, 75), rng.uniform(10, 35)
        v[side + "pronation"] = 70.0


def _aim(
    rng: np.random.Generator, v: dict[str, float], side: str, target: tuple[float, float, float], sigma: float
) -> None:
    sign = 1.0 if side == "L" else -1.0
    v[side + "reach"] = 1.0
    for axis, value in zip("xyz", target, strict=True):
        v[side + "target_" + axis] = value * (sign if axis == "y" else 1.0) + rng.normal(0, sigma)
    v[side + "pronation"], v[side + "wrist"] = rng.normal(10, 12), rng.normal(12, 10)


def _collides(v: dict[str, float], bones: Bones, side: str) -> bool:
    """Return whether forearm or hand collide with trunk, head or thighs, or are below the floor."""
    posture = pose_body(np.array([v[key] for key in KEYS]), bones)
    joints = posture.joints_mm
    elbow, wrist = (joints[12], joints[13]) if side == "L" else (joints[15], joints[16])
    tip = posture.tips_mm[0 if side == "L" else 1]
    if min(elbow[2], wrist[2], tip[2]) < 45:
        return True
    points = np.stack([elbow, 0.5 * (elbow + wrist), wrist, 0.5 * (wrist + tip)])
    for frame, origin, low, high in ((1, joints[0], -120, bones.lumbar), (2, joints[7], 0, bones.thoracic - 20)):
        local = (points - origin) @ posture.rotation[frame]
        inside = ((local[:, 0] - 8) / 155) ** 2 + (local[:, 1] / 200) ** 2 < 1
        if bool((inside & (local[:, 2] > low) & (local[:, 2] < high)).any()):
            return True
    if v[side + "reach"] == 0:
        centre = 0.5 * (joints[9] + joints[10])
        if float(np.linalg.norm(points - centre, axis=1).min()) < 150:
            return True
    return any(_distance_to_line(points, joints[hip], joints[knee]) < 105 for hip, knee in ((1, 2), (4, 5)))


def _distance_to_line(points: Float64, start: Float64, end: Float64) -> float:
    line = end - start
    along = np.clip((points - start) @ line / float(line @ line), 0, 1)
    return float(np.linalg.norm(points - start - along[:, None] * line, axis=1).min())
