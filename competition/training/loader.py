"""From files to batches: decoding, augmentation and collation, the same whatever the number of workers.

Images cross to the device as uint8; normalisation is made there (see `to_input`).
"""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from competition.common.arrays import Int64
from competition.common.errors import DataError, UserError
from competition.common.seeds import generator
from competition.data.images import read_image, to_input_px
from competition.data.labels import Labels, TestSet
from competition.training.augment import Augment
from competition.training.device import default_workers, keep_memory

Key: TypeAlias = tuple[int, int]  # (epoch, row): what a sample's random state depends on


class Batch(NamedTuple):
    """B samples; labels are absent (None) for the test set."""

    id: torch.Tensor  # [B] int64
    image: torch.Tensor  # [B, S, S, 3] uint8, RGB
    pose2d_px: torch.Tensor | None = None  # [B, 17, 2] float32, pixels of the S x S image
    pose_mm: torch.Tensor | None = None  # [B, 17, 3] float32

    @property
    def labelled(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What a training step needs: image, pose2d_px, pose_mm."""
        assert self.pose2d_px is not None
        assert self.pose_mm is not None
        return self.image, self.pose2d_px, self.pose_mm

    def split(self, size: int) -> "list[Batch]":
        """Split into batches of at most `size` samples."""
        places = [slice(first, first + size) for first in range(0, len(self.id), size)]
        return [Batch(*(None if tensor is None else tensor[place] for tensor in self)) for place in places]  # type: ignore[arg-type]

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in self))  # type: ignore[arg-type]


def to_input(image: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Normalise uint8 images [B, S, S, 3] on their device: float32 [B, 3, S, S], in channels_last memory."""
    scale, offset = _scale_and_offset(tuple(mean), tuple(std), image.device)
    return (image.float() * scale - offset).permute(0, 3, 1, 2)


@cache
def _scale_and_offset(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make them once: a copy from the host makes it wait for all that a GPU was told before."""
    with torch.inference_mode(False):
        deviation = torch.tensor(std, device=device)
        return 1 / (255 * deviation), torch.tensor(mean, device=device) / deviation


class PoseImages(Dataset[Any]):
    """A labelled or a test set, as images of `size` pixels."""

    def __init__(self, data: Path, source: Labels | TestSet, *, size: int, augment: Augment | None = None) -> None:
        self.folder = data / "images"
        self.source = source
        self.size = size
        self.augment = augment

    def __len__(self) -> int:
        return len(self.source.id)

    def __getitem__(self, key: Key) -> tuple[npt.NDArray[Any], ...]:
        epoch, row = key
        image = read_image(self.folder / self.source.images[row], self.size)
        if isinstance(self.source, TestSet):
            return self.source.id[row], image
        pose2d_px = to_input_px(self.source.pose2d_px[row], self.size)
        pose_mm = self.source.pose_mm[row]
        if self.augment is not None:
            image, pose2d_px, pose_mm = self.augment(image, pose2d_px, pose_mm, epoch=epoch, index=row)
        return self.source.id[row], image, pose2d_px, pose_mm


class KeyedBatches(Sampler[list[Key]]):
    """Batches of (epoch, row): in order, or shuffled anew each epoch by the seed; set `epoch` before iterating.

    Shuffled batches are whole ones (batch normalisation can't take a batch of one), unless that would leave none. The
    first `skip` batches are left out. `share` (rank, size) gives every size-th row of each batch, from rank on.
    """

    def __init__(
        self,
        rows: Int64,
        batch: int,
        *,
        shuffle_seed: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.rows = rows
        self.batch = batch
        self.shuffle_seed = shuffle_seed
        self.rank, self.size = share
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


def collate(samples: list[tuple[npt.NDArray[Any], ...]]) -> Batch:
    """Stack samples into a batch."""
    fields = [torch.from_numpy(np.stack(column)) for column in zip(*samples, strict=True)]
    return Batch(*fields)


def batches(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """Iterate over a loader; a DataError raised in a worker arrives as itself, not wrapped in a traceback.

    Raise UserError when a worker dies: the system takes the largest process where memory runs out.
    """
    try:
        yield from loader
    except DataError as error:
        lines = str(error).strip().splitlines()
        raise DataError(lines[-1].partition("DataError: ")[2] or lines[-1]) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a process that loads images died ({str(error).splitlines()[0][:120]}): out of memory? lower --workers; "
            "the same command goes on after the last checkpoint"
        ) from None


def make_loader(
    images: PoseImages, keys: KeyedBatches, *, workers: int | None, device: torch.device
) -> DataLoader[Batch]:
    """Make a loader whose workers live through all epochs; 0 loads in this process, None decides by the device."""
    workers = default_workers(device) if workers is None else workers
    keep_memory()  # the workers inherit it
    return DataLoader(
        images,
        batch_sampler=keys,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # its own: torch's draws the dropout, which mustn't depend on who loads
    )


def _one_thread(_worker: int) -> None:
    os.setpgrp()  # signals to the group are for the process that trains
    cv2.setNumThreads(0)  # a worker is one core; OpenCV's own threads would fight over the others
    torch.set_num_threads(1)
