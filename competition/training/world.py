"""The processes that train one network together, started by torchrun; one process alone is a world, too.

Each takes every size-th row of a batch, so that their averaged gradients are those of the whole batch, and of what is
predicted, so that every Id is predicted once. Only rank 0 writes.
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
PATIENCE = datetime.timedelta(minutes=30)  # rank 0 may write for a while; a rank that died ends all at once


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among all: rank 0 speaks and writes."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def gather(self, part: T) -> list[T]:
        """Return every process's part, in the order of ranks, on all of them."""
        if self.size == 1:
            return [part]
        parts: list[T] = [part] * self.size
        dist.all_gather_object(parts, part)
        return parts

    def wait(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean of a tensor over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.size
        return value

    def share(self, batch: int) -> None:
        """Refuse a batch that doesn't divide: gradients would not be those of the whole."""
        if batch % self.size:
            raise UserError(f"--batch {batch} on {self.size} processes: expected a multiple of {self.size}")


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started with this one; a world of one without torchrun."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(rank=dist.get_rank(), size=size)
    finally:
        dist.destroy_process_group()
