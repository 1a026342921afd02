"""Load batches from files: decode, augment and collate, with the same result for any number of workers.

Images are copied to the device as uint8 and normalised there (see `to_input`).
"""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakSet

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from competition.common.arrays import Int64
from competition.common.errors import DataError, UserError
from competition.common.seeds import derive, generator
from competition.data.images import read_image, to_input_px
from competition.data.labels import Labels, TestSet
from competition.training.augment import Augment
from competition.training.capacity import AHEAD, prediction_batch
from competition.training.device import keep_freed_memory
from competition.training.jobs import Data, Job
from competition.training.world import World
from models.contract import Module

Key: TypeAlias = tuple[int, int]  # (epoch, row), which seed a sample's augmentation
WAIT_SECONDS = 120  # for a batch; loading one takes a second even from a slow disk
LOADER_ERRORS = ("DataLoader worker", "Too many open files", "ancdata", "shared memory", "Pin memory thread")
_iterators: "WeakSet[_MultiProcessingDataLoaderIter]" = WeakSet()  # those with loader processes
Sample: TypeAlias = tuple[npt.NDArray[Any], ...]  # the fields of a Batch, of one image


class Batch(NamedTuple):
    """B samples; the poses are None for the test set."""

    id: torch.Tensor  # [B] int64
    image: torch.Tensor  # [B, S, S, 3] uint8, RGB
    pose2d_px: torch.Tensor | None = None  # [B, 17, 2] float32, pixels of the S x S image
    pose_mm: torch.Tensor | None = None  # [B, 17, 3] float32

    @property
    def step_inputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The inputs of a training step: image, pose2d_px, pose_mm."""
        assert self.pose2d_px is not None
        assert self.pose_mm is not None
        return self.image, self.pose2d_px, self.pose_mm

    def split(self, size: int) -> "list[Batch]":
        """Split into batches of at most `size` samples."""
        return [self._map(itemgetter(slice(first, first + size))) for first in range(0, len(self.id), size)]

    def to(self, device: torch.device) -> "Batch":
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def share(self) -> "Batch":
        """Move the batch to shared memory; raise RuntimeError if there is no room."""
        return self._map(torch.Tensor.share_memory_)

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        poses = (None if poses is None else change(poses) for poses in (self.pose2d_px, self.pose_mm))
        return Batch(change(self.id), change(self.image), *poses)


def to_input(image: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Normalise uint8 images [B, S, S, 3] on their device to float32 [B, 3, S, S] in channels_last memory."""
    scale, offset = _scale_and_offset(tuple(mean), tuple(std), image.device)
    return (image.float() * scale - offset).permute(0, 3, 1, 2)


@cache
def _scale_and_offset(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Create the constants once: copying them from the host waits for all earlier work of the GPU."""
    with torch.inference_mode(False):
        deviation = torch.tensor(std, device=device)
        return 1 / (255 * deviation), torch.tensor(mean, device=device) / deviation


@dataclass(frozen=True)
class Piped:
    """The fields of a batch, to be sent through the pipe of a loader process: slower, but without shared memory."""

    arrays: Sample


Loaded: TypeAlias = Batch | DataError | Piped


class PoseImages(Dataset[Any]):
    """The training or test set as images of `size` pixels."""

    def __init__(self, data: Path, source: Labels | TestSet, *, size: int, augment: Augment | None = None) -> None:
        self.folder = data / "images"
        self.source = source
        self.size = size
        self.augment = augment

    def __len__(self) -> int:
        return len(self.source.id)

    def __getitem__(self, key: Key) -> Sample | DataError:
        """Return a sample, or the error as a value: raised in a worker, torch would replace its message."""
        epoch, row = key
        try:
            image = read_image(self.folder / self.source.images[row], self.size)
        except DataError as error:
            return error
        if isinstance(self.source, TestSet):
            return self.source.id[row], image
        pose2d_px = to_input_px(self.source.pose2d_px[row], self.size)
        pose_mm = self.source.pose_mm[row]
        if self.augment is not None:
            image, pose2d_px, pose_mm = self.augment(image, pose2d_px, pose_mm, epoch=epoch, index=row)
        return self.source.id[row], image, pose2d_px, pose_mm


class KeyedBatches(Sampler[list[Key]]):
    """Batches of (epoch, row), in order or shuffled by seed and epoch; set `epoch` before iterating.

    A last incomplete batch of a shuffled epoch is dropped unless it is the only one, as batch normalisation can't train
    on a single image. The first `skip` batches are skipped. `shard` (rank, size) selects rows rank, rank + size, ... of
    each batch.
    """

    def __init__(
        self,
        rows: Int64,
        batch: int,
        *,
        shuffle_seed: int | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.rows = rows
        self.batch = batch
        self.shuffle_seed = shuffle_seed
        self.rank, self.size = shard
        self.epoch = 0
        self.skip = 0

    def __len__(self) -> int:
        whole, rest = divmod(len(self.rows), self.batch)
        return max(1, whole) if self.shuffle_seed is not None else whole + bool(rest)

    def __iter__(self) -> Iterator[list[Key]]:
        rows = self.rows
        if self.shuffle_seed is not None:
            rows = generator(self.shuffle_seed, "shuffle", self.epoch).permutation(rows)
        for first in range(self.skip * self.batch, len(self) * self.batch, self.batch):
            yield [(self.epoch, int(row)) for row in rows[first : first + self.batch][self.rank :: self.size]]


def collate(samples: list[Sample | DataError]) -> Loaded:
    """Stack samples into a batch; return the first error if there is one.

    A loader process puts the batch into shared memory here, where an error can be handled: in the thread that sends it,
    the batch would be lost and the training process would wait forever.
    """
    stacked: list[Sample] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        stacked.append(sample)
    arrays = tuple(np.stack(column) for column in zip(*stacked, strict=True))
    batch = Batch(*map(torch.from_numpy, arrays))
    if get_worker_info() is None:
        return batch
    try:
        return batch.share()
    except RuntimeError:  # /dev/shm is full, or a limit on files
        return Piped(arrays)


def batches(
    loader: DataLoader[Loaded], waiting: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Iterator[Batch]:
    """Iterate over a loader, waiting for each batch in a `waiting` block; raise DataError for an unreadable image.

    Raise UserError if a loader process can't be started, dies, which is usually the system's reaction to a lack of
    memory, or doesn't return a batch for WAIT_SECONDS.
    """
    iterator = None
    while True:
        try:
            with waiting(), _report_loader_errors(loader.num_workers):
                if iterator is None:
                    iterator = iter(loader)
                    _track(iterator)
                batch = next(iterator, None)
        except BaseException:
            _kill_processes()
            raise
        if batch is None:
            return
        if isinstance(batch, DataError):
            raise batch
        yield Batch(*map(torch.from_numpy, batch.arrays)) if isinstance(batch, Piped) else batch


def _track(iterator: object) -> None:
    """Remember an iterator if it has loader processes."""
    if isinstance(iterator, _MultiProcessingDataLoaderIter):
        _iterators.add(iterator)


@atexit.register
def _kill_processes() -> None:
    """Kill all loader processes: torch and the interpreter would wait for those that are stuck."""
    for iterator in _iterators:
        if iterator._worker_pids_set:  # torch would raise an error when they end
            signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
            iterator._worker_pids_set = False
        for worker in iterator._workers:
            worker.kill()


@contextmanager
def _report_loader_errors(workers: int) -> Iterator[None]:
    """Turn errors of loader processes into one line."""
    fix = "lower --workers (0 loads in the training process); the same command resumes from the last checkpoint"
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        if str(error).startswith("Caught "):  # an error of our own code in a loader process
            raise
        text = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        if "timed out" in text:
            raise UserError(f"no images from the {workers} loader processes for {WAIT_SECONDS} s", fix=fix) from None
        if not workers or (isinstance(error, RuntimeError) and not any(word in str(error) for word in LOADER_ERRORS)):
            raise
        raise UserError(f"a loader process died or can't be reached ({text})", fix=f"out of memory? {fix}") from None


def training_loader(
    job: Job, data: Data, size: int, device: torch.device, world: World
) -> tuple[KeyedBatches, DataLoader[Loaded]]:
    """Create the loader of the training rows, shuffled and augmented by seed, fold and epoch."""
    seed = derive(job.workspace.seed, "train", job.fold)
    augment = Augment(size, seed, job.recipe.augmentation) if job.recipe.augment else None
    rows, shard = data.train_rows(job.fold), (world.rank, world.size)
    keys = KeyedBatches(rows, job.recipe.batch, shuffle_seed=seed, shard=shard)
    images = PoseImages(data.dataset.folder, data.dataset.labels, size=size, augment=augment)
    return keys, make_loader(images, keys, workers=job.workers or 0, device=device)


def prediction_loader(
    folder: Path,
    source: Labels | TestSet,
    rows: Int64,
    model: Module,
    *,
    workers: int,
    device: torch.device,
    world: World,
) -> DataLoader[Loaded]:
    """Create the loader of this process's rows for prediction by a network, in order and not augmented."""
    images = PoseImages(folder, source, size=model.input_size)
    keys = KeyedBatches(rows[world.rank :: world.size], prediction_batch(device, model.recipe))
    return make_loader(images, keys, workers=workers, device=device)


def make_loader(images: PoseImages, keys: KeyedBatches, *, workers: int, device: torch.device) -> DataLoader[Loaded]:
    """Create a loader with persistent workers; 0 loads in this process."""
    keep_freed_memory()  # inherited by the workers
    return DataLoader(
        images,
        batch_sampler=keys,
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        timeout=WAIT_SECONDS if workers else 0,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=_init_worker,
        generator=torch.Generator(),  # not the global one: dropout mustn't depend on the number of workers
    )


def _init_worker(_worker: int) -> None:
    os.setpgrp()  # signals to the process group are for the training process only
    cv2.setNumThreads(0)  # one core per worker: OpenCV's threads would compete for the others
    torch.set_num_threads(1)
