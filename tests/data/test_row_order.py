"""An image list in another order than the labels is found by the cameras of one instant, or by neighbouring frames."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from competition.common.arrays import Float32
from competition.common.errors import DataError
from competition.data.labels import read_labels
from competition.data.names import parse_name
from competition.data.row_order import OrderFacts, find_order_faults, order_facts
from tests.data.damage import change_lines, check_all

Order = Callable[[list[str]], list[int]]
CAMERAS = ("54138969", "55011271")


def film(data: Path, *, step: int = 10, cameras: int = 1, frames: int = 60, gap: int = 2) -> tuple[list[str], Float32]:
    """Return names and poses [N, 17, 3] of three sequences that move from pose to pose in `step` frames."""
    labels = read_labels(data).pose_mm
    generator = np.random.default_rng(0)
    names, poses = [], []
    for sequence in ("S1_Walking", "S1_Photo_1", "S5_Walking"):
        stops = labels[generator.permutation(len(labels))[: frames // step + 2]]
        for camera in CAMERAS[:cameras]:
            turn = np.eye(3) if camera == CAMERAS[0] else np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
            for frame in range(frames):
                part = frame % step / step
                names.append(f"{sequence}.{camera}_{frame * gap:06d}.jpg")
                poses.append(((1 - part) * stops[frame // step] + part * stops[frame // step + 1]) @ turn)
    return names, np.array(poses, np.float32)


def within(key: Callable[[str], object]) -> Order:
    """Shuffle the rows with the same key."""

    def order(names: list[str]) -> list[int]:
        keys = [str(key(name)) for name in names]
        rows, generator = np.arange(len(names)), np.random.default_rng(2)
        for one in sorted(set(keys)):
            places = np.flatnonzero(np.array(keys) == one)
            rows[places] = generator.permutation(places)
        return rows.tolist()

    return order


def eighth(names: list[str]) -> list[int]:
    rows = np.arange(len(names))
    places = np.random.default_rng(1).choice(len(rows), len(rows) // 8, replace=False)
    rows[places] = np.roll(places, 1)
    return rows.tolist()


ORDERS: dict[str, Order] = {
    "all": within(lambda name: 0),
    "moved by one": lambda names: [*range(1, len(names)), 0],
    "sorted by frame": lambda names: sorted(range(len(names)), key=lambda row: names[row].split("_")[-1]),
    "within a subject": within(lambda name: name.split("_")[0]),
    "within a subject and camera": within(lambda name: (name.split("_")[0], name.split(".")[1].split("_")[0])),
    "an eighth": eighth,
    "two lines": lambda names: [len(names) - 1, *range(1, len(names) - 1), 0],
}


def facts_of(names: list[str], pose_mm: Float32) -> OrderFacts:
    return order_facts([parse_name(name) for name in names], pose_mm)


@pytest.mark.parametrize("name", ["all", "moved by one", "within a subject", "an eighth", "two lines"])
def test_a_list_in_another_order_is_rejected_by_the_cameras(own_data: Path, name: str):
    change_lines(lambda lines: [lines[row] for row in ORDERS[name](lines)])(own_data)
    with pytest.raises(DataError, match=r"train_images.txt: in another order than train\.h5: cameras .* Id \d+ S\d"):
        read_labels(own_data)
    problems = check_all(own_data).problems
    assert ["in another order than train.h5" in problem.what for problem in problems] == [True]


@pytest.mark.parametrize("name", [name for name in ORDERS if name not in ("moved by one", "two lines")])
@pytest.mark.parametrize("options", [{}, {"cameras": 2}, {"cameras": 2, "gap": 50}])
def test_a_film_in_another_order_is_rejected(data: Path, name: str, options: dict[str, int]):
    names, pose_mm = film(data, **options)
    facts = facts_of(names, pose_mm[ORDERS[name](names)])
    problems, _ = find_order_faults(data, names, facts)
    assert [problem.what.split(":")[0] for problem in problems] == ["in another order than train.h5"]


@pytest.mark.parametrize("options", [{}, {"step": 4}, {"step": 6, "gap": 5}, {"gap": 50}, {"cameras": 2}, {"step": 20}])
def test_a_film_in_order_passes(data: Path, options: dict[str, int]):
    names, pose_mm = film(data, **options)
    facts = facts_of(names, pose_mm)
    assert find_order_faults(data, names, facts) == ([], [])
    assert (facts.neighbours > 0) == (options.get("gap") != 50)
    assert facts.instants == (180 if "cameras" in options else 0)


def test_cameras_that_agree_confirm_a_list_whose_frames_are_far_apart(data: Path):
    names, pose_mm = film(data, step=1, cameras=2, frames=30)  # frames that were numbered anew
    assert find_order_faults(data, names, facts_of(names, pose_mm)) == ([], [])
    alone = [row for row, name in enumerate(names) if CAMERAS[0] in name]
    problems, _ = find_order_faults(data, names, facts_of([names[row] for row in alone], pose_mm[alone]))
    assert "change between neighbouring frames" in problems[0].what


def test_cameras_that_are_not_synchronous_are_only_a_warning(data: Path):
    names, pose_mm = film(data, cameras=2)
    late = [name for name in names if CAMERAS[1] in name]
    rows = [row if CAMERAS[0] in name else max(row - 7, names.index(late[0])) for row, name in enumerate(names)]
    problems, warnings = find_order_faults(data, names, facts_of(names, pose_mm[rows]))
    assert not problems
    assert "cameras of one instant have different poses" in warnings[0].what


def test_one_wrong_instant_is_only_a_warning(own_data: Path):
    labels = read_labels(own_data)
    pose_mm = labels.pose_mm.copy()
    pose_mm[3] *= 1.1
    problems, warnings = find_order_faults(own_data, labels.images, facts_of(labels.images, pose_mm))
    assert not problems
    assert len(warnings[0].places) == 1


def test_check_reports_that_nothing_verifies_the_order(own_data: Path, command: Callable[..., int], capsys):
    assert check_all(own_data).labels.instants == 10
    assert command("check", data=own_data) == 0
    assert "10 instants seen by several cameras" in capsys.readouterr().out
    shutil.copytree(own_data / "images", own_data / "copies")
    for number, line in enumerate((own_data / "annot/train_images.txt").read_text().split()):
        (own_data / "images" / line).rename(own_data / "images" / f"{number:06d}.jpg")
    change_lines(lambda lines: [f"{number:06d}.jpg" for number in range(len(lines))])(own_data)
    assert command("check", data=own_data) == 0
    assert "can't be verified" in capsys.readouterr().out
