"""The submission format: what is written can be read, and what breaks the format is refused with its place."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from competition.errors import SubmissionError
from competition.table import COLUMNS, HEADER, check_plausible, read_poses, write_poses


@pytest.fixture
def pose_mm() -> np.ndarray:
    pose = np.random.default_rng(0).normal(0, 300, (5, 17, 3)).round(3)
    pose[:, 0] = 0
    return pose


@pytest.fixture
def valid(tmp_path: Path, pose_mm: np.ndarray) -> Path:
    write_poses(tmp_path / "valid.csv", np.arange(1, 6), pose_mm)
    return tmp_path / "valid.csv"


def test_header_has_52_columns_in_joint_order():
    assert HEADER.startswith("Id,Hip_x,Hip_y,Hip_z,RHip_x,")
    assert HEADER.endswith(",RWrist_z")
    assert len(HEADER.split(",")) == 52
    assert "Neck/Nose_x" in COLUMNS


@given(hnp.arrays(np.float64, (3, 17, 3), elements=st.floats(-3000, 3000)))
def test_reading_returns_what_was_written_to_three_decimals(tmp_path_factory: pytest.TempPathFactory, pose: np.ndarray):
    path = tmp_path_factory.mktemp("csv") / "poses.csv.gz"
    write_poses(path, [7, 3, 5], pose)
    poses = read_poses(path)
    assert poses.id.tolist() == [3, 5, 7]
    np.testing.assert_allclose(poses.pose_mm, pose[[1, 2, 0]], atol=0.000501)


def test_written_bytes_are_lf_without_negative_zero_and_the_same_every_time(tmp_path: Path, pose_mm: np.ndarray):
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
def test_writing_refuses_what_no_reader_accepts(tmp_path: Path, pose_mm: np.ndarray, bad: float):
    pose_mm[2, 3, 1] = bad
    with pytest.raises(ValueError, match="Id 3 is not finite"):
        write_poses(tmp_path / "a.csv", np.arange(1, 6), pose_mm)
    with pytest.raises(ValueError, match="twice"):
        write_poses(tmp_path / "a.csv", [1, 1, 2, 3, 4], np.zeros((5, 17, 3)))
    assert list(tmp_path.iterdir()) == []


def _cell(row: int, column: int, value: str):
    def change(lines: list[str]) -> list[str]:
        cells = lines[row].split(",")
        cells[column] = value
        return [*lines[:row], ",".join(cells), *lines[row + 1 :]]

    return change


VARIANTS = {
    "row order": lambda text: "\n".join([text.split("\n")[0], *reversed(text.split("\n")[1:-1])]) + "\n",
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "byte order mark": lambda text: "\ufeff" + text,
    "no final newline": lambda text: text.rstrip("\n"),
    "more decimals": lambda text: text.replace("\n", "000\n").replace("RWrist_z000", "RWrist_z"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_valid_variants_read_the_same(valid: Path, pose_mm: np.ndarray, name: str):
    valid.write_text(VARIANTS[name](valid.read_text()), newline="")
    np.testing.assert_array_equal(read_poses(valid, range(1, 6)).pose_mm, pose_mm)


MUTATIONS = {
    "header case": (lambda lines: [lines[0].lower(), *lines[1:]], "column 1 is 'id', expected 'Id'"),
    "header order": (lambda lines: [lines[0].replace("Hip_x,Hip_y", "Hip_y,Hip_x"), *lines[1:]], "column 2 is 'Hip_y'"),
    "semicolons": (lambda lines: [line.replace(",", ";") for line in lines], "no comma in the header"),
    "extra column": (lambda lines: [line + ",1" for line in lines], "53 columns, expected 52"),
    "short row": (lambda lines: [*lines[:2], lines[2].rsplit(",", 1)[0], *lines[3:]], ":3: 51 values"),
    "blank line": (lambda lines: [*lines[:2], "", *lines[2:]], ":3: 1 values"),
    "missing id": (lambda lines: [*lines[:3], *lines[4:]], "1 Ids missing, the first is 3"),
    "extra id": (lambda lines: [*lines, "6" + lines[5][1:]], "1 Ids unexpected, the first is 6"),
    "duplicate id": (lambda lines: [*lines, lines[2]], ":7: Id 2 stands twice .first in line 3"),
    "float id": (_cell(1, 0, "1.0"), ":2: Id is '1.0', expected a whole number"),
    "negative id": (_cell(1, 0, "-1"), ":2: Id is '-1'"),
    "huge id": (_cell(1, 0, "9" * 30), ":2: Id .* too large"),
    "nan": (_cell(2, 4, "nan"), ":3: RHip_x is 'nan'"),
    "inf": (_cell(2, 4, "-inf"), ":3: RHip_x is '-inf'"),
    "overflow": (_cell(2, 4, "1e999"), ":3: RHip_x is beyond"),
    "text": (_cell(2, 51, "far"), ":3: RWrist_z is 'far'"),
    "empty": (_cell(5, 1, ""), ":6: Hip_x is ''"),
    "space": (_cell(5, 1, " 1"), ":6: Hip_x is ' 1'"),
    "hexadecimal": (_cell(5, 1, "0x1f"), ":6: Hip_x is '0x1f'"),
    "underscore": (_cell(5, 1, "1_000"), ":6: Hip_x is '1_000'"),
    "arabic digits": (_cell(5, 1, "\u0661"), ":6: Hip_x is"),
    "quotes": (_cell(5, 1, '"1"'), ":6: Hip_x is"),
    "header only": (lambda lines: lines[:1], "no rows below the header"),
    "nothing": (lambda lines: [""], "1 columns, expected 52"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_file_is_refused_with_its_place(valid: Path, name: str):
    change, message = MUTATIONS[name]
    valid.write_text("\n".join(change(valid.read_text().rstrip("\n").split("\n"))) + "\n")
    with pytest.raises(SubmissionError, match=message):
        read_poses(valid, range(1, 6))


def test_unreadable_files_are_refused(tmp_path: Path, valid: Path):
    with pytest.raises(SubmissionError, match="no such file"):
        read_poses(tmp_path / "none.csv")
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(valid.read_bytes())
    with pytest.raises(SubmissionError, match="not a whole gzip"):
        read_poses(packed)
    packed.write_bytes(gzip.compress(valid.read_bytes())[:-20])
    with pytest.raises(SubmissionError, match="not a whole gzip"):
        read_poses(packed)
    valid.write_bytes(b"\xff\xfe" + valid.read_text().encode("utf-16-le"))
    with pytest.raises(SubmissionError, match="not UTF-8"):
        read_poses(valid)


def test_strict_refuses_the_implausible(valid: Path):
    poses = read_poses(valid)
    check_plausible(poses, valid)
    for change, message in (
        (lambda pose: pose + 2, "root joint of Id 1 is 2.0 mm off"),
        (lambda pose: pose * 100, "from the root; expected under 2.5 m"),
        (lambda pose: pose / 1000, "are these metres"),
        (lambda pose: np.where(np.arange(17)[:, None] == 3, 5.0, pose), "column RFoot_x is the same in every row"),
    ):
        with pytest.raises(SubmissionError, match=message):
            check_plausible(poses._replace(pose_mm=change(poses.pose_mm)), valid)
