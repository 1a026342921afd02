"""Members whose test poses don't fit their out-of-fold poses are named; weak but valid members are not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from competition.bench.simulator import simulate
from competition.blending.agreement import changed, culprits
from competition.blending.consistency import PredictedFile, _partners, inconsistencies
from competition.blending.csv_blend import differences
from competition.blending.join import join
from competition.blending.out_of_fold_faults import find_fault
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


def _write(
    root: Path, people: People, name: str, seed: int, *, mm: float = 40.0, pull: float = 0.0, epoch: int = 1
) -> None:
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
                write_valid(folder / f"valid_epoch{epoch:02d}.npz", true.id[rows], predicted)
            else:
                write_poses(folder / f"test_epoch{epoch:02d}.csv.gz", np.arange(1, len(test) + 1), predicted)


@pytest.fixture
def runs(tmp_path: Path, people: People) -> Path:
    """Write the runs a, b and c."""
    for seed, name in enumerate("abc"):
        _write(tmp_path, people, name, seed)
    return tmp_path


def _change_test(runs: Path, name: str, change: Change, folds: tuple[int, ...] = (0, 1), epoch: int = 1) -> None:
    for fold in folds:
        path = runs / name / f"fold{fold}/test_epoch{epoch:02d}.csv.gz"
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
    "shuffled": (_shuffled, "rows are in another order"),
    "rolled": (lambda pose: np.roll(pose, 1, axis=0), "rows are in another order"),
    "reversed": (lambda pose: pose[::-1], "rows are in another order"),
    "half of it shuffled": (_partly(0.5), "rows are in another order"),
    "a quarter of it shuffled": (_partly(0.25), "rows are in another order"),
    "depth negated": (lambda pose: pose * [1, 1, -1], "an axis is negated"),
    "mirrored": (lambda pose: pose * [-1, 1, 1], "an axis is negated"),
    "left and right swapped": (lambda pose: pose[:, list(MIRROR)], "left and right are swapped"),
    "seen from behind": (lambda pose: pose * [-1, 1, -1], "they fit with x and z negated"),
    "mirror image": (lambda pose: pose[:, list(MIRROR)] * [-1, 1, 1], "left and right swapped and x negated"),
    "upside down": (lambda pose: pose * [1, -1, -1], "upside down"),
    "y and z exchanged": (lambda pose: pose[..., [0, 2, 1]], "axes are exchanged"),
    "80 percent of the size": (lambda pose: 0.8 * pose, "joints are 0.80 times as far"),
    "arms exchanged with the head": (lambda pose: pose[:, [*range(9), 11, 12, 13, 14, 15, 16, 9, 10]], "the bone from"),
    "much noise": (lambda pose: pose + _noise(pose.shape, 1, 150), "from those of other members"),
    "the same pose for all": (lambda pose: np.tile(pose[:1], (len(pose), 1, 1)), "hardly varies"),
}


@pytest.mark.parametrize("name", WRONG)
def test_test_poses_that_do_not_fit_are_warned_of(runs: Path, people: People, warned: list[str], name: str):
    change, what = WRONG[name]
    _change_test(runs, "b", change)
    _join(runs, people)
    (line,) = warned
    assert line.startswith("b: ")
    assert "b/fold0/test_epoch01.csv.gz" in line
    assert what in line


def test_test_poses_of_another_member_are_warned_of(runs: Path, people: People, warned: list[str]):
    source = runs / "a/fold0/test_epoch01.csv.gz"
    (runs / "b/fold0/test_epoch01.csv.gz").write_bytes(source.read_bytes())
    _join(runs, people)
    (line,) = warned
    assert line.startswith("b: the test poses in b/fold0/test_epoch01.csv.gz are those in a/fold0/")


@pytest.mark.parametrize("names", ["abc", "ab", "b"])
def test_a_single_wrong_fold_is_named(runs: Path, people: People, warned: list[str], names: str):
    _change_test(runs, "b", _shuffled, folds=(1,))
    _join(runs, people, names)
    if names == "b":  # of two folds alone, either may be wrong
        assert [line[:3] for line in warned] == ["b: "]
    else:
        (line,) = warned
        assert line.startswith("b: the test poses in b/fold1/test_epoch01.csv.gz are ")


def test_of_two_members_both_are_named(runs: Path, people: People, warned: list[str]):
    _change_test(runs, "b", _shuffled)
    _join(runs, people, "ab")
    (line,) = warned
    assert line.startswith("a and b: ")


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
    with pytest.raises(RunError, match=r"b/fold0/valid_epoch01\.npz: the poses are"):
        _join(runs, people)


def test_shuffled_out_of_fold_poses_are_warned_of(runs: Path, people: People, warned: list[str]):
    for fold in range(2):
        path = runs / f"b/fold{fold}/valid_epoch01.npz"
        poses = read_valid(path)
        write_valid(path, poses.id, _shuffled(poses.pose_mm))
    _join(runs, people)
    (line,) = warned
    assert line.startswith("b: ")
    assert "Ids" in line


@pytest.mark.parametrize(
    ("mm", "pull"), [(80, 0), (20, 0.8), (300, 0.9), (0, 1)], ids=["weak", "early", "first epoch", "mean pose"]
)
def test_weak_members_are_not_warned_of(runs: Path, people: People, warned: list[str], mm: float, pull: float):
    _write(runs, people, "d", 7, mm=mm, pull=pull)
    for names in ("abcd", "ad", "d"):
        _join(runs, people, names)
    assert not warned


@pytest.mark.parametrize("draw", [*range(10), *(pytest.param(k, marks=pytest.mark.slow) for k in range(10, 200))])
def test_simulated_members_are_not_warned_of(people: People, draw: int):
    """Members of one to five folds; some have twice the others' error, some draw poses to their mean."""
    random = np.random.default_rng(draw)
    true, test_mm = people[0].pose_mm, people[1][: random.integers(12, 240)]
    members, folds = int(random.integers(1, 8)), int(random.integers(1, 6))
    levels = random.uniform(0.8, 1.4, members) * np.where(random.random(members) < 0.3, 2, 1)
    pulls = np.where(random.random(members) < 0.6, 0, random.uniform(0.1, 0.97, members))
    rows = len(true) + folds * len(test_mm)
    errors = simulate(rows, members=members, seed=draw, levels=levels.tolist()).residual.transpose(2, 3, 0, 1)
    fold = random.integers(0, folds, len(true))
    files, means = [], []
    for member, (error, pull) in enumerate(zip(errors, pulls, strict=True)):
        middle = true.mean(axis=0)
        poses = Poses(people[0].id, middle + (1 - pull) * (true - middle) + error[: len(true)])
        for k in range(folds):
            part = Poses(poses.id[fold == k], poses.pose_mm[fold == k])
            assert not find_fault("member", part, people[0], fold=k, fold_of_row=fold)
        tests = [
            (middle + (1 - pull) * (test_mm - middle) + part).astype(np.float32)
            for part in np.split(error[len(true) :], folds)
        ]
        means.append(np.mean(tests, axis=0))
        files += [
            PredictedFile(
                run=f"member{member}",
                member=f"member{member}:1",
                name=f"member{member}/fold{k}/test_epoch01.csv.gz",
                held_out=fold == k,
                out_of_fold_mm=poses.pose_mm.astype(np.float32),
                test_mm=test,
            )
            for k, test in enumerate(tests)
        ]
    assert inconsistencies(files, true.astype(np.float32)) == []
    assert differences([str(member) for member in range(members)], np.array(means, np.float32)) == []


@pytest.mark.parametrize("factor", [1000, 100, 25.4, 10, 0.001])
def test_one_out_of_fold_file_in_another_unit_is_rejected(runs: Path, people: People, factor: float):
    path = runs / "b/fold1/valid_epoch01.npz"
    poses = read_valid(path)
    write_valid(path, poses.id, poses.pose_mm / factor)
    with pytest.raises(RunError, match=r"b/fold1/valid_epoch01\.npz: the poses are in "):
        _join(runs, people)


@pytest.mark.parametrize("change", ["z negated", "left and right swapped", "y and z exchanged"])
def test_a_run_whose_poses_are_all_changed_is_warned_of(runs: Path, people: People, warned: list[str], change: str):
    for fold in range(2):
        path = runs / f"b/fold{fold}/valid_epoch01.npz"
        poses = read_valid(path)
        write_valid(path, poses.id, changed(poses.pose_mm, change))
    _change_test(runs, "b", lambda pose: changed(pose, change))
    _join(runs, people)
    (line,) = warned
    assert line.startswith("b:1: b/fold0/valid_epoch01.npz: ")
    assert change in line


def test_epochs_of_a_wrong_run_are_named_once(tmp_path: Path, people: People, warned: list[str]):
    for seed, name in enumerate("abc"):
        for epoch in range(1, 9):
            _write(tmp_path, people, name, 20 * seed + epoch, epoch=epoch)
            if name == "b":
                _change_test(tmp_path, name, _shuffled, epoch=epoch)
    _join(tmp_path, people)
    (line,) = warned
    assert line.startswith("b: the test poses in b/fold0/test_epoch01.csv.gz (and 15 more) are ")


def test_a_copy_with_three_decimals_is_named(runs: Path, people: People, warned: list[str]):
    for fold in range(2):
        poses = read_valid(runs / f"a/fold{fold}/valid_epoch01.npz")
        folder = runs / f"d/fold{fold}"
        folder.mkdir(parents=True)
        write_poses(folder / "valid_epoch01.csv.gz", poses.id, poses.pose_mm)
        shutil.copy(runs / f"a/fold{fold}/test_epoch01.csv.gz", folder)
    _join(runs, people, "abcd")
    assert warned == ["d:1 is a copy of a:1: they share one weight"]


OF_FILES: dict[str, tuple[Change, str]] = {
    "shuffled": (_shuffled, "b: these poses are unrelated to those of the other files"),
    "depth negated": (
        lambda pose: pose * [1, 1, -1],
        "b: these poses fit those of the other files only with z neg",
    ),
    "x and y exchanged": (
        lambda pose: pose[..., [1, 0, 2]],
        "b: these poses fit those of the other files only with x",
    ),
    "pixels": (lambda pose: 0.15 * pose, "b: joints are "),
    "a copy": (lambda pose: pose, "b is a copy of a"),
}


@pytest.mark.parametrize("name", OF_FILES)
def test_files_that_do_not_fit_the_others_are_named(people: People, name: str):
    change, what = OF_FILES[name]
    test = people[1]
    a, b, c = (test + _noise(test.shape, seed, 40) for seed in range(3))
    (line,) = differences(["a", "b", "c"], np.array([a, change(a if name == "a copy" else b), c], np.float32))
    assert line.startswith(what)


def test_the_poses_of_an_untrained_network_are_not_called_unrelated(people: People):
    test = people[1]
    files = [test + _noise(test.shape, seed, 40) for seed in range(2)]
    files.append(test.mean(axis=0) + _noise(test.shape, 2, 1) * test.std(axis=0))  # varies as much, but joint by joint
    assert differences(["a", "b", "c"], np.array(files, np.float32)) == []


def test_constant_files_are_not_compared(people: People):
    random = np.random.default_rng(0)
    moving = people[1].astype(np.float32)
    constant = [np.broadcast_to(moving.mean(axis=0) + random.normal(0, 20, (17, 3)), moving.shape) for _ in range(3)]
    assert differences(["a", "b", "c", "d"], np.array([*constant, moving], np.float32)) == []
    assert differences(["a", "b", "c"], np.array(constant, np.float32)) == []


NUMBERED: dict[str, tuple[Change, str]] = {  # of Ids of fold 0, which are the even ones
    "one less": (lambda ids: ids - 1, "with Id + 1"),
    "one more": (lambda ids: ids + 1, "with Id - 1"),
    "counted from 1": (lambda ids: ids // 2, "if Ids count the rows of fold 0"),
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
    assert [what in line and line.startswith("b:1: b/fold0/valid_epoch01.npz: ") for line in warned] == [True] * (
        what != ""
    )


def test_members_are_compared_with_those_of_other_runs():
    run_of = {f"{run}:{epoch}": run for run in "abc" for epoch in range(20)}
    pairs = _partners(run_of)
    assert all(run_of[one] != run_of[other] for one, other in pairs)
    assert min(sum(member in pair for pair in pairs) for member in run_of) >= 8
    assert len(_partners({f"a:{epoch}": "a" for epoch in range(3)})) == 3  # of a single run, its epochs


def test_culprits_explain_all_broken_pairs():
    assert culprits({(0, 1): 0.1}, "ab") == [(0, 1)]
    assert culprits({(0, 1): 0.1, (1, 2): 0.2}, "abc") == [(1,)]
    assert culprits({(0, 1): 0.1, (0, 2): 0.1, (1, 2): 0.1, (0, 3): 0.1, (1, 3): 0.1}, "abcd") in (
        [(0,), (1,)],
        [(1,), (0,)],
    )
    assert culprits({(0, 2): 0.1, (0, 4): 0.1, (1, 3): 0.2}, "aabbc") == [(0,), (1,)]  # both files of the first member
    assert culprits({}, "ab") == []
