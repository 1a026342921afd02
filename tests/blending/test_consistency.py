"""Members whose test poses don't fit their out-of-fold poses are named; weak but valid members are not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from competition.blending.agreement import culprits
from competition.blending.join import join
from competition.common.errors import RunError, SubmissionError
from competition.common.pose_csv import Poses, read_poses, write_poses
from competition.common.skeleton import MIRROR
from competition.runs.candidates import candidates
from competition.runs.folders import read_valid, write_valid

Change = Callable[[np.ndarray], np.ndarray]
People = tuple[Poses, np.ndarray]


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr("competition.blending.join.log.warning", lines.append)
    return lines


def _noise(shape: tuple[int, ...], seed: int, mm: float) -> np.ndarray:
    noise = mm * np.random.default_rng(seed).standard_normal(shape)
    noise[:, 0] = 0
    return noise


def _write(root: Path, people: People, name: str, seed: int, *, mm: float = 40.0, pull: float = 0.0) -> None:
    """Write a run of two folds whose errors have a standard deviation of `mm`; `pull` draws poses to their mean."""
    true, test = people
    middle = true.pose_mm.mean(axis=0)
    for fold in range(2):
        folder = root / name / f"fold{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        rows = true.id % 2 == fold
        for number, (pose, part) in enumerate(((true.pose_mm[rows], "valid"), (test, "test"))):
            predicted = middle + (1 - pull) * (pose - middle) + _noise(pose.shape, 10 * seed + 2 * fold + number, mm)
            if part == "valid":
                write_valid(folder / "valid_epoch01.npz", true.id[rows], predicted)
            else:
                write_poses(folder / "test_epoch01.csv.gz", np.arange(1, len(test) + 1), predicted)


@pytest.fixture
def runs(tmp_path: Path, people: People) -> Path:
    """Write the runs a, b and c."""
    for seed, name in enumerate("abc"):
        _write(tmp_path, people, name, seed)
    return tmp_path


def _change_test(runs: Path, name: str, change: Change, folds: tuple[int, ...] = (0, 1)) -> None:
    for fold in folds:
        path = runs / name / f"fold{fold}/test_epoch01.csv.gz"
        poses = read_poses(path)
        write_poses(path, poses.id, change(poses.pose_mm))


def _join(runs: Path, people: People, names: str = "abc") -> None:
    chosen = [candidate for candidate in candidates(runs) if candidate.run in names]
    join(chosen, people[0], np.arange(1, len(people[1]) + 1))


def _shuffled(pose: np.ndarray) -> np.ndarray:
    return pose[np.random.default_rng(0).permutation(len(pose))]


def _partly(share: float) -> Change:
    def change(pose: np.ndarray) -> np.ndarray:
        pose = pose.copy()
        rows = np.random.default_rng(0).permutation(len(pose))[: int(share * len(pose))]
        pose[rows] = pose[np.roll(rows, 1)]
        return pose

    return change


WRONG: dict[str, tuple[Change, str]] = {
    "shuffled": (_shuffled, "rows in another order"),
    "rolled": (lambda pose: np.roll(pose, 1, axis=0), "rows in another order"),
    "reversed": (lambda pose: pose[::-1], "rows in another order"),
    "half of it shuffled": (_partly(0.5), "rows in another order"),
    "a quarter of it shuffled": (_partly(0.25), "rows in another order"),
    "depth negated": (lambda pose: pose * [1, 1, -1], "an axis is negated"),
    "mirrored": (lambda pose: pose * [-1, 1, 1], "an axis is negated"),
    "left and right swapped": (lambda pose: pose[:, list(MIRROR)], "left and right are swapped"),
    "seen from behind": (lambda pose: pose * [-1, 1, -1], "they fit with x and z negated"),
    "mirror image": (lambda pose: pose[:, list(MIRROR)] * [-1, 1, 1], "left and right swapped and x negated"),
    "upside down": (lambda pose: pose * [1, -1, -1], "upside down"),
    "y and z exchanged": (lambda pose: pose[..., [0, 2, 1]], "axes are exchanged"),
    "80 percent of the size": (lambda pose: 0.8 * pose, "joints are 0.80 times as far"),
    "arms exchanged with the head": (lambda pose: pose[:, [*range(9), 11, 12, 13, 14, 15, 16, 9, 10]], "the bone from"),
    "much noise": (lambda pose: pose + _noise(pose.shape, 1, 150), "times as long"),
    "the same pose for all": (lambda pose: np.tile(pose[:1], (len(pose), 1, 1)), "vary 0.00 times"),
}


@pytest.mark.parametrize("name", WRONG)
def test_test_poses_that_do_not_fit_are_warned_of(runs: Path, people: People, warned: list[str], name: str):
    change, what = WRONG[name]
    _change_test(runs, "b", change)
    _join(runs, people)
    (line,) = warned
    assert line.startswith("b:1: ")
    assert "b/fold0/test_epoch01.csv.gz" in line
    assert what in line


def test_test_poses_of_another_member_are_warned_of(runs: Path, people: People, warned: list[str]):
    source = runs / "a/fold0/test_epoch01.csv.gz"
    (runs / "b/fold0/test_epoch01.csv.gz").write_bytes(source.read_bytes())
    _join(runs, people)
    (line,) = warned
    assert line.startswith("b:1: the test poses in b/fold0/test_epoch01.csv.gz are those in a/fold0/")


@pytest.mark.parametrize("names", ["abc", "ab", "b"])
def test_a_single_wrong_fold_is_named(runs: Path, people: People, warned: list[str], names: str):
    _change_test(runs, "b", _shuffled, folds=(1,))
    _join(runs, people, names)
    if names == "b":  # of two folds alone, either may be wrong
        assert [line[:5] for line in warned] == ["b:1: "]
    else:
        (line,) = warned
        assert line.startswith("b:1: the test poses in b/fold1/test_epoch01.csv.gz are ")


def test_of_two_members_both_are_named(runs: Path, people: People, warned: list[str]):
    _change_test(runs, "b", _shuffled)
    _join(runs, people, "ab")
    (line,) = warned
    assert line.startswith("a:1 and b:1: ")


IMPLAUSIBLE: dict[str, tuple[Change, str]] = {
    "metres": (lambda pose: pose / 1000, "metres"),
    "centimetres": (lambda pose: pose / 10, "metres"),
    "micrometres": (lambda pose: pose * 1000, "from the root"),
    "camera coordinates": (lambda pose: pose + [100, 200, 4000], "root joint"),
}


@pytest.mark.parametrize("name", IMPLAUSIBLE)
def test_implausible_test_poses_are_rejected(runs: Path, people: People, name: str):
    change, what = IMPLAUSIBLE[name]
    _change_test(runs, "b", change, folds=(1,))
    with pytest.raises(SubmissionError, match=rf"b/fold1/test_epoch01\.csv\.gz: .*{what}"):
        _join(runs, people)


@pytest.mark.parametrize("name", ["metres", "centimetres", "camera coordinates"])
def test_out_of_fold_poses_in_another_unit_or_frame_are_rejected(runs: Path, people: People, name: str):
    change, _ = IMPLAUSIBLE[name]
    for fold in range(2):
        path = runs / f"b/fold{fold}/valid_epoch01.npz"
        poses = read_valid(path)
        write_valid(path, poses.id, change(poses.pose_mm))
    with pytest.raises(RunError, match="b:1: its out-of-fold poses are"):
        _join(runs, people)


def test_shuffled_out_of_fold_poses_are_warned_of(runs: Path, people: People, warned: list[str]):
    for fold in range(2):
        path = runs / f"b/fold{fold}/valid_epoch01.npz"
        poses = read_valid(path)
        write_valid(path, poses.id, _shuffled(poses.pose_mm))
    _join(runs, people)
    (line,) = warned
    assert line.startswith("b:1: ")
    assert "Ids" in line


@pytest.mark.parametrize(
    ("mm", "pull"), [(80, 0), (20, 0.8), (300, 0.9), (0, 1)], ids=["weak", "early", "first epoch", "mean pose"]
)
def test_weak_members_are_not_warned_of(runs: Path, people: People, warned: list[str], mm: float, pull: float):
    _write(runs, people, "d", 7, mm=mm, pull=pull)
    for names in ("abcd", "ad", "d"):
        _join(runs, people, names)
    assert not warned


NUMBERED: dict[str, tuple[Change, str]] = {  # of Ids of fold 0, which are the even ones
    "one less": (lambda ids: ids - 1, "with Id + 1"),
    "one more": (lambda ids: ids + 1, "with Id - 1"),
    "counted from 1": (lambda ids: ids // 2, "rows of fold 0 from 1"),
    "counted from 2": (lambda ids: ids // 2 + 1, ""),
}


@pytest.mark.parametrize("name", NUMBERED)
def test_ids_with_another_numbering_are_warned_of(tmp_path: Path, people: People, warned: list[str], name: str):
    change, what = NUMBERED[name]
    _write(tmp_path, people, "b", 1)
    shutil.rmtree(tmp_path / "b/fold1")
    path = tmp_path / "b/fold0/valid_epoch01.npz"
    poses = read_valid(path)
    kept = change(poses.id) <= 400
    write_valid(path, change(poses.id)[kept], poses.pose_mm[kept])
    join(candidates(tmp_path), people[0], np.arange(1, 241), fold_of_row=people[0].id % 2)
    assert [what in line and line.startswith("b:1: ") for line in warned] == [True] * (what != "")


def test_culprits_explain_all_broken_pairs():
    assert culprits({(0, 1): 0.1}, "ab") == [(0, 1)]
    assert culprits({(0, 1): 0.1, (1, 2): 0.2}, "abc") == [(1,)]
    assert culprits({(0, 1): 0.1, (0, 2): 0.1, (1, 2): 0.1, (0, 3): 0.1, (1, 3): 0.1}, "abcd") in (
        [(0,), (1,)],
        [(1,), (0,)],
    )
    assert culprits({(0, 2): 0.1, (0, 4): 0.1, (1, 3): 0.2}, "aabbc") == [(0,), (1,)]  # both files of the first member
    assert culprits({}, "ab") == []
