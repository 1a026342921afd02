"""One parametric body: the bones of a subject, a smooth surface around them, and how it follows them.

Rest frame, mm: the pelvis (joint 0) is the origin, x forward, y to the subject's left, z up; legs a little apart,
arms halfway raised to the sides, all straight. Lengths and their spread over subjects are Human3.6M's.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from competition.seeds import generator
from competition.synthetic import surfaces
from competition.synthetic.surfaces import cone, ellipsoid

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int32]

ARM_RAISED = math.radians(45)  # rest pose, from straight down
LEG_APART = math.radians(9)
NOSE_LEAN, HEAD_LEAN = math.radians(33), math.radians(15)  # Thorax-Nose leans forward, Nose-Head backward
SHOULDER_DOWN, SHOULDER_BACK = 52.0, 11.0  # mm, the middle of the shoulders from the Thorax

FRAMES = ("pelvis", "lumbar", "chest", "neck", "head")
LIMB_FRAMES = (
    "hip_half", "thigh", "knee_half", "shank", "foot",
    "shoulder_half", "upper_swing", "upper", "elbow_half", "forearm", "forearm_twist", "hand",
)  # fmt: skip
FRAME = {name: index for index, name in enumerate(FRAMES)} | {
    side + name: len(FRAMES) + which * len(LIMB_FRAMES) + index
    for which, side in enumerate("LR")
    for index, name in enumerate(LIMB_FRAMES)
}
SIDES = (("L", 1.0), ("R", -1.0))  # name and sign of y

TORSO, ARM, LEG, HEAD, HAND, FOOT = range(6)  # regions of the surface
SEX = {"S1": 0, "S5": 0, "S6": 1, "S7": 0, "S8": 1, "S9": 1, "S11": 0}  # 0 female, 1 male: both in either set
SKINS = ((236, 196, 172), (222, 178, 148), (198, 150, 118), (160, 112, 82), (112, 74, 52), (240, 206, 186))  # RGB
HAIRS = ((38, 28, 24), (70, 46, 30), (112, 76, 46), (176, 140, 88), (128, 60, 32), (138, 134, 130))


@dataclass(frozen=True, kw_only=True)
class Bones:
    """Lengths in mm, the same for left and right."""

    hip: float
    thigh: float
    shank: float
    lumbar: float
    thoracic: float
    neck: float
    head: float
    shoulder: float
    upper: float
    forearm: float
    ankle: float = 78.0  # height of the ankle over the floor
    hand: float = 180.0  # wrist to fingertip
    toe: float = 175.0  # ankle to the tip of the shoe, along the floor

    @property
    def leg(self) -> float:
        """Length of the straight leg, hip to ankle."""
        return self.thigh + self.shank

    @property
    def shoulder_side(self) -> float:
        """Sideways part of the line from Thorax to a shoulder."""
        return math.sqrt(self.shoulder**2 - SHOULDER_DOWN**2 - SHOULDER_BACK**2)


LENGTHS = {  # mean and spread over subjects, mm
    "hip": (135.5, 10.5), "thigh": (451.7, 21.5), "shank": (447.0, 10.4), "lumbar": (241.5, 18.8),
    "thoracic": (255.5, 3.4), "neck": (117.1, 5.7), "head": (115.0, 3.0), "shoulder": (150.5, 11.5),
    "upper": (282.0, 13.9), "forearm": (249.9, 5.2),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Look:
    """What of a subject is not bone: `build` 0 slim to 1 heavy, colours as RGB, hair 0 short, 1 to the neck, 2 tied."""

    male: bool
    build: float
    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    hair_style: int


@dataclass(frozen=True, kw_only=True)
class Body:
    """A subject's surface in the rest frame and what it follows."""

    bones: Bones
    look: Look
    rest_mm: Float  # [V, 3]
    normal: Float  # [V, 3]
    triangles: Int  # [F, 3]
    frame: Int  # [V, 4], the frames that a vertex follows
    weight: Float  # [V, 4], sums to 1
    region: Int  # [V]
    along_mm: Float  # [V], along the limb from its shoulder or hip joint; 0 on the trunk, z on the head
    shade: Float  # [V], 0 in a crease to 1 in the open


def draw_bones(seed: int, subject: str) -> Bones:
    """Draw a subject's bones: tall ones are long in all of them, the rest is their own."""
    rng = generator(seed, "bones", subject)
    size = np.clip(rng.normal(0.35 if SEX[subject] else -0.35, 0.7), -1.3, 1.3)
    lengths = {}
    for name, (mean, spread) in LENGTHS.items():
        lengths[name] = mean + spread * float(np.clip(0.7 * size + 0.7 * rng.normal(), -1.7, 1.7))
    return Bones(**lengths)


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


def rest_joints(bones: Bones) -> dict[str, Float]:
    """Place the joints (and ankles, fingertips) of the rest pose in mm."""
    thorax = np.array([0, 0, bones.lumbar + bones.thoracic])
    nose = thorax + bones.neck * np.array([math.sin(NOSE_LEAN), 0, math.cos(NOSE_LEAN)])
    head = nose + bones.head * np.array([-math.sin(HEAD_LEAN), 0, math.cos(HEAD_LEAN)])
    joints = {"Hip": np.zeros(3), "Spine": np.array([0, 0, bones.lumbar]), "Thorax": thorax, "Nose": nose, "Head": head}
    for side, sign in SIDES:
        leg, arm = leg_direction(sign), arm_direction(sign)
        joints[side + "Hip"] = np.array([0, sign * bones.hip, 0])
        joints[side + "Knee"] = joints[side + "Hip"] + bones.thigh * leg
        joints[side + "Foot"] = joints[side + "Knee"] + bones.shank * leg
        joints[side + "Shoulder"] = thorax + np.array([-SHOULDER_BACK, sign * bones.shoulder_side, -SHOULDER_DOWN])
        joints[side + "Elbow"] = joints[side + "Shoulder"] + bones.upper * arm
        joints[side + "Wrist"] = joints[side + "Elbow"] + bones.forearm * arm
    return joints


def leg_direction(sign: float) -> Float:
    """Direction of the rest pose's leg."""
    return np.array([0, sign * math.sin(LEG_APART), -math.cos(LEG_APART)])


def arm_direction(sign: float) -> Float:
    """Direction of the rest pose's arm."""
    return np.array([0, sign * math.sin(ARM_RAISED), -math.cos(ARM_RAISED)])


def _torso(bones: Bones, look: Look) -> list[Float]:
    """Primitives of the trunk, pelvis to neck."""
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


def _leg(bones: Bones, look: Look, sign: float) -> list[Float]:
    """Primitives of one leg with its shoe."""
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


def _arm(bones: Bones, look: Look, sign: float) -> list[Float]:
    """Primitives of one arm to the wrist."""
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


def _hand(bones: Bones, sign: float) -> list[Float]:
    """Primitives of one hand: x towards the thumb, the palm towards the body."""
    wrist = rest_joints(bones)[("L" if sign > 0 else "R") + "Wrist"]
    direction = arm_direction(sign)
    thumb = np.array([1.0, 0, 0])
    palm = np.array([0, -sign * math.cos(ARM_RAISED), -math.sin(ARM_RAISED)])

    def at(far: float, across: float, in_palm: float = 0) -> Float:
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


def head_centre(bones: Bones) -> Float:
    """Middle of the skull in the rest frame: the crown is 28 mm above the Head joint."""
    head = rest_joints(bones)["Head"]
    return np.array([10, 0, head[2] + 28 - 92])


def _head(bones: Bones, look: Look) -> list[Float]:
    """Primitives of the head: skull, face, ears, nose, hair."""
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


def _ramp(value: Float, start: float, end: float) -> Float:
    """Rise smoothly from 0 at start to 1 at end."""
    t = np.clip((value - start) / (end - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _chain(dense: Float, share: Float, value: Float, steps: list[tuple[str, float, float]], first: str) -> None:
    """Spread `share` [V] over frames: each step hands on to its frame as `value` goes from start to end."""
    rest = share
    name = first
    for following, start, end in steps:
        on = _ramp(value, start, end)
        dense[:, FRAME[name]] += rest * (1 - on)
        rest = rest * on
        name = following
    dense[:, FRAME[name]] += rest


def _weights(bones: Bones, points: Float, arm_share: Float) -> Float:
    """Skin weights [V, frames]; `arm_share` [V] is how far a vertex belongs to an arm rather than to the trunk."""
    dense = np.zeros((len(points), len(FRAME)))
    joints = rest_joints(bones)
    chest = bones.lumbar + bones.thoracic
    z = points[:, 2]
    trunk = np.ones(len(points))
    for side, sign in SIDES:
        on_side = np.where(sign * points[:, 1] > 0, arm_share, 0)
        along = (points - joints[side + "Shoulder"]) @ arm_direction(sign)
        share = on_side * _ramp(along, -40, 30)
        upper, wrist = bones.upper, bones.upper + bones.forearm
        steps = [
            ("upper_swing", 30, 100), ("upper", 80, upper - 60), ("elbow_half", upper - 50, upper),
            ("forearm", upper, upper + 50), ("forearm_twist", upper + 60, wrist - 20), ("hand", wrist - 22, wrist + 22),
        ]  # fmt: skip
        _chain(dense, share, along, [(side + n, a, b) for n, a, b in steps], side + "shoulder_half")
        trunk -= share
    for side, sign in SIDES:
        along = (points - joints[side + "Hip"]) @ leg_direction(sign)
        on_side = _ramp(sign * points[:, 1], -40, 40) * (arm_share < 0.5)
        share = on_side * _ramp(along, -70, 30)
        steps = [
            ("thigh", 20, 130), ("knee_half", bones.thigh - 65, bones.thigh), ("shank", bones.thigh, bones.thigh + 65),
            ("foot", bones.leg - 25, bones.leg + 25),
        ]  # fmt: skip
        _chain(dense, share, along, [(side + n, a, b) for n, a, b in steps], side + "hip_half")
        trunk -= share
    lean = z + 0.5 * points[:, 0]  # the chin goes with the head, the nape with the neck
    rest = np.clip(trunk, 0, 1)
    low, high = np.zeros_like(dense), np.zeros_like(dense)
    _chain(low, rest, z, [("lumbar", 10, 130), ("chest", bones.lumbar - 60, bones.lumbar + 70)], "pelvis")
    _chain(high, rest, lean, [("neck", chest - 15, chest + 30), ("head", chest + 25, chest + 90)], "chest")
    upper_part = (z > bones.lumbar + 80)[:, None]
    return np.asarray(dense + np.where(upper_part, high, low))


def _strongest(dense: Float) -> tuple[Int, Float]:
    """Keep the four largest weights of each vertex."""
    order = np.argsort(-dense, axis=1, kind="stable")[:, :4]
    weight = np.take_along_axis(dense, order, axis=1)
    return order.astype(np.int32), np.asarray(weight / weight.sum(axis=1, keepdims=True))


def make_body(seed: int, subject: str, cell_mm: float = 14.0) -> Body:
    """Build a subject's body: mesh trunk and limbs, and more finely head and hands, and bind them to the frames."""
    bones, look = draw_bones(seed, subject), draw_look(seed, subject)
    torso = np.array(_torso(bones, look))
    arms = {sign: np.array(_arm(bones, look, sign)) for _, sign in SIDES}
    legs = [row for _, sign in SIDES for row in _leg(bones, look, sign)]
    whole = np.concatenate([torso, legs, arms[1.0], arms[-1.0]])
    joints = rest_joints(bones)
    top = bones.lumbar + bones.thoracic
    reach = float(joints["LWrist"][1]) + 60
    centre = head_centre(bones)
    box = [-210, -reach, joints["LFoot"][2] - 110], [260, reach, top + 110]
    parts: list[tuple[int, Float, float, npt.ArrayLike, npt.ArrayLike]] = [(-1, whole, cell_mm, *box)]
    head = np.array(_head(bones, look))
    parts.append((HEAD, head, 7.0, centre + [-175, -110, -142], centre + [145, 110, 125]))
    for side, sign in SIDES:
        middle = joints[side + "Wrist"] + 80 * arm_direction(sign)
        parts.append((HAND, np.array(_hand(bones, sign)), 6.0, middle - 130, middle + 130))
    points, faces, normal, region, shade = [], [], [], [], []
    count = 0
    for kind, primitives, step, low, high in parts:
        vertices, triangles = surfaces.mesh(primitives, step, low, high)
        outward = surfaces.normals(primitives, vertices)
        open_mm = surfaces.fields(whole if kind < 0 else primitives, vertices + 60 * outward)
        points.append(vertices)
        normal.append(outward)
        faces.append(triangles + count)
        region.append(np.full(len(vertices), kind, np.int32))
        shade.append(np.clip(0.4 + 0.6 * open_mm / 55, 0.4, 1))
        count += len(vertices)
    rest, kinds = np.concatenate(points), np.concatenate(region)
    from_arm = np.minimum(surfaces.fields(arms[1.0], rest), surfaces.fields(arms[-1.0], rest))
    from_torso = np.minimum(surfaces.fields(torso, rest), surfaces.fields(np.array(legs), rest))
    arm_share = np.asarray(1 / (1 + np.exp(np.clip((from_arm - from_torso) / 9, -40, 40))))
    arm_share[kinds == HEAD] = 0
    arm_share[kinds == HAND] = 1
    frame, weight = _strongest(_weights(bones, rest, arm_share))
    along = rest[:, 2].copy()
    for side, sign in SIDES:
        arm = (arm_share > 0.5) & (sign * rest[:, 1] > 0)
        kinds[arm & (kinds < 0)] = ARM
        along[arm] = ((rest - joints[side + "Shoulder"]) @ arm_direction(sign))[arm]
        leg = (kinds < 0) & (rest[:, 2] < -60) & (sign * rest[:, 1] > 0)
        kinds[leg] = LEG
        along[leg] = ((rest - joints[side + "Hip"]) @ leg_direction(sign))[leg]
    kinds[(kinds == LEG) & (along > bones.leg - 20)] = FOOT
    kinds[kinds < 0] = TORSO
    along[kinds == TORSO] = 0  # a triangle across the armhole is still at the sleeve's beginning
    return Body(
        bones=bones, look=look, rest_mm=rest, normal=np.concatenate(normal), triangles=np.concatenate(faces),
        frame=frame, weight=weight, region=kinds, along_mm=along, shade=np.concatenate(shade),
    )  # fmt: skip
