"""Estimate how long training will take on this machine by measuring a few steps."""

import statistics
import time
from collections.abc import Iterable
from itertools import islice, pairwise

import numpy as np
import torch

from competition.runs.record import read_log
from competition.training.device import choose_device, choose_precision
from competition.training.failures import report_out_of_memory
from competition.training.jobs import Job, open_data, recorded_precision
from competition.training.loop import TIMED_STEPS, WARMUP_STEPS, prediction_loader, training_loader
from competition.training.predict import predict
from competition.training.step import set_up_graph, train_step
from competition.training.trainer import build
from competition.training.world import World

PREDICTED = 64  # test images; predicted twice, the first time as a warm-up


def estimate_seconds(jobs: Iterable[Job], parallel: int) -> float:
    """Estimate the seconds that the unfinished epochs of jobs take, `parallel` jobs at a time.

    For each recipe, takes a few training steps and predicts a few images with a temporary network, on as many threads
    as each job will have.
    """
    measured: dict[str, tuple[float, float]] = {}
    total, threads = 0.0, torch.get_num_threads()
    torch.set_num_threads(max(1, threads // parallel))
    for job in jobs:
        log = read_log(job.folder)
        epochs = job.recipe.epochs - len(log)
        if epochs <= 0:
            continue
        data = open_data(job)
        if job.name not in measured:
            measured[job.name] = _measure(job)
        train_seconds, predict_seconds = measured[job.name]
        predicted = len(data.valid_rows) + len(data.test.id)
        total += epochs * (len(data.train_rows) * train_seconds + predicted * predict_seconds)
    torch.set_num_threads(threads)
    return total / parallel


def _measure(job: Job) -> tuple[float, float]:
    """Return the seconds per image of training and of prediction, including loading."""
    data, device = open_data(job), choose_device()
    precision = choose_precision(recorded_precision(job), device)
    trainer = build(job, data.train_rows, torch.from_numpy(data.labels.pose_mm), device, precision, World())
    set_up_graph(trainer, lambda _: None)
    _, loader = training_loader(job, data, trainer)
    trainer.model.train()
    began, times = time.perf_counter(), []
    with report_out_of_memory("use --scale small, or lower --parallel"):
        for step, batch in enumerate(islice(loader, WARMUP_STEPS + TIMED_STEPS), start=1):
            float(train_step(trainer, batch, step))  # waits for the GPU
            times.append(time.perf_counter())
        steps = times[WARMUP_STEPS - 1 :] if len(times) > WARMUP_STEPS else [began, *times]
        images = prediction_loader(job, data.test, np.arange(min(PREDICTED, len(data.test.id))), trainer)
        for _ in range(2):
            started = time.perf_counter()
            poses = predict(
                trainer.predictor, images, device=device, precision=precision, flip=job.recipe.flip_test,
                advance=lambda *_: None,
            )  # fmt: skip
            seconds = time.perf_counter() - started
    del trainer, loader, images
    torch.cuda.empty_cache()  # training may run in other processes
    # the median, as other programs may use the machine
    step_seconds = statistics.median(after - before for before, after in pairwise(steps))
    return step_seconds / job.recipe.batch, seconds / len(poses.id)
