"""Training jobs: model, data, fold and the configuration recorded with a run."""

import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from competition.common.arrays import Int64
from competition.common.errors import RunError
from competition.common.workspace import Workspace
from competition.data.dataset import Dataset
from competition.data.folds import FoldsMeta, read_folds
from competition.data.labels import find_doubts
from competition.runs.folders import FULL, fold_folder
from competition.runs.provenance import Provenance, provenance
from competition.runs.record import RunConfig, Setting, read_config, started_folds
from models.recipes import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do about a failed training; the flags are those of the command `train` unless another one trains."""

    busy: str = "wait for it or choose another --run"
    configuration: str = "choose another name for the run, pass the old values as flags, or delete that folder"
    not_finite: str = "lower --lr or set --clip-norm"
    less_memory: str | None = None  # None: smaller micro-batches

    def out_of_memory(self, images: int) -> str:
        """Return what to do if there is too little memory for a forward pass of this many images."""
        return self.less_memory or f"set --micro-batch below {images}, or use a smaller model"


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
    compile: bool = False  # with torch.compile: faster steps after minutes of compiling; not hourglasses on a GPU
    init: str | None = None  # start from the best weights of this run's same fold
    advice: Advice = Advice()

    @property
    def folder(self) -> Path:
        return fold_folder(self.workspace.run(self.run), self.fold)


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data set and its folds: opened once per command, and pickled for the processes that it starts."""

    dataset: Dataset
    fold_of_row: Int64  # [N], the fold that holds the row out
    folds: FoldsMeta
    provenance: Provenance

    @property
    def fold_numbers(self) -> range:
        return range(self.folds.k)

    def train_rows(self, fold: int | str) -> Int64:
        """Return the rows that a fold, or FULL, trains on."""
        return np.flatnonzero(np.ones(len(self.fold_of_row)) if fold == FULL else self.fold_of_row != fold)

    def valid_rows(self, fold: int | str) -> Int64:
        """Return the rows that a fold holds out; none for FULL."""
        return np.flatnonzero(np.zeros(len(self.fold_of_row)) if fold == FULL else self.fold_of_row == fold)


def open_data(workspace: Workspace) -> Data:
    """Read, validate and hash the data set and its folds; raise FoldsError if there are no folds for this data."""
    dataset = Dataset(workspace.data)
    if os.environ.get("RANK", "0") == "0":  # of several processes, the first one warns
        for doubt in find_doubts(dataset.folder, dataset.labels):
            log.warning(str(doubt))
    fold_of_row, folds = read_folds(workspace.folds, dataset.images_sha256)
    made = provenance(dataset, folds.folds_sha256)
    return Data(dataset=dataset, fold_of_row=fold_of_row, folds=folds, provenance=made)


def recorded_precision(job: Job) -> str:
    """Return the job's precision; for auto, the one recorded in this fold or another fold of the run, if any."""
    folders = [job.folder, *started_folds(job.folder.parent)]
    configured = [folder for folder in folders if (folder / "config.json").exists()]
    return job.precision if job.precision != "auto" or not configured else read_config(configured[0]).precision


def check_init_run(job: Job, data: Data) -> None:
    """Raise RunError if --init names a run of other folds or images, which may have trained on held-out rows."""
    assert job.init is not None
    folder = fold_folder(job.workspace.run(job.init), job.fold)
    if not folder.is_dir():
        raise RunError(
            f"--init {job.init}: no fold {job.fold} at {folder}", fix="train it first, or choose another run"
        )
    made, now = read_config(folder).provenance, data.provenance
    if (made.folds_sha256, made.images_sha256) != (now.folds_sha256, now.images_sha256):
        raise RunError(
            f"--init {job.init}: {folder} was trained on other folds or images, so out-of-fold scores would be "
            "contaminated",
            fix=f"use a run trained on {job.workspace.folds}",
        )


def run_config(job: Job, data: Data, precision: str, *, threads: int, processes: int) -> RunConfig:
    """Return the content of config.json."""
    recipe: dict[str, Setting] = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(job.recipe).items()
    }
    return RunConfig(
        recipe=job.name,
        settings=recipe
        | {"precision": precision, "init": job.init, "sync_batch_norm": job.sync_batch_norm, "compile": job.compile},
        fold=job.fold,
        seed=job.workspace.seed,
        **asdict(data.provenance),
        threads=threads,
        processes=processes,
    )
