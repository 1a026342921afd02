"""The submission format, a CSV of poses.

    Id,Hip_x,Hip_y,Hip_z,RHip_x,...,RWrist_z        52 columns, one row per image, finite mm, three decimals, LF

`write_poses` writes it, `read_poses` reads and validates it, `check_plausible` is stricter and used before an upload.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from competition.common.arrays import Float64, Floats, Int64, Intp
from competition.common.errors import SubmissionError, UserError
from competition.common.files import AnyPath, read_text, to_path, write_text
from competition.common.skeleton import AXES, JOINTS, ROOT

COLUMNS = tuple(f"{joint}_{axis}" for joint in JOINTS for axis in AXES)
HEADER = ",".join(("Id", *COLUMNS))
LARGEST_ID = 10**18 - 1
USUAL_DISTANCE = {"metres": 0.45, "decimetres": 4.5, "inches": 18.0, "centimetres": 45.0}  # from the root
MOST_OFF_MM, FARTHEST_MM, NEAREST_MM = 1.0, 2500.0, 50.0  # plausible: root offset, distance from it, mean distance
# unambiguous, so that a row can't cause catastrophic backtracking, as \d+\.?\d* would
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SHORTEST = len("1") + len(",0") * len(COLUMNS)  # characters in a row
_ROW = re.compile(rf"\d+(,{_NUMBER.pattern}){{{len(COLUMNS)}}}", re.ASCII)


class _Poses(NamedTuple):
    id: Int64  # [N]
    pose_mm: Float64  # [N, 17, 3]


class Poses(_Poses):
    """Poses with ascending Ids; raise ValueError for arrays of different lengths."""

    __slots__ = ()

    def __new__(cls, id: Int64, pose_mm: Float64) -> "Poses":
        if np.shape(id) != np.shape(pose_mm)[:1]:
            raise ValueError(f"expected one pose for each Id, but got Ids {np.shape(id)} and poses {np.shape(pose_mm)}")
        return super().__new__(cls, id, pose_mm)


def write_poses(path: AnyPath, ids: npt.ArrayLike, pose_mm: npt.ArrayLike) -> None:
    """Write poses [N, 17, 3] in mm, sorted by Id; compress when the name ends in .gz; raise SubmissionError."""
    path = to_path(path)
    ordered = sort_by_id(path, ids, pose_mm)
    if not len(ordered.id):
        raise SubmissionError(f"{path}: no poses to write")
    rows = ordered.pose_mm.reshape(len(ordered.id), len(COLUMNS)) + 0.0
    rows[np.abs(rows) < 0.0005] = 0.0  # no -0.000
    line = "%d" + ",%.3f" * len(COLUMNS)
    lines = [line % (id_, *row) for id_, row in zip(ordered.id.tolist(), rows.tolist(), strict=True)]
    write_text(path, "\n".join([HEADER, *lines]) + "\n")


def sort_by_id(path: Path, ids: npt.ArrayLike, pose_mm: npt.ArrayLike) -> Poses:
    """Return poses sorted by Id; raise SubmissionError, which names `path`, when they don't fit the format."""
    id_array, pose = np.asarray(ids), np.asarray(pose_mm)
    if id_array.ndim != 1 or pose.shape != (len(id_array), len(JOINTS), len(AXES)):
        raise SubmissionError(f"{path}: Ids {id_array.shape} and poses {pose.shape}, expected (N,) and (N, 17, 3)")
    if id_array.dtype.kind not in "iu" or pose.dtype.kind not in "fiu":
        found = f"{len(id_array)} Ids of {id_array.dtype}, poses of {pose.dtype}"
        raise SubmissionError(f"{path}: {found}, expected whole numbers and mm")
    order = np.argsort(id_array, kind="stable")
    id_array, pose = id_array[order].astype(np.int64), pose[order].astype(np.float64)
    if (odd := id_array[(id_array < 0) | (id_array > LARGEST_ID)]).size:
        raise SubmissionError(f"{path}: Id {odd[0]}, expected Ids from 0 to {LARGEST_ID}")
    if (duplicates := np.flatnonzero(np.diff(id_array) == 0)).size:
        raise SubmissionError(f"{path}: Id {id_array[duplicates[0]]} is duplicated")
    finite = np.isfinite(pose).all(axis=(1, 2))
    if not finite.all():
        raise SubmissionError(
            f"{path}: the pose of Id {id_array[~finite][0]} is not finite ({(~finite).sum()} of {len(pose)} poses): "
            "expected finite numbers in mm; nothing was written"
        )
    return Poses(id_array, pose)


def read_poses(path: AnyPath, expected_ids: Sequence[int] | Int64 | None = None) -> Poses:
    """Read a CSV of poses, plain or .gz, with rows in any order; return it sorted by Id.

    Raise SubmissionError, naming file, line and column, for a wrong header or number of values, a value that is not
    a finite plain number, a duplicate Id, and, when `expected_ids` is given, a missing or extra Id.
    """
    path = to_path(path)
    try:
        text = read_text(path, what="submission")
    except UserError as error:
        raise error.as_(SubmissionError) from None
    return parse_poses(text, path, expected_ids)


def parse_poses(text: str, path: Path, expected_ids: Sequence[int] | Int64 | None = None) -> Poses:
    """Parse the text of a CSV of poses as `read_poses` does; error messages name `path`."""
    header, _, body = text.partition("\n")
    if header != HEADER:
        raise SubmissionError(_header_error(path, header))
    body = body.removesuffix("\n")
    if body.count("\n") * _SHORTEST > len(body):  # checked first, before a gigabyte of blank lines becomes a list
        number, line = next((n, row) for n, row in _rows(body) if len(row) < _SHORTEST)
        raise SubmissionError(_row_error(path, number, line))
    if not body:
        raise SubmissionError(f"{path}: no rows below the header")
    ids, values = _parse_fast(body) or _parse_rows(path, body)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise SubmissionError(
            f"{path}:{row + 2}: {COLUMNS[column]} is too large for a float64; expected a finite number in mm"
        )
    order = np.argsort(ids, kind="stable")
    _check_ids(path, ids, order, expected_ids)
    return Poses(ids[order], values[order].reshape(-1, len(JOINTS), len(AXES)))


def _parse_fast(body: str) -> tuple[Int64, Float64] | None:
    """Parse rows such as `write_poses` writes, 12,-3.456,..., all at once; return None when any cell differs.

    In every row, the characters other than digits and minus signs must be 51 commas, each followed by a point, and
    a line end.
    """
    text = np.frombuffer(f"{body}\n".encode(), np.uint8)
    is_mark = (text < ord("0")) | (text > ord("9"))
    expected = (body.count("\n") + 1) * (2 * len(COLUMNS) + 1) + body.count("-")
    if np.count_nonzero(is_mark) != expected:  # checked first, as each position takes eight bytes
        return None
    places = np.flatnonzero(is_mark)
    marks = text[places]
    minus = marks == ord("-")
    ends = np.frombuffer(b",." * len(COLUMNS) + b"\n", np.uint8)
    rows, rest = divmod(len(marks) - int(minus.sum()), len(ends))
    if rest or (marks[~minus].reshape(rows, -1) != ends).any():
        return None
    ends_at = places[~minus].reshape(rows, -1)
    if (ends_at[:, 0] - np.append(-1, ends_at[:-1, -1])).max() > 16:  # an Id that a float64 may not represent
        return None
    touching = np.diff(places, prepend=-1) == 1  # no digit before the mark: only allowed for a sign after a comma
    if (touching != minus).any() or (marks[np.flatnonzero(minus) - 1] != ord(",")).any():
        return None
    table = np.fromstring(body.replace("\n", ","), np.float64, sep=",").reshape(rows, 1 + len(COLUMNS))
    return table[:, 0].astype(np.int64), table[:, 1:]


def _parse_rows(path: Path, body: str) -> tuple[Int64, Float64]:
    """Parse rows one by one; raise SubmissionError for the first invalid one."""
    lines = body.split("\n")
    for number, line in enumerate(lines, start=2):
        if _ROW.fullmatch(line) is None:
            raise SubmissionError(_row_error(path, number, line))
    cells = [line.split(",", 1) for line in lines]
    ids = _parse_ids(path, [cell[0] for cell in cells])
    return ids, np.array([np.fromstring(cell[1], np.float64, sep=",") for cell in cells])


def check_plausible(poses: Poses, path: Path) -> None:
    """Raise SubmissionError for poses that are valid but implausible: root off zero, wrong unit, constant columns."""
    check_frame_and_unit(poses, path)
    constant = np.ptp(poses.pose_mm, axis=0).reshape(-1) == 0
    constant[ROOT * len(AXES) : (ROOT + 1) * len(AXES)] = False
    if len(poses.id) > 1 and constant.any():
        column = COLUMNS[int(constant.argmax())]
        raise SubmissionError(
            f"{path}: column {column} is the same in every row; expected poses that differ: leave "
            "constant candidates out of the blend"
        )


def check_frame_and_unit(poses: Poses, path: Path, like_mm: Floats | None = None) -> None:
    """Raise SubmissionError for poses that aren't relative to the root, or not in mm.

    Poses of untrained networks may be implausible without such a fault: `like_mm` [n, 17, 3] are poses of the same
    network that its errors show to be in mm, and which `poses` may resemble.
    """
    pose_mm, ids = poses.pose_mm, poses.id
    most_off, farthest, nearest = MOST_OFF_MM, FARTHEST_MM, NEAREST_MM
    if like_mm is not None:
        most_off = max(most_off, 2 * np.abs(like_mm[:, ROOT]).max())
        farthest = max(farthest, 2 * np.linalg.norm(like_mm, axis=2).max())
        nearest = min(nearest, np.linalg.norm(like_mm, axis=2).mean() / 2)
    root_off = np.abs(pose_mm[:, ROOT]).max(axis=1)
    if (root_off > most_off).any():
        worst = int(root_off.argmax())
        raise SubmissionError(
            f"{path}: root joint of Id {ids[worst]} is {root_off[worst]:.1f} mm off; expected (0, 0, 0): "
            "poses must be relative to the pelvis"
        )
    distance = np.linalg.norm(pose_mm, axis=2)
    if (distance > farthest).any():
        row, joint = np.unravel_index(int(distance.argmax()), distance.shape)
        raise SubmissionError(
            f"{path}: {JOINTS[joint]} of Id {ids[row]} is {distance[row, joint] / 1000:.1f} m from the root; "
            f"expected under {farthest / 1000:.1f} m: check the units (mm)"
        )
    if (mean := distance.mean()) < nearest:
        unit = min(USUAL_DISTANCE, key=lambda unit: abs(np.log(USUAL_DISTANCE[unit] / max(mean, 1e-3))))
        raise SubmissionError(
            f"{path}: joints are {mean:.2f} mm from the root on average; expected mm, are these {unit}?"
        )


def _rows(body: str) -> Iterator[tuple[int, str]]:
    """Iterate over the rows below the header with their line numbers."""
    yield from enumerate((match[1] for match in re.finditer(r"([^\n]*)\n", body)), start=2)


def _header_error(path: Path, header: str) -> str:
    found, expected = header.split(",", len(COLUMNS) + 1), HEADER.split(",")
    if not header:
        return f"{path}:1: no header: expected 'Id,Hip_x,Hip_y' and so on in the first line"
    if "\r" in header:
        return f"{path}:1: lines end in CR alone: save it with LF or CRLF line endings"
    if len(found) == 1 and len(header) > len("Id"):
        return f"{path}:1: no comma in the header: expected columns separated by commas, starting 'Id,Hip_x,Hip_y'"
    if len(found) != len(expected):
        odd = next((f"no {name}" for name in expected if name not in found), None)
        odd = odd or next(repr(name[:40]) for i, name in enumerate(found) if name not in expected or name in found[:i])
        count = f"{header.count(',') + 1} columns ({odd}), expected {len(expected)}"
        return f"{path}:1: {count}: Id and x, y, z of {len(JOINTS)} joints"
    column = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
    return f"{path}:1: column {column + 1} is {found[column][:40]!r}, expected {expected[column]!r}"


def _row_error(path: Path, number: int, line: str) -> str:
    if (values := line.count(",") + 1) != len(COLUMNS) + 1:
        return f"{path}:{number}: {values} values, expected {len(COLUMNS) + 1}: Id and 51 coordinates in mm"
    cells = line.split(",")
    if not re.fullmatch(r"\d+", cells[0], re.ASCII):
        return f"{path}:{number}: Id is {cells[0][:40]!r}, expected a whole number"
    column = next(i for i, cell in enumerate(cells[1:]) if _NUMBER.fullmatch(cell) is None)
    return f"{path}:{number}: {COLUMNS[column]} is {cells[column + 1][:40]!r}, expected a finite plain number in mm"


def _parse_ids(path: Path, cells: list[str]) -> Int64:
    longest = max(range(len(cells)), key=lambda row: len(cells[row]))
    if len(cells[longest]) > len(str(LARGEST_ID)):
        raise SubmissionError(
            f"{path}:{longest + 2}: Id {cells[longest][:40]!r} is too large, expected at most 18 digits"
        )
    return np.array(cells).astype(np.int64)


def _check_ids(
    path: Path,
    ids: Int64,
    order: Intp,
    expected_ids: Sequence[int] | Int64 | None,
) -> None:
    ordered = ids[order]
    duplicates = np.flatnonzero(np.diff(ordered) == 0)
    if len(duplicates):
        first, second = order[duplicates[0]] + 2, order[duplicates[0] + 1] + 2
        raise SubmissionError(f"{path}:{second}: Id {ordered[duplicates[0]]} is duplicated (first in line {first})")
    if expected_ids is None:
        return
    expected = np.asarray(expected_ids, np.int64)
    for wrong, kind in ((np.setdiff1d(expected, ordered), "missing"), (np.setdiff1d(ordered, expected), "unexpected")):
        if len(wrong):
            raise SubmissionError(
                f"{path}: {len(wrong)} Ids {kind}, the first is {wrong[0]}; expected the {len(expected)} Ids "
                f"{expected.min()} to {expected.max()}"
            )
