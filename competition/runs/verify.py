"""Verifying a run's or a blend's folder: are the files those that were written, and do their scores hold?"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.common.arrays import Float64
from competition.common.errors import RunError
from competition.common.files import read_json, sha256_file, sha256_json, sha256_lines
from competition.common.metrics import mpjpe
from competition.common.pose_csv import read_poses
from competition.common.skeleton import AXES, JOINTS
from competition.common.workspace import Workspace
from competition.data.folds import read_folds
from competition.data.labels import Labels, read_labels, read_test
from competition.runs.blends import VERIFIED, is_blend, read_facts
from competition.runs.candidates import best_epoch, candidates_of, read_test_poses
from competition.runs.folders import fold_folders, read_valid, valid_file
from competition.runs.record import manifest, read_config, read_log

TOLERANCE_MM = 1e-6  # of a score computed again
TOLERANCE_BLEND_MM = 1e-3  # of one that was computed in float32
WRITTEN_MM = 0.00051  # half of the last decimal of a CSV


def verify(workspace: Workspace, folder: Path) -> tuple[list[str], list[str]]:
    """Recompute what a run's or a blend's folder claims; return what was found right, and what was found wrong."""
    if is_blend(folder):
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
    if folds != [folder] and not wrong:
        found = _verify_submission(workspace, folder)
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
    _refuse_paths(files, fold / "done.json")
    wrong = _changed({fold / name: sha256 for name, sha256 in files.items()})
    right = [f"{fold}: {len(files) - len(wrong)} of {len(files)} files are as they were written"]
    if wrong:
        return right, wrong
    if claims:
        now = manifest(fold)
        wrong += [f"{fold / name}: is new since" for name in now["files"] if name not in files]
        wrong += [
            f"{fold / 'done.json'}: {key} is {claims[key]}, but the other files say {now[key]}"
            for key in now
            if key != "files" and key in claims and claims[key] != now[key]
        ]
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
    return right, wrong


def _verify_submission(workspace: Workspace, run: Path) -> tuple[list[str], list[str]]:
    """Compare a run's own submission with the mean over the folds of its best epoch's test poses."""
    best = best_epoch(candidates_of(run))
    file, ids = run / "submission.csv.gz", read_test(workspace.data).id
    if best is None or not file.exists():
        return [], []
    return _compare(file, read_poses(file, ids).pose_mm, read_test_poses(best, ids), f"the folds' means at {best.name}")


def _compare(file: Path, written_mm: Float64, again_mm: Float64, what: str) -> tuple[list[str], list[str]]:
    largest = float(np.abs(again_mm - written_mm).max())
    told = f"{file.parent}: {what} differ from {file.name} by at most {largest:.4f} mm"
    return ([told], []) if largest <= WRITTEN_MM else ([], [told])


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
    if made.get("folds_sha256") is not None and made.get("images_sha256") is not None and folds.exists():
        read_folds(workspace.folds, made["images_sha256"])  # folds.json, too, is of these folds
    return None


def _verify_blend(workspace: Workspace, folder: Path) -> tuple[list[str], list[str]]:
    facts = read_facts(folder, VERIFIED)
    inputs = _named(facts["inputs"], f"{folder / 'blend.json'}: inputs")
    outputs = _named(facts["outputs"] or {}, f"{folder / 'blend.json'}: outputs")
    _refuse_paths(outputs, folder / "blend.json")
    itself = facts.pop("facts_sha256", None)  # none in those of before
    if itself is not None and itself != sha256_json(facts):
        return [], [f"{folder / 'blend.json'}: has changed since"]
    wrong = _changed({_input(workspace, name): sha256 for name, sha256 in inputs.items()})
    right = [f"{folder}: {len(inputs) - len(wrong)} of {len(inputs)} inputs are as they were read"]
    changed = _changed({folder / name: sha256 for name, sha256 in outputs.items()})
    right.append(f"{folder}: {len(outputs) - len(changed)} of {len(outputs)} files are as they were written")
    wrong += changed
    if other := _other_data(workspace, facts.get("provenance") or {}):
        wrong.append(f"{folder}: made with {other}")
    weights_file = folder / "weights.csv"
    if wrong:
        return right, wrong
    if not weights_file.exists() or any(str(name).startswith("virtual-") for name in facts["candidates"]):
        return [*right, f"{folder}: its submission is not checked: only weights of runs are applied again"], wrong
    try:
        test_mm, scores = _blend_again(workspace, facts, weights_file)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise RunError(f"{weights_file} is not of the candidates of blend.json ({str(error)[:100]})") from None
    submission = folder / "submission.csv.gz"
    shipped_mm = read_poses(submission, read_test(workspace.data).id).pose_mm
    found = _compare(submission, shipped_mm, test_mm, "the weights applied to the inputs")
    for key, again in scores.items():
        told = f"{folder}: {key} is {again:.3f} mm"
        if isinstance(facts.get(key), int | float) and abs(facts[key] - again) <= TOLERANCE_BLEND_MM:
            found[0].append(told)
        else:
            found[1].append(f"{told}, but blend.json says {facts.get(key)}")
    return [*right, *found[0]], found[1]


def _blend_again(workspace: Workspace, facts: dict[str, Any], weights_file: Path) -> tuple[Float64, dict[str, float]]:
    """Apply the weights [17, 3, M] of a file to each candidate's poses: the test poses, and the scores out of fold."""
    test_ids, labels = read_test(workspace.data).id, read_labels(workspace.data)
    names: Sequence[str] = facts["candidates"]
    weights = pd.read_csv(weights_file)[list(names)].to_numpy(np.float64).reshape(len(JOINTS), len(AXES), len(names))
    test_mm = np.zeros((len(test_ids), len(JOINTS), len(AXES)))
    blended_mm, mean_mm = np.zeros((2, *labels.pose_mm.shape))
    for place, name in enumerate(names):
        run, _, epoch = name.rpartition(":")
        mine = [path for path in facts["inputs"] if path.startswith(f"{run}/")]
        test, valid = (
            [_input(workspace, path) for path in mine if f"/{kind}_epoch{int(epoch):02d}." in path]
            for kind in ("test", "valid")
        )
        test_mm += weights[..., place] * np.mean([read_poses(path, test_ids).pose_mm for path in test], axis=0)
        own_mm = np.full(labels.pose_mm.shape, np.nan)  # rows that not all have stay so
        for path in valid:
            poses = read_valid(path)
            own_mm[poses.id - 1] = poses.pose_mm
        blended_mm += weights[..., place] * own_mm
        mean_mm += own_mm / len(names)
    rows = np.isfinite(mean_mm).all(axis=(1, 2))
    scores = {"mpjpe_mean": mean_mm, "mpjpe_blend_in_sample": blended_mm}
    return test_mm, {key: mpjpe(pose_mm[rows], labels.pose_mm[rows]) for key, pose_mm in scores.items()}


def _input(workspace: Workspace, name: str) -> Path:
    """Find an input by the name that blend.json gives it: run/fold/file of SUBMISSIONS, or a path."""
    inside = workspace.submissions / name
    return inside if inside.exists() else Path(name)


def _named(claimed: Any, where: str) -> dict[str, str]:
    """Return hashes by file name; raise RunError when they are something else."""
    if not isinstance(claimed, dict) or not all(isinstance(value, str) for value in claimed.values()):
        raise RunError(f"{where}: expected the hashes of files by their names")
    return claimed


def _refuse_paths(names: Iterable[str], where: Path) -> None:
    if outside := [name for name in names if Path(name).name != name]:
        raise RunError(f"{where}: {outside[0][:60]!r} is a path, expected names of files beside it")


def _changed(files: dict[Path, str]) -> list[str]:
    """Say which files are gone or have other contents than their hashes."""
    complaints = []
    for path, sha256 in files.items():
        if not path.is_file():  # nor a device, which has no end
            complaints.append(f"{path}: is gone")
        elif sha256_file(path) != sha256:
            complaints.append(f"{path}: has changed since")
    return complaints
