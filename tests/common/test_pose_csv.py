"""The submission format: written files can be read, and invalid files are rejected with file, line and column."""

import gzip
import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from competition.common import pose_csv as table
from competition.common.errors import SubmissionError
from competition.common.pose_csv import COLUMNS, HEADER, Poses, check_plausible, parse_poses, read_poses, write_poses


@pytest.fixture
def valid(tmp_path: Path, pose_mm: np.ndarray) -> Path:
    write_poses(tmp_path / "valid.csv", np.arange(1, 6), pose_mm)
    return tmp_path / "valid.csv"


def test_header_has_52_columns_in_joint_order():
    assert HEADER.startswith("Id,Hip_x,Hip_y,Hip_z,RHip_x,")
    assert HEADER.endswith(",RWrist_z")
    assert len(HEADER.split(",")) == 52
    assert "Neck/Nose_x" in COLUMNS


IDS = st.lists(st.integers(0, 10**17), min_size=1, max_size=4, unique=True)


@given(
    ids=IDS, pose=hnp.arrays(np.float64, (4, 17, 3), elements=st.floats(-1e6, 1e6)), end=st.sampled_from(["", ".gz"])
)
def test_reading_returns_what_was_written_to_three_decimals(scratch: Path, ids: list[int], pose: np.ndarray, end: str):
    path, pose = scratch / f"poses.csv{end}", pose[: len(ids)]
    write_poses(path, ids, pose)
    poses = read_poses(path, ids)
    assert poses.id.tolist() == sorted(ids)
    np.testing.assert_allclose(poses.pose_mm, pose[np.argsort(ids)], rtol=1e-15, atol=0.0005000001)
    before = path.read_bytes()
    write_poses(path, poses.id, poses.pose_mm)  # writing what was read gives the same bytes
    assert path.read_bytes() == before


@given(
    ids=IDS, digits=st.integers(3, 17), seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1e-4, 1.0, 300.0, 1e6])
)
def test_numbers_with_more_digits_are_read_exactly(scratch: Path, ids: list[int], digits: int, seed: int, size: float):
    pose = np.random.default_rng(seed).normal(0, size, (len(ids), 51))
    rows = [",".join([str(id_), *(f"{value:.{digits}g}" for value in row)]) for id_, row in zip(ids, pose, strict=True)]
    (scratch / "other.csv").write_text("\n".join([HEADER, *rows]))
    poses = read_poses(scratch / "other.csv")
    expected = [[float(cell) for cell in row.split(",")[1:]] for row in rows]
    np.testing.assert_array_equal(poses.pose_mm.reshape(len(ids), 51), np.array(expected)[np.argsort(ids)])


Change = Callable[[bytes], bytes]


def _lines(change: Callable[[list[str]], list[str]]) -> Change:
    """Make a change of a file from a change of its lines."""
    return lambda content: ("\n".join(change(content.decode().rstrip("\n").split("\n"))) + "\n").encode()


def _all(change: Callable[[str], str]) -> Change:
    return _lines(lambda lines: [change(line) for line in lines])


def _header(change: Callable[[list[str]], list[str]]) -> Change:
    return _lines(lambda lines: [",".join(change(lines[0].split(","))), *lines[1:]])


def _cell(row: int, column: int, value: str) -> Change:
    """Replace a value in line `row`; the header is line 0."""

    def change(lines: list[str]) -> list[str]:
        cells = lines[row].split(",")
        cells[column] = value
        return [*lines[:row], ",".join(cells), *lines[row + 1 :]]

    return _lines(change)


def _row(row: int, change: Callable[[str], str]) -> Change:
    return _lines(lambda lines: [*lines[:row], change(lines[row]), *lines[row + 1 :]])


def _without(columns: slice) -> Change:
    def change(line: str) -> str:
        cells = line.split(",")
        del cells[columns]
        return ",".join(cells)

    return _all(change)


def _zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("valid.csv", content)
    return packed.getvalue()


def _quoted(line: str) -> str:
    return ",".join(f'"{cell}"' for cell in line.split(","))


VARIANTS: dict[str, Change] = {
    "row order": _lines(lambda lines: [lines[0], *reversed(lines[1:])]),
    "crlf": lambda content: content.replace(b"\n", b"\r\n"),
    "crlf here and there": lambda content: content.replace(b"\n", b"\r\n", 2),
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "byte order mark and crlf": lambda content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"),
    "no final newline": lambda content: content.rstrip(b"\n"),
    "more decimals": _lines(lambda lines: [lines[0], *(line + "000" for line in lines[1:])]),
    "plus signs": _lines(lambda lines: [lines[0], *(line.replace(",", ",+").replace("+-", "-") for line in lines[1:])]),
    "powers of ten": _lines(
        lambda lines: [lines[0], *(line.replace(",", "e0,").replace("e0", "", 1) for line in lines[1:])]
    ),
    "whole zeros": _lines(lambda lines: [lines[0], *(line.replace("0.000,", "0,") for line in lines[1:])]),
}


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("name", VARIANTS)
def test_valid_variants_read_the_same(valid: Path, pose_mm: np.ndarray, name: str, end: str):
    content = VARIANTS[name](valid.read_bytes())
    assert content != valid.read_bytes()
    file = valid.with_name(f"variant.csv{end}")
    file.write_bytes(gzip.compress(content) if end else content)
    np.testing.assert_array_equal(read_poses(file, range(1, 6)).pose_mm, pose_mm)


PACKED = "valid.csv.gz"
# name: (change of a valid file, pattern of the error message after the file name)
MUTATIONS: dict[str, tuple[Change, str]] = {
    # the bytes
    "empty": (lambda _: b"", ":1: no header"),
    "utf-16": (lambda content: content.decode().encode("utf-16"), "is UTF-16 text"),
    "latin-1": (lambda content: content.replace(b"Hip_x", b"H\xfcfte_x", 1), r"is not UTF-8 text .byte 4"),
    "null bytes": (lambda content: content.replace(b"\n", b"\0\n"), ":1: column 52 is .RWrist_z.x00"),
    "zip": (_zipped, "is a zip archive: unpack it"),
    "gz without its name": (gzip.compress, "is gzip data: .* name that ends in .gz"),
    "binary": (lambda _: bytes(range(256)), "is not UTF-8 text .byte 128"),
    "a web page": (lambda _: b"<!DOCTYPE html>\n<html>Sign in</html>\n", ":1: no comma in the header"),
    "two byte order marks": (lambda content: 2 * b"\xef\xbb\xbf" + content, ":1: column 1 is .*expected 'Id'"),
    # lines and separators
    "lines end in cr": (lambda content: content.replace(b"\n", b"\r"), ":1: lines end in CR alone"),
    "a cr within": (_row(2, lambda line: line.replace(",", "\r,", 1)), r":3: Id is '2.r'"),
    "semicolons": (_all(lambda line: line.replace(",", ";")), ":1: no comma in the header"),
    "tabs": (_all(lambda line: line.replace(",", "\t")), ":1: no comma in the header"),
    "semicolons below the header": (_row(1, lambda line: line.replace(",", ";")), ":2: 1 values"),
    "decimal commas": (_row(3, lambda line: line.replace(".", ",")), ":4: 103 values, expected 52"),
    "everything quoted": (_all(_quoted), """:1: column 1 is '"Id"', expected 'Id'"""),
    "rows quoted": (_row(1, _quoted), """:2: Id is '"1"'"""),
    "spaces after commas": (_all(lambda line: line.replace(",", ", ")), ":1: column 2 is ' Hip_x'"),
    "one line": (lambda content: content.replace(b"\n", b","), ":1: 313 columns"),
    "blank line": (_lines(lambda lines: [*lines[:2], "", *lines[2:]]), ":3: 1 values"),
    "blank lines at the end": (lambda content: content + b"\n\n", ":7: 1 values"),
    "a comment": (_lines(lambda lines: [*lines[:2], "# half way", *lines[2:]]), ":3: 1 values"),
    "short row": (_row(2, lambda line: line.rsplit(",", 1)[0]), ":3: 51 values"),
    "long row": (_row(2, lambda line: line + ",1.5"), ":3: 53 values"),
    "comma at the end": (_row(4, lambda line: line + ","), ":5: 53 values"),
    "truncated": (lambda content: content[:-70], ":6: 4. values"),
    "overlong line": (_row(5, lambda line: line + ",0" * 100_000), ":6: 100052 values"),
    "duplicate header": (_lines(lambda lines: [*lines[:3], lines[0], *lines[3:]]), ":4: Id is 'Id'"),
    # the header
    "no header": (_lines(lambda lines: lines[1:]), ":1: column 1 is '1', expected 'Id'"),
    "header only": (_lines(lambda lines: lines[:1]), ": no rows below the header"),
    "header case": (_header(lambda names: [name.lower() for name in names]), ":1: column 1 is 'id', expected 'Id'"),
    "header order": (_header(lambda names: [names[0], names[2], names[1], *names[3:]]), ":1: column 2 is 'Hip_y'"),
    "another name": (_header(lambda names: ["image_id", *names[1:]]), ":1: column 1 is 'image_id', expected 'Id'"),
    "duplicate column": (
        _header(lambda names: [*names[:5], names[4], *names[6:]]),
        ":1: column 6 is 'RHip_x', expected 'RHip_y'",
    ),
    "pandas index": (_all(lambda line: "0," + line), ":1: 53 columns .'0'., expected 52"),
    "extra column": (_all(lambda line: line + ",1"), ":1: 53 columns .'1'., expected 52"),
    "extra copy of a column": (_header(lambda names: [*names, names[7]]), ":1: 53 columns .'RKnee_x'., expected 52"),
    "missing column": (_without(slice(7, 8)), ":1: 51 columns .no RKnee_x., expected 52"),
    "no root": (_without(slice(1, 4)), ":1: 49 columns .no Hip_x., expected 52"),
    "no id": (_without(slice(0, 1)), ":1: 51 columns .no Id., expected 52"),
    # Ids
    "missing id": (_lines(lambda lines: [*lines[:3], *lines[4:]]), ": 1 Ids missing, the first is 3"),
    "extra id": (_lines(lambda lines: [*lines, "6" + lines[5][1:]]), ": 1 Ids unexpected, the first is 6"),
    "from zero": (_lines(lambda lines: [lines[0], "0" + lines[5][1:], *lines[1:5]]), ": 1 Ids missing, the first is 5"),
    "duplicate id": (_lines(lambda lines: [*lines, lines[2]]), ":7: Id 2 is duplicated .first in line 3"),
    "a number's other spelling": (_cell(1, 0, "02"), ":3: Id 2 is duplicated .first in line 2"),
    "float id": (_cell(1, 0, "1.0"), ":2: Id is '1.0', expected a whole number"),
    "negative id": (_cell(1, 0, "-1"), ":2: Id is '-1'"),
    "no id in a row": (_cell(1, 0, ""), ":2: Id is ''"),
    "image name for id": (_cell(3, 0, "S9_Eating.5_000001.jpg"), ":4: Id is 'S9_Eating"),
    "power of ten for id": (_cell(3, 0, "3e0"), ":4: Id is '3e0'"),
    "huge id": (_cell(1, 0, "9" * 30), ":2: Id .* too large"),
    # values
    "nan": (_cell(2, 4, "nan"), ":3: RHip_x is 'nan'"),
    "NaN": (_cell(2, 5, "NaN"), ":3: RHip_y is 'NaN'"),
    "infinite": (_cell(2, 4, "-inf"), ":3: RHip_x is '-inf'"),
    "Infinity": (_cell(2, 4, "Infinity"), ":3: RHip_x is 'Infinity'"),
    "overflow": (_cell(2, 4, "1e999"), ":3: RHip_x is too large"),
    "overlong number": (_cell(2, 4, "9" * 1_000_000), ":3: RHip_x is too large"),
    "text": (_cell(2, 51, "far"), ":3: RWrist_z is 'far'"),
    "text after whole numbers": (_row(4, lambda line: "4" + ",1000" * 50 + ",far"), ":5: RWrist_z is 'far'"),
    "none": (_cell(2, 51, "None"), ":3: RWrist_z is 'None'"),
    "nothing": (_cell(5, 1, ""), ":6: Hip_x is ''"),
    "nothing in the whole row": (_row(5, lambda _: "5" + "," * 51), ":6: Hip_x is ''"),
    "space": (_cell(5, 1, " 1"), ":6: Hip_x is ' 1'"),
    "space within": (_cell(5, 1, "1 000.5"), ":6: Hip_x is '1 000.5'"),
    "thousands separator": (_cell(5, 1, "1,000.5"), ":6: 53 values"),
    "thousands separator in quotes": (_cell(5, 1, '"1,000.5"'), ":6: 53 values"),
    "apostrophe": (_cell(5, 1, "1'000.5"), ":6: Hip_x is"),
    "unit": (_cell(5, 2, "12.5mm"), ":6: Hip_y is '12.5mm'"),
    "percent": (_cell(5, 2, "12%"), ":6: Hip_y is '12%'"),
    "hexadecimal": (_cell(5, 1, "0x1f"), ":6: Hip_x is '0x1f'"),
    "underscore": (_cell(5, 1, "1_000"), ":6: Hip_x is '1_000'"),
    "arabic digits": (_cell(5, 1, "\u0661"), ":6: Hip_x is"),
    "minus of typesetters": (_cell(5, 1, "\u221212"), ":6: Hip_x is"),
    "two points": (_cell(5, 1, "1.000.5"), ":6: Hip_x is '1.000.5'"),
    "two signs": (_cell(5, 1, "--1"), ":6: Hip_x is '--1'"),
    "point alone": (_cell(5, 1, "."), ":6: Hip_x is '.'"),
    "power without a number": (_cell(5, 1, "1e"), ":6: Hip_x is '1e'"),
    "quotes": (_cell(5, 1, '"1"'), ":6: Hip_x is"),
    "formula": (_cell(5, 1, "=1+1"), ":6: Hip_x is '=1.1'"),
    "complex": (_cell(5, 1, "1+2j"), ":6: Hip_x is"),
    # packed
    f"{PACKED} not packed": (lambda content: content, "not a complete gzip file"),
    f"{PACKED} truncated": (lambda content: gzip.compress(content)[:-20], "not a complete gzip file"),
    f"{PACKED} without its checksum": (lambda content: gzip.compress(content)[:-8], "not a complete gzip file"),
    f"{PACKED} with a wrong checksum": (
        lambda content: gzip.compress(content)[:-8] + bytes(8),
        "not a complete gzip file",
    ),
    f"{PACKED} damaged": (
        lambda content: gzip.compress(content)[:12] + b"\xff" * 40,
        "is damaged|not a complete gzip file",
    ),
    f"{PACKED} with something behind": (
        lambda content: gzip.compress(content) + b"more",
        "not a complete gzip file",
    ),
    f"{PACKED} a zip": (_zipped, "not a complete gzip file"),
    f"{PACKED} compressed twice": (lambda content: gzip.compress(gzip.compress(content)), "is gzip data"),
    f"{PACKED} of nothing": (lambda _: gzip.compress(b""), ":1: no header"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_an_invalid_file_is_rejected_in_one_line_that_names_the_place(valid: Path, name: str):
    change, message = MUTATIONS[name]
    file = valid.with_name(PACKED) if name.startswith(PACKED) else valid
    content = change(valid.read_bytes())
    file.write_bytes(content)
    with pytest.raises(SubmissionError, match=message) as caught:
        read_poses(file, range(1, 6))
    error = str(caught.value)
    assert str(file) in error
    assert "\n" not in error
    assert len(error) < len(str(file)) + 200


def test_the_fast_parser_agrees_with_the_row_by_row_parser(valid: Path, monkeypatch: pytest.MonkeyPatch):
    """After inserting, replacing or deleting a character, both return the same poses or the same error."""
    fast, random = table._parse_fast, np.random.default_rng(0)
    header, _, body = valid.read_text().partition("\n")
    body = "\n".join(body.split("\n")[:2]) + "\n"
    assert fast(body.removesuffix("\n")) is not None
    accepted = 0
    for _ in range(3000):
        place, letter = (
            int(random.integers(len(body) + 1)),
            str(random.choice([*"0123456789-+.,e \n\r\0", "\u0661", ""])),
        )
        changed = body[:place] + letter + body[place + int(random.integers(2)) :]
        accepted += fast(changed.removesuffix("\n")) is not None
        results = []
        for parser in (fast, lambda _: None):
            monkeypatch.setattr(table, "_parse_fast", parser)
            try:
                poses = parse_poses(f"{header}\n{changed}", valid)
                results.append((poses.id.tolist(), poses.pose_mm.tolist()))
            except SubmissionError as error:
                results.append(str(error))
        assert results[0] == results[1], (place, letter)
    assert 500 < accepted < 2500


@pytest.mark.parametrize("id_", ["9" * 17, "0" * 20 + "7", "9007199254740993"])
def test_long_ids_are_read_exactly_or_rejected(valid: Path, id_: str):
    valid.write_bytes(_cell(5, 0, id_)(valid.read_bytes()))
    if len(id_) > 18:
        with pytest.raises(SubmissionError, match="too large"):
            read_poses(valid)
    else:
        assert read_poses(valid).id[-1] == int(id_)


def test_the_invalid_files_are_distinct(valid: Path):
    changed = {name: change(valid.read_bytes()) for name, (change, _) in MUTATIONS.items()}
    assert len(set(changed.values()) - {valid.read_bytes()}) >= 80


def test_a_missing_file_is_rejected(tmp_path: Path):
    with pytest.raises(SubmissionError, match=r"no such file: .*none\.csv"):
        read_poses(tmp_path / "none.csv")
    with pytest.raises(SubmissionError, match="can't read"):
        read_poses(tmp_path)


BOMBS = {
    "ten gigabytes": (
        gzip.compress(bytes(20_000_000)) * 500,
        "more than 536,870,912 bytes",
        600_000_000,
    ),
    "blank lines": (gzip.compress(f"{HEADER}\n".encode() + b"\n" * 20_000_000), ":2: 1 values", 100_000_000),
    "commas": (gzip.compress(f"{HEADER}\n".encode() + b"," * 20_000_000), ":2: 20000001 values", 200_000_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_decompression_bomb_is_rejected_without_filling_the_memory(tmp_path: Path, name: str):
    content, message, limit = BOMBS[name]
    file = tmp_path / "bomb.csv.gz"
    file.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(SubmissionError, match=message):
            read_poses(file)
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


STRICT: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "root off zero": (lambda pose: pose + 2, "root joint of Id 1 is 2.0 mm off"),
    "root below zero": (lambda pose: pose - 1.01, "root joint of Id 1 is 1.0 mm off"),
    "one root off zero": (
        lambda pose: pose + 2 * (np.arange(5) == 3)[:, None, None], "root joint of Id 4 is 2.0 mm off"
    ),
    "not relative to the pelvis": (lambda pose: pose + [0, 0, 5000], "root joint of Id 1 is 5000.0 mm off"),
    "micrometres": (lambda pose: pose * 1000, "of Id . is .* m from the root; expected under 2.5 m"),
    "one joint far away": (
        lambda pose: np.where((np.arange(5)[:, None] == 2)[..., None] & (np.arange(17)[:, None] == 10), 2000.0, pose),
        "Head of Id 3 is 3.5 m from the root",
    ),
    "metres": (lambda pose: pose / 1000, "are these metres"),
    "inches": (lambda pose: pose / 25.4, "are these inches"),
    "centimetres": (lambda pose: pose / 10, "are these centimetres"),
    "zeros": (lambda pose: pose * 0, "are these metres"),
    "a constant column": (
        lambda pose: np.where(np.arange(17)[:, None] == 3, 5.0, pose), "column RFoot_x is the same in every row"
    ),
    "a constant axis": (lambda pose: pose * [1, 1, 0], "column RHip_z is the same in every row"),
    "the same pose for all": (lambda pose: pose[:1].repeat(5, axis=0), "column RHip_x is the same in every row"),
}  # fmt: skip


def test_a_single_pose_is_not_constant(pose_mm: np.ndarray, tmp_path: Path):
    check_plausible(Poses(np.array([1]), pose_mm[:1]), tmp_path)


@pytest.mark.parametrize("name", STRICT)
def test_implausible_poses_are_rejected(valid: Path, pose_mm: np.ndarray, name: str):
    change, message = STRICT[name]
    check_plausible(read_poses(valid), valid)
    write_poses(valid, range(1, 6), change(pose_mm))
    with pytest.raises(SubmissionError, match=message) as caught:
        check_plausible(read_poses(valid, range(1, 6)), valid)
    assert str(caught.value).startswith(f"{valid}: ")
    assert "\n" not in str(caught.value)
