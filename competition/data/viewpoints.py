"""Find out whether rows of cameras are exchanged, from the rotations between the cameras of one instant.

Where cameras stand still, the rotation from one to the other is the same at all instants of a subject; where their
rows are exchanged, it is that between other cameras. Rows that are exchanged at all instants of all subjects don't show
without pictures, unless it is known how the cameras stand.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from math import cos, radians, sin
from typing import NamedTuple

import numpy as np

from competition.common.arrays import Bools, Float64, Floats, Intp
from competition.data.names import ImageName

EXACT_MM, NOISY_MM = 2.0, (15.0, 40.0)  # mean distance of the joints after the rotation; of estimated poses
CLEAR = 4.0  # times that, from which a rotation is another one
MIXED = 0.1  # share of instants with exchanged cameras from which a subject has no layout of its own
EXPLAINED = 0.9  # share of instants with the rotation of their cameras or of others; less where cameras move
NOISY_INSTANTS = 20  # least number to judge estimated poses
SAME_DEGREES, OTHER_DEGREES = 20.0, 40.0  # between the layouts of two subjects: at most, and at least if exchanged
MOST_CAMERAS = 5  # of which all orders are tried
_TRIED = 32  # instants whose cameras are tried as the layout
_SAMPLE = 400  # pairs that a layout is compared with
_CHUNK = 20_000

Layout = dict[str, Float64]  # rotation [3, 3] of each camera, by name, relative to any of them
Cameras = dict[int, Float64]  # the same by number

# Human3.6M's cameras: azimuth in degrees, the same for all subjects within a few; all look down by about 13
_AZIMUTH = {"54138969": -114.0, "55011271": 112.0, "58860488": -66.0, "60457274": 65.0}
_DOWN_DEGREES = 13.0


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Instants of a subject at which rows of cameras are exchanged."""

    subject: str
    cameras: dict[str, str]  # whose pose each camera has
    rows: tuple[int, ...]  # one of each instant
    instants: int  # of the subject, to compare with
    certain: bool

    @classmethod
    def make(cls, subject: str, cameras: dict[str, str], wrong: Intp, all_firsts: Intp, *, certain: bool) -> "Exchange":
        rows, instants = tuple(np.unique(wrong).tolist()), len(np.unique(all_firsts))
        return cls(subject=subject, cameras=cameras, rows=rows, instants=instants, certain=certain)


def find_exchanges(
    names: Sequence[ImageName | None], pose_mm: Floats, rows: Intp, firsts: Intp
) -> tuple[Exchange, ...]:
    """Return the exchanged rows, given pairs of rows [P] that show one instant in poses [N, 17, 3]."""
    parts = [(name.subject, name.camera) if name else ("", "") for name in names]
    cameras = sorted({camera for _, camera in parts})
    number = {camera: i for i, camera in enumerate(cameras)}
    camera = np.array([number[camera] for _, camera in parts], np.intp)
    subjects = np.array([parts[row][0] for row in firsts])
    layouts: dict[str, tuple[Layout, Intp]] = {}
    found = []
    for subject in np.unique(subjects).tolist():
        of_subject = subjects == subject
        pairs = _Pairs.make(firsts[of_subject], rows[of_subject], camera)
        for tolerance_mm in (EXACT_MM, *NOISY_MM) if len(pairs.first) else ():
            layout = _typical_layout(pose_mm, pairs, tolerance_mm)
            if (wrong := _other_cameras(layout, pose_mm, pairs, tolerance_mm)) is not None:
                instants, votes = wrong
                seen = {cameras[one]: cameras[other] for (one, other), _ in reversed(votes.most_common())}
                exact = tolerance_mm == EXACT_MM
                if len(instants):
                    found.append(Exchange.make(subject, seen, instants, pairs.first, certain=exact))
                if len(instants) < MIXED * len(np.unique(pairs.first)):
                    layouts[subject] = {cameras[one]: rotation for one, rotation in layout.items()}, pairs.first
                break
    return (*found, *_compare_subjects(layouts))


class _Pairs(NamedTuple):
    """Pairs of rows that show one instant, those of one instant in sequence."""

    first: Intp  # [P] row of the instant
    a: Intp  # [P] row of a camera
    b: Intp  # [P] row of a camera with a greater number
    one: Intp  # [P] those cameras' numbers
    other: Intp

    @classmethod
    def make(cls, firsts: Intp, rows: Intp, camera: Intp) -> "_Pairs":
        order = np.argsort(firsts, kind="stable")
        first, row = firsts[order], rows[order]
        later = camera[first] < camera[row]
        a, b = np.where(later, first, row), np.where(later, row, first)
        return cls(first, a, b, camera[a], camera[b]).of(camera[a] != camera[b])

    def of(self, where: Bools | Intp) -> "_Pairs":
        return _Pairs(*(part[where] for part in self))

    def groups(self) -> Iterator[tuple[int, int, Intp]]:
        """Yield pairs of cameras with their positions in P, the most frequent first."""
        cameras, inverse, counts = np.unique(
            np.stack([self.one, self.other]), axis=1, return_inverse=True, return_counts=True
        )
        for group in np.argsort(-counts, kind="stable"):
            yield int(cameras[0, group]), int(cameras[1, group]), np.flatnonzero(inverse.ravel() == group)


def _typical_layout(pose_mm: Floats, pairs: _Pairs, tolerance_mm: float) -> Cameras:
    """Return how the cameras are turned at the instant, of some, with which most others agree."""
    _, starts, views = np.unique(pairs.first, return_index=True, return_counts=True)
    complete = np.flatnonzero(views == views.max())
    sample = pairs.of(_evenly(len(pairs.a), _SAMPLE))
    most, layout = -1, Cameras()
    for instant in complete[_evenly(len(complete), _TRIED)]:
        tried = _layout_of(pose_mm, pairs.of(starts[instant] + np.arange(views[instant])))
        agree = int((_residuals(pose_mm, sample, tried) <= tolerance_mm).sum())
        if agree > most:
            most, layout = agree, tried
    while True:  # add cameras that this instant doesn't have
        new = pairs.of(np.isin(pairs.one, list(layout)) != np.isin(pairs.other, list(layout)))
        if not len(new.a):
            return layout
        one, other, places = next(new.groups())
        group = new.of(places)
        tried_rows = group.of(_evenly(len(group.a), _TRIED))
        a, b = pose_mm[tried_rows.a], pose_mm[tried_rows.b]
        rotation = max(_rotations(a, b), key=lambda turn: int((_distance_mm(a, b, turn) <= tolerance_mm).sum()))
        layout |= {other: rotation @ layout[one]} if one in layout else {one: rotation.T @ layout[other]}


def _layout_of(pose_mm: Floats, instant: _Pairs) -> Cameras:
    """Return the layout of the cameras of one instant, relative to that of its first row."""
    layout = Cameras()
    for rotation, pair in zip(
        _rotations(pose_mm[instant.a], pose_mm[instant.b]), zip(*instant, strict=True), strict=True
    ):
        first, a, _, one, other = map(int, pair)
        layout |= {one: np.eye(3), other: rotation} if a == first else {other: np.eye(3), one: rotation.T}
    return layout


def _other_cameras(
    layout: Cameras, pose_mm: Floats, pairs: _Pairs, tolerance_mm: float
) -> tuple[Intp, Counter[tuple[int, int]]] | None:
    """Return instants at which cameras are turned like others, and which like which.

    None where too many pairs of cameras are turned like no cameras of the layout, as when they move.
    """
    own_mm = _residuals(pose_mm, pairs, layout)
    fits, count = int((own_mm <= tolerance_mm).sum()), len(own_mm)
    if tolerance_mm != EXACT_MM and (fits < count / 2 or len(np.unique(pairs.first)) < NOISY_INSTANTS):
        return None
    odd = pairs.of(own_mm > CLEAR * tolerance_mm)
    seen, least_mm = np.zeros((len(odd.a), 2), np.intp), np.full(len(odd.a), np.inf)
    for one, other in permutations(layout, 2) if len(odd.a) else ():
        residual_mm = _distance_mm(pose_mm[odd.a], pose_mm[odd.b], layout[other] @ layout[one].T)
        better = (residual_mm < least_mm) & ((odd.one != one) | (odd.other != other))
        seen[better], least_mm[better] = (one, other), residual_mm[better]
    explained = least_mm <= tolerance_mm
    if fits + int(explained.sum()) < EXPLAINED * count:
        return None
    cameras = np.stack([odd.one, odd.other], axis=1)[explained].ravel()
    votes = zip(cameras.tolist(), seen[explained].ravel().tolist(), strict=True)
    return np.unique(odd.first[explained]), Counter(vote for vote in votes if vote[0] != vote[1])


def _residuals(pose_mm: Floats, pairs: _Pairs, layout: Cameras) -> Float64:
    """Return how far the joints of each pair are from each other [P] after the rotation of the layout."""
    residual_mm = np.full(len(pairs.a), np.inf)
    for one, other, places in pairs.groups():
        if one in layout and other in layout:
            a, b = pose_mm[pairs.a[places]], pose_mm[pairs.b[places]]
            residual_mm[places] = _distance_mm(a, b, layout[other] @ layout[one].T)
    return residual_mm


def _compare_subjects(layouts: Mapping[str, tuple[Layout, Intp]]) -> Iterator[Exchange]:
    """Yield exchanges at all instants of subjects, given how Human3.6M's or most subjects' cameras stand."""
    expected = {subject: _known_layout(layout) for subject, (layout, _) in layouts.items()}
    common = None if len(layouts) < 3 else _common_layout([layout for layout, _ in layouts.values()])
    for subject, (layout, firsts) in layouts.items():
        reference = expected[subject] or common
        if reference is not None and (cameras := exchanged_cameras(layout, reference)):
            yield Exchange.make(subject, cameras, firsts, firsts, certain=bool(expected[subject]))


def exchanged_cameras(layout: Layout, expected: Layout) -> dict[str, str]:
    """Return whose rotation each camera has, if another order of the cameras fits the expected layout."""
    cameras = sorted(set(layout) & set(expected))
    if not 2 <= len(cameras) <= MOST_CAMERAS or _difference(layout, expected, cameras, cameras) < OTHER_DEGREES:
        return {}
    others = permutations(sorted(expected) if len(expected) <= MOST_CAMERAS else cameras, len(cameras))
    found = []
    for order in others:
        moved = {camera: other for camera, other in zip(cameras, order, strict=True) if camera != other}
        if (degrees := _difference(layout, expected, cameras, order)) < SAME_DEGREES:
            found.append((len(moved), degrees, moved))
    return min(found, key=lambda one: one[:2])[2] if found else {}


def _common_layout(layouts: Sequence[Layout]) -> Layout | None:
    """Return the layout that more than half of the subjects have, if there is one."""

    def agree(one: Layout, other: Layout) -> bool:
        cameras = sorted(set(one) & set(other))
        return len(cameras) > 1 and _difference(one, other, cameras, cameras) < SAME_DEGREES

    count, best = max((sum(agree(one, other) for other in layouts), -i) for i, one in enumerate(layouts))
    return layouts[-best] if count > len(layouts) / 2 else None


def _difference(layout: Layout, expected: Layout, cameras: Sequence[str], order: Sequence[str]) -> float:
    """Return the largest angle in degrees between rotations of two cameras and those of two expected ones."""
    pairs = combinations(zip(cameras, order, strict=True), 2)
    return max(_degrees(layout[b] @ layout[a].T @ (expected[d] @ expected[c].T).T) for (a, c), (b, d) in pairs)


def _degrees(rotation: Float64) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def _known_layout(layout: Layout) -> Layout:
    """Return how the cameras stand if they are Human3.6M's."""
    if not set(layout) <= set(_AZIMUTH):
        return {}
    known = {}
    for camera, azimuth in _AZIMUTH.items():
        around, down = radians(azimuth), radians(_DOWN_DEGREES)
        away = np.array([-cos(around) * cos(down), -sin(around) * cos(down), -sin(down)])
        right = np.array([away[1], -away[0], 0]) / cos(down)
        known[camera] = np.stack([right, np.cross(away, right), away])
    return known


def _rotations(a_mm: Floats, b_mm: Floats) -> Float64:
    """Return the rotations [P, 3, 3] that turn poses [P, 17, 3] into others best (Kabsch)."""
    u, _, vt = np.linalg.svd(np.einsum("pjc,pjd->pcd", b_mm, a_mm, dtype=np.float64))
    signs = np.ones((len(u), 3))
    signs[:, 2] = np.linalg.det(u @ vt)
    return np.asarray((u * signs[:, None]) @ vt)


def _distance_mm(a_mm: Floats, b_mm: Floats, rotation: Float64) -> Float64:
    """Return the mean distance of the joints [P] of poses [P, 17, 3] after the rotation of the first."""
    turn = rotation.T.astype(a_mm.dtype)
    parts = [np.zeros(0)]
    for i in range(0, len(a_mm), _CHUNK):
        off = b_mm[i : i + _CHUNK] - a_mm[i : i + _CHUNK] @ turn
        parts.append(np.sqrt(np.einsum("pjc,pjc->pj", off, off)).mean(axis=1))
    return np.concatenate(parts)


def _evenly(count: int, most: int) -> Intp:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.intp))
