"""Predict again with the saved networks of a run."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from competition.common.console import Console
from competition.common.errors import RunError
from competition.common.files import write_json
from competition.common.metrics import mpjpe
from competition.common.pose_csv import write_poses
from competition.common.workspace import Workspace
from competition.data.dataset import Dataset
from competition.data.folds import read_folds
from competition.data.images import check_images
from competition.data.labels import read_labels, read_test
from competition.runs.candidates import write_submission
from competition.runs.folders import fold_folder, fold_folders, test_file, valid_file, write_valid
from competition.runs.provenance import provenance
from competition.runs.record import append_log, read_config
from competition.training.checkpoint import load_checkpoint, load_model
from competition.training.device import choose_device, choose_precision
from competition.training.loader import KeyedBatches, PoseImages, make_loader
from competition.training.predict import predict, prediction_batch
from models.contract import HeatmapModule, Module


def predict_run(
    workspace: Workspace,
    run: str,
    *,
    epoch: int | None,
    decoder: str | None,
    flip: bool | None,
    workers: int | None,
    console: Console,
) -> tuple[Path, int, float]:
    """Predict with the saved weights of every fold of a run and write the poses as a new run, which can be blended.

    Without `epoch`, each fold uses its best weights. `decoder` and `flip` replace the recipe's heatmap decoder and its
    setting for averaging over the mirrored image.
    Return the new run's folder, its epoch number and its out-of-fold MPJPE in mm; raise RunError if the run is missing
    or was trained on other folds.
    """
    labels, test = read_labels(workspace.data), read_test(workspace.data)
    check_images(workspace.data, labels.images + test.images)
    fold_of_row, meta = read_folds(workspace.folds, labels.images_sha256)
    source, target = workspace.run(run), workspace.run("-".join([run, *_suffixes(decoder, flip)]))
    found = _find_folds(source, target, epoch)
    number = max(saved for _, _, saved in found)
    device = choose_device()
    for folder, checkpoint, _ in found:
        config = read_config(folder)
        if config.get("folds_sha256") != meta["folds_sha256"]:
            raise RunError(
                f"{folder} was trained on other folds than those in {workspace.folds}: set FOLDS= to its folds"
            )
        model = load_network(checkpoint, decoder, device)
        if decoder is not None:
            config["settings"]["decoder"] = decoder
        precision = choose_precision(str(config["settings"].get("precision", "auto")), device)
        out = fold_folder(target, config["fold"])
        rows = np.flatnonzero(fold_of_row == config["fold"])
        for images, image_rows in ((labels, rows), (test, np.arange(len(test.id)))):
            dataset = PoseImages(workspace.data, images, size=model.spec.input_size)
            loader = make_loader(
                dataset,
                KeyedBatches(image_rows, prediction_batch(device, model.recipe)),
                workers=workers,
                device=device,
            )
            with console.bar(f"{run} fold {config['fold']}", len(image_rows)) as advance:
                average = model.recipe.flip_test if flip is None else flip
                poses = predict(model, loader, device=device, precision=precision, flip=average, advance=advance)
            if images is labels:
                write_valid(valid_file(out, number), poses.id, poses.pose_mm)
                log = {"epoch": number, "valid_mpjpe": mpjpe(poses.pose_mm, labels.pose_mm[rows])}
            else:
                write_poses(test_file(out, number), poses.id, poses.pose_mm)
        updated = config | asdict(provenance(Dataset(workspace.data), meta["folds_sha256"]))
        write_json(out / "config.json", updated | {"predicted_from": run})
        append_log(out, log)
    written = write_submission(workspace.submissions, target.name, test.id)
    assert written is not None
    assert written[1].valid_mpjpe is not None
    return target, number, written[1].valid_mpjpe


def _find_folds(source: Path, target: Path, epoch: int | None) -> list[tuple[Path, Path, int]]:
    """Return each fold's folder, checkpoint and saved epoch; raise RunError if `target` is a trained run."""
    found = [(folder, *find_weights(folder, epoch)) for folder in fold_folders(source)]
    if not found:
        raise RunError(f"no run at {source}: expected folders fold0, fold1, ...; `make board` lists the runs")
    if any(target.glob("fold*/last.pt")):
        raise RunError(
            f"{target} is a trained run, which predicting with {source.name} would overwrite: rename one of the two"
        )
    return found


def _suffixes(decoder: str | None, flip: bool | None) -> list[str]:
    """Return the suffixes of the new run's name: the settings that differ from the run's."""
    flip_suffix = [] if flip is None else ["flip" if flip else "noflip"]
    return [*([decoder] if decoder else []), *flip_suffix] or ["again"]


def find_weights(folder: Path, epoch: int | None) -> tuple[Path, int]:
    """Return the checkpoint of an epoch, best.pt or last.pt, and its epoch; without an epoch, best.pt.

    Raise RunError if neither is of that epoch.
    """
    states = {path: load_checkpoint(path) for path in (folder / "best.pt", folder / "last.pt")}
    saved = {path: state["epoch"] for path, state in states.items() if state["part"] is None}
    for path, number in saved.items():
        if epoch in (None, number):
            return path, number
    raise RunError(f"{folder} has no weights of epoch {epoch}: expected one of {sorted(set(saved.values()))}")


def load_network(checkpoint: Path, decoder: str | None, device: torch.device) -> Module:
    """Load a checkpoint's network for prediction on a device; `decoder` replaces its heatmap decoder.

    Raise RunError for an unknown decoder or a network without one.
    """
    model, _ = load_model(checkpoint)
    if decoder is not None:
        if not isinstance(model, HeatmapModule):
            raise RunError(f"{checkpoint} predicts coordinates directly: leave out --decoder")
        try:
            model.decoder = decoder
        except ValueError as error:
            raise RunError(str(error)) from None
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()
