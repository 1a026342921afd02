"""Train the folds of a run, one after another, several in parallel, or each on several GPUs (DDP).

Small networks use several cores badly: it is faster to train several folds in parallel, on fewer cores each.
"""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import replace

from competition.common.console import Console
from competition.common.errors import UserError
from competition.common.workers import worker_processes
from competition.data.images import check_images
from competition.training.jobs import Data, Job, recorded_precision


def torchrun_rank() -> int | None:
    """Return the rank of this process if torchrun started it."""
    return int(os.environ["RANK"]) if {"RANK", "WORLD_SIZE"} <= set(os.environ) else None


def train_folds(jobs: Sequence[Job], data: Data, *, parallel: int = 1, gpus: int | None = None) -> None:
    """Train folds of one or several runs, `parallel` of them at a time, dividing the cores or GPUs among them.

    With `gpus`, each fold in turn is trained by that many processes (DDP). Raise DataError for an image that can't be
    used, before any training.
    """
    if parallel < 1:
        raise UserError(f"--parallel {parallel}: expected at least 1")
    if gpus is not None and (gpus < 1 or parallel > 1 or jobs[0].recipe.batch % gpus):
        raise UserError(
            f"--gpus {gpus}: expected a positive divisor of --batch {jobs[0].recipe.batch}, and no --parallel"
        )
    if not torchrun_rank():  # once on a machine
        check_images(data.dataset.folder, data.dataset.labels.images + data.dataset.test.images)
    parallel = min(parallel, len(jobs))
    if gpus is not None:
        from competition.training.launch import train_on_gpus

        for job in jobs:
            train_on_gpus(job, data, gpus)
    elif parallel > 1:
        _train_in_parallel(jobs, data, parallel)
    else:
        from competition.training.loop import train

        for job in jobs:
            train(job, data)


def _train_in_parallel(jobs: Sequence[Job], data: Data, parallel: int) -> None:
    with worker_processes(parallel, preload=["competition.training.loop"]) as pool:
        auto, cores = pool.submit(_auto_precision_and_threads).result()  # measured once for all folds
        recorded = [recorded_precision(job) for job in jobs]
        resolved = [
            replace(job, precision=auto if precision == "auto" else precision)
            for job, precision in zip(jobs, recorded, strict=True)
        ]
        futures = [pool.submit(_train_in_pool, job, data, max(1, cores // parallel), parallel) for job in resolved]
        for future in as_completed(futures):
            future.result()


def _auto_precision_and_threads() -> tuple[str, int]:
    """Return the precision that auto resolves to on this machine, and the number of threads of a single process."""
    import torch

    from competition.training.device import choose_device, choose_precision

    return choose_precision("auto", choose_device()), torch.get_num_threads()


def _train_in_pool(job: Job, data: Data, threads: int, parallel: int) -> None:
    """Train a fold in a pool process with a number of threads; each process always uses the same GPU."""
    import torch

    from competition.training.loop import train

    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        process = multiprocessing.current_process()._identity[-1] - 1
        torch.cuda.set_device(process % parallel % torch.cuda.device_count())
    Console(plain=True).activate()
    train(job, data)
