"""Rows of several folds that show one instant are found by the distances between joints, whatever their names are."""

from pathlib import Path

import numpy as np
import pytest

from competition.data.check import check
from competition.data.leaks import INSTANT, MOST_VIEWS, SAME_MM, split_instants
from tests.data.damage import change_lines
from tests.helpers import Command, N

CAMERAS = 4


def _rotations(count: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]


def _views(instants: int, cameras: int = CAMERAS) -> np.ndarray:
    """Return poses [instants * cameras, 17, 3] in mm; the views of an instant follow each other."""
    rng = np.random.default_rng(0)
    pose_mm = rng.normal(0, 300, (instants, 17, 3))
    pose_mm -= pose_mm[:, :1]
    return np.einsum("nij,nkj->nki", _rotations(instants * cameras, rng), np.repeat(pose_mm, cameras, axis=0))


@pytest.mark.parametrize("decimals", [2, 3, None])
def test_views_of_an_instant_in_several_folds_are_found(decimals: int | None):
    pose_mm = _views(3000).astype(np.float32)
    pose_mm = pose_mm if decimals is None else pose_mm.round(decimals)
    fold = np.random.default_rng(1).integers(-1, 2, len(pose_mm))
    by_instant = fold.reshape(-1, CAMERAS)
    expected = ((by_instant.min(axis=1) != by_instant.max(axis=1))[:, None] & (by_instant >= 0)).ravel()
    other = split_instants(pose_mm, fold)
    found = np.flatnonzero(other >= 0)
    assert len(found) > 0.999 * expected.sum()
    assert expected[found].all()
    assert (other[found] // CAMERAS == found // CAMERAS).all()
    assert (fold[other[found]] != fold[found]).all()


def test_instants_within_a_fold_are_no_leak():
    assert (split_instants(_views(50), np.repeat(np.arange(50) % 5, CAMERAS)) == -1).all()


@pytest.mark.parametrize(("change_mm", "leaks"), [(SAME_MM / 4, True), (SAME_MM * 4, False)])
def test_another_pose_is_not_the_same_instant(change_mm: float, leaks: bool):
    pose_mm = _views(50)
    pose_mm[1::CAMERAS, 13] *= 1 + change_mm / np.linalg.norm(pose_mm[1::CAMERAS, 13], axis=1, keepdims=True)
    fold = np.tile([0, 1, 0, 0], 50)
    assert (split_instants(pose_mm, fold)[1::CAMERAS] >= 0).all() == leaks


def test_a_placeholder_pose_is_not_an_instant():
    for copies, leaks in ((MOST_VIEWS, True), (MOST_VIEWS + 1, False)):
        pose_mm = np.concatenate([np.tile(_views(1, 1), (copies, 1, 1)), _views(5)[CAMERAS:]])
        assert (split_instants(pose_mm, np.arange(len(pose_mm)) % 2)[:copies] >= 0).all() == leaks


# new names of the rows: strategy, whether instants are split, and the advice; four rows in succession show an instant
RENAMED = {
    "as they are": ("{name}", "subject", ""),
    "the camera in place of the subject": ("S{camera}_Eating_{instant}.1_{row}.jpg", "subject", "like S1_Directions"),
    "the camera in place of the take": ("S{subject}_Eating_{camera}.1_{row}.jpg", "sequence", "--strategy subject"),
    "an unknown scheme": ("camera{camera}x_{row}.jpg", "sequence", "like S1_Directions"),
    "preprocessed": ("s_0{subject}_act_02_subact_{instant}_ca_0{camera}_{row}.jpg", "subject", ""),
    "preprocessed, by take": ("s_0{subject}_act_02_subact_{instant}_ca_0{camera}_{row}.jpg", "sequence", ""),
    "MPI-INF-3DHP": ("S{subject}_Seq1_video_{camera}_{row}.jpg", "subject", ""),
    "with holdout": ("{row}", "holdout", ""),
}  # fmt: skip


def _rename(root: Path, pattern: str) -> None:
    old = (root / "annot/train_images.txt").read_text().split()
    new = [
        pattern.format(name=name, subject=name[1], camera=row % CAMERAS, instant=row // CAMERAS, row=row)
        for row, name in enumerate(old)
    ]
    for name, renamed in zip(old, new, strict=True):
        (root / "images" / name).rename(root / "images" / renamed)
    change_lines(lambda _: new)(root)


@pytest.mark.parametrize("case", RENAMED)
def test_folds_and_check_warn_about_split_instants(command: Command, own_data: Path, tmp_path: Path, capsys, case: str):
    pattern, strategy, advice = RENAMED[case]
    _rename(own_data, pattern)
    assert command("folds", "--strategy", strategy, data=own_data) == 0
    lines = capsys.readouterr().out.splitlines()
    warned = [line for line in lines if line.startswith("warning:") and INSTANT in line]
    assert len(warned) == bool(advice), lines
    leaks = [fault for fault in check(own_data, tmp_path / "folds", all_images=False).warnings if INSTANT in fault.what]
    assert len(leaks) == (bool(advice) or strategy == "holdout")
    if advice:
        assert advice in warned[0]
        assert f"folds.csv: {INSTANT}: scores will be too good ({N}, the first is Id 1 " in warned[0]
        assert str(leaks[0].where).endswith("folds.csv")
        assert len(leaks[0].places) == N
        assert leaks[0].places[0].startswith("Id 1 ")


def test_images_of_split_sequences_are_not_reported_again(command: Command, own_data: Path, tmp_path: Path):
    assert command("folds", "--strategy", "holdout", data=own_data) == 0
    found = check(own_data, tmp_path / "folds", all_images=False)
    assert found.folds is not None
    assert found.folds.split_instants == found.folds.split_sequences == N // 10
    assert len(found.warnings) == 1
