"""How many folds train at the same time, and how many processes load their images: what this machine has room for."""

import logging
import os
import resource
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch

import models
from competition.common.skeleton import IMAGE_PX, JOINTS
from competition.common.workers import usable_cores
from competition.training.device import choose_device, fold_threads
from competition.training.jobs import Job
from models.recipes import Recipe

log = logging.getLogger(__name__)

BATCH_ON_CPU, BATCH_ON_GPU = 32, 64  # images predicted at once; a heatmap volume takes 17 MiB per image
PIXELS_ON_CPU: Final = 2**18  # of the images predicted at once: with more, the maps don't fit into the caches
SHARED_MEMORY: Final = "/dev/shm"
AHEAD: Final = 2  # batches that each loader process prepares in advance
POSE_BYTES: Final = 4 * len(JOINTS) * (2 + 3) + 8  # of a sample, in addition to its image
WORKER_FILES, TENSOR_FILES, OTHER_FILES = 4, 4, 64  # descriptors: of a process, a batch's tensors, everything else
LOADERS: Final = 3  # of training, held-out and test images: their processes stay until the end of training
MB: Final = 10**6


def plan_jobs(jobs: Sequence[Job], parallel: int | None, processes: int = 1) -> tuple[list[Job], int]:
    """Return the jobs with their number of loader processes, and the number of folds to train at the same time.

    `processes` train each fold together (DDP). Warns where there is no room for the loader processes.
    """
    device = choose_device(processes)
    at_once = folds_at_once(jobs, parallel, device) if processes == 1 else 1
    largest = max(max(-(-job.recipe.batch // processes), prediction_batch(device, job.recipe)) for job in jobs)
    size = max(input_px(job.recipe) for job in jobs)
    planned = []
    workers: dict[int, int] = {}  # by the number wanted
    for job in jobs:
        wanted = default_workers(job.name, device, at_once * processes) if job.workers is None else job.workers
        if wanted not in workers:
            workers[wanted] = affordable_workers(wanted, largest * sample_bytes(size), trainings=at_once * processes)
        planned.append(replace(job, workers=workers[wanted]))
    return planned, at_once


def folds_at_once(jobs: Sequence[Job], parallel: int | None, device: torch.device) -> int:
    """Return how many jobs to train at the same time: `parallel`, or for small models on a CPU as many as fit."""
    left = sum(not (job.folder / "done.json").exists() for job in jobs)
    if parallel is not None:  # of all jobs, as it divides the threads, on which a run's bytes depend
        return min(parallel, len(jobs)) if left else 1
    if device.type != "cpu" or not all(models.is_small(job.name) for job in jobs):
        return 1
    return max(1, min(left, usable_cores() // fold_threads(jobs[0].name, device)))


def default_workers(model: str, device: torch.device, at_once: int = 1) -> int:
    """Return the default number of loader processes: all cores but one (at most 8) with a GPU, none without.

    Small models on a CPU leave cores unused when there are fewer folds than cores: then each fold has one.
    """
    if device.type == "cuda":
        return min(8, usable_cores() - 1)
    return int(models.is_small(model) and usable_cores() >= at_once * (1 + fold_threads(model, device)))


def prediction_batch(device: torch.device, recipe: Recipe) -> int:
    """Return the batch size of prediction: at most the recipe's micro-batch, if it is set."""
    fitting = max(1, PIXELS_ON_CPU // input_px(recipe) ** 2)
    largest = BATCH_ON_GPU if device.type == "cuda" else min(BATCH_ON_CPU, fitting)
    return min(largest, recipe.micro_batch or largest)


def prediction_workers(workers: int | None, model: str, recipe: Recipe, device: torch.device) -> int:
    """Return the loader processes for predictions of a model: those wanted or by default, as far as there is room."""
    wanted = default_workers(model, device) if workers is None else workers
    return affordable_workers(wanted, prediction_batch(device, recipe) * sample_bytes(input_px(recipe)))


def input_px(recipe: Recipe) -> int:
    """Return the side of a network's square input; that of the images if the recipe has no such setting."""
    return int(getattr(recipe, "input_size", IMAGE_PX))


def sample_bytes(size: int) -> int:
    """Return the bytes of a sample with an image of `size` pixels square."""
    return 3 * size**2 + POSE_BYTES


def affordable_workers(wanted: int, batch_bytes: int, *, trainings: int = 1, loaders: int = LOADERS) -> int:
    """Return how many of the wanted loader processes have enough shared memory and file descriptors; warn if not all.

    Without these they would hang or be killed. `trainings` at the same time share the memory; the processes of all
    `loaders` of a training are open at the same time, but only one loader has batches.
    """
    if wanted == 0:
        return 0
    memory, files = free_shared_memory() // trainings, free_descriptors()
    by_memory = (memory // batch_bytes - AHEAD) // AHEAD
    each = loaders * WORKER_FILES + AHEAD * TENSOR_FILES
    by_files = (files - OTHER_FILES) // each
    workers = max(0, min(wanted, by_memory, by_files))
    if workers < wanted:
        found, fixes = [], []
        if by_memory < wanted:
            need = AHEAD * (wanted + 1) * batch_bytes
            share = f" for each of {trainings} trainings" * (trainings > 1)
            found.append(f"{SHARED_MEMORY} has {memory / MB:.1f} MB free{share}, expected {need / MB:.1f}")
            fixes.append("enlarge it (in Docker: --shm-size=1g)")
        if by_files < wanted:
            found.append(f"{max(0, files)} file descriptors are free, expected {OTHER_FILES + wanted * each}")
            fixes.append("raise ulimit -n")
        log.warning(
            f"loading images with {workers} instead of {wanted} processes: {'; '.join(found)}: "
            f"{' and '.join(fixes)}, or pass --workers {workers}"
        )
    return workers


def free_shared_memory() -> int:
    """Return the free bytes of the file system through which loader processes pass their batches; 0 if it's missing."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize if os.access(SHARED_MEMORY, os.W_OK) else 0


def free_descriptors() -> int:
    """Return how many more files this process may open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (2**20 if limit == resource.RLIM_INFINITY else limit) - len(os.listdir("/dev/fd"))
