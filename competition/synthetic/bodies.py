"""Parametric body: a smooth surface around a subject's bones, and its skinning weights."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from competition.common.arrays import Float64, Int32
from competition.synthetic import flesh, surfaces
from competition.synthetic.bones import FRAME, SIDES, Bones, arm_direction, draw_bones, leg_direction, rest_joints
from competition.synthetic.flesh import Look, draw_look, head_centre

TORSO, ARM, LEG, HEAD, HAND, FOOT = range(6)  # regions of the surface


@dataclass(frozen=True, kw_only=True)
class Body:
    """A subject's surface in the rest frame with its skinning weights."""

    bones: Bones
    look: Look
    rest_mm: Float64  # [V, 3]
    normal: Float64  # [V, 3]
    triangles: Int32  # [F, 3]
    frame: Int32  # [V, 4], indices of the frames that move a vertex
    weight: Float64  # [V, 4], sums to 1
    region: Int32  # [V]
    along_mm: Float64  # [V], along the limb from the shoulder or hip joint; 0 on the trunk, z on the head
    shade: Float64  # [V], ambient light, 0 (in a crease) to 1 (open)


def _ramp(value: Float64, start: float, end: float) -> Float64:
    """Return a smooth step from 0 at start to 1 at end."""
    t = np.clip((value - start) / (end - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _chain(dense: Float64, share: Float64, value: Float64, steps: list[tuple[str, float, float]], first: str) -> None:
    """Distribute `share` [V] over frames; each step (frame, start, end) blends into its frame as `value` rises."""
    rest = share
    name = first
    for following, start, end in steps:
        on = _ramp(value, start, end)
        dense[:, FRAME[name]] += rest * (1 - on)
        rest = rest * on
        name = following
    dense[:, FRAME[name]] += rest


def _weights(bones: Bones, points: Float64, arm_share: Float64) -> Float64:
    """Compute skin weights [V, frames]; `arm_share` [V] is the degree to which a vertex belongs to an arm."""
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
    lean = z + 0.5 * points[:, 0]  # the chin follows the head, the nape the neck
    rest = np.clip(trunk, 0, 1)
    low, high = np.zeros_like(dense), np.zeros_like(dense)
    _chain(low, rest, z, [("lumbar", 10, 130), ("chest", bones.lumbar - 60, bones.lumbar + 70)], "pelvis")
    _chain(high, rest, lean, [("neck", chest - 15, chest + 30), ("head", chest + 25, chest + 90)], "chest")
    upper_part = (z > bones.lumbar + 80)[:, None]
    return np.asarray(dense + np.where(upper_part, high, low))


def _strongest(dense: Float64) -> tuple[Int32, Float64]:
    """Return the frames and the weights of the four largest weights per vertex, normalised."""
    order = np.argsort(-dense, axis=1, kind="stable")[:, :4]
    weight = np.take_along_axis(dense, order, axis=1)
    return order.astype(np.int32), np.asarray(weight / weight.sum(axis=1, keepdims=True))


def make_body(seed: int, subject: str, cell_mm: float = 14.0) -> Body:
    """Build a subject's body: mesh trunk, limbs, head and hands (the last two finer) and compute skin weights."""
    bones, look = draw_bones(seed, subject), draw_look(seed, subject)
    torso = np.array(flesh.torso(bones, look))
    arms = {sign: np.array(flesh.arm(bones, look, sign)) for _, sign in SIDES}
    legs = [row for _, sign in SIDES for row in flesh.leg(bones, look, sign)]
    whole = np.concatenate([torso, legs, arms[1.0], arms[-1.0]])
    joints = rest_joints(bones)
    top = bones.lumbar + bones.thoracic
    reach = float(joints["LWrist"][1]) + 60
    centre = head_centre(bones)
    box = [-210, -reach, joints["LFoot"][2] - 110], [260, reach, top + 110]
    parts: list[tuple[int, Float64, float, npt.ArrayLike, npt.ArrayLike]] = [(-1, whole, cell_mm, *box)]
    head = np.array(flesh.head(bones, look))
    parts.append((HEAD, head, 7.0, centre + [-175, -110, -142], centre + [145, 110, 125]))
    for side, sign in SIDES:
        middle = joints[side + "Wrist"] + 80 * arm_direction(sign)
        parts.append((HAND, np.array(flesh.hand(bones, sign)), 6.0, middle - 130, middle + 130))
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
    along[kinds == TORSO] = 0  # a triangle across the armhole belongs to the start of the sleeve
    return Body(
        bones=bones, look=look, rest_mm=rest, normal=np.concatenate(normal), triangles=np.concatenate(faces),
        frame=frame, weight=weight, region=kinds, along_mm=along, shade=np.concatenate(shade),
    )  # fmt: skip
