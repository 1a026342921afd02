"""What people do: postures of the 15 actions over time, within the joint angles measured in Human3.6M.

A take is a minute of one subject and action. Every KEY_SECONDS it has a key posture, drawn for itself from the take's
name and the key's number; between keys the angles run smoothly, so that neighbouring frames are alike. Walking is
a cycle of steps laid over the keys.
"""

import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from competition.common.arrays import Float64
from competition.common.seeds import generator
from competition.synthetic.bones import SIDES, Bones
from competition.synthetic.postures import POSTURES, SIT, WALK, draw_key
from competition.synthetic.skeletons import INDEX, Posture, pose_body, turn_about

TAKE_FRAMES = 600  # written frames of a take
FRAME_STEP, FRAMES_PER_SECOND = 5, 50.0  # every 5th frame of 50 a second
KEY_SECONDS = 1.25
SEGMENT_KEYS = 6  # a posture lasts for so many keys
STRIDE_MM = 1300.0  # two steps
WALK_MM_S = 1050.0
WALK_AXES_MM = (480.0, 1150.0)  # of the ellipse that is walked: mostly towards and away from the cameras
SEAT_MM = (425.0, 460.0)
HIGH_SEAT_MM, HIGH_SEAT_SHARE = (540.0, 650.0), 0.3  # stools


@dataclass
class Take:
    """The movement of one subject through one action; `posture(frame)` is all that others need."""

    seed: int
    subject: str
    action: str
    part: str
    bones: Bones
    _keys: dict[int, Float64] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = (self.subject, self.action, self.part)
        rng = generator(self.seed, "take", *self.name)
        facing = 90.0 if rng.random() < 0.5 else -90.0  # the cameras stand to both sides along y
        turned = rng.normal(0, 17) if rng.random() < 0.92 else rng.uniform(-180, 180)
        self.heading = facing + turned
        radius, angle = 820 * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
        self.place = np.array([radius * math.cos(angle), radius * math.sin(angle), 0])
        seat = rng.uniform(*(HIGH_SEAT_MM if rng.random() < HIGH_SEAT_SHARE else SEAT_MM))
        self.seat_mm = seat if SIT in POSTURES[self.action] else None
        self.walks = WALK in POSTURES[self.action]
        self.way = 1.0 if rng.random() < 0.5 else -1.0
        self.start_mm = rng.uniform(0, 6000)
        self.right_handed = rng.random() < 0.85
        count = int(TAKE_FRAMES * FRAME_STEP / FRAMES_PER_SECOND / KEY_SECONDS) + 2
        kinds, shares = zip(*POSTURES[self.action].items(), strict=True)
        segments = rng.choice(kinds, size=count // SEGMENT_KEYS + 2, p=shares)
        phase = int(rng.integers(SEGMENT_KEYS))
        self.kinds = [int(segments[(key + phase) // SEGMENT_KEYS]) for key in range(count)]
        walking = np.array([kind == WALK for kind in self.kinds], float)
        self._walked = np.concatenate([[0.0], np.cumsum((walking[1:] + walking[:-1]) / 2)]) * KEY_SECONDS * WALK_MM_S

    def seconds(self, frame: int) -> float:
        """Time of a written frame (0 is the take's first)."""
        return frame * FRAME_STEP / FRAMES_PER_SECOND

    def posture(self, frame: int) -> Posture:
        """The subject at a written frame, in the room's space: mm, z up, the floor is z = 0."""
        position = self.seconds(frame) / KEY_SECONDS
        key = int(position)
        t = position - key
        ease = t * t * t * (t * (6 * t - 15) + 10)
        values = (1 - ease) * self.key(key) + ease * self.key(key + 1)
        walking = (1 - ease) * (self.kinds[key] == WALK) + ease * (self.kinds[key + 1] == WALK)
        heading, place = self.heading, self.place
        if self.walks:
            integral = t**4 * (2.5 + t * (t - 3))  # of ease
            share = (self.kinds[key] == WALK) * (t - integral) + (self.kinds[key + 1] == WALK) * integral
            walked = self.start_mm + self._walked[key] + share * KEY_SECONDS * WALK_MM_S
            heading, place = _on_ellipse(walked, self.way)
            if walking > 0:
                values = (1 - walking) * values + walking * _step(walked / STRIDE_MM, values, self.bones)
        return place_posture(pose_body(values, self.bones), heading, place)

    def key(self, number: int) -> Float64:
        """The values of a key posture."""
        if number not in self._keys:
            rng = generator(self.seed, "key", *self.name, number)
            self._keys[number] = draw_key(
                rng, self.action, self.kinds[number], self.bones, self.seat_mm, self.right_handed
            )
        return self._keys[number]


def place_posture(posture: Posture, heading: float, place: Float64) -> Posture:
    """Turn a posture about the vertical by `heading` degrees and move it to its place in the room."""
    turn = turn_about(2, heading)
    return Posture(
        joints_mm=posture.joints_mm @ turn.T + place,
        tips_mm=posture.tips_mm @ turn.T + place,
        rotation=turn @ posture.rotation,
        origin_mm=posture.origin_mm @ turn.T + place,
        rest_origin_mm=posture.rest_origin_mm,
    )


def _on_ellipse(walked_mm: float, way: float) -> tuple[float, Float64]:
    """Heading in degrees and place in mm after so many mm along the ellipse."""
    lengths, angles = _ellipse()
    angle = way * float(np.interp(walked_mm % lengths[-1], lengths, angles))
    a, b = WALK_AXES_MM
    heading = math.degrees(math.atan2(way * b * math.cos(angle), -way * a * math.sin(angle)))
    return heading, np.array([a * math.cos(angle), b * math.sin(angle), 0])


@cache
def _ellipse() -> tuple[Float64, Float64]:
    angles = np.linspace(0, 2 * math.pi, 721)
    path = np.stack([WALK_AXES_MM[0] * np.cos(angles), WALK_AXES_MM[1] * np.sin(angles)], axis=1)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)]), angles


def _step(cycle: float, values: Float64, bones: Bones) -> Float64:
    """Lay the walking cycle over a key's values: legs, pelvis and the swing of the arms."""
    result = values.copy()
    half = 0.25 * STRIDE_MM + 15
    lean = 0.06
    for side, sign in SIDES:
        phase = (cycle + (0.0 if side == "L" else 0.5)) % 1.0
        if phase < 0.6:  # on the floor, which moves backward under the walker
            t = phase / 0.6
            forward, lift = half * (1 - 2 * t), 0.0
            toe_down = -16 * max(0.0, 1 - t / 0.15) + 30 * max(0.0, (t - 0.65) / 0.35) ** 1.5
        else:
            t = (phase - 0.6) / 0.4
            ease = t * t * (3 - 2 * t)
            forward, lift = half * (2 * ease - 1), 120 * math.sin(math.pi * t) * (1 - 0.6 * t)
            toe_down = 30 * (1 - ease) - 16 * ease
        heel = math.sin(math.radians(max(toe_down, 0.0))) * (bones.toe - 60)
        result[INDEX[side + "ankle_x"]] = forward - 118
        result[INDEX[side + "ankle_y"]] = sign * 82
        result[INDEX[side + "ankle_z"]] = bones.ankle + lift + heel
        result[INDEX[side + "toe_down"]] = toe_down
        result[INDEX[side + "toe_out"]] = 7.0
        result[INDEX[side + "knee_out"]] = 4.0
        swing = math.cos(2 * math.pi * phase)  # forward when the leg is; the arm opposes it
        plane = INDEX[side + "plane"]
        free = 1.0 - min(1.0, max(0.0, (values[INDEX[side + "elbow"]] - 50) / 40))
        result[plane] = (1 - free) * values[plane] - free * 62 * swing
        result[INDEX[side + "elevation"]] += free * 8 * abs(swing)
        result[INDEX[side + "elbow"]] -= free * 10 * swing
    bob = math.cos(4 * math.pi * cycle)
    reach = 0.997 * bones.leg
    result[INDEX["height"]] = bones.ankle + math.sqrt(reach**2 - (0.55 * half) ** 2) - 20 * bob
    result[INDEX["x"]] = lean * 100
    result[INDEX["y"]] = -18 * math.sin(2 * math.pi * cycle)
    result[INDEX["yaw"]] = -8 * math.cos(2 * math.pi * cycle)
    result[INDEX["roll"]] = 3 * math.sin(2 * math.pi * cycle)
    result[INDEX["chest_twist"]] += 10 * math.cos(2 * math.pi * cycle)
    return result
