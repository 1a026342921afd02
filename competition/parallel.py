"""Training the folds of a run, one after another or several at a time.

Small networks leave most of a processor waiting: two folds at a time on one core each take little longer than one fold
on two.
"""

from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import replace

from competition.console import Console
from competition.dataset import check_images, read_labels, read_test
from competition.errors import UserError
from competition.jobs import Job, recorded_precision
from competition.workers import worker_processes


def train_folds(jobs: Sequence[Job], console: Console, *, at_once: int = 1) -> None:
    """Train the folds of a run, `at_once` of them at a time with a share of the cores, or a GPU, each."""
    if at_once < 1:
        raise UserError(f"--parallel {at_once}: expected at least 1")
    data = jobs[0].workspace.data
    check_images(data, read_labels(data).images + read_test(data).images)
    at_once = min(at_once, len(jobs))
    if at_once == 1:
        from competition.train import train

        for job in jobs:
            train(job, console)
        return

    with worker_processes(at_once, preload=["competition.train"]) as pool:
        precision = pool.submit(_choose_precision, recorded_precision(jobs[0])).result()  # one for all folds
        together = [replace(job, precision=precision) for job in jobs]
        futures = [pool.submit(_train_beside, job, index, at_once) for index, job in enumerate(together)]
        for future in as_completed(futures):
            future.result()


def _choose_precision(precision: str) -> str:
    from competition.device import choose_device, choose_precision

    return choose_precision(precision, choose_device())


def _train_beside(job: Job, index: int, at_once: int) -> None:
    """Train a fold beside others; `at_once` folds share the cores, or take the GPUs in turn."""
    import torch

    from competition.train import train

    torch.set_num_threads(max(1, torch.get_num_threads() // at_once))
    if torch.cuda.is_available():
        torch.cuda.set_device(index % torch.cuda.device_count())
    train(job, Console(plain=True))
