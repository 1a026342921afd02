"""Load batches from files: decode, augment and collate, with the same result for any number of workers.

Images are copied to the device as uint8 and normalised there (see `to_input`).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from competition.common.arrays import Int64
from competition.common.errors import DataError, UserError
from competition.common.seeds import derive, generator
from competition.data.images import read_image, to_input_px
from competition.data.labels import Labels, TestSet
from competition.training.augment import Augment
from competition.training.device import default_workers, keep_freed_memory
from competition.training.jobs import Data, Job
from competition.training.world import World
from models.contract import Module
from models.recipes import Recipe

Key: TypeAlias = tuple[int, int]  # (epoch, row), which seed a sample's augmentation
Sample: TypeAlias = tuple[npt.NDArray[Any], ...]  # the fields of a Batch, of one image
BATCH_ON_CPU, BATCH_ON_GPU = 32, 64  # images predicted at once; a heatmap volume takes 17 MiB per image


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


def collate(samples: list[Sample | DataError]) -> Batch | DataError:
    """Stack samples into a batch; return the first error if there is one."""
    stacked: list[Sample] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        stacked.append(sample)
    return Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*stacked, strict=True)))


def batches(loader: DataLoader[Batch | DataError]) -> Iterator[Batch]:
    """Iterate over a loader; raise DataError for an image that can't be read.

    Raise UserError if a worker dies, which is usually the system's reaction to a lack of memory.
    """
    iterator = iter(loader)
    while True:
        try:
            batch = next(iterator, None)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(
                f"a loader process died ({str(error).splitlines()[0][:120]})",
                fix="out of memory? lower --workers; the same command resumes from the last checkpoint",
            ) from None
        if batch is None:
            return
        if isinstance(batch, DataError):
            raise batch
        yield batch


def training_loader(
    job: Job, data: Data, size: int, device: torch.device, world: World
) -> tuple[KeyedBatches, DataLoader[Batch | DataError]]:
    """Create the loader of the training rows, shuffled and augmented by seed, fold and epoch."""
    seed = derive(job.workspace.seed, "train", job.fold)
    augment = Augment(size, seed, job.recipe.augmentation) if job.recipe.augment else None
    rows, shard = data.train_rows(job.fold), (world.rank, world.size)
    keys = KeyedBatches(rows, job.recipe.batch, shuffle_seed=seed, shard=shard)
    images = PoseImages(data.dataset.folder, data.dataset.labels, size=size, augment=augment)
    return keys, make_loader(images, keys, workers=job.workers, device=device)


def prediction_loader(
    folder: Path,
    source: Labels | TestSet,
    rows: Int64,
    model: Module,
    *,
    workers: int | None,
    device: torch.device,
    world: World,
) -> DataLoader[Batch | DataError]:
    """Create the loader of this process's rows for prediction by a network, in order and not augmented."""
    images = PoseImages(folder, source, size=model.input_size)
    keys = KeyedBatches(rows[world.rank :: world.size], prediction_batch(device, model.recipe))
    return make_loader(images, keys, workers=workers, device=device)


def prediction_batch(device: torch.device, recipe: Recipe) -> int:
    """Return the batch size of prediction: at most the recipe's micro-batch, if it is set."""
    largest = BATCH_ON_GPU if device.type == "cuda" else BATCH_ON_CPU
    return min(largest, recipe.micro_batch or largest)


def make_loader(
    images: PoseImages, keys: KeyedBatches, *, workers: int | None, device: torch.device
) -> DataLoader[Batch | DataError]:
    """Create a loader with persistent workers; 0 loads in this process, None chooses the number by device."""
    workers = default_workers(device) if workers is None else workers
    keep_freed_memory()  # inherited by the workers
    return DataLoader(
        images,
        batch_sampler=keys,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=_init_worker,
        generator=torch.Generator(),  # not the global one: dropout mustn't depend on the number of workers
    )


def _init_worker(_worker: int) -> None:
    os.setpgrp()  # signals to the process group are for the training process only
    cv2.setNumThreads(0)  # one core per worker: OpenCV's threads would compete for the others
    torch.set_num_threads(1)
