"""Writing the CSV of poses: reproducible bytes, and only files that can be read again."""

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from competition.common import pose_csv as table
from competition.common.errors import SubmissionError
from competition.common.pose_csv import read_poses, write_poses
from competition.runs.folders import write_valid


def test_written_bytes_are_reproducible_with_lf_and_without_negative_zero(tmp_path: Path, pose_mm: np.ndarray):
    pose_mm[0, 1] = (-0.0004, 1.0005, -1)
    write_poses(tmp_path / "a.csv.gz", [1, 2, 3, 4, 5], pose_mm)
    write_poses(tmp_path / "b.csv.gz", [5, 4, 3, 2, 1], pose_mm[::-1])
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    text = gzip.decompress((tmp_path / "a.csv.gz").read_bytes())
    assert b"\r" not in text
    assert b"-0.000," not in text
    assert text.endswith(b"\n")
    assert text.split(b"\n")[1].startswith(b"1,0.000,0.000,0.000,0.000,1.0")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_poses_that_are_not_finite_are_not_written(tmp_path: Path, pose_mm: np.ndarray, bad: float):
    pose_mm[2, 3, 1] = bad
    for name, write in (("a.csv", write_poses), ("a.npz", write_valid)):
        with pytest.raises(SubmissionError, match=rf"^\S*{name}: the pose of Id 3 is not finite \(1 of 5 poses\)"):
            write(tmp_path / name, np.arange(1, 6), pose_mm)
    assert list(tmp_path.iterdir()) == []


UNWRITABLE: dict[str, tuple[npt.ArrayLike, tuple[int, ...], str]] = {
    "a duplicate Id": ([1, 1, 2, 3, 4], (5, 17, 3), "Id 1 is duplicated"),
    "an Id below zero": ([-1, 1, 2, 3, 4], (5, 17, 3), "Id -1, expected"),
    "an Id of nineteen digits": ([1, 2, 3, 4, 10**18], (5, 17, 3), "Id 10{18}, expected"),
    "fractions": ([1.0, 2.5, 3.0, 4.0, 5.0], (5, 17, 3), "5 Ids of float64"),
    "words": (list("abcde"), (5, 17, 3), "5 Ids of <U1"),
    "nothing": (np.arange(0), (0, 17, 3), "no poses to write"),
    "Ids in a column": (np.arange(5)[:, None], (5, 17, 3), r"Ids \(5, 1\) and poses \(5, 17, 3\)"),
    "fewer Ids than poses": ([1, 2, 3, 4], (5, 17, 3), r"Ids \(4,\) and poses \(5, 17, 3\)"),
    "other joints": ([1, 2, 3, 4, 5], (5, 16, 3), r"poses \(5, 16, 3\), expected \(N,\) and \(N, 17, 3\)"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_invalid_ids_and_shapes_are_not_written(tmp_path: Path, name: str):
    ids, shape, message = UNWRITABLE[name]
    with pytest.raises(SubmissionError, match=message) as caught:
        write_poses(tmp_path / "a.csv", ids, np.zeros(shape))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [complex, bool, str, object])
def test_poses_that_are_not_numbers_are_not_written(tmp_path: Path, pose_mm: np.ndarray, kind: type):
    with pytest.raises(SubmissionError, match=r"5 Ids of int64, poses of .*, expected whole numbers and mm"):
        write_poses(tmp_path / "a.csv", np.arange(5), pose_mm.astype(kind))
    assert list(tmp_path.iterdir()) == []


def test_the_smallest_and_the_largest_id_are_written_and_read(tmp_path: Path, pose_mm: np.ndarray):
    write_poses(tmp_path / "a.csv", [0, table.LARGEST_ID], pose_mm[:2])
    assert read_poses(tmp_path / "a.csv").id.tolist() == [0, table.LARGEST_ID]
