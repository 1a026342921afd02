"""Micro-batches and DDP compute the gradients of the whole batch."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from competition.common.workers import worker_processes
from competition.common.workspace import Workspace
from competition.training.build import build
from competition.training.jobs import Job, open_data
from competition.training.loader import KeyedBatches, batches, training_loader
from competition.training.parallel import LOOP
from competition.training.world import World, join_world
from tests.helpers import Command

ONE_PROCESS = World()


def test_gradients_of_micro_batches_are_those_of_the_whole_batch(
    command: Command, folds: None, data: Path, tmp_path: Path
):
    """In eval mode, as batch normalisation in training mode would use the statistics of each micro-batch."""
    whole, parts = (_gradients(data, tmp_path, micro_batch) for micro_batch in (None, 3))
    for name, gradient in whole.items():
        np.testing.assert_allclose(parts[name], gradient, rtol=1e-4, atol=1e-7)


def test_gradients_of_two_processes_are_those_of_the_whole_batch(
    command: Command, folds: None, data: Path, tmp_path: Path
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    whole = _gradients(data, tmp_path, None)
    with worker_processes(2, preload=[LOOP]) as pool:  # shared with other tests
        parts = list(pool.map(_gradients_of_rank, (0, 1), [port] * 2, [data] * 2, [tmp_path] * 2))
    for name, gradient in whole.items():
        np.testing.assert_array_equal(parts[0][name], parts[1][name])
        np.testing.assert_allclose(parts[0][name], gradient, rtol=1e-5, atol=1e-5 * np.abs(gradient).max())


def _gradients_of_rank(rank: int, port: int, data: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with join_world(torch.device("cpu")) as world:
        return _gradients(data, tmp_path, 3, world)  # 4 images per process, in two micro-batches


def _gradients(
    data: Path, tmp_path: Path, micro_batch: int | None, world: World = ONE_PROCESS
) -> dict[str, np.ndarray]:
    recipe = models.recipe("3dhg-small", channels=16, depths=(1, 8), batch=8, micro_batch=micro_batch, optimizer="sgd")
    workspace = Workspace(data=data, folds=tmp_path / "folds", submissions=tmp_path / "runs")
    job = Job(workspace=workspace, name="3dhg-small", recipe=recipe, fold=0, run="parts")
    opened, device = open_data(workspace), torch.device("cpu")
    made = build(job, opened, device, "fp32", world)
    made.model.eval()
    _, loader = training_loader(job, opened, made.model.input_size, device, world)
    made.gradients(next(batches(loader)))
    return {name: p.grad.numpy().copy() for name, p in made.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_divide_every_batch_and_all_rows_to_predict(size: int):
    rows = np.arange(10, 41)
    whole = KeyedBatches(rows, 6, shuffle_seed=3)
    shards = [KeyedBatches(rows, 6, shuffle_seed=3, shard=(rank, size)) for rank in range(size)]
    for batch, *parts in zip(whole, *shards, strict=True):
        assert sorted(key for part in parts for key in part) == sorted(batch)
    predicted = [key for rank in range(size) for keys in KeyedBatches(rows[rank::size], 4) for key in keys]
    assert sorted(row for _, row in predicted) == rows.tolist()
