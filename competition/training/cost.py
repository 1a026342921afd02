"""What training will cost on this machine, measured on a few steps before it begins."""

import statistics
import time
from collections.abc import Iterable
from itertools import islice, pairwise

import numpy as np
import torch

from competition.runs.record import read_log
from competition.training.device import choose_device, choose_precision
from competition.training.failures import told_when_out_of_memory
from competition.training.jobs import Job, open_data, recorded_precision
from competition.training.loop import TIMED_STEPS, WARM_STEPS, prediction_loader, training_loader
from competition.training.predict import predict
from competition.training.step import graph_steps, train_step
from competition.training.trainer import build
from competition.training.world import World

PREDICTED = 64  # test images that are predicted, twice: the first time to warm up


def estimate_seconds(jobs: Iterable[Job], parallel: int) -> float:
    """Return about how long training takes, `parallel` jobs at a time; what is finished already takes nothing.

    Of every recipe a few real steps are taken, and a few images predicted, with a network that is thrown away, on the
    share of the cores that it will have.
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
    """Return the seconds that an image takes in training and in prediction, loading included."""
    data, device = open_data(job), choose_device()
    precision = choose_precision(recorded_precision(job), device)
    trainer = build(job, data.train_rows, torch.from_numpy(data.labels.pose_mm), device, precision, World())
    graph_steps(trainer, lambda _why: None)
    _, loader = training_loader(job, data, trainer)
    trainer.model.train()
    began, marks = time.perf_counter(), []
    with told_when_out_of_memory("take the small scale, or lower --parallel"):
        for step, batch in enumerate(islice(loader, WARM_STEPS + TIMED_STEPS), start=1):
            float(train_step(trainer, batch, step))  # a GPU is waited for
            marks.append(time.perf_counter())
        steps = marks[WARM_STEPS - 1 :] if len(marks) > WARM_STEPS else [began, *marks]
        images = prediction_loader(job, data.test, np.arange(min(PREDICTED, len(data.test.id))), trainer)
        for _ in range(2):
            started = time.perf_counter()
            poses = predict(
                trainer.predictor, images, device=device, precision=precision, flip=job.recipe.flip_test,
                advance=lambda *_: None,
            )  # fmt: skip
            seconds = time.perf_counter() - started
    del trainer, loader, images
    torch.cuda.empty_cache()  # for the processes that will train
    a_step = statistics.median(after - before for before, after in pairwise(steps))  # others may work here, too
    return a_step / job.recipe.batch, seconds / len(poses.id)
