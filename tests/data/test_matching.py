"""Labels that don't fit together, or aren't the competition's skeleton, are rejected; real files' variants are not."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from competition.common.errors import DataError
from competition.common.skeleton import CAMERAS, MIRROR, TRAIN_SUBJECTS
from competition.data.anatomy import OTHER_ORDERS, backward_share, knee_bend_mm
from competition.data.labels import read_labels
from competition.data.matching import find_pose_mismatches
from competition.data.projection import fit_cameras
from competition.synthetic.generate import draw_take
from competition.synthetic.plan import Shot, TakePlan
from competition.synthetic.postures import FLOOR, POSTURES
from tests.data.damage import Damage, change_labels, change_lines, check_all
from tests.helpers import TINY

Change = Callable[[np.ndarray], np.ndarray]
HEAD = 10


def both(change2d: Change, change3d: Change) -> Damage:
    def damage(root: Path) -> None:
        change_labels("pose2d", change2d)(root)
        change_labels("pose3d", change3d)(root)

    return damage


def as_(order: Sequence[int]) -> Change:
    """Put joint order[i] at position i, a point near the head where it is unknown, and the root at joint 0."""

    def change(array: np.ndarray) -> np.ndarray:
        other = array[:, list(order)]
        for position in np.flatnonzero(np.array(order) < 0):
            other[:, position] = array[:, HEAD] + position * (1 if array.shape[2] == 2 else 9)
        return other - other[:, :1] if array.shape[2] == 3 else other

    return change


def exchanged(*joints: int) -> list[int]:
    return [MIRROR[joint] if joint in joints else joint for joint in range(17)]


def times(*factors: float) -> Change:
    return lambda array: array * np.float32(factors)


def rows(order: Callable[[int], Sequence[int]]) -> Change:
    return lambda array: array[list(order(len(array)))]


ARMS, LEGS = (11, 12, 13, 14, 15, 16), (1, 2, 3, 4, 5, 6)
SKELETON = "isn't the competition's skeleton"
MIXED = rows(lambda n: [*range(n - 5), *np.roll(range(n - 5, n), 1)])
BAD: dict[str, tuple[Damage, str]] = {
    "mirrored z": (change_labels("pose3d", times(1, 1, -1)), r"knees bend backwards in \d+%.*: multiply z by -1$"),
    "mirrored z of half of the rows": (
        change_labels("pose3d", lambda a: np.where(np.arange(40)[:, None, None] % 2, a, times(1, 1, -1)(a))),
        r"camera in 50% of the rows.*: multiply z of these rows by -1",
    ),
    "mirrored z, legs exchanged": (
        both(as_(exchanged(*LEGS)), lambda a: as_(exchanged(*LEGS))(a) * np.float32([1, 1, -1])),
        "multiply z by -1$",
    ),
    "y upwards, z backwards": (change_labels("pose3d", times(1, -1, -1)), r"expected y down: multiply y and z by -1$"),
    "y upwards, z away": (change_labels("pose3d", times(1, -1, 1)), r"expected y down: multiply y by -1$"),
    "x to the left": (change_labels("pose3d", times(-1, 1, 1)), r"expected x to the right: multiply x by -1$"),
    "all axes": (change_labels("pose3d", times(-1, -1, -1)), r"multiply x and y and z by -1"),
    "z upwards": (change_labels("pose3d", lambda a: a[:, :, [0, 2, 1]] * np.float32([1, 1, -1])), "y is -z of pose3d"),
    "legs of 2D": (change_labels("pose2d", as_(exchanged(*LEGS))), "left and right legs are exchanged"),
    "legs of 3D": (change_labels("pose3d", as_(exchanged(*LEGS))), "left and right legs are exchanged"),
    "arms of 2D": (change_labels("pose2d", as_(exchanged(*ARMS))), "left and right arms are exchanged"),
    "arms of 3D": (change_labels("pose3d", as_(exchanged(*ARMS))), "left and right arms are exchanged"),
    "both of 2D": (change_labels("pose2d", as_(MIRROR)), "left and right are exchanged"),
    "arms of both": (both(*[as_(exchanged(*ARMS))] * 2), "joints 11-13 aren't the left arm"),
    "wrists of 2D": (change_labels("pose2d", as_(exchanged(13, 16))), "LWrist of pose2d is RWrist of pose3d"),
    "2D as MPII": (
        change_labels("pose2d", as_((*OTHER_ORDERS["MPII"][:-1], 7))),
        "doesn't match|name the joints differently: Hip of pose2d is RFoot of pose3d",
    ),
    "knees": (both(*[as_(exchanged(2, 5))] * 2), f"{SKELETON}: RKnee and LKnee"),
    "wrists": (both(*[as_(exchanged(13, 16))] * 2), SKELETON),
    "arms and legs": (both(*[as_((0, *ARMS, 7, 8, 9, 10, *LEGS))] * 2), SKELETON),
    "feet first": (both(*[as_((0, 3, 2, 1, 6, 5, 4, *range(7, 17)))] * 2), SKELETON),
    "head and neck": (both(*[as_((*range(9), 10, 9, *range(11, 17)))] * 2), SKELETON),
    "thorax and spine": (both(*[as_((*range(7), 8, 7, *range(9, 17)))] * 2), SKELETON),
    "thorax instead of neck": (both(*[as_((*range(9), 8, *range(10, 17)))] * 2), "Thorax and Neck/Nose are one point"),
    "from below": (both(*[as_(range(16, -1, -1))] * 2), SKELETON),
    "rows of 2D": (change_labels("pose2d", MIXED), r"pose3d don't match pose2d \(\d+, the first is Id 3[6-9]\)"),
    "pixels of 64": (change_labels("pose2d", times(0.25, 0.25)), r"multiply pose2d by 256/\(.*, about 64 px\)"),
    "pixels of 224": (change_labels("pose2d", times(0.875, 0.875)), r"multiply pose2d by 256/\(.*about 22[345] px\)"),
    "pixels of 288": (change_labels("pose2d", times(1.125, 1.125)), "of about 288 px"),
    "pixels of 512": (change_labels("pose2d", times(2, 2)), r"outside the image.*256/\(.*about 51[123] px\)"),
    "pixels of 0 to 1": (change_labels("pose2d", times(1 / 256, 1 / 256)), r"than 8 px.*: multiply pose2d by 256:"),
} | {
    f"order of {name}": (both(as_(order), as_(order)), rf"{SKELETON}.*in the order of {re.escape(name)}\?")
    for name, order in OTHER_ORDERS.items()
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_labels_that_do_not_fit_together_are_rejected(own_data: Path, name: str):
    damage, message = BAD[name]
    damage(own_data)
    with pytest.raises(DataError) as error:
        read_labels(own_data)
    assert re.search(message.removesuffix("$"), f"{error.value.what}: {error.value.fix}"), error.value
    problems = [str(problem) for problem in check_all(own_data).problems]
    assert any(re.search(message, problem) for problem in problems), problems


def test_another_root_is_named(own_data: Path):
    change_labels("pose3d", lambda a: a - a[:, 8:9])(own_data)
    problems = [str(problem) for problem in check_all(own_data).problems]
    assert any("joint 8 is at (0, 0, 0)" in problem for problem in problems), problems


GENERATOR = np.random.default_rng(0)
GOOD: dict[str, Damage] = {
    "legs exchanged in both": both(*[as_(exchanged(*LEGS))] * 2),
    "whole pixels": change_labels("pose2d", np.round),
    "noisy pixels": change_labels("pose2d", lambda a: a + GENERATOR.normal(0, 3, a.shape).astype(np.float32)),
    "poses of another size": change_labels("pose3d", lambda a: a * np.float32(0.8)),
    "one camera": lambda root: _keep(root, lambda name: "54138969" in name),
    "one subject": lambda root: _keep(root, lambda name: name.startswith("S5_")),
    "one instant": lambda root: _keep(root, lambda name: name == _first(root)),
    "on the floor": lambda root: _replace_by_floor_takes(root),
    "doubles": change_labels("pose3d", lambda a: a.astype(np.float64)),
}


def _first(root: Path) -> str:
    return (root / "annot/train_images.txt").read_text().split()[0]


def _replace_by_floor_takes(root: Path) -> None:
    """Replace the labels by those of people who sit or lie on the floor, under the images' new names."""
    shots = (Shot(frame=60, cameras=CAMERAS), Shot(frame=180, cameras=CAMERAS))
    images = (root / "annot/train_images.txt").read_text().split()
    takes = []
    with patch.dict(POSTURES, SittingDown={FLOOR: 1.0}):
        for subject in TRAIN_SUBJECTS:
            plan = TakePlan(subject=subject, action="SittingDown", part="1", shots=shots)
            for _, _, name in plan.images():
                (root / "images" / images.pop()).rename(root / "images" / name)  # not drawn again
            takes.append(draw_take(root, 1, plan))
    change_lines(lambda _: [name for take in takes for name in take.names])(root)
    both(
        lambda _: np.concatenate([take.pose_px for take in takes]).astype(np.float32),
        lambda _: np.concatenate([take.pose_mm for take in takes]).astype(np.float32),
    )(root)


def _keep(root: Path, wanted: Callable[[str], bool]) -> None:
    mask = [wanted(name) for name in (root / "annot/train_images.txt").read_text().split()]
    both(lambda a: a[mask], lambda a: a[mask])(root)
    change_lines(lambda lines: [line for line, keep in zip(lines, mask, strict=True) if keep])(root)


@pytest.mark.parametrize("name", GOOD)
def test_variants_of_valid_labels_pass_without_a_warning(own_data: Path, name: str):
    GOOD[name](own_data)
    found = check_all(own_data)
    assert not found.problems
    assert not found.warnings
    read_labels(own_data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a + 20, r"middle of the joints' box is at \(14[678], 14[678]\) px, expected \(127.5, 127.5\)"),
        (lambda a: 127.5 + 0.6 * (a - 127.5), r"box in pose2d has 13\d px, expected about 228"),
        (rows(lambda n: [1, 0, *range(2, n)]), r"pose3d that doesn't match pose2d \([12], the first is Id [12]"),
    ],
)  # fmt: skip
def test_check_warns_about_single_rows_and_other_crops(own_data: Path, change: Change, message: str):
    change_labels("pose2d", change)(own_data)
    found = check_all(own_data)
    assert not found.problems
    (warning,) = found.warnings
    assert re.search(message, str(warning)), warning


def test_knees_bend_towards_the_front_of_the_shoulders(data: Path):
    pose = np.zeros((1, 17, 3), np.float32)  # facing the camera, left shoulder on the right side of the image
    pose[0, 8], pose[0, 11], pose[0, 14] = (0, -500, 0), (150, -500, 0), (-150, -500, 0)
    for knee, x in ((2, 100), (5, -100)):
        pose[0, knee - 1 : knee + 2] = (x, 0, 0), (x, 400, -80), (x, 800, 0)
    np.testing.assert_allclose(knee_bend_mm(pose), [160])
    np.testing.assert_allclose(knee_bend_mm(pose[:, exchanged(*LEGS)]), [160])
    np.testing.assert_allclose(knee_bend_mm(pose * np.float32([1, 1, -1])), [-160])
    assert backward_share(pose) is None
    assert backward_share(read_labels(data).pose_mm) < 0.1


def test_knees_of_people_who_bend_over_are_not_judged(data: Path):
    upright = read_labels(data).pose_mm
    lying = upright[..., [0, 2, 1]] * np.float32([1, 1, -1])  # the trunk is level
    assert backward_share(np.concatenate([upright, lying])) == backward_share(upright)
    assert backward_share(lying) is None


def test_rows_are_judged_wherever_they_are(data: Path, monkeypatch: pytest.MonkeyPatch):
    """Of the rows of interleaved cameras, every second one would be of a single camera."""
    labels = read_labels(data)
    pose2d_px, pose_mm = np.tile(labels.pose2d_px, (8, 1, 1)), np.tile(labels.pose_mm, (8, 1, 1))
    pose2d_px[1::8] = np.roll(pose2d_px[1::8], 1, axis=0)
    monkeypatch.setattr("competition.data.matching.SAMPLE", 160)
    (fault,) = find_pose_mismatches(data, pose2d_px, pose_mm)
    assert "rows of pose3d don't match pose2d" in fault.what
    assert len(fault.places) > 30


def test_doubts_about_labels_are_printed_before_training(
    own_data: Path, command: Callable[..., int], folds: None, capsys
):
    change_labels("pose2d", lambda a: 127.5 + 0.8 * (a - 127.5))(own_data)
    assert command("train", *TINY, "--epochs", "1", "--fold", "0", data=own_data) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning:")]
    assert ["the joints' box" in line for line in lines] == [True]


def test_a_camera_is_fitted_to_each_row(data: Path):
    labels = read_labels(data)
    fit = fit_cameras(labels.pose2d_px, labels.pose_mm)
    assert fit.error.max() < 1e-3
    assert ((fit.root_depth_m > 3) & (fit.root_depth_m < 7)).all()
    assert not fit.mismatches.any()
    assert fit_cameras(labels.pose2d_px[::-1], labels.pose_mm).mismatches.mean() > 0.8
    orthographic = (labels.pose_mm[..., :2] / 8 + 128).astype(np.float32)
    assert fit_cameras(orthographic, labels.pose_mm).error.max() < 1e-3


def test_empty_labels_are_reported_and_not_compared(own_data: Path):
    for name in ("pose2d", "pose3d"):
        change_labels(name, lambda array: array[:0])(own_data)
    (own_data / "annot/train_images.txt").unlink()
    assert check_all(own_data).problems
