"""Postures: rigid bones, joints that bend one way, contact with the floor, angles as measured."""

import numpy as np
import pytest

from competition.common import skeleton
from competition.synthetic import (
    bones as skeleton_bones,
)
from competition.synthetic import (
    cameras,
    poses,
    postures,
    skeletons,
)
from tests.synthetic.helpers import SEED

SUBJECTS = skeleton.TRAIN_SUBJECTS + skeleton.TEST_SUBJECTS
BONES_OF_PAIRS = ("hip", "thigh", "shank", "shoulder", "upper", "forearm")


def test_bones_are_rigid_and_equal_left_and_right_in_camera_space():
    bones = skeleton_bones.draw_bones(SEED, "S5")
    view = cameras.make_camera(SEED, "S5", skeleton.CAMERAS[2])
    expected = {name: getattr(bones, name) for name in BONES_OF_PAIRS}
    pairs = {
        "hip": ((0, 1), (0, 4)), "thigh": ((1, 2), (4, 5)), "shank": ((2, 3), (5, 6)), "shoulder": ((8, 11), (8, 14)),
        "upper": ((11, 12), (14, 15)), "forearm": ((12, 13), (15, 16)),
    }  # fmt: skip
    for action in skeleton.ACTIONS:
        take = poses.Take(SEED, "S5", action, "1", bones)
        for frame in (0, 301):
            seen = view.to_camera(take.posture(frame).joints_mm)
            for name, both in pairs.items():
                for start, end in both:
                    assert abs(np.linalg.norm(seen[end] - seen[start]) - expected[name]) < 1e-6
            np.testing.assert_allclose(seen[0], (seen[1] + seen[4]) / 2, atol=1e-6)


def test_joints_stay_above_the_floor_and_knees_bend_one_way():
    bones = skeleton_bones.draw_bones(SEED, "S9")
    for action in skeleton.ACTIONS:
        take = poses.Take(SEED, "S9", action, "2", bones)
        for frame in (40, 222, 455):
            joints = take.posture(frame).joints_mm
            assert joints[:, 2].min() > 25
            left = joints[4] - joints[1]
            for hip, knee, ankle in ((1, 2, 3), (4, 5, 6)):
                hinge = np.cross(joints[knee] - joints[hip], joints[ankle] - joints[knee])
                straight = np.linalg.norm(hinge) < 0.15 * bones.thigh * bones.shank
                assert straight or hinge @ left > -0.6 * np.linalg.norm(hinge) * np.linalg.norm(left), (action, frame)


@pytest.mark.parametrize("kind", [postures.STAND, postures.BEND, postures.CROUCH, postures.FLOOR])
def test_postures_rest_on_the_floor(kind: int):
    for number in range(12):
        bones = skeleton_bones.draw_bones(SEED, SUBJECTS[number % 7])
        values = postures.draw_key(np.random.default_rng(number), "Posing", kind, bones, None, True)
        joints = skeletons.pose_body(values, bones).joints_mm
        assert joints[0, 2] - values[skeletons.INDEX["height"]] < 40  # hardly lifted by pose_body
        assert joints[[2, 3, 5, 6], 2].min() < 95  # an ankle or a knee touches the floor
        assert joints[0, 2] < 140 or kind != postures.FLOOR or joints[[2, 5], 2].max() < 80  # sitting or kneeling


# Medians in degrees measured in Human3.6M: knee, hip and elbow flexion, lean of the trunk.
MEDIANS = {
    ("Walking", "WalkTogether"): (19, 0, 46, 5),
    ("WalkDog",): (27, 16, 40, 13),
    ("Directions", "Discussion", "Greeting", "Posing", "Photo", "Waiting", "Purchases"): (17, -1, 86, 8),
    ("Eating", "Phoning", "Sitting", "Smoking"): (64, 55, 96, 7),
    ("SittingDown",): (99, 79, 60, 27),
}


def flexions(joints: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return knee, hip and elbow flexion and the lean of the trunk in degrees, of poses [N, 17, 3] with z up."""

    def angle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        return np.degrees(np.arccos(np.clip((first * second).sum(axis=-1) / lengths, -1, 1)))

    trunk = joints[:, 8] - joints[:, 0]
    up = trunk / np.linalg.norm(trunk, axis=1, keepdims=True)
    ahead = np.cross(joints[:, 4] - joints[:, 1], up)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    hips, knees, ankles = joints[:, [1, 4]], joints[:, [2, 5]], joints[:, [3, 6]]
    shoulders, elbows, wrists = joints[:, [11, 14]], joints[:, [12, 15]], joints[:, [13, 16]]
    thigh = knees - hips
    hip = np.degrees(np.arctan2((thigh * ahead[:, None]).sum(axis=2), -(thigh * up[:, None]).sum(axis=2)))
    return angle(thigh, ankles - knees), hip, angle(elbows - shoulders, wrists - elbows), angle(up, np.eye(3)[2])


@pytest.mark.slow
@pytest.mark.parametrize("actions", MEDIANS, ids=lambda actions: "-".join(actions))
def test_median_angles_of_actions_match_human36m(actions: tuple[str, ...]):
    poses_mm = [
        poses.Take(SEED, subject, action, part, skeleton_bones.draw_bones(SEED, subject)).posture(frame).joints_mm
        for subject in SUBJECTS
        for action in actions
        for part in ("1", "2")
        for frame in range(0, poses.TAKE_FRAMES, 12 if len(actions) < 3 else 40)
    ]
    for found, expected in zip(flexions(np.array(poses_mm)), MEDIANS[actions], strict=True):
        assert abs(np.median(found) - expected) < 10


def test_neighbouring_frames_are_similar_and_distant_ones_are_not():
    take = poses.Take(SEED, "S6", "Discussion", "1", skeleton_bones.draw_bones(SEED, "S6"))
    first, second, far = (take.posture(frame).joints_mm for frame in (100, 101, 140))
    assert 0 < np.abs(second - first).max() < 160
    assert np.abs(far - first).max() > 60


def test_a_hand_on_the_phone_follows_the_turning_head():
    bones = skeleton_bones.draw_bones(SEED, "S1")
    values = postures.draw_key(np.random.default_rng(0), "Waiting", postures.STAND, bones, None, True)
    index = skeletons.INDEX
    values[index["Rreach"]] = 1.0
    values[[index["Rtarget_x"], index["Rtarget_y"], index["Rtarget_z"]]] = (-50.0, -110.0, 20.0)
    for twist in (-40.0, 0.0, 35.0):
        values[index["neck_twist"]] = twist
        posture = skeletons.pose_body(values, bones)
        head = posture.rotation[skeleton_bones.FRAME["head"]]
        wanted = posture.joints_mm[9] + head @ [-50.0, -110.0, 20.0]
        np.testing.assert_allclose(posture.joints_mm[16], wanted, atol=1e-6)
