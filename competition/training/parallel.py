"""Train the folds of a run, one after another, several in parallel, or each on several GPUs (DDP).

Small networks use several cores badly: on a CPU each trains with one thread, and as many at a time as there are cores.
"""

import logging
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache

import models
from competition.common.console import Console
from competition.common.errors import UserError
from competition.common.workers import preload, usable_cores, worker_processes
from competition.data.images import check_images
from competition.training.jobs import Data, Job

log = logging.getLogger(__name__)

LOOP = "competition.training.loop"


def torchrun_rank() -> int | None:
    """Return the rank of this process if torchrun started it."""
    return int(os.environ["RANK"]) if {"RANK", "WORLD_SIZE"} <= set(os.environ) else None


def train_folds(jobs: Sequence[Job], data: Data, *, parallel: int | None = None, gpus: int | None = None) -> None:
    """Train folds of one or several runs, `parallel` of them at a time, dividing the cores or GPUs among them.

    Without `parallel`, small models on a CPU train as many at a time as there are cores, others one after another.
    With `gpus`, each fold in turn is trained by that many processes (DDP). Raise DataError for an image that can't be
    used, before any training.
    """
    if gpus is not None and (gpus < 1 or (parallel or 1) > 1 or jobs[0].recipe.batch % gpus):
        raise UserError(
            f"--gpus {gpus}: expected a positive divisor of --batch {jobs[0].recipe.batch}, and no --parallel"
        )
    if torchrun_rank():  # once on a machine
        Console(quiet=True).activate()
    unfinished = sum(not (job.folder / "done.json").exists() for job in jobs)
    wanted = parallel or (usable_cores() if all(models.is_small(job.name) for job in jobs) else 1)
    if min(wanted, unfinished) > 1 and gpus is None and torchrun_rank() is None:
        preload([LOOP])  # while this process imports torch
    from competition.training.capacity import plan_jobs

    planned, at_once = plan_jobs(jobs, parallel, gpus or int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    train_planned(planned, data, at_once, gpus=gpus)


def train_planned(jobs: Sequence[Job], data: Data, at_once: int, *, gpus: int | None = None) -> None:
    """Train the jobs that `plan_jobs` returned, `at_once` at a time (see `train_folds`)."""
    if not torchrun_rank():
        check_images(data.dataset.folder, data.dataset.labels.images + data.dataset.test.images)
    if gpus is not None:
        from competition.training.launch import train_on_gpus

        for job in jobs:
            train_on_gpus(job, data, gpus)
    elif at_once > 1:
        log.info(f"training {at_once} of {len(jobs)} folds at the same time")
        _train_in_parallel(jobs, data, at_once)
    else:
        from competition.training.loop import train

        for job in jobs:
            train(job, data)


def _train_in_parallel(jobs: Sequence[Job], data: Data, parallel: int) -> None:
    with worker_processes(parallel, preload=[LOOP]) as pool:
        futures = [pool.submit(_train_in_pool, job, data, parallel) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
        except BrokenProcessPool:
            raise UserError(
                "a training process was killed",
                fix="out of memory? lower --parallel; the same command resumes from the last checkpoint",
            ) from None


def _train_in_pool(job: Job, data: Data, parallel: int) -> None:
    """Train a fold in a pool process with its share of the threads; each process always uses the same GPU."""
    import torch

    from competition.training.loop import train

    if torch.cuda.is_available() or not models.is_small(job.name):
        torch.set_num_threads(max(1, _default_threads() // parallel))
    if torch.cuda.is_available():
        process = multiprocessing.current_process()._identity[-1] - 1
        torch.cuda.set_device(process % parallel % torch.cuda.device_count())
    Console(plain=True, name=f"{job.run} fold {job.fold}").activate()
    train(job, data)


@cache
def _default_threads() -> int:
    """Return the number of threads before the first fold changes it."""
    import torch

    return torch.get_num_threads()
