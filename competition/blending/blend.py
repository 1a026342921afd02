"""The pipeline of a blend: read the candidates, join them on Id, choose a granularity, search the weights, write files.

    residual        float32 [17, 3, M, N] mm: out-of-fold poses minus the truth, for the rows that all candidates have
    weights         [17, 3, M], fitted on the residuals
    test poses      float64 [M, n, 17, 3] mm, to which the weights are applied

Most methods are always computed, for the table; `method` is the one that ships. Granularity `auto` chooses granularity
and shrinkage by cross-validation over groups, and ships the mean if the gain isn't significant.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from competition.blending import weights
from competition.blending.join import Joined, join
from competition.blending.methods import MethodResult, Plan, Results, compute, make_plan
from competition.blending.options import check_blend
from competition.blending.picture import weights_picture
from competition.blending.search import Progress, choose_rows, journal
from competition.common.arrays import Float64, Int64
from competition.common.errors import UserError
from competition.common.files import sha256_file, write_bytes, write_text
from competition.common.pose_csv import Poses, read_poses, write_poses
from competition.common.skeleton import AXES, JOINTS
from competition.runs.blends import FILES, KEYS, weights_csv, write_facts
from competition.runs.candidates import Candidate


@dataclass(frozen=True, kw_only=True)
class BlendResult:
    """The result of a blend, for the command line to print."""

    out: Path
    submission: Path
    facts: dict[str, Any]  # blend.json
    weights: Float64 | None  # [17, 3, M] as shipped; None for the median
    notes: tuple[str, ...]  # one line each


def blend(
    candidates: Sequence[Candidate],
    true: Poses,
    test_ids: Int64,
    out: Path,
    *,
    method: str = "optuna",
    granularity: str = "auto",
    subjects: Sequence[str] | None = None,
    sequences: Sequence[str] | None = None,
    images_sha256: str | None = None,
    provenance: dict[str, Any] | None = None,
    virtual: bool = False,
    sampler: str = "cmaes",
    seed: int = 0,
    progress: Progress | None = None,
) -> BlendResult:
    """Blend candidates and write the files to `out`.

    `true` holds the training Ids, ascending, and their poses in mm; `subjects` and `sequences` belong to its rows.
    `provenance` is copied to blend.json. Raises UserError before anything is written; files of an earlier blend in
    `out` remain until everything is computed.
    """
    started = time.perf_counter()
    check_blend(method, granularity)
    joined = join(candidates, true, test_ids, images_sha256=images_sha256, virtual=virtual)
    place = np.searchsorted(true.id, joined.id)
    of_subject, of_sequence = (None if names is None else np.asarray(names)[place] for names in (subjects, sequences))
    rows = choose_rows(of_sequence, len(joined.id))
    part = joined.residual if len(rows) == len(joined.id) else np.ascontiguousarray(joined.residual[..., rows])
    plan = make_plan(joined, part, rows, method, granularity, of_subject, of_sequence, progress)
    results = compute(joined, part, plan, sampler, seed, progress)
    methods = results.methods

    mean_mm = joined.test_mm[: joined.members].mean(axis=0)
    shipped = methods["mean"] if plan.ship_mean else methods[method]
    poses = {
        "submission_mean.csv.gz": mean_mm,
        "submission_coordinate.csv.gz": _test_poses(joined, methods.get("optuna coordinate", methods["optuna"])),
        "submission.csv.gz": mean_mm if shipped is methods["mean"] else _test_poses(joined, shipped),
    }
    study_journal = journal(results.studies)
    facts = _facts(joined, results, shipped, plan)
    notes = [*joined.notes, f"submission.csv.gz is the {facts['shipped']}: {facts['why']}", *_gain_notes(facts, plan)]
    if len(rows) < len(joined.id):
        notes.append(
            f"weights searched on {len(rows)} of {len(joined.id)} rows, from all sequences; errors are over all rows"
        )
    facts |= {"provenance": provenance, "seconds": round(time.perf_counter() - started, 3)}

    _write(out, joined, poses, shipped.weights, study_journal, facts)
    return BlendResult(
        out=out, submission=out / "submission.csv.gz", facts=facts, weights=shipped.weights, notes=tuple(notes)
    )


def _write(
    out: Path,
    joined: Joined,
    poses: dict[str, Float64],
    shipped: Float64 | None,
    study_journal: bytes,
    facts: dict[str, Any],
) -> None:
    """Write the files of a blend, blend.json last; everything is computed before the first is written."""
    assert tuple(facts) == KEYS
    table = None if shipped is None else weights_csv(joined.names, shipped)
    picture = None if shipped is None else weights_picture(joined.names, shipped)
    (out / "blend.json").unlink(missing_ok=True)  # it certifies the other files
    for name, pose_mm in poses.items():
        write_poses(out / name, joined.test_id, pose_mm)
    write_bytes(out / "study.journal", study_journal)
    if table is None or picture is None:
        for name in ("weights.csv", "weights.png"):
            (out / name).unlink(missing_ok=True)  # of an earlier blend
    else:
        write_text(out / "weights.csv", table)
        write_bytes(out / "weights.png", picture)
    write_facts(out, facts)


def blend_files(
    files: Sequence[Path],
    test_ids: Int64,
    out: Path,
    *,
    method: str = "mean",
    shares: Sequence[float] | None = None,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Blend CSVs of test poses without out-of-fold poses, by mean, median or given shares.

    Writes out/submission.csv.gz and blend.json, which includes `provenance`; returns the former. Raises UserError if
    the method or the shares are invalid.
    """
    if shares is None and method not in ("mean", "median"):
        raise UserError(f"method {method} needs out-of-fold poses; for --files, use mean, median or --shares")
    if shares is not None and (len(shares) != len(files) or min(shares) < 0 or sum(shares) <= 0):
        raise UserError(
            f"shares {','.join(map(str, shares))}: expected {len(files)} numbers of at least 0, one per file, not all 0"
        )
    test_mm = np.array([read_poses(file, test_ids).pose_mm for file in files])
    if shares is not None:
        pose_mm = np.tensordot(np.array(shares) / sum(shares), test_mm, 1)
    else:
        pose_mm = test_mm.mean(axis=0) if method == "mean" else np.median(test_mm, axis=0)
    facts = dict.fromkeys(KEYS) | {
        "method": "shares" if shares is not None else method,
        "candidates": [str(file) for file in files],
        "n_rows": 0,
        "shipped": "mean" if shares is None and method == "mean" else "blend",
        "why": "as requested; its error is unknown without out-of-fold poses",
        "table": [],
        "provenance": provenance,
        "inputs": {str(file): sha256_file(file) for file in files},
    }
    for name in FILES:
        (out / name).unlink(missing_ok=True)  # of an earlier blend
    write_poses(out / "submission.csv.gz", np.sort(test_ids), pose_mm)
    write_facts(out, facts)
    return out / "submission.csv.gz"


def _test_poses(joined: Joined, result: MethodResult) -> Float64:
    if result.weights is None:
        return np.asarray(np.median(joined.test_mm[: joined.members], axis=0), np.float64)
    return weights.apply_weights(joined.test_mm, result.weights, joined.members)


def _facts(joined: Joined, results: Results, shipped: MethodResult, plan: Plan) -> dict[str, Any]:
    """Collect the contents of blend.json; figures that can't be estimated are null, with the reason in "why"."""
    methods, optimum_mm = results.methods, float(results.optimum.joint_mm.mean())
    nested = plan.nested or shipped.nested  # the gain that decided against the mean, if auto chose
    mean, single = methods["mean"], methods["best single"].weights
    assert mean.weights is not None
    assert single is not None
    is_mean = shipped.weights is not None and np.array_equal(shipped.weights, mean.weights)
    tied = {"optuna": plan.option.granularity, "exact": plan.option.granularity, "greedy": "coordinate"}
    return {
        "method": plan.method,
        "granularity": tied.get(plan.method),
        "shrink": plan.option.shrink if plan.method == "optuna" else 0.0,
        "candidates": list(joined.names),
        "n_rows": len(joined.id),
        "groups": plan.groups,
        "mpjpe_mean": mean.mpjpe,
        "mpjpe_blend_in_sample": shipped.mpjpe,
        "mpjpe_nested": mean.mpjpe - shipped.nested.gain_mm if shipped.nested else None,
        "gain_nested": nested.gain_mm if nested else None,
        "gain_nested_se": nested.gain_se_mm if nested else None,
        "mpjpe_optimum": optimum_mm,
        "gap_percent": 100 * (results.searched_mm / optimum_mm - 1) if optimum_mm > 0 else None,
        "shipped": "mean" if is_mean else "blend",
        "why": plan.why,
        "seconds": 0.0,
        "best_single": joined.names[int(single[0, 0].argmax())],
        "gain_joint": dict(zip(JOINTS, (mean.joint_mm - shipped.joint_mm).tolist(), strict=True)),
        "gain_axis": _axis_gains(joined, mean.weights, shipped.weights),
        "table": [
            {
                "method": name,
                "mpjpe_in_sample": result.mpjpe,
                "mpjpe_nested": mean.mpjpe - result.nested.gain_mm if result.nested else None,
                "seconds": round(result.seconds, 3),
            }
            for name, result in methods.items()
        ],
        "provenance": None,
        "inputs": joined.inputs,
        "outputs": {},
        "facts_sha256": "",
    }


def _gain_notes(facts: dict[str, Any], plan: Plan) -> list[str]:
    """Describe the gain of the shipped weights over the mean, in sample and on held-out groups, and what is unknown."""
    if facts["shipped"] == "mean" or facts["gain_axis"] is None:
        return []
    by_axis = ", ".join(f"{axis} {gain:.2f}" for axis, gain in facts["gain_axis"].items())
    best = sorted(facts["gain_joint"].items(), key=lambda pair: -pair[1])[:3]
    by_joint = ", ".join(f"{joint} {gain:.2f}" for joint, gain in best)
    notes = [f"gain over the mean in sample, mm: by axis {by_axis}; most at {by_joint}"]
    if plan.nested is None and plan.groups is not None:  # if auto chose, `why` includes it
        gain, error = facts["gain_nested"], facts["gain_nested_se"]
        notes.append(f"gain over the mean on held-out {plan.groups['by']}s: {gain:.2f} mm (standard error {error:.2f})")
    return [*notes, plan.limitation] if plan.limitation else notes


def _axis_gains(joined: Joined, mean: Float64, shipped: Float64 | None) -> dict[str, float] | None:
    """Return the gain in mean absolute error over the mean along each axis, in mm; None without weights."""
    if shipped is None:
        return None
    gains = weights.axis_errors(joined.residual, mean) - weights.axis_errors(joined.residual, shipped)
    return dict(zip(AXES, gains.tolist(), strict=True))
