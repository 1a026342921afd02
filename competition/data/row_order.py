"""Find out whether the list of images is in the order of the labels, from the names and the poses.

Cameras see one rigid pose at an instant, and a pose changes little between neighbouring frames. pose2d is no
help: it is in the same file as pose3d, and in the same order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from competition.common.arrays import Bools, Float64, Floats, Intp
from competition.data.faults import Fault
from competition.data.names import ImageName

RIGID_MM = 5.0  # mean difference of joint distances; 1e-4 for one pose seen by two cameras, 25 and more for two poses
NOISE = 0.25  # of a pose that several cameras disagree on, relative to the difference of any two poses
FEW = 0.002  # share of instants that can be single mistakes
NEAR_FRAMES = 5  # between neighbours
SHUFFLED = 0.7  # change between neighbours, relative to that between any frames of the sequence
CONFIRMED = 30  # instants whose cameras all agree, from which the list is in the right order
JUMP_MM = 50.0  # mean distance of a pose from the middle between its neighbours
JUMPS = 0.03  # share of jumps that isn't explained by single mistakes
LEAST_NEIGHBOURS = 20  # to judge
_ANCHORS = (0, 3, 10, 13)  # joints whose distances from all joints determine a pose
_CHUNK = 20_000  # rows, which bounds the memory


@dataclass(frozen=True, kw_only=True)
class OrderFacts:
    """What the order of the list could be compared with; 0 of both: with nothing."""

    instants: int  # seen by several cameras
    wrong_instants: tuple[int, ...]  # first rows of those whose cameras see different poses
    neighbours: int  # pairs of rows of one sequence and camera, up to NEAR_FRAMES apart
    change: float | None  # median change between neighbours, relative to that between any frames of the sequence
    jumps: tuple[int, ...]  # rows that differ from both neighbours, which resemble each other

    @property
    def continuous(self) -> bool:
        """Whether neighbouring frames confirm the order."""
        return self.change is not None and self.change < SHUFFLED and len(self.jumps) <= JUMPS * self.neighbours


def order_facts(names: Sequence[ImageName | None], pose_mm: Floats) -> OrderFacts:
    """Compare poses [N, 17, 3] of one instant, and of neighbouring frames."""
    rows, firsts = _same_instant(names)
    differs = _are_different(pose_mm, rows, firsts)
    near, sequence = _neighbours(names)
    change, jumps = _continuity(pose_mm, near, sequence)
    return OrderFacts(
        instants=len(np.unique(firsts)),
        wrong_instants=tuple(np.unique(firsts[differs]).tolist()),
        neighbours=len(near),
        change=change,
        jumps=jumps,
    )


def find_order_faults(path: Path, images: Sequence[str], facts: OrderFacts) -> tuple[list[Fault], list[Fault]]:
    """Return the problems, and the possible problems, of an image list."""

    def places(rows: Sequence[int]) -> list[str]:
        return [f"Id {row + 1} {images[row]}" for row in rows]

    fix = "sort its lines like the rows of train.h5, or take both from one source"
    if facts.wrong_instants:
        what = "in another order than train.h5: cameras of one instant have different poses"
        fault = Fault(
            path, what, f"{fix}; or do names of one frame show different instants?", places(facts.wrong_instants)
        )
        certain = len(facts.wrong_instants) > max(1, FEW * facts.instants) and not facts.continuous
        return ([fault], []) if certain else ([], [fault])
    if facts.instants >= CONFIRMED:  # neighbouring frames of a subset may be far apart in time
        return [], []
    if facts.change is not None and facts.change >= SHUFFLED:
        what = f"in another order than train.h5: poses change between neighbouring frames {facts.change:.0%} as much as"
        return [Fault(path, f"{what} between any frames of a sequence", fix)], []
    if len(facts.jumps) > JUMPS * facts.neighbours:
        what = "in another order than train.h5: poses that resemble neither neighbouring frame"
        return [Fault(path, what, fix, places(facts.jumps))], []
    return [], []


def _same_instant(names: Sequence[ImageName | None]) -> tuple[Intp, Intp]:
    """Return the rows whose instant is also in an earlier row, and those earlier rows."""
    first: dict[tuple[str, int], int] = {}
    pairs = []
    for row, name in enumerate(names):
        if name is not None and (other := first.setdefault((name.sequence, name.frame), row)) != row:
            pairs.append((row, other))
    rows, firsts = np.array(pairs, np.intp).reshape(-1, 2).T
    return rows, firsts


def _are_different(pose_mm: Floats, rows: Intp, others: Intp) -> Bools:
    """Return a mask [P] of the pairs of rows that have different poses; where all differ, there may be noise."""
    difference_mm = _differences_mm(pose_mm, rows, others)
    limit_mm = RIGID_MM
    if len(rows) and np.median(difference_mm) > RIGID_MM / 2:
        any_pose = np.random.default_rng(0).permutation(others)
        limit_mm = max(RIGID_MM, NOISE * float(np.median(_differences_mm(pose_mm, rows, any_pose))))
    return np.asarray(difference_mm > limit_mm)


def _differences_mm(pose_mm: Floats, rows: Intp, others: Intp) -> Float64:
    """Return the mean difference [P] of the joints' distances from each other between the poses of two rows."""
    parts = [np.zeros(0)]
    for i in range(0, len(rows), _CHUNK):
        a, b = (_distances_mm(pose_mm[part[i : i + _CHUNK]]) for part in (rows, others))
        parts.append(np.abs(a - b).mean(axis=0, dtype=np.float64))
    return np.concatenate(parts)


def _distances_mm(pose_mm: Floats) -> Floats:
    """Return the distances [D, N] of the joints of poses [N, 17, 3] from the anchors."""
    joints = np.ascontiguousarray(pose_mm.transpose(2, 1, 0))  # [3, 17, N]
    distances = [np.sqrt(np.square(joints - joints[:, anchor, None]).sum(axis=0)) for anchor in _ANCHORS]
    return np.concatenate(distances)


def _neighbours(names: Sequence[ImageName | None]) -> tuple[Intp, list[Intp]]:
    """Return pairs of rows [P, 2] at neighbouring frames, in order, and the rows of each sequence and camera."""
    groups: dict[tuple[str, str], list[int]] = {}
    for row, name in enumerate(names):
        if name is not None:
            groups.setdefault((name.sequence, name.camera), []).append(row)
    frame = np.array([name.frame if name else -1 for name in names])
    ordered = [np.array(rows)[np.argsort(frame[rows], kind="stable")] for rows in groups.values()]
    near = [np.stack([rows[:-1], rows[1:]], axis=1)[np.diff(frame[rows]) <= NEAR_FRAMES] for rows in ordered]
    used = [rows for rows, pairs in zip(ordered, near, strict=True) if len(pairs)]
    return np.concatenate([np.zeros((0, 2), np.intp), *near]), used


def _continuity(pose_mm: Floats, near: Intp, sequences: list[Intp]) -> tuple[float | None, tuple[int, ...]]:
    """Return the change between neighbours relative to that between any frames, and the rows that jump."""
    if len(near) < LEAST_NEIGHBOURS:
        return None, ()
    generator = np.random.default_rng(0)
    any_rows = np.concatenate([np.stack([rows, generator.permutation(rows)], axis=1) for rows in sequences])
    any_rows = any_rows[any_rows[:, 0] != any_rows[:, 1]]
    change = _distance_mm(pose_mm, near[:, 0], near[:, 1])
    usual = float(np.median(_distance_mm(pose_mm, any_rows[:, 0], any_rows[:, 1])))
    triples = np.flatnonzero(near[:-1, 1] == near[1:, 0])
    before, here, after = near[triples, 0], near[triples, 1], near[triples + 1, 1]
    off_mm = _distance_mm(pose_mm, here, before, after)
    jumps = here[(off_mm > JUMP_MM) & (off_mm > 2 * _distance_mm(pose_mm, before, after))]
    return (float(np.median(change)) / usual if usual > JUMP_MM / 2 else None), tuple(np.sort(jumps).tolist())


def _distance_mm(pose_mm: Floats, rows: Intp, *others: Intp) -> Floats:
    """Return the mean distance [P] of the joints between poses of two rows, or of a row and the mean of others."""
    parts = [np.zeros(0, pose_mm.dtype)]
    for i in range(0, len(rows), _CHUNK):
        here, *there = (pose_mm[part[i : i + _CHUNK]] for part in (rows, *others))
        parts.append(np.linalg.norm(here - np.mean(there, axis=0), axis=2).mean(axis=1))
    return np.concatenate(parts)
