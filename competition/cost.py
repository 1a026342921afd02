"""What training will cost on this machine, measured on a few steps before it begins."""

import time
from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch

from competition.device import choose_device, choose_precision, told_when_out_of_memory
from competition.jobs import Job, open_data, recorded_precision
from competition.predict import predict
from competition.record import read_log
from competition.train import TIMED_STEPS, WARM_STEPS, prediction_loader, train_step, training_loader
from competition.trainer import build
from competition.world import World

PREDICTED = 64  # test images that are predicted, twice: the first time to warm up


def seconds_left(jobs: Iterable[Job]) -> float:
    """Return about how long training takes, one job after another; what is finished already takes nothing.

    Of every recipe a few real steps are taken, and a few images predicted, with a network that is thrown away.
    """
    measured: dict[str, tuple[float, float]] = {}
    total = 0.0
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
    return total


def _measure(job: Job) -> tuple[float, float]:
    """Return the seconds that an image takes in training and in prediction, loading included."""
    data, device = open_data(job), choose_device()
    precision = choose_precision(recorded_precision(job), device)
    trainer = build(job, data.train_rows, torch.from_numpy(data.labels.pose_mm), device, precision, World())
    _, loader = training_loader(job, data, trainer)
    trainer.model.train()
    marks = []
    with told_when_out_of_memory("set --micro-batch, or take the small scale"):
        for step, batch in enumerate(islice(loader, WARM_STEPS + TIMED_STEPS), start=1):
            float(train_step(trainer, batch, step))  # a GPU is waited for
            marks.append(time.perf_counter())
        steps = marks[min(WARM_STEPS, len(marks)) - 1 :]
        images = prediction_loader(job, data.test, np.arange(min(PREDICTED, len(data.test.id))), trainer)
        for _ in range(2):
            started = time.perf_counter()
            poses = predict(
                trainer.predictor, images, device=device, precision=precision, flip=job.recipe.flip_test,
                advance=lambda *_: None,
            )  # fmt: skip
            seconds = time.perf_counter() - started
    a_step = (steps[-1] - steps[0]) / max(1, len(steps) - 1)
    return a_step / job.recipe.batch, seconds / len(poses.id)
