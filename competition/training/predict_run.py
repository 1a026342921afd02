"""Predict again with the saved networks of a run."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from competition.common.console import bar
from competition.common.errors import Command, RunError
from competition.common.metrics import mpjpe
from competition.common.pose_csv import write_poses
from competition.common.workspace import Workspace
from competition.data.images import check_images
from competition.runs.candidates import write_submission
from competition.runs.folders import fold_folder, fold_folders, test_file, valid_file, write_valid
from competition.runs.record import LogRow, append_log, read_config, write_config
from competition.training.capacity import prediction_workers
from competition.training.checkpoint import load_checkpoint, load_model
from competition.training.device import choose_device, choose_precision, fold_threads, threads
from competition.training.jobs import open_data
from competition.training.loader import prediction_loader
from competition.training.predict import predict
from competition.training.world import World
from models.contract import HeatmapModule, Module


def predict_run(
    workspace: Workspace,
    run: str,
    *,
    epoch: int | None,
    decoder: str | None,
    flip: bool | None,
    workers: int | None,
) -> tuple[Path, int, float]:
    """Predict with the saved weights of every fold of a run and write the poses as a new run, which can be blended.

    Without `epoch`, each fold uses its best weights. `decoder` and `flip` replace the recipe's heatmap decoder and its
    setting for averaging over the mirrored image.
    Return the new run's folder, its epoch number and its out-of-fold MPJPE in mm; raise RunError if the run is missing
    or was trained on other folds.
    """
    source, target = workspace.existing_run(run), workspace.run("-".join([run, *_suffixes(decoder, flip)]))
    data, device = open_data(workspace), choose_device()
    labels, test = data.dataset.labels, data.dataset.test
    check_images(workspace.data, labels.images + test.images)
    found = _find_folds(source, target, epoch)
    number = max(saved for _, _, saved in found)
    processes: int | None = None  # the same for all folds, with a single warning
    for folder, checkpoint, _ in found:
        config = read_config(folder)
        if config.folds_sha256 != data.folds.folds_sha256 or config.fold is None:
            raise RunError(
                f"{folder} was trained on other folds than those in {workspace.folds}",
                fix="use the folder of its folds",
            )
        model, name = load_network(checkpoint, decoder, device)
        settings = config.settings if decoder is None else config.settings | {"decoder": decoder}
        average = model.recipe.flip_test if flip is None else flip
        precision = choose_precision(config.precision, device)
        if processes is None:
            processes = prediction_workers(workers, name, model.recipe, device)

        out, rows = fold_folder(target, config.fold), data.valid_rows(config.fold)
        for images, image_rows in ((labels, rows), (test, np.arange(len(test.id)))):
            loader = prediction_loader(
                workspace.data, images, image_rows, model, workers=processes, device=device, world=World()
            )
            with threads(fold_threads(name, device)), bar(f"{run} {folder.name}", len(image_rows)) as advance:
                poses = predict(
                    model, loader, name=name, device=device, precision=precision, flip=average, advance=advance
                )
            if images is labels:
                write_valid(valid_file(out, number), poses.id, poses.pose_mm)
                row = LogRow(epoch=number, valid_mpjpe=mpjpe(poses.pose_mm, labels.pose_mm[rows]))
            else:
                write_poses(test_file(out, number), poses.id, poses.pose_mm)
        write_config(out, replace(config, settings=settings, **asdict(data.provenance), predicted_from=run))
        append_log(out, row)
    written = write_submission(workspace.submissions, target.name, test.id)
    assert written is not None
    assert written[1].valid_mpjpe is not None
    return target, number, written[1].valid_mpjpe


def _find_folds(source: Path, target: Path, epoch: int | None) -> list[tuple[Path, Path, int]]:
    """Return each fold's folder, checkpoint and saved epoch; raise RunError if `target` is a trained run."""
    found = [(folder, *find_weights(folder, epoch)) for folder in fold_folders(source)]
    if not found:
        raise RunError(f"{source} contains no run, expected folders fold0, fold1, ...", command=Command("board"))
    if any(target.glob("fold*/last.pt")):
        raise RunError(
            f"{target} is a trained run, which predicting with {source.name} would overwrite",
            fix="rename one of the two",
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
    checkpoints = {path: load_checkpoint(path) for path in (folder / "best.pt", folder / "last.pt")}
    saved = {path: checkpoint.epoch for path, checkpoint in checkpoints.items() if checkpoint.part is None}
    for path, number in saved.items():
        if epoch in (None, number):
            return path, number
    raise RunError(f"{folder} has no weights of epoch {epoch}, expected one of {sorted(set(saved.values()))}")


def load_network(checkpoint: Path, decoder: str | None, device: torch.device) -> tuple[Module, str]:
    """Load a checkpoint's network for prediction on a device, and its name; `decoder` replaces its heatmap decoder.

    Raise RunError for an unknown decoder or a network without one.
    """
    model, name = load_model(checkpoint)
    if decoder is not None:
        if not isinstance(model, HeatmapModule):
            raise RunError(f"{checkpoint} predicts coordinates directly", fix="leave out --decoder")
        try:
            model.decoder = decoder
        except ValueError as error:
            raise RunError(str(error)) from None
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval(), name
