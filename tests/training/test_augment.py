"""Augmentation: image, 2D pose and 3D pose change together; the same keys give the same sample."""

import albumentations as A
import cv2
import numpy as np
import pytest

import models
from competition.common.geometry import mirror_pose_mm, mirror_pose_px, rotate_pose_mm
from competition.common.skeleton import MIRROR
from competition.training.augment import Affine, Augment, RGBShift

SIZE = 96


def _blob(centre: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    blob = 220 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 3**2))
    return np.repeat(blob[..., None], 3, axis=2).astype(np.uint8)


def _centre(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(float)
    weight[weight < 0.3 * weight.max()] = 0
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.fixture
def geometric() -> Augment:
    augment = Augment(SIZE, seed=0)
    kept = [t for t in augment.pipeline.transforms if isinstance(t, A.Affine | A.HorizontalFlip)]
    augment.pipeline = A.Compose(kept, save_applied_params=True)
    return augment


@pytest.mark.parametrize("index", range(30))
def test_a_joint_moves_with_the_image(geometric: Augment, index: int):
    joint = 5
    pose2d = np.random.default_rng(index).uniform(30, 66, (17, 2)).astype(np.float32)
    pose3d = np.zeros((17, 3), np.float32)
    pose3d[joint] = (300, -120, 77)  # a single nonzero joint, to find it again
    image, moved2d, moved3d = geometric(_blob(pose2d[joint]), pose2d, pose3d, epoch=1, index=index)
    index_now = int(np.abs(moved3d).sum(axis=1).argmax())
    assert index_now in (joint, MIRROR[joint])
    np.testing.assert_allclose(_centre(image), moved2d[index_now], atol=0.2)
    assert moved3d[index_now, 2] == 77
    assert np.linalg.norm(moved3d[index_now]) == pytest.approx(np.linalg.norm(pose3d[joint]), rel=1e-6)


def test_the_3d_pose_rotates_and_mirrors_with_the_2d_pose(geometric: Augment):
    """With an orthographic camera, x and y of the 3D pose remain proportional to the 2D pose."""
    rng = np.random.default_rng(0)
    flips = 0
    for index in range(20):
        pose3d = rng.normal(0, 100, (17, 3)).astype(np.float32)
        pose2d = (48 + 0.1 * pose3d[:, :2]).astype(np.float32)  # orthographic
        _, moved2d, moved3d = geometric(_blob(np.array([48, 48])), pose2d, pose3d, epoch=0, index=index)
        offset2d = moved2d - moved2d.mean(axis=0)
        offset3d = moved3d[:, :2] - moved3d[:, :2].mean(axis=0)
        scale = np.linalg.norm(offset2d) / np.linalg.norm(offset3d)
        assert 0.085 <= scale <= 0.115
        np.testing.assert_allclose(offset2d, scale * offset3d, atol=0.02)
        flips += not np.isclose(moved3d[5, 2], pose3d[5, 2])
    assert 4 <= flips <= 16


def test_a_sample_depends_only_on_seed_epoch_and_index():
    image = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    pose2d, pose3d = np.full((17, 2), 40, np.float32), np.ones((17, 3), np.float32)

    def sample(augment: Augment, epoch: int, index: int) -> bytes:
        return b"".join(part.tobytes() for part in augment(image, pose2d, pose3d, epoch=epoch, index=index))

    first, second = Augment(SIZE, 0), Augment(SIZE, 0)
    sample(second, 9, 9)  # earlier samples have no effect
    assert sample(first, 1, 2) == sample(second, 1, 2)
    different = {sample(first, 1, 2), sample(first, 2, 2), sample(first, 1, 3), sample(Augment(SIZE, 1), 1, 2)}
    assert len(different) == 4


def test_rotations_reach_thirty_degrees_in_both_directions():
    augment = Augment(SIZE, 0)
    image, pose2d = np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((17, 2), np.float32)
    upright = np.zeros((17, 3), np.float32)
    upright[8] = (0, -100, 0)  # up
    angles = []
    for index in range(300):
        _, _, moved = augment(image, pose2d, upright, epoch=0, index=index)
        angles.append(np.degrees(np.arctan2(moved[8, 0], -moved[8, 1])))
    assert -30 <= min(angles) < -25
    assert 25 < max(angles) <= 30


def test_rotating_and_mirroring_poses_agrees_with_opencv_on_images():
    pose = np.array([[30.0, -10, 5]])
    image = _blob(np.array([47.5, 47.5]) + pose[0, :2])
    matrix = cv2.getRotationMatrix2D((47.5, 47.5), -20, 1)  # OpenCV's positive angle is anticlockwise on the screen
    rotated = _centre(cv2.warpAffine(image, matrix, (SIZE, SIZE)))
    np.testing.assert_allclose(rotated - 47.5, rotate_pose_mm(pose, np.radians(20))[0, :2], atol=0.2)
    mirrored = _centre(image[:, ::-1])
    poses = np.repeat(pose, 17, axis=0)
    np.testing.assert_allclose(mirrored - 47.5, mirror_pose_mm(poses)[0, :2], atol=0.2)


def test_affine_on_four_channels_equals_albumentations():
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8), (0, 0), 2)
    settings = {"rotate": (17, 17), "scale": (1.1, 1.1), "keep_ratio": True, "translate_percent": (0.03, 0.03), "p": 1}
    result, expected = (A.Compose([kind(**settings)], seed=0)(image=image)["image"] for kind in (Affine, A.Affine))
    assert np.abs(result.astype(int) - expected).max() <= 2
    assert result.std() > 5


def test_rgb_shift_equals_albumentations():
    image = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    settings = {"r_shift_limit": (14, 15), "g_shift_limit": (-9, -8), "b_shift_limit": (2, 3), "p": 1}
    result, expected = (A.Compose([kind(**settings)], seed=0)(image=image)["image"] for kind in (RGBShift, A.RGBShift))
    assert np.abs(result.astype(int) - expected).max() <= 1
    moved = np.median(result.astype(int) - image, axis=(0, 1))
    assert np.all((moved >= [14, -9, 2]) & (moved <= [15, -8, 3]))


def test_light_augmentation_mirrors_and_recolours_without_moving_joints_otherwise():
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (SIZE, SIZE, 3), dtype=np.uint8)
    pose2d = rng.uniform(0, SIZE, (17, 2)).astype(np.float32)
    pose3d = rng.normal(0, 300, (17, 3)).astype(np.float32)
    augment = Augment(SIZE, 0, "light")
    mirrored, recoloured = 0, 0
    for index in range(40):
        changed, moved2d, moved3d = augment(image, pose2d, pose3d, epoch=0, index=index)
        if not np.array_equal(moved2d, pose2d):
            mirrored += 1
            np.testing.assert_allclose(moved2d, mirror_pose_px(pose2d, SIZE), rtol=0, atol=1e-4)
            np.testing.assert_allclose(moved3d, mirror_pose_mm(pose3d), rtol=0, atol=1e-4)
            changed = changed[:, ::-1]
        else:
            np.testing.assert_array_equal(moved3d, pose3d)
        recoloured += not np.array_equal(changed, image)
        # brightness and colour change by a monotonic function of the channel, so the order of the pixels stays
        order = np.argsort(image[..., 0], axis=None, kind="stable")
        assert (np.diff(changed[..., 0].ravel()[order].astype(int)) >= 0).all()
    assert 10 < mirrored < 30
    assert 20 < recoloured < 40


def test_an_unknown_augmentation_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match="augmentation must be one of full, light"):
        models.recipe("3dhg", augmentation="heavy")
