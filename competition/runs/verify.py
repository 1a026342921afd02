"""Verification of a run's or a blend's folder: recompute the hashes of its files and its scores."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.common.arrays import Float64
from competition.common.errors import RunError
from competition.common.files import sha256_file, sha256_json, sha256_lines
from competition.common.metrics import mpjpe
from competition.common.pose_csv import read_poses
from competition.common.skeleton import AXES, JOINTS
from competition.common.workspace import Workspace
from competition.data.folds import read_folds
from competition.data.labels import Labels, read_labels, read_test
from competition.runs.blends import VERIFY_KEYS, is_blend, read_facts
from competition.runs.candidates import best_epoch, candidates_of, read_test_poses
from competition.runs.folders import fold_folders, read_valid, valid_file
from competition.runs.record import Done, manifest, read_config, read_done, read_log

TOLERANCE_MM = 1e-6  # of a recomputed score
TOLERANCE_BLEND_MM = 1e-3  # of a score computed in float32
ROUNDING_MM = 0.00051  # half of the last decimal of a CSV, and some slack


def verify(workspace: Workspace, folder: Path) -> tuple[list[str], list[str]]:
    """Recompute the hashes and scores of a run, a fold or a blend; return the lines that pass and those that fail."""
    if is_blend(folder):
        return _verify_blend(workspace, folder)
    folds = [*fold_folders(folder), *(path for path in [folder / "foldfull"] if path.is_dir())]
    if (folder / "config.json").exists():
        folds = [folder]
    if not folds:
        raise RunError(
            f"{folder}: expected a run's folder (with fold0, fold1, ...), a fold's folder or a blend's folder"
        )
    passed: list[str] = []
    failed: list[str] = []
    labels = read_labels(workspace.data)
    for fold in folds:
        result = _verify_fold(workspace, fold, labels)
        passed += result[0]
        failed += result[1]
    if folds != [folder] and not failed:
        result = _verify_submission(workspace, folder)
        passed += result[0]
        failed += result[1]
    return passed, failed


def _verify_fold(workspace: Workspace, fold: Path, labels: Labels) -> tuple[list[str], list[str]]:
    config = read_config(fold)
    claims = read_done(fold) if (fold / "done.json").exists() else None
    if claims is None and config.predicted_from is None:
        return [], [f"{fold}: not finished (no done.json)"]
    files = {} if claims is None else claims.files
    _check_names(files, fold / "done.json")
    failed = _changed({fold / name: sha256 for name, sha256 in files.items()})
    passed = [f"{fold}: {len(files) - len(failed)} of {len(files)} files are unchanged"]
    if failed:
        return passed, failed
    if claims is not None:
        now = manifest(fold)
        failed += [f"{fold / name}: was added later" for name in now.files if name not in files]
        failed += [
            f"{fold / 'done.json'}: {key} is {claimed}, but the other files give {found}"
            for key, claimed, found in (
                (field.name, getattr(claims, field.name), getattr(now, field.name)) for field in fields(Done)
            )
            if key != "files" and (claimed is not None or key == "valid_mpjpe") and claimed != found
        ]
    if other := _other_data(workspace, asdict(config.provenance)):
        return passed, [*failed, f"{fold}: trained on {other}: its scores can't be recomputed"]
    log = read_log(fold)
    for row in log:
        if row.valid_mpjpe is None or not valid_file(fold, row.epoch).exists():
            continue
        poses = read_valid(valid_file(fold, row.epoch))
        if len(foreign := np.setdiff1d(poses.id, labels.id)):
            raise RunError(f"{valid_file(fold, row.epoch)}: Id {foreign[0]} is not a training Id")
        again = mpjpe(poses.pose_mm, labels.pose_mm[poses.id - 1])
        line = f"{fold}: epoch {row.epoch} scores {again:.4f} mm out of fold"
        if abs(again - row.valid_mpjpe) > TOLERANCE_MM:
            failed.append(f"{line}, but its log has {row.valid_mpjpe:.4f}")
        else:
            passed.append(line)
    return passed, failed


def _verify_submission(workspace: Workspace, run: Path) -> tuple[list[str], list[str]]:
    """Compare a run's submission with its best epoch's test poses, averaged over the folds."""
    best = best_epoch(candidates_of(run))
    file, ids = run / "submission.csv.gz", read_test(workspace.data).id
    if best is None or not file.exists():
        return [], []
    return _compare(
        file, read_poses(file, ids).pose_mm, read_test_poses(best, ids), f"the averaged folds of {best.name}"
    )


def _compare(file: Path, written_mm: Float64, again_mm: Float64, what: str) -> tuple[list[str], list[str]]:
    largest = float(np.abs(again_mm - written_mm).max())
    line = f"{file.parent}: {what} differ from {file.name} by at most {largest:.4f} mm"
    return ([line], []) if largest <= ROUNDING_MM else ([], [line])


def _other_data(workspace: Workspace, provenance: dict[str, Any]) -> str | None:
    """Name the first part of the data that differs from a recorded provenance; hashes that are None are skipped."""
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
    for key, (description, compute) in now.items():
        if provenance.get(key) is not None and compute() not in (None, provenance[key]):
            return description
    if provenance.get("folds_sha256") and provenance.get("images_sha256") and folds.exists():
        read_folds(workspace.folds, provenance["images_sha256"])  # checks folds.json
    return None


def _verify_blend(workspace: Workspace, folder: Path) -> tuple[list[str], list[str]]:
    facts = read_facts(folder, VERIFY_KEYS)
    inputs = _checked_hashes(facts["inputs"], f"{folder / 'blend.json'}: inputs")
    outputs = _checked_hashes(facts["outputs"] or {}, f"{folder / 'blend.json'}: outputs")
    _check_names(outputs, folder / "blend.json")
    facts_sha256 = facts.pop("facts_sha256", None)  # optional: the scores are recomputed in any case
    if facts_sha256 is not None and facts_sha256 != sha256_json(facts):
        return [], [f"{folder / 'blend.json'}: has changed"]
    failed = _changed({_input(workspace, name): sha256 for name, sha256 in inputs.items()})
    passed = [f"{folder}: {len(inputs) - len(failed)} of {len(inputs)} inputs are unchanged"]
    changed = _changed({folder / name: sha256 for name, sha256 in outputs.items()})
    passed.append(f"{folder}: {len(outputs) - len(changed)} of {len(outputs)} files are unchanged")
    failed += changed
    if other := _other_data(workspace, facts.get("provenance") or {}):
        failed.append(f"{folder}: made with {other}")
    weights_file = folder / "weights.csv"
    if failed:
        return passed, failed
    if not weights_file.exists() or any(str(name).startswith("virtual-") for name in facts["candidates"]):
        return [
            *passed,
            f"{folder}: the submission isn't recomputed: that needs the weights.csv of a blend without --virtual",
        ], failed
    try:
        test_mm, scores = _blend_again(workspace, facts, weights_file)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise RunError(f"{weights_file} doesn't match the candidates of blend.json ({str(error)[:100]})") from None
    submission = folder / "submission.csv.gz"
    shipped_mm = read_poses(submission, read_test(workspace.data).id).pose_mm
    result = _compare(submission, shipped_mm, test_mm, "the weights applied to the inputs")
    for key, again in scores.items():
        line = f"{folder}: {key} is {again:.3f} mm"
        if isinstance(facts.get(key), int | float) and abs(facts[key] - again) <= TOLERANCE_BLEND_MM:
            result[0].append(line)
        else:
            result[1].append(f"{line}, but blend.json has {facts.get(key)}")
    return [*passed, *result[0]], result[1]


def _blend_again(workspace: Workspace, facts: dict[str, Any], weights_file: Path) -> tuple[Float64, dict[str, float]]:
    """Apply weights [17, 3, M] from a file to the candidates; return test poses [n, 17, 3] in mm and MPJPEs by key."""
    test_ids, labels = read_test(workspace.data).id, read_labels(workspace.data)
    names: Sequence[str] = facts["candidates"]
    weights = pd.read_csv(weights_file)[list(names)].to_numpy(np.float64).reshape(len(JOINTS), len(AXES), len(names))
    test_mm = np.zeros((len(test_ids), len(JOINTS), len(AXES)))
    blended_mm, mean_mm = np.zeros((2, *labels.pose_mm.shape))
    for place, name in enumerate(names):
        run, _, epoch = name.rpartition(":")
        paths = [path for path in facts["inputs"] if path.startswith(f"{run}/")]
        test, valid = (
            [_input(workspace, path) for path in paths if f"/{kind}_epoch{int(epoch):02d}." in path]
            for kind in ("test", "valid")
        )
        test_mm += weights[..., place] * np.mean([read_poses(path, test_ids).pose_mm for path in test], axis=0)
        own_mm = np.full(labels.pose_mm.shape, np.nan)  # remains in rows that the candidate lacks
        for path in valid:
            poses = read_valid(path)
            own_mm[poses.id - 1] = poses.pose_mm
        blended_mm += weights[..., place] * own_mm
        mean_mm += own_mm / len(names)
    rows = np.isfinite(mean_mm).all(axis=(1, 2))
    scores = {"mpjpe_mean": mean_mm, "mpjpe_blend_in_sample": blended_mm}
    return test_mm, {key: mpjpe(pose_mm[rows], labels.pose_mm[rows]) for key, pose_mm in scores.items()}


def _input(workspace: Workspace, name: str) -> Path:
    """Return the path of an input named in blend.json: run/fold/file under SUBMISSIONS, or a path."""
    inside = workspace.submissions / name
    return inside if inside.exists() else Path(name)


def _checked_hashes(claimed: Any, where: str) -> dict[str, str]:
    """Return the hashes by file name; raise RunError if the value has another type."""
    if not isinstance(claimed, dict) or not all(isinstance(value, str) for value in claimed.values()):
        raise RunError(f"{where}: expected an object of file names and hashes")
    return claimed


def _check_names(names: Iterable[str], where: Path) -> None:
    """Raise RunError for a name with a folder, which could lead outside."""
    if outside := [name for name in names if Path(name).name != name]:
        raise RunError(f"{where}: {outside[0][:60]!r} is a path, expected names of files in the same folder")


def _changed(files: dict[Path, str]) -> list[str]:
    """List the files that are missing or don't match their hashes, one message each."""
    messages = []
    for path, sha256 in files.items():
        if not path.is_file():  # a device would never end
            messages.append(f"{path}: is missing")
        elif sha256_file(path) != sha256:
            messages.append(f"{path}: has changed")
    return messages
