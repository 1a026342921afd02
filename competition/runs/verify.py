"""Verification of a run's or a blend's folder: recompute the hashes of its files and its scores."""

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from competition.common.arrays import Float64
from competition.common.errors import RunError
from competition.common.files import sha256_file
from competition.common.metrics import mpjpe
from competition.common.pose_csv import read_poses
from competition.common.workspace import Workspace
from competition.data.dataset import Dataset
from competition.data.folds import read_folds
from competition.data.views import predicted_views
from competition.runs.blends import Blend, has_changed, is_blend, read_blend, read_weights
from competition.runs.candidates import best_epoch, candidates_of, read_test_poses
from competition.runs.folders import fold_folders, read_valid, valid_file
from competition.runs.fusion import Fusion, read_fusion
from competition.runs.provenance import PARTS, Provenance, hashes_now, other_parts
from competition.runs.record import Done, manifest, read_config, read_done, read_log
from competition.runs.second_level import FILE, SecondLevel, read_second_level

TOLERANCE_MM = 1e-6  # of a recomputed score
TOLERANCE_BLEND_MM = 1e-3  # of a score computed in float32
ROUNDING_MM = 0.00051  # half of the last decimal of a CSV, and some slack


def verify(workspace: Workspace, folder: Path) -> tuple[list[str], list[str]]:
    """Recompute the hashes and scores of a run, a fold or a blend; return the lines that pass and those that fail."""
    dataset = Dataset(workspace.data)
    if is_blend(folder):
        return _verify_blend(workspace, dataset, folder)
    folds = [*fold_folders(folder), *(path for path in [folder / "foldfull"] if path.is_dir())]
    if (folder / "config.json").exists():
        folds = [folder]
    if not folds:
        raise RunError(
            f"{folder}: expected a run's folder (with fold0, fold1, ...), a fold's folder or a blend's folder"
        )
    passed: list[str] = []
    failed: list[str] = []
    for fold in folds:
        result = _verify_fold(workspace, dataset, fold)
        passed += result[0]
        failed += result[1]
    if folds != [folder] and not failed:
        result = _verify_submission(dataset, folder)
        passed += result[0]
        failed += result[1]
    return passed, failed


def _verify_fold(workspace: Workspace, dataset: Dataset, fold: Path) -> tuple[list[str], list[str]]:
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
    if other := _other_data(workspace, dataset, config.provenance):
        return passed, [*failed, f"{fold}: trained on {other}: its scores can't be recomputed"]
    labels = dataset.labels
    for row in read_log(fold):
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


def _verify_submission(dataset: Dataset, run: Path) -> tuple[list[str], list[str]]:
    """Compare a run's submission with its best epoch's test poses, averaged over the folds."""
    best = best_epoch(candidates_of(run))
    file, ids = run / "submission.csv.gz", dataset.test.id
    if best is None or not file.exists():
        return [], []
    return _compare(
        file, read_poses(file, ids).pose_mm, read_test_poses(best, ids), f"the averaged folds of {best.name}"
    )


def _compare(file: Path, written_mm: Float64, again_mm: Float64, what: str) -> tuple[list[str], list[str]]:
    largest = float(np.abs(again_mm - written_mm).max())
    line = f"{file.parent}: {what} differ from {file.name} by at most {largest:.4f} mm"
    return ([line], []) if largest <= ROUNDING_MM else ([], [line])


def _other_data(workspace: Workspace, dataset: Dataset, recorded: Provenance) -> str | None:
    """Name the first part of the data that differs from a recorded provenance; hashes that are None are skipped."""
    now = hashes_now(dataset, workspace.folds, [recorded])
    for part in other_parts(recorded, replace(now, test_images_sha256=dataset.test_images_sha256)):
        return f"{PARTS[part]} {workspace.folds if part == 'folds_sha256' else workspace.data}"
    if recorded.folds_sha256 and recorded.images_sha256 and (workspace.folds / "folds.csv").exists():
        read_folds(workspace.folds, recorded.images_sha256)  # checks folds.json
    return None


def _verify_blend(workspace: Workspace, dataset: Dataset, folder: Path) -> tuple[list[str], list[str]]:
    blend = read_blend(folder)
    outputs = blend.outputs or {}
    _check_names(outputs, folder / "blend.json")
    if has_changed(folder):
        return [], [f"{folder / 'blend.json'}: has changed"]
    failed = _changed({_input(workspace, name): sha256 for name, sha256 in blend.inputs.items()})
    passed = [f"{folder}: {len(blend.inputs) - len(failed)} of {len(blend.inputs)} inputs are unchanged"]
    changed = _changed({folder / name: sha256 for name, sha256 in outputs.items()})
    passed.append(f"{folder}: {len(outputs) - len(changed)} of {len(outputs)} files are unchanged")
    failed += changed
    if other := _other_data(workspace, dataset, blend.provenance or Provenance()):
        failed.append(f"{folder}: made with {other}")
    weights_file = folder / "weights.csv"
    if failed:
        return passed, failed
    if not weights_file.exists():
        return [
            *passed,
            f"{folder}: the submission isn't recomputed: that needs the weights.csv of a blend of runs",
        ], failed
    test_mm, scores = _blend_again(workspace, dataset, blend, folder)
    submission = folder / "submission.csv.gz"
    shipped_mm = read_poses(submission, dataset.test.id).pose_mm
    what = f"the weights{f' and {FILE}' if FILE in outputs else ''} applied to the inputs"
    result = _compare(submission, shipped_mm, test_mm, what)
    for key, again in scores.items():
        line, recorded = f"{folder}: {key} is {again:.3f} mm", getattr(blend, key)
        if recorded is not None and abs(recorded - again) <= TOLERANCE_BLEND_MM:
            result[0].append(line)
        else:
            result[1].append(f"{line}, but blend.json has {recorded}")
    return [*passed, *result[0]], result[1]


def _blend_again(
    workspace: Workspace, dataset: Dataset, blend: Blend, folder: Path
) -> tuple[Float64, dict[str, float]]:
    """Blend the candidates again; return test poses [n, 17, 3] in mm and MPJPEs by key of blend.json."""
    weights_file = folder / "weights.csv"
    names, weights = read_weights(weights_file)
    if names != blend.candidates:
        raise RunError(f"{weights_file}: its columns don't match the candidates of blend.json")
    level, fusion = _read_levels(blend, folder)
    test, own = [], []  # poses of the candidates; those of training images are NaN in rows that a candidate lacks
    labels = dataset.labels
    shape = labels.pose_mm.shape
    blended_mm = np.zeros((len(dataset.test.id), *shape[1:])), np.zeros(shape)
    mean_mm = np.zeros(shape)
    for place, name in enumerate(names):
        of_member = _read_member(workspace, dataset, blend, name, weights_file)
        for sum_mm, pose_mm in zip(blended_mm, of_member, strict=True):
            sum_mm += weights[..., place] * pose_mm
        mean_mm += of_member[1] / len(names)
        if level is not None:
            test.append(of_member[0])
            own.append(of_member[1])
    rows = np.isfinite(mean_mm).all(axis=(1, 2))
    if not rows.any():
        raise RunError(f"{weights_file}: the candidates of blend.json share no out-of-fold row")
    test_mm, own_mm = blended_mm[0], blended_mm[1][rows]
    if level is not None:
        test_mm = level.correct(test_mm, np.array(test))
        own_mm = level.correct(own_mm, np.array([member_mm[rows] for member_mm in own]))
    if fusion is not None:
        own_views = predicted_views(*dataset.views, np.flatnonzero(rows))
        test_mm, own_mm = fusion.apply(test_mm, dataset.views[1]), fusion.apply(own_mm, own_views)
    scores = {"mpjpe_mean": mean_mm[rows], "mpjpe_blend_in_sample": own_mm}
    return test_mm, {key: mpjpe(pose_mm, labels.pose_mm[rows]) for key, pose_mm in scores.items()}


def _read_levels(blend: Blend, folder: Path) -> tuple[SecondLevel | None, Fusion | None]:
    """Read the second level and the fusion of other cameras from a blend's stack.npz; None for what it doesn't use."""
    if FILE not in (blend.outputs or {}):
        return None, None
    if blend.shipped_method == "views":
        return read_fusion(folder / FILE, blend.candidates)
    return read_second_level(folder / FILE, blend.candidates), None


def _read_member(
    workspace: Workspace, dataset: Dataset, blend: Blend, name: str, weights_file: Path
) -> tuple[Float64, Float64]:
    """Read a candidate's poses in mm: of the test images, averaged over folds, and of all training images."""
    labels = dataset.labels
    test, valid = (_files_of(name, kind, blend) for kind in ("test", "valid"))
    if not test or not valid:
        raise RunError(f"{weights_file}: the inputs of blend.json don't include the poses of {name}")
    of_folds = [read_poses(_input(workspace, path), dataset.test.id).pose_mm for path in test]
    own_mm = np.full(labels.pose_mm.shape, np.nan)
    for path in valid:
        poses = read_valid(_input(workspace, path))
        if len(foreign := np.setdiff1d(poses.id, labels.id)):
            raise RunError(f"{path}: Id {foreign[0]} is not a training Id")
        own_mm[poses.id - 1] = poses.pose_mm
    return np.asarray(np.mean(of_folds, axis=0)), own_mm


def _files_of(candidate: str, kind: str, blend: Blend) -> list[str]:
    """Return a blend's inputs that hold the test or valid poses of a candidate, run:epoch."""
    run, _, epoch = candidate.rpartition(":")
    return [
        path
        for path in blend.inputs
        if path.startswith(f"{run}/") and epoch.isdecimal() and f"/{kind}_epoch{int(epoch):02d}." in path
    ]


def _input(workspace: Workspace, name: str) -> Path:
    """Return the path of an input named in blend.json: run/fold/file under SUBMISSIONS, or a path."""
    inside = workspace.submissions / name
    return inside if inside.exists() else Path(name)


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
