"""Distributed data parallel (DDP): the processes that train one network, started by `launch` or by torchrun.

Process `rank` of `size` takes every size-th row of each batch, so that the averaged gradients are those of the whole
batch, and every size-th row to predict, so that each Id is predicted once. Only the main process, rank 0, writes files.
"""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from competition.common.errors import UserError

T = TypeVar("T")
TIMEOUT = datetime.timedelta(minutes=30)  # rank 0 may write for a while; if a rank dies, the launcher ends all at once


@dataclass(frozen=True, kw_only=True)
class World:
    """Rank of this process and number of processes; without a launcher, rank 0 of 1."""

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this process prints and writes files."""
        return self.rank == 0

    def gather(self, part: T) -> list[T]:
        """Return the parts of all processes in the order of ranks, on every process."""
        if self.size == 1:
            return [part]
        parts: list[T] = [part] * self.size
        dist.all_gather_object(parts, part)
        return parts

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean of a tensor over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.size
        return value

    def require_divisible(self, batch: int) -> None:
        """Raise UserError for an indivisible batch: averaged gradients would differ from those of the whole batch."""
        if batch % self.size:
            raise UserError(f"--batch {batch} on {self.size} processes: expected a multiple of {self.size}")


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the processes that `launch` or torchrun started; otherwise yield a world of one process."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(rank=dist.get_rank(), size=size)
    finally:
        dist.destroy_process_group()
