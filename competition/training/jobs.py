"""What is to be trained: the entrant, the data and the fold, and the configuration that a run is known by."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from competition.common.arrays import Int64
from competition.common.errors import FoldsError, RunError
from competition.common.workspace import Workspace
from competition.data.folds import read_folds
from competition.data.labels import Labels, TestSet, read_labels, read_test
from competition.runs.folders import FULL, fold_folder
from competition.runs.provenance import provenance
from competition.runs.record import read_config, started_folds
from models.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train, and how."""

    workspace: Workspace
    name: str  # of the entrant
    recipe: Recipe
    fold: int | str  # a number, or FULL
    run: str
    precision: str = "auto"
    workers: int | None = 0  # processes that load images, None by the device; the result doesn't depend on it
    checkpoint_minutes: float = 30.0  # between two checkpoints within an epoch
    sync_batch_norm: bool = False  # statistics over all processes' batches, on GPUs
    compile: bool = False  # by torch.compile: minutes at the start, faster steps on a GPU
    init: str | None = None  # a run whose best weights of the same fold to start from

    @property
    def folder(self) -> Path:
        return fold_folder(self.workspace.run(self.run), self.fold)


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a fold trains on and predicts."""

    labels: Labels
    test: TestSet
    train_rows: Int64
    valid_rows: Int64  # none for FULL
    folds_sha256: str


def fold_numbers(workspace: Workspace) -> range:
    """Return the numbers of the folds there are; raise FoldsError when there are none for this data."""
    _, meta = read_folds(workspace.folds, read_labels(workspace.data).images_sha256)
    return range(meta["k"])


def open_data(job: Job) -> Data:
    """Read and check the data and split it by the fold."""
    labels, test = read_labels(job.workspace.data), read_test(job.workspace.data)
    fold_of_row, meta = read_folds(job.workspace.folds, labels.images_sha256)
    if job.fold != FULL and job.fold not in range(meta["k"]):
        raise FoldsError(f"fold {job.fold}: expected 0 to {meta['k'] - 1}, all or {FULL} ({job.workspace.folds})")
    return Data(
        labels=labels,
        test=test,
        train_rows=np.flatnonzero(fold_of_row != job.fold),
        valid_rows=np.flatnonzero(fold_of_row == job.fold),
        folds_sha256=meta["folds_sha256"],
    )


def recorded_precision(job: Job) -> str:
    """Return the precision asked for; for auto, the one that the fold or another of its run was begun with, if any."""
    begun = [job.folder, *started_folds(job.folder.parent)]
    configs = [folder / "config.json" for folder in begun if (folder / "config.json").exists()]
    if job.precision != "auto" or not configs:
        return job.precision
    return str(read_config(configs[0].parent)["settings"].get("precision", "auto"))


def check_origin(job: Job) -> None:
    """Refuse to start from a run of other folds or images: its weights have seen what this fold validates on."""
    assert job.init is not None
    folder = fold_folder(job.workspace.run(job.init), job.fold)
    if not folder.is_dir():
        raise RunError(f"--init {job.init}: no fold {job.fold} at {folder}")
    config = read_config(folder)
    labels = read_labels(job.workspace.data)
    _, meta = read_folds(job.workspace.folds, labels.images_sha256)
    if (config.get("folds_sha256"), config.get("images_sha256")) != (meta["folds_sha256"], labels.images_sha256):
        raise RunError(f"--init {job.init}: {folder} was trained on other folds or images: out of fold would be a lie")


def describe(job: Job, data: Data, precision: str) -> dict[str, Any]:
    """Say everything that the files of a run depend on, as config.json keeps it."""
    import torch  # here, so that a process that only starts others needn't load it

    return {
        "recipe": job.name,
        "settings": asdict(job.recipe)
        | {"precision": precision, "init": job.init, "sync_batch_norm": job.sync_batch_norm, "compile": job.compile},
        "fold": job.fold,
        "seed": job.workspace.seed,
        **provenance(job.workspace.data, data.test, data.labels, data.folds_sha256),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }
