"""Movement over time for the 15 actions, within the joint angles measured in Human3.6M.

A take is one minute of one subject and action. It has a keyframe every KEY_SECONDS, drawn independently from the
take's name and the keyframe's number; angles are interpolated smoothly between keyframes, so that neighbouring frames
are similar. Walking adds a cycle of steps to the keyframes.
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

TAKE_FRAMES = 600  # frames per take, of which images are made
FRAME_STEP, FRAMES_PER_SECOND = 5, 50.0  # every 5th frame at 50 frames per second
KEY_SECONDS = 1.25
SEGMENT_KEYS = 6  # consecutive keyframes of one kind of posture
STRIDE_MM = 1300.0  # two steps
WALK_MM_S = 1050.0
WALK_AXES_MM = (480.0, 1150.0)  # semi-axes of the walked ellipse, mostly towards and away from the cameras
SEAT_MM = (425.0, 460.0)
HIGH_SEAT_MM, HIGH_SEAT_SHARE = (540.0, 650.0), 0.3  # stools


@dataclass
class Take:
    """Movement of one subject in one action; `posture(frame)` returns one instant."""

    seed: int
    subject: str
    action: str
    part: str
    bones: Bones
    _keys: dict[int, Float64] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = (self.subject, self.action, self.part)
        rng = generator(self.seed, "take", *self.name)
        facing = 90.0 if rng.random() < 0.5 else -90.0  # towards the cameras, which are along y
        turned = rng.normal(0, 17) if rng.random() < 0.92 else rng.uniform(-180, 180)
        self.heading = facing + turned
        radius, angle = 820 * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
        self.place = np.array([radius * math.cos(angle), radius * math.sin(angle), 0])
        seat = rng.uniform(*(HIGH_SEAT_MM if rng.random() < HIGH_SEAT_SHARE else SEAT_MM))
        self.seat_mm = seat if SIT in POSTURES[self.action] else None
        self.walks = WALK in POSTURES[self.action]
        self.direction = 1.0 if rng.random() < 0.5 else -1.0
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
        """Return the time of a frame, from the start of the take."""
        return frame * FRAME_STEP / FRAMES_PER_SECOND

    def posture(self, frame: int) -> Posture:
        """Return the posture at a frame in room space: mm, z up, the floor at z = 0."""
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
            heading, place = _on_ellipse(walked, self.direction)
            if walking > 0:
                values = (1 - walking) * values + walking * _step(walked / STRIDE_MM, values, self.bones)
        return place_posture(pose_body(values, self.bones), heading, place)

    def key(self, number: int) -> Float64:
        """Return the values of a keyframe, in the order of KEYS."""
        if number not in self._keys:
            rng = generator(self.seed, "key", *self.name, number)
            self._keys[number] = draw_key(
                rng, self.action, self.kinds[number], self.bones, self.seat_mm, self.right_handed
            )
        return self._keys[number]


def place_posture(posture: Posture, heading: float, place: Float64) -> Posture:
    """Rotate a posture about the vertical by `heading` degrees and move it to `place` in the room."""
    turn = turn_about(2, heading)
    return Posture(
        joints_mm=posture.joints_mm @ turn.T + place,
        tips_mm=posture.tips_mm @ turn.T + place,
        rotation=turn @ posture.rotation,
        origin_mm=posture.origin_mm @ turn.T + place,
        rest_origin_mm=posture.rest_origin_mm,
    )


def _on_ellipse(walked_mm: float, direction: float) -> tuple[float, Float64]:
    """Return the heading in degrees and the place in mm after walking `walked_mm` along the ellipse."""
    lengths, angles = _ellipse()
    angle = direction * float(np.interp(walked_mm % lengths[-1], lengths, angles))
    a, b = WALK_AXES_MM
    heading = math.degrees(math.atan2(direction * b * math.cos(angle), -direction * a * math.sin(angle)))
    return heading, np.array([a * math.cos(angle), b * math.sin(angle), 0])


@cache
def _ellipse() -> tuple[Float64, Float64]:
    angles = np.linspace(0, 2 * math.pi, 721)
    path = np.stack([WALK_AXES_MM[0] * np.cos(angles), WALK_AXES_MM[1] * np.sin(angles)], axis=1)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)]), angles


def _step(cycle: float, values: Float64, bones: Bones) -> Float64:
    """Add the walking cycle to a keyframe's values: legs, pelvis and arm swing."""
    result = values.copy()
    half = 0.25 * STRIDE_MM + 15
    lean = 0.06
    for side, sign in SIDES:
        phase = (cycle + (0.0 if side == "L" else 0.5)) % 1.0
        if phase < 0.6:  # stance phase: the foot moves backward relative to the pelvis
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
        swing = math.cos(2 * math.pi * phase)  # of the leg, positive forward; the arm swings oppositely
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
