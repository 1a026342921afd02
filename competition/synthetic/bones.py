"""Bone lengths of a subject, and the rest pose.

Rest frame, mm: the pelvis (joint 0) is the origin, x forward, y to the subject's left, z up; legs slightly
apart, arms raised halfway to the sides, all straight. Mean lengths and their spread over subjects are Human3.6M's.
"""

import math
from dataclasses import dataclass

import numpy as np

from competition.common.arrays import Float64
from competition.common.seeds import generator

ARM_RAISED = math.radians(45)  # rest pose, from straight down
LEG_APART = math.radians(9)
NOSE_LEAN, HEAD_LEAN = math.radians(33), math.radians(15)  # Thorax-Nose leans forward, Nose-Head backward
SHOULDER_DOWN, SHOULDER_BACK = 52.0, 11.0  # mm, from the Thorax to the middle of the shoulders

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

SEX = {"S1": 0, "S5": 0, "S6": 1, "S7": 0, "S8": 1, "S9": 1, "S11": 0}  # 0 female, 1 male; both occur in each set


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
    ankle: float = 78.0  # height of the ankle above the floor
    hand: float = 180.0  # wrist to fingertip
    toe: float = 175.0  # ankle to the tip of the shoe, along the floor

    @property
    def leg(self) -> float:
        """Return the length of the straight leg, hip to ankle."""
        return self.thigh + self.shank

    @property
    def shoulder_side(self) -> float:
        """Return the sideways component of the vector from Thorax to a shoulder."""
        return math.sqrt(self.shoulder**2 - SHOULDER_DOWN**2 - SHOULDER_BACK**2)


LENGTHS = {  # mean and spread over subjects, mm
    "hip": (135.5, 10.5), "thigh": (451.7, 21.5), "shank": (447.0, 10.4), "lumbar": (241.5, 18.8),
    "thoracic": (255.5, 3.4), "neck": (117.1, 5.7), "head": (115.0, 3.0), "shoulder": (150.5, 11.5),
    "upper": (282.0, 13.9), "forearm": (249.9, 5.2),
}  # fmt: skip


def draw_bones(seed: int, subject: str) -> Bones:
    """Draw a subject's bone lengths, which are correlated through the body height."""
    rng = generator(seed, "bones", subject)
    size = np.clip(rng.normal(0.35 if SEX[subject] else -0.35, 0.7), -1.3, 1.3)
    lengths = {}
    for name, (mean, spread) in LENGTHS.items():
        lengths[name] = mean + spread * float(np.clip(0.7 * size + 0.7 * rng.normal(), -1.7, 1.7))
    return Bones(**lengths)


def rest_joints(bones: Bones) -> dict[str, Float64]:
    """Return the joints of the rest pose in mm."""
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


def leg_direction(sign: float) -> Float64:
    """Return the direction of the leg in the rest pose."""
    return np.array([0, sign * math.sin(LEG_APART), -math.cos(LEG_APART)])


def arm_direction(sign: float) -> Float64:
    """Return the direction of the arm in the rest pose."""
    return np.array([0, sign * math.sin(ARM_RAISED), -math.cos(ARM_RAISED)])
