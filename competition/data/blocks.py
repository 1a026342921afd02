"""Find out whether whole parts of an image list are in another order than the labels, or the list is reversed.

Cameras of one instant and neighbouring frames still agree then. What doesn't are bones, which are one person's in all
images of a subject; the ends of sequences, where poses jump; and sitting people in sequences named after that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from competition.common.arrays import Bools, Floats, Intp
from competition.common.skeleton import BONES
from competition.data.names import ImageName

SAME_BONES_MM = 2.0  # mean difference of the lengths of one person's bones; .01 where they are rigid
OTHER_BONES_MM = 6.0  # least one of two people's; 10 and more
MOST_ODD = 0.5  # share of rows with none of the subjects' bones; more where bones aren't rigid
JUMP_MM, JUMP = 50.0, 4.0  # a change between neighbours, also relative to those before and after
SMOOTH = 2.0  # of the median change between neighbours
ENDS = 0.02  # share of sequences that jump in their middle rather than at their end
SITTING, STANDING = ("Sitting", "SittingDown"), ("Walking", "WalkTogether", "WalkDog", "Walk")
SAT = 0.75  # median height of the hips above the feet, relative to the legs: .2 to .55 of sitting people, .9 of others
LEAST_POSES = 20  # to judge
CHUNK = 20_000  # rows, which bounds the memory


@dataclass(frozen=True, kw_only=True)
class BlockFacts:
    """What contradicts the order of blocks of rows."""

    strangers: tuple[int, ...] = ()  # rows with the bones of another subject
    divided: bool = False  # some of them beside rows of the same sequence with the subject's own bones
    moved_ends: tuple[int, ...] = ()  # rows where poses jump although sequences end elsewhere
    upright: tuple[int, ...] = ()  # rows of sitting people, if most stand

    jumps: int = 0  # of poses within sequences

    @property
    def contradictions(self) -> tuple[int, int, int]:
        return len(self.strangers), len(self.upright), self.jumps

    def __bool__(self) -> bool:
        return bool(self.strangers or self.moved_ends or self.upright)


def block_facts(
    names: Sequence[ImageName | None], pose_mm: Floats, near: Intp, sequences: Sequence[Intp]
) -> BlockFacts:
    """Compare poses [N, 17, 3] with names, neighbours [P, 2], and the rows of each sequence and camera in order."""
    strangers = _strangers(names, _bones_mm(pose_mm))
    divided = any(0 < strangers[rows].sum() < len(rows) for rows in sequences) if strangers.any() else False
    jumps, moved = _jumps(pose_mm, near, sequences)
    return BlockFacts(
        strangers=tuple(np.flatnonzero(strangers).tolist()),
        divided=divided,
        moved_ends=jumps if moved else (),
        jumps=len(jumps),
        upright=_upright(names, pose_mm),
    )


def _bones_mm(pose_mm: Floats) -> Floats:
    """Return the lengths of the bones [16, N]."""
    joints = np.ascontiguousarray(pose_mm.transpose(2, 1, 0))  # [3, 17, N]
    return np.stack([np.sqrt(np.square(joints[:, a] - joints[:, b]).sum(axis=0)) for a, b in BONES])


def _strangers(names: Sequence[ImageName | None], bones_mm: Floats) -> Bools:
    """Return a mask [N] of the rows with bones of another subject, of which the others have their own."""
    number: dict[str, int] = {}
    subject = np.array([number.setdefault(name.subject, len(number)) if name else -1 for name in names], np.intp)
    medians_mm = [np.median(bones_mm[:, subject == one], axis=1) for one in range(len(number))]
    off_mm = np.zeros(len(names))
    for one, median_mm in enumerate(medians_mm):
        off_mm[subject == one] = np.abs(bones_mm[:, subject == one] - median_mm[:, None]).mean(axis=0)
    odd = np.flatnonzero(off_mm > SAME_BONES_MM)
    strangers = np.zeros(len(names), bool)
    if len(odd) and len(odd) <= MOST_ODD * len(names):
        least_mm = np.min([np.abs(bones_mm[:, odd] - one[:, None]).mean(axis=0) for one in medians_mm], axis=0)
        known = least_mm <= SAME_BONES_MM
        if known.sum() > 0.5 * len(odd):
            strangers[odd[known & (off_mm[odd] > OTHER_BONES_MM)]] = True
    return strangers


def _jumps(pose_mm: Floats, near: Intp, sequences: Sequence[Intp]) -> tuple[tuple[int, ...], bool]:
    """Return rows at which poses jump within a sequence, and whether sequences also continue in others."""
    if len(near) < LEAST_POSES:
        return (), False
    steps, counts = np.unique(near[:, 1] - near[:, 0], return_counts=True)
    step = int(steps[counts.argmax()])
    last = np.array([rows[-1] for rows in sequences])
    following = last + step
    inside = (following >= 0) & (following < len(pose_mm))
    change_mm = distance_mm(pose_mm, near[:, 0], near[:, 1])
    usual_mm = float(np.median(change_mm))
    if usual_mm > JUMP_MM / 2:  # no film
        return (), False
    across_mm = distance_mm(pose_mm, last[inside], following[inside])
    smooth = int((across_mm < SMOOTH * usual_mm).sum())
    linked = near[:-1, 1] == near[1:, 0]
    before = np.concatenate([[0.0], np.where(linked, change_mm[:-1], 0)])
    after = np.concatenate([np.where(linked, change_mm[1:], 0), [0.0]])
    jumps = np.sort(near[(change_mm > JUMP_MM) & (change_mm > JUMP * np.maximum(before, after)), 1])
    least = max(2, ENDS * len(sequences))
    return tuple(jumps.tolist()), min(smooth, len(jumps)) >= least


def _upright(names: Sequence[ImageName | None], pose_mm: Floats) -> tuple[int, ...]:
    """Return the rows of sitting people if most of them stand, or walking ones sit."""
    sitting, standing = (
        np.array([row for row, name in enumerate(names) if name and name.action in actions], np.intp)
        for actions in (SITTING, STANDING)
    )
    if min(len(sitting), len(standing)) < LEAST_POSES:
        return ()
    if np.median(_hip_height(pose_mm[sitting])) > SAT:
        return tuple(sitting.tolist())
    return tuple(standing.tolist()) if np.median(_hip_height(pose_mm[standing])) < SAT else ()


def _hip_height(pose_mm: Floats) -> Floats:
    """Return the height of the hips above the feet [N] relative to the legs' length; y points down."""
    legs_mm = sum(np.linalg.norm(pose_mm[:, a] - pose_mm[:, b], axis=1) for a, b in ((1, 2), (2, 3), (4, 5), (5, 6)))
    height_mm = pose_mm[:, [3, 6], 1].sum(axis=1) - pose_mm[:, [1, 4], 1].sum(axis=1)
    return np.asarray(height_mm / np.maximum(legs_mm, 1))


def distance_mm(pose_mm: Floats, rows: Intp, *others: Intp) -> Floats:
    """Return the mean distance [P] of the joints between poses of two rows, or of a row and the mean of others."""
    parts = [np.zeros(0, pose_mm.dtype)]
    for i in range(0, len(rows), CHUNK):
        here, *there = (pose_mm[part[i : i + CHUNK]] for part in (rows, *others))
        parts.append(np.linalg.norm(here - np.mean(there, axis=0), axis=2).mean(axis=1))
    return np.concatenate(parts)
