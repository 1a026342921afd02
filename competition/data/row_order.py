"""Find out whether the list of images is in the order of the labels, from the names and the poses.

Cameras see one rigid pose at an instant, and a pose changes little between neighbouring frames. Where whole parts of
the list, or whole cameras, are exchanged, `blocks` and `viewpoints` compare more. pose2d is no help: it is in the
same file as pose3d, and in the same order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from competition.common.arrays import Bools, Float64, Floats, Intp
from competition.data.blocks import CHUNK, BlockFacts, block_facts, distance_mm
from competition.data.faults import Fault
from competition.data.names import ImageName
from competition.data.viewpoints import Exchange, find_exchanges

ORDER = "in another order than train.h5"
REVERSED = 0.1  # contradictions of the reversed order, relative to those of the order, if it is the right one
RIGID_MM = 5.0  # mean difference of joint distances; 1e-4 for one pose seen by two cameras, 25 and more for two poses
NOISE = 0.25  # of a pose that several cameras disagree on, relative to the difference of any two poses
MOST_NOISE = 0.6  # of the same, for the limit of twice the usual difference
FEW = 0.002  # share of instants that can be single mistakes
NEAR_FRAMES = 5  # between neighbours
SHUFFLED = 0.7  # change between neighbours, relative to that between any frames of the sequence
CONFIRMED = 30  # instants whose cameras all agree, from which the list is in the right order
JUMP_MM = 50.0  # mean distance of a pose from the middle between its neighbours
JUMPS = 0.03  # share of jumps that isn't explained by single mistakes
LEAST_NEIGHBOURS = 20  # to judge
_ANCHORS = (0, 3, 10, 13)  # joints whose distances from all joints determine a pose


@dataclass(frozen=True, kw_only=True)
class OrderFacts:
    """What the order of the list could be compared with; 0 of both: with nothing."""

    rows: int
    instants: int  # seen by several cameras
    wrong_instants: tuple[int, ...]  # first rows of those whose cameras see different poses
    neighbours: int  # pairs of rows of one sequence and camera, up to NEAR_FRAMES apart
    change: float | None  # median change between neighbours, relative to that between any frames of the sequence
    jumps: tuple[int, ...]  # rows that differ from both neighbours, which resemble each other
    exchanges: tuple[Exchange, ...]  # of cameras
    blocks: BlockFacts
    reversals: tuple[str, ...]  # what else is in the order of the labels: the list, or each subject's part, reversed

    @property
    def shuffled(self) -> bool:
        """Whether poses of neighbouring frames are unlike each other."""
        return self.instants < CONFIRMED and self.change is not None and self.change >= SHUFFLED

    @property
    def continuous(self) -> bool:
        """Whether neighbouring frames confirm the order."""
        return self.change is not None and self.change < SHUFFLED and len(self.jumps) <= JUMPS * self.neighbours


def order_facts(names: Sequence[ImageName | None], pose_mm: Floats) -> OrderFacts:
    """Compare poses [N, 17, 3] of one instant, and of neighbouring frames."""
    rows, firsts = _same_instant(names)
    differs = _are_different(pose_mm, rows, firsts)
    near, sequences = _neighbours(names)
    change, jumps = _continuity(pose_mm, near, sequences)
    blocks = block_facts(names, pose_mm, near, sequences)
    reversals = []
    if differs.any() or blocks:
        now = (int(differs.sum()), *blocks.contradictions)
        for what, order in (("its lines", np.arange(len(names))[::-1]), ("the lines of each subject", _turn(names))):
            other_mm = pose_mm[order]
            then = block_facts(names, other_mm, near, sequences).contradictions
            then_all = (int(_are_different(other_mm, rows, firsts).sum()), *then)
            if all(other <= REVERSED * this for this, other in zip(now, then_all, strict=True)):
                reversals.append(what)
    return OrderFacts(
        rows=len(names),
        instants=len(np.unique(firsts)),
        wrong_instants=tuple(np.unique(firsts[differs]).tolist()),
        neighbours=len(near),
        change=change,
        jumps=jumps,
        exchanges=find_exchanges(names, pose_mm, rows[~differs], firsts[~differs]),
        blocks=blocks,
        reversals=tuple(reversals),
    )


def find_order_faults(path: Path, images: Sequence[str], facts: OrderFacts) -> tuple[list[Fault], list[Fault]]:
    """Return the problems, and the possible problems, of an image list."""

    def places(rows: Sequence[int]) -> list[str]:
        return [f"Id {row + 1} {images[row]}" for row in rows]

    fix = "sort its lines like the rows of train.h5, or take both from one source"
    if facts.reversals:
        evidence = (*facts.wrong_instants, *facts.blocks.strangers, *facts.blocks.moved_ends, *facts.blocks.upright)
        what = f"{ORDER}: reversed, as poses fit the names from the last to the first"
        fix = f"reverse {' or '.join(facts.reversals)}, or take both from one source"
        return [Fault(path, what, fix, places(sorted({*evidence})))], []
    if facts.wrong_instants:
        what = f"{ORDER}: cameras of one instant have different poses"
        fault = Fault(
            path, what, f"{fix}; or do names of one frame show different instants?", places(facts.wrong_instants)
        )
        sure = not facts.continuous or facts.blocks.divided or bool(facts.blocks.moved_ends)
        certain = len(facts.wrong_instants) > max(1, FEW * facts.instants) and sure
        return ([fault], []) if certain else ([], [fault])
    if facts.blocks or facts.exchanges:
        problems, doubts = _find_block_faults(path, facts, fix, places)
        if problems or not facts.shuffled:
            return problems, doubts
    if facts.instants >= CONFIRMED:  # neighbouring frames of a subset may be far apart in time
        return [], []
    if facts.change is not None and facts.shuffled:
        what = f"{ORDER}: poses change between neighbouring frames {facts.change:.0%} as much as"
        return [Fault(path, f"{what} between any frames of a sequence", fix)], []
    if len(facts.jumps) > JUMPS * facts.neighbours:
        what = f"{ORDER}: poses that resemble neither neighbouring frame"
        return [Fault(path, what, fix, places(facts.jumps))], []
    return [], []


def _find_block_faults(
    path: Path, facts: OrderFacts, fix: str, places: Callable[[Sequence[int]], list[str]]
) -> tuple[list[Fault], list[Fault]]:
    """Return problems and possible problems with parts of the list or cameras in another order."""
    blocks = facts.blocks
    problems: list[Fault] = []
    doubts: list[Fault] = []
    if facts.exchanges:
        sure = [one for one in facts.exchanges if one.certain and len(one.rows) > max(1, FEW * one.instants)]
        most = max(sure or facts.exchanges, key=lambda one: len(one.rows))
        cameras = ", ".join(f"{camera} has the viewpoint of {other}" for camera, other in sorted(most.cameras.items()))
        rows = sorted({row for one in sure or facts.exchanges for row in one.rows})
        what = f"{ORDER}: the poses of cameras are exchanged (in {most.subject}, {cameras})"
        advice = "exchange the names of these cameras in the list, or their rows in train.h5"
        fault = Fault(path, what, f"{advice}; or were cameras moved or renamed?", places(rows))
        (problems if sure else doubts).append(fault)
    if blocks.strangers:
        what = f"{ORDER}: images with the bone lengths of another subject"
        fault = Fault(path, what, f"{fix}; or do names of one subject show two people?", places(blocks.strangers))
        many = len(blocks.strangers) > max(1, FEW * facts.rows)
        (problems if many and (blocks.divided or blocks.moved_ends or blocks.upright) else doubts).append(fault)
    elif blocks.moved_ends and not facts.exchanges:
        what = f"{ORDER}: poses jump within sequences and continue across their ends (parts exchanged?)"
        problems.append(Fault(path, what, fix, places(blocks.moved_ends)))
    elif blocks.upright:
        what = "in another order than train.h5? people sit or stand unlike the names of the actions"
        doubts.append(Fault(path, what, f"{fix}; draw the poses on a few of the images", places(blocks.upright)))
    return (problems, []) if problems else ([], doubts)


def _turn(names: Sequence[ImageName | None]) -> Intp:
    """Return the rows [N] with those of each subject, as long as they are together, from the last to the first."""
    runs = [list(run) for _, run in groupby(range(len(names)), key=lambda row: getattr(names[row], "subject", ""))]
    return np.array([row for run in runs for row in reversed(run)], np.intp)


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
        any_mm = float(np.median(_differences_mm(pose_mm, rows, any_pose)))
        limit_mm = max(RIGID_MM, NOISE * any_mm, min(2 * float(np.median(difference_mm)), MOST_NOISE * any_mm))
    return np.asarray(difference_mm > limit_mm)


def _differences_mm(pose_mm: Floats, rows: Intp, others: Intp) -> Float64:
    """Return the mean difference [P] of the joints' distances from each other between the poses of two rows."""
    parts = [np.zeros(0)]
    for i in range(0, len(rows), CHUNK):
        a, b = (_distances_mm(pose_mm[part[i : i + CHUNK]]) for part in (rows, others))
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
    return np.concatenate([np.zeros((0, 2), np.intp), *near]), ordered


def _continuity(pose_mm: Floats, near: Intp, sequences: list[Intp]) -> tuple[float | None, tuple[int, ...]]:
    """Return the change between neighbours relative to that between any frames, and the rows that jump."""
    if len(near) < LEAST_NEIGHBOURS:
        return None, ()
    generator = np.random.default_rng(0)
    is_near = np.zeros(len(pose_mm), bool)
    is_near[near] = True
    used = [rows for rows in sequences if is_near[rows].any()]
    any_rows = np.concatenate([np.stack([rows, generator.permutation(rows)], axis=1) for rows in used])
    any_rows = any_rows[any_rows[:, 0] != any_rows[:, 1]]
    change = distance_mm(pose_mm, near[:, 0], near[:, 1])
    usual = float(np.median(distance_mm(pose_mm, any_rows[:, 0], any_rows[:, 1])))
    triples = np.flatnonzero(near[:-1, 1] == near[1:, 0])
    before, here, after = near[triples, 0], near[triples, 1], near[triples + 1, 1]
    off_mm = distance_mm(pose_mm, here, before, after)
    jumps = here[(off_mm > JUMP_MM) & (off_mm > 2 * distance_mm(pose_mm, before, after))]
    return (float(np.median(change)) / usual if usual > JUMP_MM / 2 else None), tuple(np.sort(jumps).tolist())
