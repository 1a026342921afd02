"""Verifying a run's or a blend's folder: are the files those that were written, and do their scores hold?"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config import Workspace
from competition.dataset import Labels, read_labels, read_test
from competition.errors import RunError
from competition.files import read_json, sha256_file, sha256_lines
from competition.metrics import mpjpe
from competition.record import best_row, read_config, read_log
from competition.runs import fold_folders, read_valid, valid_file
from competition.skeleton import AXES, JOINTS
from competition.table import read_poses
from competition.weights import apply_weights

TOLERANCE_MM = 1e-6  # of a score computed again
_BEST = {"epoch": "best_epoch", "valid_mpjpe": "valid_mpjpe"}  # the log's keys and done.json's
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
        found = _verify_fold(workspace, fold, labels)
        right += found[0]
        wrong += found[1]
    return right, wrong


def _verify_fold(workspace: Workspace, fold: Path, labels: Labels) -> tuple[list[str], list[str]]:
    config = read_config(fold)
    claims: dict[str, Any] = {}
    if (fold / "done.json").exists():
        claims = read_json(fold / "done.json", what="run", needs={"best_epoch": int, "valid_mpjpe": int | float | None})
    elif "predicted_from" not in config:
        return [], [f"{fold}: not finished (no done.json)"]
    files = _named(claims.get("files", {}), f"{fold / 'done.json'}: files")
    if outside := [name for name in files if Path(name).name != name]:
        raise RunError(f"{fold / 'done.json'}: {outside[0][:60]!r} is a path, expected names of files beside it")
    wrong = _changed({fold / name: sha256 for name, sha256 in files.items()})
    right = [f"{fold}: {len(files) - len(wrong)} of {len(files)} files are as they were written"]
    if other := _other_data(workspace, config):
        return right, [*wrong, f"{fold}: trained on {other}: its scores can't be recomputed"]
    log = read_log(fold)
    for row in log:
        if row["valid_mpjpe"] is None or not valid_file(fold, row["epoch"]).exists():
            continue
        poses = read_valid(valid_file(fold, row["epoch"]))
        if len(foreign := np.setdiff1d(poses.id, labels.id)):
            raise RunError(f"{valid_file(fold, row['epoch'])}: Id {foreign[0]} is none of the training images")
        again = mpjpe(poses.pose_mm, labels.pose_mm[poses.id - 1])
        told = f"{fold}: epoch {row['epoch']} scores {again:.4f} mm out of fold"
        if abs(again - row["valid_mpjpe"]) > TOLERANCE_MM:
            wrong.append(f"{told}, but the log says {row['valid_mpjpe']:.4f}")
        else:
            right.append(told)
    best = best_row(log) if log else {}
    if claims and any(best.get(log_key) != claims[key] for log_key, key in _BEST.items()):
        wrong.append(f"{fold}: the best epoch of done.json is not that of the log")
    return right, wrong


def _other_data(workspace: Workspace, made: dict[str, Any]) -> str | None:
    """Say what of the data something was `made` with is not what lies there now; what isn't known is not held to."""
    folds, labels = workspace.folds / "folds.csv", workspace.data / "annot" / "train.h5"
    now: dict[str, tuple[str, Callable[[], str | None]]] = {
        "images_sha256": (
            f"other images than those of {workspace.data}",
            lambda: read_labels(workspace.data).images_sha256,
        ),
        "test_images_sha256": (
            f"another test set than {workspace.data}'s",
            lambda: sha256_lines(read_test(workspace.data).images),
        ),
        "labels_sha256": (f"other labels than {labels}", lambda: sha256_file(labels)),
        "folds_sha256": (f"other folds than {folds}", lambda: sha256_file(folds) if folds.exists() else None),
    }
    for key, (told, find) in now.items():
        if made.get(key) is not None and find() not in (None, made[key]):
            return told
    return None


def _verify_blend(workspace: Workspace, folder: Path) -> tuple[list[str], list[str]]:
    facts = read_json(
        folder / "blend.json", what="blend", needs={"inputs": dict, "candidates": list, "provenance": dict | None}
    )
    inputs = _named(facts["inputs"], f"{folder / 'blend.json'}: inputs")
    files = {_input(workspace, name): sha256 for name, sha256 in inputs.items()}
    wrong = _changed(files)
    right = [f"{folder}: {len(files) - len(wrong)} of {len(files)} inputs are as they were read"]
    if other := _other_data(workspace, facts.get("provenance") or {}):
        wrong.append(f"{folder}: made with {other}")
    weights_file = folder / "weights.csv"
    if wrong:
        return right, wrong
    if not weights_file.exists() or any(str(name).startswith("virtual-") for name in facts["candidates"]):
        return [*right, f"{folder}: its submission is not checked: only weights of runs are applied again"], wrong
    try:
        again = _blend_again(workspace, facts, weights_file)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{weights_file} is not of the candidates of blend.json ({str(error)[:100]})") from None
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


def _named(claimed: Any, where: str) -> dict[str, str]:
    """Return hashes by file name; raise RunError when they are something else."""
    if not isinstance(claimed, dict) or not all(isinstance(value, str) for value in claimed.values()):
        raise RunError(f"{where}: expected the hashes of files by their names")
    return claimed


def _changed(files: dict[Path, str]) -> list[str]:
    """Say which files are gone or have other contents than their hashes."""
    complaints = []
    for path, sha256 in files.items():
        if not path.is_file():  # nor a device, which has no end
            complaints.append(f"{path}: is gone")
        elif sha256_file(path) != sha256:
            complaints.append(f"{path}: has changed since")
    return complaints
