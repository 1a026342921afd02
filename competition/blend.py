"""The blender: read the candidates, join them on Id, search their weights, certify them, write.

    residual        float32 [17, 3, M, N] mm: out-of-fold poses minus the truth, over the rows that all candidates have
    weights         [17, 3, M], found on the residuals
    test poses      float64 [M, n, 17, 3] mm, to which the weights are applied

The usual methods are computed every time and stand side by side in the table; `method` says which one is shipped.
"""

import csv
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import optuna

from competition import weights
from competition.errors import UserError, unknown
from competition.files import write_bytes, write_json, write_text
from competition.join import Joined, join
from competition.runs import Candidate
from competition.search import Progress, choose_rows, journal, search
from competition.skeleton import AXES, JOINTS
from competition.table import Poses, write_poses
from competition.weights import TIED, Float32, Float64, Optimum

METHODS: Final = ("optuna", "exact", "greedy", "mean", "median")
GRANULARITIES: Final = ("auto", *TIED)
UNGATED = "its gain on unseen groups is not estimated: MPJPE is of the rows that the weights were found on"


@dataclass(frozen=True, kw_only=True)
class Blended:
    """One way to blend: its weights (None for the median, which has none) and its error on the joined rows."""

    weights: Float64 | None  # [17, 3, M]
    joint_mm: Float64  # [17]
    seconds: float

    @property
    def mpjpe(self) -> float:
        return float(self.joint_mm.mean())


@dataclass(frozen=True, kw_only=True)
class BlendResult:
    """What was written to `out`, for the command line to tell."""

    out: Path
    submission: Path
    facts: dict[str, Any]  # blend.json
    weights: Float64 | None  # [17, 3, M] of what is shipped; None for the median
    notes: tuple[str, ...]  # one line each


def blend(
    candidates: Sequence[Candidate],
    true: Poses,
    test_ids: npt.NDArray[np.int64],
    out: Path,
    *,
    method: str = "optuna",
    granularity: str = "auto",
    sequences: Sequence[str] | None = None,
    images_sha256: str | None = None,
    sampler: str = "cmaes",
    seed: int = 0,
    progress: Progress | None = None,
) -> BlendResult:
    """Blend candidates and write the files of `out`.

    `true` holds the training Ids, ascending, and their poses; `sequences` the sequence of each of its rows.
    Raises UserError before anything is written; what an earlier blend left in `out` stays until all is computed.
    """
    started = time.perf_counter()
    if method not in METHODS:
        raise UserError(unknown("method", method, METHODS))
    if granularity not in GRANULARITIES:
        raise UserError(unknown("granularity", granularity, GRANULARITIES))
    tied = "coordinate" if granularity == "auto" else granularity
    joined = join(candidates, true, test_ids, images_sha256=images_sha256)
    of_row = None if sequences is None else np.asarray(sequences)[np.searchsorted(true.id, joined.id)]
    rows = choose_rows(of_row, len(joined.id), seed)
    blends, optimum, studies = _compute(joined, rows, method, tied, sampler, seed, progress)
    mean_mm = joined.test_mm.mean(axis=0)
    poses = {
        "submission_mean.csv.gz": mean_mm,
        "submission_coordinate.csv.gz": _test_poses(joined, blends.get("optuna coordinate", blends["optuna"])),
        "submission.csv.gz": mean_mm if method == "mean" else _test_poses(joined, blends[method]),
    }
    study_journal = journal(studies)
    facts = _facts(joined, blends, optimum, method, tied)
    notes = [*joined.notes, f"shipped: {facts['shipped']}; {facts['why']}"]
    if len(rows) < len(joined.id):
        notes.append(f"searched on {len(rows)} of {len(joined.id)} rows, judged on all")
    facts["seconds"] = round(time.perf_counter() - started, 3)

    for name, pose_mm in poses.items():
        write_poses(out / name, joined.test_id, pose_mm)
    write_bytes(out / "study.journal", study_journal)
    shipped = blends[method].weights
    if shipped is None:
        (out / "weights.csv").unlink(missing_ok=True)  # an earlier blend's weights aren't this one's
    else:
        write_text(out / "weights.csv", weights_csv(joined.names, shipped))
    write_json(out / "blend.json", facts)
    return BlendResult(out=out, submission=out / "submission.csv.gz", facts=facts, weights=shipped, notes=tuple(notes))


def _compute(
    joined: Joined,
    rows: npt.NDArray[np.intp],
    method: str,
    granularity: str,
    sampler: str,
    seed: int,
    progress: Progress | None,
) -> tuple[dict[str, Blended], Optimum, list[optuna.Study]]:
    """Compute every method, and the exact optimum of the granularity.

    Search and greedy see `rows` of the joined rows; every error is over all of them.
    """
    residual = joined.residual
    joints, _, candidates, count = residual.shape
    part = residual if len(rows) == count else np.ascontiguousarray(residual[..., rows])
    equal = weights.equal_weights(joints, candidates)

    def timed(find: Callable[[], Float64]) -> Blended:
        started = time.perf_counter()
        found = find()
        seconds = time.perf_counter() - started
        return Blended(weights=found, joint_mm=weights.joint_errors(residual, found), seconds=seconds)

    def best_single() -> Float64:
        best = int(weights.single_errors(residual).argmin())
        return weights.one_candidate(joints, candidates, best)

    studies: list[optuna.Study] = []

    def searched(tied: str) -> Float64:
        optimum_mm = weights.exact(part, tied).joint_mm
        found = search(part, joined.names, optimum_mm, granularity=tied, seed=seed, sampler=sampler, progress=progress)
        studies.extend(found.studies)
        return _keep_mean(residual, found.weights, tied)

    blends = {"best single": timed(best_single), "mean": timed(lambda: equal)}
    if method == "median":
        started = time.perf_counter()
        median_mm = weights.median_errors(residual)
        blends["median"] = Blended(weights=None, joint_mm=median_mm, seconds=time.perf_counter() - started)
    blends["greedy"] = timed(lambda: weights.greedy(part))
    started = time.perf_counter()
    optimum = weights.exact(residual, granularity)
    seconds = time.perf_counter() - started
    blends["exact"] = Blended(weights=optimum.weights, joint_mm=optimum.joint_mm, seconds=seconds)
    blends["optuna"] = timed(lambda: searched(granularity))
    if granularity != "coordinate":
        blends["optuna coordinate"] = timed(lambda: searched("coordinate"))
    return blends, optimum, studies


def _keep_mean(residual: Float32, found: Float64, granularity: str) -> Float64:
    """Keep the mean where the search didn't beat it on all rows: by joint, or altogether where joints are tied."""
    equal = weights.equal_weights(len(residual), residual.shape[2])
    gain_mm = weights.joint_errors(residual, equal) - weights.joint_errors(residual, found)
    if 0 in TIED[granularity]:
        gain_mm[:] = gain_mm.sum()
    return np.where(gain_mm[:, None, None] > 0, found, equal)


def _test_poses(joined: Joined, blended: Blended) -> Float64:
    if blended.weights is None:
        return np.asarray(np.median(joined.test_mm, axis=0), np.float64)
    return weights.apply_weights(joined.test_mm, blended.weights)


def _facts(
    joined: Joined, blends: dict[str, Blended], optimum: Optimum, method: str, granularity: str
) -> dict[str, Any]:
    """Collect blend.json; what isn't computed is null, and "why" says so."""
    shipped, searched_mm, optimum_mm = blends[method], blends["optuna"].mpjpe, float(optimum.joint_mm.mean())
    is_mean = shipped.weights is not None and np.array_equal(
        shipped.weights, weights.equal_weights(len(JOINTS), len(joined.names))
    )
    assert blends["best single"].weights is not None
    return {
        "method": method,
        "granularity": {"optuna": granularity, "exact": granularity, "greedy": "coordinate"}.get(method),
        "shrink": 0.0,
        "candidates": list(joined.names),
        "n_rows": len(joined.id),
        "groups": None,
        "mpjpe_mean": blends["mean"].mpjpe,
        "mpjpe_blend_in_sample": shipped.mpjpe,
        "mpjpe_nested": None,
        "gain_nested": None,
        "gain_nested_se": None,
        "mpjpe_optimum": optimum_mm,
        "gap_percent": 100 * (searched_mm / optimum_mm - 1) if optimum_mm > 0 else None,
        "shipped": "mean" if is_mean else "blend",
        "why": f"method {method} as asked; {UNGATED}",
        "seconds": 0.0,
        "best_single": joined.names[int(blends["best single"].weights[0, 0].argmax())],
        "table": [
            {
                "method": name,
                "mpjpe_in_sample": blended.mpjpe,
                "mpjpe_nested": None,
                "seconds": round(blended.seconds, 3),
            }
            for name, blended in blends.items()
        ],
        "inputs": joined.inputs,
    }


def weights_csv(names: Sequence[str], shipped: Float64) -> str:
    """Write weights [17, 3, M] as CSV: joint, axis, and a column a candidate, each number in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["joint", "axis", *names])
    for joint, of_joint in zip(JOINTS, shipped.tolist(), strict=True):
        writer.writerows([joint, axis, *row] for axis, row in zip(AXES, of_joint, strict=True))
    return text.getvalue()
