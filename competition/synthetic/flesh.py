"""Trunk, limbs, hands and head of a subject as round cones and ellipsoids around the bones."""

import math
from dataclasses import dataclass

import numpy as np

from competition.common.arrays import Float64
from competition.common.seeds import generator
from competition.synthetic.bones import (
    ARM_RAISED,
    SEX,
    SHOULDER_BACK,
    SHOULDER_DOWN,
    SIDES,
    Bones,
    arm_direction,
    rest_joints,
)
from competition.synthetic.surfaces import cone, ellipsoid

SKINS = ((236, 196, 172), (222, 178, 148), (198, 150, 118), (160, 112, 82), (112, 74, 52), (240, 206, 186))  # RGB
HAIRS = ((38, 28, 24), (70, 46, 30), (112, 76, 46), (176, 140, 88), (128, 60, 32), (138, 134, 130))


@dataclass(frozen=True, kw_only=True)
class Look:
    """Appearance of a subject. `build` is 0 (slim) to 1 (heavy); hair styles: 0 short, 1 to the neck, 2 tied; RGB."""

    male: bool
    build: float
    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    hair_style: int


def draw_look(seed: int, subject: str) -> Look:
    """Draw a subject's build, skin and hair."""
    rng = generator(seed, "look", subject)
    male = bool(SEX[subject])
    return Look(
        male=male,
        build=float(np.clip(rng.beta(1.6, 2.2), 0.03, 0.95)),
        skin=SKINS[rng.integers(len(SKINS))],
        hair=HAIRS[rng.integers(len(HAIRS))],
        hair_style=0 if male else int(rng.integers(0, 3)),
    )


def torso(bones: Bones, look: Look) -> list[Float64]:
    """Return the primitives of the trunk, pelvis to neck."""
    heavy, male = look.build, float(look.male)
    wide = 0.90 + 0.22 * heavy
    chest = bones.lumbar + bones.thoracic
    rib, waist = bones.lumbar + 60, 0.55 * bones.lumbar
    rows = []
    for _, sign in SIDES:
        hip_wide, rib_wide = 84 - 8 * male, 60 + 12 * male
        rows.append(cone([-8, sign * hip_wide, 0], 92 * wide, [2, sign * 52, waist], (88 + 4 * male) * wide, 60))
        rows.append(cone([2, sign * 52, waist], (88 + 4 * male) * wide, [-2, sign * rib_wide, rib], 102 * wide, 60))
        rows.append(cone([-2, sign * rib_wide, rib], 102 * wide, [-8, sign * 70, chest - 105], 90 * wide, 60))
        rows.append(ellipsoid([-50, sign * 72, -35], np.array([74, 80, 82]) * wide, 50))
        shoulder = [-SHOULDER_BACK, sign * (bones.shoulder_side - 10), chest - SHOULDER_DOWN - 4]
        rows.append(cone([-10, sign * 30, chest - 75], 62 * wide, shoulder, 50 + 6 * male, 50))
        rows.append(cone([-22, sign * 95, chest - 42], 34, [-16, sign * 12, chest + 28], 42, 45))
        if look.male:
            rows.append(ellipsoid([68, sign * 66, chest - 135], np.array([38, 72, 58]) * wide, 40))
        else:
            rows.append(ellipsoid([78, sign * 62, chest - 165], np.array([50, 56, 56]) * wide, 34))
    belly = 78 + 50 * heavy
    rows.append(ellipsoid([18 + 38 * heavy, 0, 0.42 * bones.lumbar], [belly, 105 * wide, 120], 60))
    neck = 53 + 8 * male + 5 * heavy
    rows.append(cone([-14, 0, chest - 40], neck + 4, [8, 0, chest + 85], neck - 3, 35))
    return rows


def leg(bones: Bones, look: Look, sign: float) -> list[Float64]:
    """Return the primitives of one leg with its shoe."""
    wide = 0.88 + 0.24 * look.build
    joints = rest_joints(bones)
    side = "L" if sign > 0 else "R"
    knee, ankle = joints[side + "Knee"], joints[side + "Foot"]
    hip = np.array([-4, sign * (bones.hip - 36), -30])
    calf = knee + 0.3 * (ankle - knee) + np.array([-16, 0, 0])
    floor = float(ankle[2]) - bones.ankle
    outward = math.radians(6) * sign
    toe = np.array([math.cos(outward), math.sin(outward), 0])
    heel = np.array([ankle[0] - 34, ankle[1], floor + 34])
    ball = ankle + (bones.toe - 75) * toe
    middle = 0.55 * hip + 0.45 * knee
    shin = calf + 0.35 * (ankle - calf) + np.array([6, 0, 0])
    return [
        cone(hip, 94 * wide, middle, 74 * wide, 34),
        cone(middle, 74 * wide, knee, 53 * wide, 6),
        cone(knee, 53 * wide, calf, 54 * wide, 6),
        cone(calf, 54 * wide, shin, 44, 6),
        cone(shin, 44, ankle + [-4, 0, 10], 37, 6),
        ellipsoid(calf + [-12, 0, -15], np.array([46, 46, 95]) * wide, 16),
        cone(ankle + [-8, 0, 0], 39, heel, 36, 12),
        cone(heel, 36, [ball[0], ball[1], floor + 34], 40, 12),
        ellipsoid([ball[0] + 6, ball[1], floor + 30], [80, 49, 31], 14),
        cone(ankle, 36, [ball[0] - 10, ball[1], floor + 36], 30, 30),
    ]


def arm(bones: Bones, look: Look, sign: float) -> list[Float64]:
    """Return the primitives of one arm to the wrist."""
    wide = 0.9 + 0.18 * look.build + 0.06 * look.male
    joints = rest_joints(bones)
    side = "L" if sign > 0 else "R"
    direction = arm_direction(sign)
    shoulder, elbow, wrist = (joints[side + name] for name in ("Shoulder", "Elbow", "Wrist"))
    outer = shoulder + np.array([0, sign * (14 + 6 * look.male), 2])
    middle = 0.5 * (shoulder + elbow)
    return [
        cone(outer, 53 * wide, outer + 90 * direction, 47 * wide, 40),
        cone(outer + 90 * direction, 47 * wide, elbow, 38 * wide, 6),
        ellipsoid(middle + [12, 0, 0] + 20 * direction, np.array([30, 32, 60]) * wide, 12),
        cone(elbow, 38 * wide, elbow + 70 * direction, 41 * wide, 6),
        cone(elbow + 70 * direction, 41 * wide, wrist, 27, 6),
        cone(wrist, 27, wrist + 20 * direction, 25, 6),
    ]


def hand(bones: Bones, sign: float) -> list[Float64]:
    """Return the primitives of one hand: thumb towards x, palm towards the body."""
    wrist = rest_joints(bones)[("L" if sign > 0 else "R") + "Wrist"]
    direction = arm_direction(sign)
    thumb = np.array([1.0, 0, 0])
    palm = np.array([0, -sign * math.cos(ARM_RAISED), -math.sin(ARM_RAISED)])

    def at(far: float, across: float, in_palm: float = 0) -> Float64:
        return wrist + far * direction + across * thumb + in_palm * palm

    rows = [cone(at(-40, 0), 27, at(4, 0), 25, 12)]
    for across, length in ((26, 66), (9, 76), (-9, 72), (-26, 58)):
        knuckle, bend = at(92, across), at(92 + 0.55 * length, across * 1.12, 6)
        rows.append(cone(at(12, across * 0.55), 17, knuckle, 13.5, 14))
        rows.append(cone(knuckle, 11.5, bend, 10, 7))
        rows.append(cone(bend, 10, at(92 + length * 0.98, across * 1.1, 24), 8, 5))
    rows.append(cone(at(18, 20, 6), 17, at(62, 48, 16), 13, 14))
    rows.append(cone(at(62, 48, 16), 13, at(98, 56, 24), 9.5, 8))
    return rows


def head_centre(bones: Bones) -> Float64:
    """Return the middle of the skull in the rest frame; the crown is 28 mm above the Head joint."""
    head = rest_joints(bones)["Head"]
    return np.array([10, 0, head[2] + 28 - 92])


def head(bones: Bones, look: Look) -> list[Float64]:
    """Return the primitives of the head: skull, face, ears, nose, hair."""
    x, _, z = head_centre(bones)
    male = float(look.male)
    neck = 50 + 8 * male
    rows = [
        ellipsoid([x, 0, z], [94, 74 + 3 * male, 90], 10),
        cone([8, 0, z - 150], neck, [8, 0, z - 40], neck - 2, 20),
        cone([x + 36, 0, z - 42], 52 + 3 * male, [x + 58, 0, z - 96], 27 + 4 * male, 26),  # jaw to chin
        ellipsoid([x + 80, 0, z + 12], [18, 48, 12 + 3 * male], 14),  # brow
        cone([x + 92, 0, z - 10], 7, [x + 108, 0, z - 44], 11, 9),  # nose
        ellipsoid([x + 82, 0, z - 72], [17, 25, 11], 8),  # lips
    ]
    for _, sign in SIDES:
        rows.append(ellipsoid([x + 54, sign * 44, z - 40], [28, 22, 26], 18))  # cheek
        rows.append(ellipsoid([x - 4, sign * (77 + 2 * male), z - 24], [18, 9, 30], 6))  # ear
    fluff = 1.0 + 0.03 * look.hair_style
    rows.append(ellipsoid([x - 8, 0, z + 10], np.array([97, 82, 90]) * fluff, 8))
    if look.hair_style >= 1:
        rows.append(ellipsoid([x - 42, 0, z - 40], [60, 78, 82 if look.hair_style == 1 else 50], 16))
    if look.hair_style == 2:
        rows.append(ellipsoid([x - 116, 0, z + 20], [36, 36, 36], 14))
    return rows
