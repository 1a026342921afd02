"""Estimate how long training will take on this machine by measuring a few steps."""

import statistics
import time
from collections.abc import Iterable
from itertools import islice, pairwise

import numpy as np
import torch

import models
from competition.common.console import duration
from competition.runs.record import read_log
from competition.training import graph
from competition.training.build import build
from competition.training.device import choose_device, choose_precision, fold_threads, threads
from competition.training.failures import report_out_of_memory
from competition.training.jobs import Data, Job, recorded_precision
from competition.training.loader import prediction_loader, training_loader
from competition.training.predict import predict
from competition.training.world import World

WARMUP_STEPS, TIMED_STEPS = graph.WARMUP_STEPS + 2, 6
PREDICTED = 64  # test images; predicted twice, the first time as a warm-up
LONG_SECONDS = 3600.0


class StepTimer:
    """Measures the duration of a training step from the first WARMUP_STEPS + TIMED_STEPS."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def tick(self, loss: torch.Tensor) -> None:
        """Note that a step with this loss was taken."""
        float(loss)  # waits for the GPU
        self.times.append(time.perf_counter())

    @property
    def complete(self) -> bool:
        return len(self.times) > WARMUP_STEPS + TIMED_STEPS

    @property
    def seconds(self) -> float:
        """Seconds per step after the warm-up, which counts if there are no more steps."""
        times = self.times[WARMUP_STEPS:] if len(self.times) > WARMUP_STEPS + 1 else self.times
        # the median, as other programs may use the machine
        return statistics.median(after - before for before, after in pairwise(times))


def describe_duration(job: Job, epoch_seconds: float) -> str:
    """Describe the duration of a job whose epochs take `epoch_seconds`; if it is long, name the smaller model."""
    total, small = epoch_seconds * job.recipe.epochs, f"{job.name}-small"
    hint = f"; the model {small} trains in minutes" if total > LONG_SECONDS and small in models.names() else ""
    return f"{job.run} fold {job.fold}: about {duration(total)} of training for {job.recipe.epochs} epochs{hint}"


def estimate_seconds(jobs: Iterable[Job], data: Data, parallel: int) -> float:
    """Estimate the seconds that the unfinished epochs of jobs take, `parallel` jobs at a time.

    For each recipe, takes a few training steps and predicts a few images with a temporary network, on as many threads
    as each job will have.
    """
    measured: dict[str, tuple[float, float]] = {}
    total, device = 0.0, choose_device()
    for job in jobs:
        epochs = job.recipe.epochs - len(read_log(job.folder))
        if epochs <= 0:
            continue
        if job.name not in measured:
            number = fold_threads(job.name, device)
            with threads(number if number == 1 else max(1, number // parallel)):
                measured[job.name] = _measure(job, data)
        train_seconds, predict_seconds = measured[job.name]
        predicted = len(data.valid_rows(job.fold)) + len(data.dataset.test.id)
        total += epochs * (len(data.train_rows(job.fold)) * train_seconds + predicted * predict_seconds)
    return total / parallel


def _measure(job: Job, data: Data) -> tuple[float, float]:
    """Return the seconds per image of training and of prediction, including loading."""
    device, test = choose_device(), data.dataset.test
    precision = choose_precision(recorded_precision(job), device)
    trainer = build(job, data, device, precision, World())
    _, loader = training_loader(job, data, trainer.model.input_size, device, trainer.world)
    trainer.start_epoch()
    timer = StepTimer()
    with report_out_of_memory("use --scale small, or lower --parallel"):
        for batch in islice(loader, WARMUP_STEPS + TIMED_STEPS):
            trainer.train_step(batch)
            timer.tick(trainer.loss_sum)
        rows = np.arange(min(PREDICTED, len(test.id)))
        images = prediction_loader(
            data.dataset.folder, test, rows, trainer.model, workers=job.workers or 0, device=device, world=trainer.world
        )
        for _ in range(2):
            started = time.perf_counter()
            poses = predict(
                trainer.predictor, images, name=job.name, device=device, precision=precision, flip=job.recipe.flip_test,
            )  # fmt: skip
            seconds = time.perf_counter() - started
    del trainer, loader, images
    torch.cuda.empty_cache()  # training may run in other processes
    return timer.seconds / job.recipe.batch, seconds / len(poses.id)
