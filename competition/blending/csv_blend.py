"""Blends of files of test poses that have no out-of-fold poses, so that no error can be estimated."""

import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np

from competition.blending.agreement import CHANGES, agreement, changed, culprits
from competition.blending.consistency import LEAST_ROWS
from competition.common.arrays import Float32, Float64, Int64
from competition.common.errors import UserError
from competition.common.files import AnyPath, sha256_file, to_path
from competition.common.pose_csv import check_frame_and_unit, read_poses
from competition.common.seeds import sample_rows
from competition.common.skeleton import AXES, BONES, JOINTS
from competition.runs.blends import Blend, check_folder, write_blend
from competition.runs.provenance import Provenance

log = logging.getLogger(__name__)

_Pairs = dict[tuple[int, int], float]

ROWS: Final = 600  # that are compared
DOUBTFUL: Final = 0.4  # agreement below which two files are examined
SIZE: Final = 3.0  # factor between mean distances from the root; an untrained network may halve them
CORRELATED: Final = 0.4  # correlation of two files whose scales can be compared
LOOSE: Final = 2.0  # factor by which bone lengths of weak files may vary more
GAIN: Final = 0.2  # of the agreement, by which a change explains a fault
RELATED: Final = 0.15  # slope of the regression of one file on another, below which their poses are unrelated


def blend_files(
    files: Sequence[AnyPath],
    test_ids: Int64,
    out: AnyPath,
    *,
    method: str = "mean",
    shares: Sequence[float] | None = None,
    provenance: Provenance | None = None,
    submissions: AnyPath | None = None,
) -> Path:
    """Blend CSVs of test poses without out-of-fold poses, by mean, median or given shares.

    Writes out/submission.csv.gz and blend.json, which includes `provenance`; returns the former. Raises UserError if
    the method, the shares or a file are invalid, and warns of files that don't fit the others.
    """
    paths, out = [to_path(file) for file in files], to_path(out)
    submissions = None if submissions is None else to_path(submissions)
    check_folder(out)
    if shares is None and method not in ("mean", "median"):
        raise UserError(f"method {method} needs out-of-fold poses", fix="for --files, use mean, median or --shares")
    if shares is not None and (len(shares) != len(paths) or min(shares) < 0 or sum(shares) <= 0):
        raise UserError(
            f"shares {','.join(map(str, shares))}: expected {len(paths)} numbers of at least 0, one per file, not all 0"
        )
    test_mm = _read(paths, test_ids)
    used = [member for member in range(len(paths)) if shares is None or shares[member] > 0]
    rows = sample_rows(len(test_ids), ROWS)
    for line in differences([str(paths[member]) for member in used], test_mm[used][:, rows].astype(np.float32)):
        log.warning(line)
    if shares is not None:
        pose_mm = np.tensordot(np.array(shares) / sum(shares), test_mm, 1)
    else:
        pose_mm = test_mm.mean(axis=0) if method == "mean" else np.median(test_mm, axis=0)
    facts = Blend(
        method="shares" if shares is not None else method,
        candidates=list(map(str, paths)),
        shipped="mean" if shares is None and method == "mean" else "blend",
        why="as requested; its error is unknown without out-of-fold poses",
        provenance=provenance,
        inputs={str(file): sha256_file(file) for file in paths},
    )
    blended = {"submission.csv.gz": pose_mm}
    write_blend(out, facts, test_id=np.sort(test_ids), poses=blended, submissions=submissions)
    return out / "submission.csv.gz"


def _read(files: Sequence[Path], test_ids: Int64) -> Float64:
    """Read test poses [M, n, 17, 3] in mm; raise UserError for implausible ones and for a file that is given twice."""
    for first, second in combinations(files, 2):
        if first.resolve() == second.resolve():
            raise UserError(f"--files: {second} is given twice", fix="name it once; --shares can give it more weight")
    test_mm = np.empty((len(files), len(test_ids), len(JOINTS), len(AXES)))
    for member, file in enumerate(files):
        poses = read_poses(file, test_ids)
        check_frame_and_unit(poses, file)
        if len(poses.id) > 1 and not np.ptp(poses.pose_mm, axis=0).any():
            log.info(f"{file} predicts the same pose for every image")
        test_mm[member] = poses.pose_mm
    return test_mm


def differences(names: Sequence[str], test_mm: Float32) -> list[str]:
    """Return one line for each file, or two files, whose poses don't fit those of the others; `test_mm` [M, n, 17, 3].

    A weak file isn't distinguished from others by its distance to them, as that is expected to be larger.
    """
    lines = [
        f"{names[second]} is a copy of {names[first]}: it counts twice"
        for first, second in combinations(range(len(names)), 2)
        if np.array_equal(test_mm[first], test_mm[second])
    ]
    if test_mm.shape[1] < LEAST_ROWS or len(names) < 2:
        return lines
    centred = test_mm - test_mm.mean(axis=1, keepdims=True)
    variance = np.square(centred).sum(axis=(1, 2, 3), dtype=np.float64)
    size = np.linalg.norm(test_mm, axis=3).mean(axis=(1, 2))
    looseness = np.array([_looseness(pose_mm) for pose_mm in test_mm])
    varied = np.flatnonzero(np.ptp(test_mm, axis=1).any(axis=(1, 2)))
    unrelated, resized, better = _Pairs(), _Pairs(), dict[str, _Pairs]()
    for first, second in combinations(varied.tolist(), 2):
        pair = first, second
        covariance = float((centred[first] * centred[second]).sum(dtype=np.float64))
        correlation = covariance / np.sqrt(variance[first] * variance[second])
        if correlation > CORRELATED and abs(np.log(size[first] / size[second])) > np.log(SIZE):
            resized[pair] = correlation
        plain = agreement(test_mm[first], test_mm[second]).value
        if pair in resized or plain > DOUBTFUL:
            continue
        gains = {
            change: agreement(changed(test_mm[first], change), test_mm[second]).value - plain for change in CHANGES
        }
        best = max(gains, key=lambda change: gains[change])
        is_sharp = looseness[[first, second]].max() < LOOSE * looseness[varied].min()
        is_similar = max(variance[first], variance[second]) < 4 * min(variance[first], variance[second])
        if gains[best] > GAIN:
            better.setdefault(best, _Pairs())[pair] = plain
        elif is_sharp and is_similar and covariance < RELATED * min(variance[first], variance[second]):
            unrelated[pair] = plain
    for group in culprits(resized, names):
        sizes = " and ".join(f"{size[file]:.0f} mm" for file in group)
        usual = f", in other files {np.median(np.delete(size, group)):.0f} mm" if len(group) < len(names) else ""
        lines.append(f"{_name(group, names)}: joints are {sizes} from the root on average{usual}: another unit?")
    for change, pairs in better.items():
        for group in culprits(pairs, names):
            lines.append(f"{_name(group, names)}: these poses fit {_others(group)} only with {change}: write it again")
    for group in culprits(unrelated, names):
        whose = f"{_name(group, names)}: these poses are unrelated to {_others(group)}"
        lines.append(f"{whose}: perhaps rows are in another order, or of other images")
    return lines


def _looseness(pose_mm: Float32) -> float:
    """Return how much bone lengths vary: in an untrained network's poses, much more than in a trained one's."""
    parents, joints = zip(*BONES, strict=True)
    lengths = np.linalg.norm(pose_mm[:, list(joints)] - pose_mm[:, list(parents)], axis=2)
    return float(np.median(lengths.std(axis=0) / np.maximum(lengths.mean(axis=0), 1e-3)))


def _name(group: tuple[int, ...], names: Sequence[str]) -> str:
    return " and ".join(names[file] for file in group)


def _others(group: tuple[int, ...]) -> str:
    return "those of the other files" if len(group) == 1 else "each other"
