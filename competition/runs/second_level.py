"""The second level of a blend: a linear correction of blended poses, fitted by `blending` and stored in stack.npz.

A correction is linear in blocks of 51 numbers, one per coordinate, all in mm:

    the blended pose, and the same times two numbers of the posture
    each member's difference from the blended pose

The numbers, the same for a pose and its mirror image, are the direction that the subject faces and the pose's size.
A smooth part is added: a sum of responses, each weighted by how near the blended pose is to a reference pose.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np

from competition.common.arrays import Float64
from competition.common.errors import UserError
from competition.common.skeleton import AXES, JOINTS
from competition.runs.folders import read_arrays

FILE: Final = "stack.npz"
COORDINATES: Final = len(JOINTS) * len(AXES)
SHOULDERS: Final = (JOINTS.index("LShoulder"), JOINTS.index("RShoulder"))
TYPICAL_MM: Final = 350.0  # mean distance of the joints from the root
CHUNK_ROWS: Final = 8192


@dataclass(frozen=True, kw_only=True, eq=False)
class SecondLevel:
    """A fitted correction."""

    coefficients: Float64  # [blocks, 51, 51]: by block, coordinate of the block, corrected coordinate
    offset_mm: Float64  # [51]
    reference_mm: Float64  # [R, 51]
    response_mm: Float64  # [R, 51], of each reference pose
    square_mm: float  # the squared distance at which the weight of a reference pose has fallen to 1/e

    def correct(self, blended_mm: Float64, pose_mm: Float64) -> Float64:
        """Correct blended poses [n, 17, 3], given the members' poses [M, n, 17, 3]."""
        corrected = blended_mm.astype(np.float64)
        matrix = self.coefficients.reshape(-1, COORDINATES)
        for start in range(0, len(corrected), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            found = blocks(blended_mm[rows], pose_mm[:, rows])
            correction = found.reshape(len(found), -1) @ matrix + self.offset_mm
            correction += nearness(found[:, 0], self.reference_mm, self.square_mm) @ self.response_mm
            corrected[rows] += correction.reshape(corrected[rows].shape)
        return corrected

    def scaled(self, factor: float) -> "SecondLevel":
        """Return a correction that moves poses by `factor` times as much."""
        return replace(
            self,
            coefficients=factor * self.coefficients,
            offset_mm=factor * self.offset_mm,
            response_mm=factor * self.response_mm,
        )

    def to_npz(self, names: Sequence[str]) -> bytes:
        """Return the contents of stack.npz for a blend of the candidates `names`, run:epoch."""
        return npz(names, level_arrays(self))


def blocks(blended_mm: Float64, pose_mm: Float64) -> Float64:
    """Return the blocks [n, 3 + M, 51] of blended poses [n, 17, 3] and the members' poses [M, n, 17, 3]."""
    left, right = (blended_mm[:, joint] for joint in SHOULDERS)
    across = left - right
    facing = across[:, 0] / np.maximum(np.linalg.norm(across, axis=1), 1.0)  # 1: toward the camera, -1: away
    size = 2 * (np.linalg.norm(blended_mm, axis=2).mean(axis=1) / TYPICAL_MM - 1)
    found = [blended_mm, blended_mm * facing[:, None, None], blended_mm * size[:, None, None], *(pose_mm - blended_mm)]
    return np.stack(found, axis=1).reshape(len(blended_mm), len(found), COORDINATES)


def npz(names: Sequence[str], arrays: Mapping[str, Float64]) -> bytes:
    """Return the contents of stack.npz for a blend of the candidates `names`, run:epoch."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, candidates=np.array(names), **arrays)
    return content.getvalue()


def level_arrays(level: SecondLevel | None, prefix: str = "") -> dict[str, Float64]:
    """Return the arrays of a correction by their names in stack.npz; without blocks and references if there is none."""
    if level is None:
        nothing = np.zeros((0, COORDINATES))
        level = SecondLevel(
            coefficients=np.zeros((0, COORDINATES, COORDINATES)),
            offset_mm=np.zeros(COORDINATES),
            reference_mm=nothing,
            response_mm=nothing,
            square_mm=1.0,
        )
    return {f"{prefix}{name}": np.asarray(value, np.float64) for name, value in asdict(level).items()}


def nearness(pose_mm: Float64, reference_mm: Float64, square_mm: float) -> Float64:
    """Return the weights [n, R] of reference poses [R, 51] for poses [n, 51]: 1 where they are equal, 0 far away."""
    squares = [np.square(poses).sum(axis=1) for poses in (pose_mm, reference_mm)]
    distance = squares[0][:, None] + squares[1] - 2 * pose_mm @ reference_mm.T
    return np.asarray(np.exp(-np.maximum(distance, 0) / square_mm))


def read_second_level(path: Path, names: Sequence[str]) -> SecondLevel:
    """Read stack.npz of a blend of the candidates `names`; raise UserError if it is damaged or of other candidates."""
    check_candidates(path, names)
    level = read_level(path, 3 + len(names))
    if level is None:
        raise damaged(path, "coefficients are empty")
    return level


def check_candidates(path: Path, names: Sequence[str]) -> None:
    """Raise UserError if stack.npz isn't of a blend of the candidates `names`."""
    if read_arrays(path, "candidates")[0].tolist() != list(names):
        raise damaged(path, "its candidates don't match those of blend.json")


def read_level(path: Path, count: int, prefix: str = "") -> SecondLevel | None:
    """Read a correction with `count` blocks; None if it is stored without blocks."""
    names = tuple(f"{prefix}{field.name}" for field in fields(SecondLevel))
    arrays = read_arrays(path, *names)
    coefficients, offset_mm, reference_mm, response_mm, square_mm = arrays
    count *= coefficients.size > 0
    references = (reference_mm.size // COORDINATES, COORDINATES)
    shapes = ((count, COORDINATES, COORDINATES), (COORDINATES,), references, references, ())
    for name, array, shape in zip(names, arrays, shapes, strict=True):
        if array.dtype != np.float64 or array.shape != shape or not np.isfinite(array).all():
            raise damaged(path, f"{name} isn't float64 {list(shape)}, all finite")
    if square_mm <= 0:
        raise damaged(path, f"{names[-1]} isn't positive")
    level = SecondLevel(
        coefficients=coefficients,
        offset_mm=offset_mm,
        reference_mm=reference_mm,
        response_mm=response_mm,
        square_mm=float(square_mm),
    )
    return level if count else None


def damaged(path: Path, what: str) -> UserError:
    """Return the error for a stack.npz that can't be used."""
    return UserError(f"{path}: {what}", fix="blend again")
