"""Verifying a run's or a blend's folder: are the files those that were written, and do their scores hold?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config import Workspace
from competition.dataset import read_labels, read_test
from competition.errors import RunError
from competition.files import read_json, sha256_file
from competition.metrics import mpjpe
from competition.runs import fold_folders, read_log, read_valid, valid_file
from competition.skeleton import AXES, JOINTS
from competition.table import read_poses
from competition.weights import apply_weights

TOLERANCE_MM = 1e-6  # of a score computed again
WRITTEN_MM = 0.00051  # half of the last decimal of a CSV


def verify(workspace: Workspace, folder: Path) -> tuple[list[str], list[str]]:
    """Recompute what a run's or a blend's folder claims; return what was found right, and what was found wrong."""
    if (folder / "blend.json").exists():
        return _verify_blend(workspace, folder)
    folds = [*fold_folders(folder), *(path for path in [folder / "foldfull"] if path.is_dir())]
    if (folder / "config.json").exists():
        folds = [folder]
    if not folds:
        raise RunError(f"{folder}: expected a run's folder, with fold0 and so on, one of its folds, or a blend's")
    right: list[str] = []
    wrong: list[str] = []
    labels = read_labels(workspace.data)
    for fold in folds:
        done = fold / "done.json"
        predicted = "predicted_from" in read_json(fold / "config.json", what="run configuration")
        if not done.exists() and not predicted:
            wrong.append(f"{fold}: not finished (no done.json)")
            continue
        claims, config = (
            read_json(done, what="run") if done.exists() else {},
            read_json(fold / "config.json", what="run configuration"),
        )
        files = claims.get("files", {})
        changed = _changed({fold / name: sha256 for name, sha256 in files.items()})
        wrong += changed
        right += [f"{fold}: {len(files) - len(changed)} of {len(files)} files are as they were written"]
        if config["images_sha256"] != labels.images_sha256:
            wrong.append(
                f"{fold}: trained on other images than those of {workspace.data}: its scores can't be recomputed"
            )
            continue
        for row in read_log(fold):
            if row["valid_mpjpe"] is None or not valid_file(fold, row["epoch"]).exists():
                continue
            poses = read_valid(valid_file(fold, row["epoch"]))
            again = mpjpe(poses.pose_mm, labels.pose_mm[poses.id - 1])
            told = f"{fold}: epoch {row['epoch']} scores {again:.4f} mm out of fold"
            if abs(again - row["valid_mpjpe"]) > TOLERANCE_MM:
                wrong.append(f"{told}, but the log says {row['valid_mpjpe']:.4f}")
            else:
                right.append(told)
    return right, wrong


def _verify_blend(workspace: Workspace, folder: Path) -> tuple[list[str], list[str]]:
    facts = read_json(folder / "blend.json", what="blend")
    files = {_input(workspace, name): sha256 for name, sha256 in facts["inputs"].items()}
    wrong = _changed(files)
    right = [f"{folder}: {len(files) - len(wrong)} of {len(files)} inputs are as they were read"]
    weights_file = folder / "weights.csv"
    if wrong:
        return right, wrong
    if not weights_file.exists() or any(name.startswith("virtual-") for name in facts["candidates"]):
        return [*right, f"{folder}: its submission is not checked: only weights of runs are applied again"], wrong
    again = _blend_again(workspace, facts, weights_file)
    shipped = read_poses(folder / "submission.csv.gz", read_test(workspace.data).id).pose_mm
    largest = float(np.abs(again - shipped).max())
    told = f"{folder}: the weights applied to the inputs differ from submission.csv.gz by at most {largest:.4f} mm"
    (right if largest <= WRITTEN_MM else wrong).append(told)
    return right, wrong


def _blend_again(workspace: Workspace, facts: dict[str, Any], weights_file: Path) -> np.ndarray[Any, Any]:
    """Apply the weights [17, 3, M] of a file to the mean over folds of each candidate's test poses."""
    test_ids = read_test(workspace.data).id
    names: Sequence[str] = facts["candidates"]
    table = pd.read_csv(weights_file)
    found = table[list(names)].to_numpy(np.float64).reshape(len(JOINTS), len(AXES), len(names))
    poses = []
    for name in names:
        run, _, epoch = name.rpartition(":")
        mine = [
            _input(workspace, path)
            for path in facts["inputs"]
            if path.startswith(f"{run}/") and f"/test_epoch{int(epoch):02d}." in path
        ]
        poses.append(np.mean([read_poses(path, test_ids).pose_mm for path in mine], axis=0))
    return apply_weights(np.array(poses), found)


def _input(workspace: Workspace, name: str) -> Path:
    """Find an input by the name that blend.json gives it: run/fold/file of SUBMISSIONS, or a path."""
    inside = workspace.submissions / name
    return inside if inside.exists() else Path(name)


def _changed(files: dict[Path, str]) -> list[str]:
    """Say which files are gone or have other contents than their hashes."""
    complaints = []
    for path, sha256 in files.items():
        if not path.exists():
            complaints.append(f"{path}: is gone")
        elif sha256_file(path) != sha256:
            complaints.append(f"{path}: has changed since")
    return complaints
