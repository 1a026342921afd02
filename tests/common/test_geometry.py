"""Mirroring, rotating and resizing poses; MPJPE worked by hand; seeds; atomic files."""

import numpy as np
import pytest

from competition.common import files, geometry, metrics, seeds, skeleton
from competition.common.errors import UserError, unknown_message


@pytest.fixture
def pose() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 300, (2, 17, 3))


def test_mirroring_swaps_sides_and_twice_is_the_identity(pose: np.ndarray):
    mirrored = geometry.mirror_pose_mm(pose)
    np.testing.assert_array_equal(geometry.mirror_pose_mm(mirrored), pose)
    np.testing.assert_array_equal(mirrored[:, skeleton.LEFT, 1:], pose[:, skeleton.RIGHT, 1:])
    np.testing.assert_array_equal(mirrored[:, skeleton.LEFT, 0], -pose[:, skeleton.RIGHT, 0])
    pixels = pose[..., :2]
    np.testing.assert_allclose(geometry.mirror_pose_px(geometry.mirror_pose_px(pixels, 7), 7), pixels)
    assert geometry.mirror_pose_px(np.zeros((17, 2)), 7)[0, 0] == 6


def test_mirrored_joints_have_matching_names():
    for joint, source in enumerate(skeleton.MIRROR):
        name = skeleton.JOINTS[joint]
        swapped = {"R": "L", "L": "R"}.get(name[0], name[0]) + name[1:]
        assert skeleton.JOINTS[source] == (swapped if joint in skeleton.LEFT + skeleton.RIGHT else name)


def test_a_rotation_by_90_degrees_maps_right_to_down_and_keeps_depth():
    np.testing.assert_allclose(geometry.rotate_pose_mm(np.array([[1.0, 0, 5]]), np.pi / 2), [[0, 1, 5]], atol=1e-15)


def test_rotating_back_is_the_identity(pose: np.ndarray):
    np.testing.assert_allclose(geometry.rotate_pose_mm(geometry.rotate_pose_mm(pose, 0.4), -0.4), pose)


def test_resizing_maps_pixel_coordinates_by_their_centres():
    np.testing.assert_allclose(geometry.resize_px(np.array([-0.5, 0.5, 255.5]), 0.5), [-0.5, 0, 127.5])


def test_warp_applies_the_affine_matrix():
    matrix = np.array([[2.0, 0, 1], [0, 3, -1]])
    np.testing.assert_array_equal(geometry.warp_px(matrix, np.array([[1.0, 2]])), [[3, 5]])


def test_mpjpe_of_a_hand_worked_case():
    true = np.zeros((2, 17, 3))
    predicted = true.copy()
    predicted[0, 1] = (3, 4, 0)  # 5 mm
    predicted[1, 2] = (0, 0, 12)  # 12 mm
    assert metrics.mpjpe(predicted, true) == pytest.approx(17 / 34)
    assert metrics.mpjpe_joint(predicted, true)[:3] == pytest.approx([0, 2.5, 6])
    assert metrics.mean_absolute_axis(predicted, true) == pytest.approx(np.array([3, 4, 12]) / 34)


SHAPES = [
    ((4, 17, 3), (1, 17, 3)),
    ((4, 17, 3), (17, 3)),
    ((1, 17, 3), (4, 17, 3)),
    ((4, 17, 3), (4, 1, 3)),
    ((4, 17, 3), (4, 17, 1)),
    ((4, 17, 3), (1, 1, 3)),
    ((4, 17, 3), ()),
    ((4, 17, 3), (5, 17, 3)),
    ((4, 17, 3), (4, 16, 3)),
    ((17, 3), (17, 3)),
    ((4, 17, 2), (4, 17, 2)),
    ((2, 4, 17, 3), (2, 4, 17, 3)),
]


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("name", ["mpjpe", "mpjpe_joint", "joint_errors", "mean_absolute_axis"])
def test_errors_of_poses_of_different_shapes_raise(name: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]):
    with pytest.raises(ValueError, match=r"must be \[N, J, 3\].*but got") as raised:
        getattr(metrics, name)(np.zeros(shapes[0]), np.zeros(shapes[1]))
    assert all(str(shape) in str(raised.value) for shape in shapes)


def test_seeds_depend_on_every_key_and_on_nothing_else():
    assert seeds.derive(0, "a", 1) == seeds.derive(0, "a", 1)
    assert len({seeds.derive(*keys) for keys in ((0, "a", 1), (0, "a", 2), (1, "a", 1), (0, "b", 1))}) == 4
    assert seeds.generator(0, "x").random() == seeds.generator(0, "x").random()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "deep" / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), files.atomic(path) as handle:  # noqa: PT012
        handle.write(b"half")
        raise RuntimeError
    assert files.read_json(path, what="test") == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_reading_is_limited_in_size_and_rejects_other_json(tmp_path):
    files.write_text(tmp_path / "bomb.gz", "0" * 10_000)
    with pytest.raises(UserError, match="more than 100 bytes"):
        files.read_bytes(tmp_path / "bomb.gz", what="test", limit=100)
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(UserError, match="expected a JSON object"):
        files.read_json(tmp_path / "a.json", what="test")


def test_unknown_names_suggest_the_nearest():
    assert "did you mean '3dhg'?" in unknown_message("model", "3dgh", ["2dhg-decay", "3dhg"])
