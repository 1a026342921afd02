"""Simulates residuals of ensemble members with correlated errors, so that blends can be tested on fresh rows.

A residual is the sum of an error shared by all members (hard images, whole sequences) and the member's own: a bias,
errors that are partly constant within a sequence, and occasionally a leg with mirrored depth. The first three members
and their mean score about as the poster's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from competition.blending.problem import Problem
from competition.common.arrays import Float32, Float64, Intp
from competition.common.seeds import generator
from competition.common.skeleton import PARENTS
from competition.data.views import Views

JOINT_MM = np.array([0, 30, 60, 80, 30, 60, 80, 40, 50, 60, 70, 55, 85, 110, 55, 85, 110], np.float32)
AXIS = np.array([0.6, 0.5, 1.1], np.float32)  # depth is hardest
LEVELS = (1.262, 1.293, 1.134)  # error scales of the first three members
SHARED, OWN = 0.739, 0.674  # scale of the error shared by all members, and of each member's own
SEQUENCE = 0.5  # share of the variance of each that is constant within a sequence
FLIP = 0.02  # share of images in which a member mirrors the depth of a leg
FRAMES = 40  # rows per sequence
POSTURE = 48  # dimensions in which poses vary
POSE_MM = 110  # standard deviation of a coordinate relative to its parent's
IN_ALL_VIEWS = 0.5  # share of the variance of an error that all cameras of an instant have in common
YAW = 0.3  # standard deviation of a camera's direction in radians, about a multiple of the mean angle between cameras


class Simulated(NamedTuple):
    """Residuals, the sequence of each row, and its true pose."""

    residual: Float32  # [17, 3, M, N] mm
    sequence: npt.NDArray[np.str_]  # [N]
    true_mm: Float32 | None = None  # [N, 17, 3]
    views: Views | None = None  # of several cameras

    @property
    def subject(self) -> npt.NDArray[np.str_]:
        """The subject of each row, [N]."""
        return np.array([name.partition("_")[0] for name in self.sequence])

    @property
    def problem(self) -> Problem:
        members = self.residual.shape[2]
        names = tuple(f"member:{index}" for index in range(members))
        return Problem(
            residual=self.residual, names=names, true_mm=self.true_mm, sequences=self.sequence, views=self.views
        )


def simulate(
    rows: int,
    *,
    members: int = 6,
    sequences: int | None = None,
    subjects: int = 5,
    cameras: int = 1,
    seed: int = 0,
    draw: int = 0,
    levels: Sequence[float] = LEVELS,
) -> Simulated:
    """Draw rows of the ensemble that `seed` defines; another `draw` gives fresh rows of the same members.

    `levels` are the error scales of the first members; those of the others lie in between. Several cameras show the
    same instants around each subject, the rows of one camera after those of another. Subjects differ in nothing but
    the directions of their cameras.
    """
    character = generator(seed, "simulator", "members", members)
    random = generator(seed, "simulator", "rows", members, draw)
    instants = rows // cameras
    count = max(1, instants // FRAMES) if sequences is None else sequences
    of_instant = np.arange(instants) * count // instants
    subject = of_instant % subjects
    turns = _turns(generator(seed, "simulator", "cameras", draw), subjects, cameras)[subject]  # [instants, C, 3, 3]
    scale = JOINT_MM[:, None, None] * AXIS[:, None]  # [17, 3, 1]

    def noise() -> Float32:
        """Draw errors [17, 3, instants] of unit variance, partly constant within a sequence."""
        common = random.standard_normal((17, 3, count), np.float32)[..., of_instant]
        single = random.standard_normal((17, 3, instants), np.float32)
        return np.float32(SEQUENCE**0.5) * common + np.float32((1 - SEQUENCE) ** 0.5) * single

    def correlated_noise() -> Float32:
        """Draw errors [17, 3, rows] of unit variance, which are partly the same in all views of an instant."""
        if cameras == 1:
            return noise()
        in_all = IN_ALL_VIEWS**0.5 * np.einsum("ncab,jbn->jacn", turns, noise(), optimize=True)  # [17, 3, C, instants]
        own = (1 - IN_ALL_VIEWS) ** 0.5 * np.stack([noise() for _ in range(cameras)], axis=2)
        return np.float32(in_all + own).reshape(17, 3, -1)

    hard = np.tile(np.exp(np.float32(0.5) * random.standard_normal(count, np.float32))[of_instant], cameras)
    shared = np.float32(SHARED) * hard * correlated_noise()
    residual = np.empty((17, 3, members, instants * cameras), np.float32)
    for member in range(members):
        level = levels[member] if member < len(levels) else character.uniform(min(levels), max(levels))
        skill = character.uniform(0.8, 1.25, (17, 3, 1)).astype(np.float32)
        bias = character.normal(0, 0.15, (17, 3, 1)).astype(np.float32)
        own = np.float32(OWN) * correlated_noise()
        flipped = random.random(instants * cameras) < FLIP
        own[1:4, 2, flipped] *= -4
        residual[:, :, member] = level * scale * skill * (shared + own + bias)
    sequence = np.array([f"S{index % subjects}_{index}" for index in range(count)])[of_instant]
    poses_mm = _poses(generator(seed, "simulator", "poses", draw), of_instant)
    if cameras == 1:
        return Simulated(residual, sequence, poses_mm)
    seen_mm = np.einsum("ncab,njb->cnja", turns, poses_mm, optimize=True).reshape(-1, 17, 3).astype(np.float32)
    return Simulated(residual, np.tile(sequence, cameras), seen_mm, _views(subject, cameras))


def _views(subject: Intp, cameras: int) -> Views:
    """Return the views of instants, whose subjects are [instants]; every camera shows all of them."""
    instants = len(subject)
    return Views(
        subject=np.tile(subject, cameras),
        instant=np.tile(np.arange(instants), cameras),
        camera=np.repeat(np.arange(cameras), instants),
        usable=np.ones((instants * cameras, cameras), bool),
    )


def _turns(random: np.random.Generator, subjects: int, cameras: int) -> Float64:
    """Draw rotations [subjects, cameras, 3, 3] from the room's axes to those of cameras around each subject."""
    yaw = 2 * np.pi / cameras * np.arange(cameras) + random.normal(0, YAW, (subjects, cameras))
    cos, sin, zero = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)
    return np.stack([cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos], axis=-1).reshape(*yaw.shape, 3, 3)


def _poses(random: np.random.Generator, of_row: Intp) -> Float32:
    """Draw poses [N, 17, 3] in mm that vary in few dimensions, partly constant within a sequence."""
    mixing = generator(0, "simulator", "postures").normal(0, POSE_MM / POSTURE**0.5, (POSTURE, 17, 3))
    for joint, parent in enumerate(PARENTS):
        mixing[:, joint] += mixing[:, parent] if parent >= 0 else -mixing[:, joint]
    constant, single = random.standard_normal((2, len(of_row), POSTURE))
    posture = SEQUENCE**0.5 * constant[of_row] + (1 - SEQUENCE) ** 0.5 * single
    return np.tensordot(posture, mixing, axes=1).astype(np.float32)
