"""Scoring against the hidden answers of the embedded competition, and the board of what was scored.

This module alone opens DATA/solution, and nothing but the command `score` calls it.
"""

import csv
import datetime
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.common.arrays import Float64
from competition.common.errors import DataError, SubmissionError, UserError
from competition.common.files import locked, read_json, read_text, sha256_file, write_text
from competition.common.metrics import joint_errors, mean_absolute_axis
from competition.common.pose_csv import Poses, check_plausible, parse_poses, read_poses
from competition.common.skeleton import AXES, JOINTS
from competition.data.labels import read_test
from competition.data.names import parse_name
from competition.leaderboard.board import places, sent_scores, with_places
from competition.runs.candidates import Candidate, best_epoch, candidates, folds_of
from competition.runs.folders import fold_folders, run_folders

_OF_BLEND = {"method": str, "mpjpe_nested": int | float | None, "mpjpe_blend_in_sample": int | float | None}
LEDGER = ("time", "file", "sha256", "all", "public", "private")


def score(data: Path, file: Path, *, strict: bool = False) -> dict[str, Any]:
    """Score a submission in mm: MPJPE of all, public and private rows, of each joint and action; mean |error| by axis.

    Raise DataError where there are no hidden answers (a real competition), SubmissionError for a file out of format.
    """
    test = read_test(data)
    truth, usage = read_solution(data)
    poses = read_poses(file, truth.id)
    if strict:
        check_plausible(poses, file)
    errors = joint_errors(poses.pose_mm, truth.pose_mm)  # [N, 17]
    names = [parse_name(image) for image in test.images]
    actions = np.array(["unknown" if name is None else name.action for name in names])
    return {
        "all": float(errors.mean()),
        "public": _mean(errors[usage == "Public"]),
        "private": _mean(errors[usage == "Private"]),
        "joint": dict(zip(JOINTS, errors.mean(axis=0).tolist(), strict=True)),
        "axis": dict(zip(AXES, mean_absolute_axis(poses.pose_mm, truth.pose_mm).tolist(), strict=True)),
        "action": {action: float(errors[actions == action].mean()) for action in sorted(set(actions.tolist()))},
    }


def has_answers(data: Path) -> bool:
    """Whether a competition's hidden answers are there: those of the embedded one."""
    return (data / "solution" / "test.csv").exists()


def read_solution(data: Path) -> tuple[Poses, npt.NDArray[np.str_]]:
    """Read the hidden answers: poses by Id, and Public or Private for each [N]."""
    path = data / "solution" / "test.csv"
    if not path.exists():
        raise DataError(f"no hidden answers at {path}: only the embedded competition has them; upload to be scored")
    lines = read_text(path, what="solution").rstrip("\n").split("\n")
    cells = [line.rpartition(",") for line in lines]
    if cells[0][2] != "Usage":
        raise DataError(f"{path}:1: the last column is {cells[0][2]!r}, expected 'Usage'")
    try:
        poses = parse_poses("\n".join(head for head, _, _ in cells), path)
    except SubmissionError as error:
        raise DataError(str(error)) from None
    ids = np.array([int(head.partition(",")[0]) for head, _, _ in cells[1:]])
    usage = np.array([last for _, _, last in cells[1:]])[np.argsort(ids)]
    return poses, usage


def record(submissions: Path, file: Path, scores: dict[str, Any]) -> None:
    """Add a line to SUBMISSIONS/scores.csv."""
    path = submissions / "scores.csv"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    row = [now, str(file), sha256_file(file), *map(_cell, (scores["all"], scores["public"], scores["private"]))]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    with locked(submissions):  # another file may be scored at the same time
        if not path.exists():
            writer.writerow(LEDGER)
        writer.writerow(row)
        before = read_text(path, what="scores") if path.exists() else ""
        write_text(path, before + buffer.getvalue())


def board(submissions: Path, folds: Path) -> list[dict[str, Any]]:
    """List runs and blends with their out-of-fold MPJPE and, where they were scored, the public and private one.

    A run trained on the folds in `folds` has to have all of them. Where no hidden answers gave a public score, it is
    the one that the competition gave the same file. Places are added as in `with_places`.
    """
    scores = _latest_scores(submissions)
    by_run: dict[str, list[Any]] = {}
    for candidate in candidates(submissions):
        by_run.setdefault(candidate.run, []).append(candidate)
    rows = []
    for run in run_folders(submissions):
        of_run = by_run.get(run.name, [])
        best = best_epoch(of_run)
        row = {"name": run.name, "kind": "run", "folds": len(fold_folders(run)), "of_folds": folds_of(run, folds)}
        row["epochs"] = len(of_run)
        row |= {"best_epoch": best.epoch if best else None, "out_of_fold": best.valid_mpjpe if best else None}
        row["in_sample"], row["why"] = False, "" if row["out_of_fold"] is not None else _unscored(run, of_run)
        rows.append(row | _scores_of(run / "submission.csv.gz", scores))
    for path in sorted(submissions.glob("*/blend.json")):
        facts = read_json(path, what="blend", needs=_OF_BLEND)
        row = {
            "name": path.parent.name,
            "kind": f"blend ({facts['method']})",
            "folds": None,
            "of_folds": None,
            "epochs": None,
        }
        nested = facts["mpjpe_nested"]
        row |= {"best_epoch": None, "out_of_fold": facts["mpjpe_blend_in_sample"] if nested is None else nested}
        row["in_sample"] = nested is None and facts.get("shipped") != "mean"
        row["why"] = "" if row["out_of_fold"] is not None else "a blend of files, of whose error nothing is known"
        rows.append(row | _scores_of(path.parent / "submission.csv.gz", scores))
    sent = sent_scores(submissions / "ledger.csv")
    for row in rows:
        file = submissions / str(row["name"]) / "submission.csv.gz"
        if row["public"] is None and sent and file.exists():
            row["public"] = sent.get(sha256_file(file))
    return with_places(rows)


def _unscored(run: Path, of_run: Sequence[Candidate]) -> str:
    """Say why a run has no out-of-fold MPJPE."""
    if of_run:
        return "no log.jsonl tells it; the table of `make blend` has what it is worth in a blend"
    if fold_folders(run):
        return "no epoch has its files in every fold"
    return "trained on everything, so nothing was held out"


def standing(submissions: Path, file: Path) -> str:
    """Say a file's places among all that were scored and are there unchanged; equal scores share a place."""
    latest = _latest_scores(submissions)
    scores = {path: _scores_of(path, latest) for path in latest}
    known = {path: score for path, score in scores.items() if score["all"] is not None}
    told = []
    for part in ("public", "private"):
        place = dict(zip(known, places([score[part] for score in known.values()]), strict=True))[file.resolve()]
        if place is not None:
            told.append(f"{part} {place}")
    return f"place of {len(known)} scored here: {', '.join(told)}; equal scores share a place" if told else ""


def _mean(errors: Float64) -> float | None:
    return float(errors.mean()) if len(errors) else None


def _cell(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"


def _latest_scores(submissions: Path) -> dict[Path, dict[str, str]]:
    path = submissions / "scores.csv"
    if not path.exists():
        return {}
    reader = csv.DictReader(io.StringIO(read_text(path, what="scores")))
    if tuple(reader.fieldnames or ()) != LEDGER:
        raise UserError(f"{path}:1: columns {reader.fieldnames}, expected {', '.join(LEDGER)}: move this file away")
    return {Path(row["file"]).resolve(): row for row in reader}


def _scores_of(file: Path, scores: dict[Path, dict[str, str]]) -> dict[str, float | None]:
    """Find a file's latest scores; none when it has changed since."""
    row = scores.get(file.resolve())
    known = row is not None and file.exists() and row["sha256"] == sha256_file(file)
    return {key: float(row[key]) if known and row and row[key] else None for key in ("all", "public", "private")}
