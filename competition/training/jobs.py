"""Training jobs: model, data, fold and the configuration recorded with a run."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from competition.common.arrays import Int64
from competition.common.errors import FoldsError, RunError
from competition.common.workspace import Workspace
from competition.data.dataset import Dataset
from competition.data.folds import read_folds
from competition.data.labels import Labels, TestSet, read_labels, read_test
from competition.runs.folders import FULL, fold_folder
from competition.runs.provenance import provenance
from competition.runs.record import read_config, started_folds
from models.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Job:
    """One fold of one run to train."""

    workspace: Workspace
    name: str  # of the model
    recipe: Recipe
    fold: int | str  # a fold number, or FULL
    run: str
    precision: str = "auto"
    workers: int | None = 0  # loader processes; None: chosen by device; results don't depend on it
    checkpoint_minutes: float = 30.0  # between checkpoints within an epoch
    sync_batch_norm: bool = False  # batch statistics over all processes; GPUs only
    compile: bool = False  # with torch.compile: faster steps on a GPU after minutes of compiling
    init: str | None = None  # start from the best weights of this run's same fold

    @property
    def folder(self) -> Path:
        return fold_folder(self.workspace.run(self.run), self.fold)


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data that a fold trains on and predicts."""

    labels: Labels
    test: TestSet
    train_rows: Int64
    valid_rows: Int64  # empty for FULL
    folds_sha256: str


def fold_numbers(workspace: Workspace) -> range:
    """Return the fold numbers; raise FoldsError if there are no folds for this data."""
    _, meta = read_folds(workspace.folds, read_labels(workspace.data).images_sha256)
    return range(meta["k"])


def open_data(job: Job) -> Data:
    """Read and validate the data and split it by fold; raise FoldsError for an unknown fold."""
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
    """Return the job's precision; for auto, the one recorded in this fold or another fold of the run, if any."""
    folders = [job.folder, *started_folds(job.folder.parent)]
    configs = [folder / "config.json" for folder in folders if (folder / "config.json").exists()]
    if job.precision != "auto" or not configs:
        return job.precision
    return str(read_config(configs[0].parent)["settings"].get("precision", "auto"))


def check_init_run(job: Job) -> None:
    """Raise RunError if --init names a run of other folds or images, which may have trained on held-out rows."""
    assert job.init is not None
    folder = fold_folder(job.workspace.run(job.init), job.fold)
    if not folder.is_dir():
        raise RunError(f"--init {job.init}: no fold {job.fold} at {folder}: train it first, or choose another run")
    config = read_config(folder)
    labels = read_labels(job.workspace.data)
    _, meta = read_folds(job.workspace.folds, labels.images_sha256)
    if (config.get("folds_sha256"), config.get("images_sha256")) != (meta["folds_sha256"], labels.images_sha256):
        raise RunError(
            f"--init {job.init}: {folder} was trained on other folds or images, so out-of-fold scores would be "
            f"contaminated: use a run trained on {job.workspace.folds}"
        )


def run_config(job: Job, data: Data, precision: str) -> dict[str, Any]:
    """Return the content of config.json: everything that a run's files depend on."""
    import torch  # not at the top: a process that only starts others doesn't need it

    return {
        "recipe": job.name,
        "settings": asdict(job.recipe)
        | {"precision": precision, "init": job.init, "sync_batch_norm": job.sync_batch_norm, "compile": job.compile},
        "fold": job.fold,
        "seed": job.workspace.seed,
        **asdict(provenance(Dataset(job.workspace.data), data.folds_sha256)),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }
