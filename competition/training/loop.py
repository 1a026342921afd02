"""Train one fold of one run: a plain loop that writes out-of-fold poses and a test CSV after every epoch.

An epoch's files are written in the order valid, test, log, checkpoint. Training resumes from the last checkpoint and
ends with the same files as without the interruption, as all random numbers depend only on (seed, fold, epoch). Under
torchrun every process runs this loop, and only the main process writes.
"""

import time
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import models
from competition.common.arrays import Int64
from competition.common.console import Advance, Console, duration
from competition.common.errors import RunError
from competition.common.files import locked, read_json, write_json
from competition.common.metrics import mpjpe, mpjpe_joint
from competition.common.pose_csv import Poses, write_poses
from competition.common.seeds import derive
from competition.common.stop import Stop
from competition.data.labels import Labels, TestSet
from competition.runs.folders import test_file, valid_file, write_valid
from competition.runs.record import append_log, best_row, manifest, prepare_folder, read_log
from competition.training import graph
from competition.training.augment import Augment
from competition.training.device import choose_device, choose_precision
from competition.training.failures import NOT_FINITE_FIX, report_model_errors, report_out_of_memory
from competition.training.jobs import Data, Job, open_data, recorded_precision, run_config
from competition.training.loader import Batch, KeyedBatches, PoseImages, batches, make_loader
from competition.training.predict import predict, prediction_batch
from competition.training.step import set_up_graph, train_step
from competition.training.trainer import Trainer, build
from competition.training.world import World, join_world

LOSS_CHECK_STEPS = 20  # steps between two checks of the loss, as each waits for the GPU
WARMUP_STEPS, TIMED_STEPS = graph.WARMUP_STEPS + 2, 6  # first steps of a run, to estimate its duration
LONG_SECONDS = 3600.0


def train(job: Job, console: Console) -> dict[str, Any]:
    """Train a fold to the recipe's last epoch and return the content of done.json (on the main process).

    Returns at once if the fold is finished, and resumes if it was interrupted. Raise RunError if the run's folder has
    another configuration or is being trained by another process, FoldsError or DataError for invalid folds or data.
    """
    data = open_data(job)
    device = choose_device()
    with join_world(device) as world:
        world.require_divisible(job.recipe.batch)
        console = console if world.is_main_process else Console(quiet=True)
        precision = world.gather(choose_precision(recorded_precision(job), device))[0]
        folder_lock = locked(
            job.folder, f"{job.folder} is being trained by another process: wait for it or choose another --run"
        )
        with folder_lock if world.is_main_process else nullcontext():
            if device.type == "cpu" and world.size > 1:
                console.note(
                    f"warning: --gpus {world.size}: this machine has {torch.cuda.device_count()} GPUs: "
                    f"{job.run} fold {job.fold} trains on the CPU"
                )
            if world.is_main_process:
                for remark in prepare_folder(job.folder, run_config(job, data, precision)):
                    console.note(remark)
            world.barrier()
            if (done := job.folder / "done.json").exists():
                console.note(f"{job.run} fold {job.fold}: already finished")
                return read_json(done, what="run")
            with Stop() as stop, report_model_errors(job.name):
                return _train(job, data, device, precision, world, console, stop)


def _train(
    job: Job, data: Data, device: torch.device, precision: str, world: World, console: Console, stop: Stop
) -> dict[str, Any]:
    pose_mm = torch.from_numpy(data.labels.pose_mm[data.train_rows])
    trainer = build(job, data.train_rows, pose_mm, device, precision, world)
    console.note(
        f"{job.run} fold {job.fold}: training on {len(data.train_rows)} images, validating on {len(data.valid_rows)}, "
        f"predicting {len(data.test.id)}; {device.type}{f' x {world.size}' * (world.size > 1)}, {precision}, from "
        f"epoch {trainer.epoch + 1}" + f", step {trainer.step + 1}" * bool(trainer.step)
    )
    set_up_graph(trainer, console.note)
    keys, loader = training_loader(job, data, trainer)
    valid_loader = prediction_loader(job, data.labels, data.valid_rows, trainer)
    test_loader = prediction_loader(job, data.test, np.arange(len(data.test.id)), trainer)

    for epoch in range(trainer.epoch + 1, job.recipe.epochs + 1):
        started = time.perf_counter()
        keys.epoch, keys.skip = epoch, trainer.step
        fix = f"set --micro-batch below {job.recipe.micro_batch or job.recipe.batch}, or use a smaller model"
        label, best = f"epoch {epoch}/{job.recipe.epochs}", _best_so_far(job) if world.is_main_process else ""
        with report_out_of_memory(fix):
            with console.bar(f"{label} train", len(keys), after=best) as advance:
                row = {"epoch": epoch, **train_epoch(trainer, loader, epoch, console, advance, stop)}
            with console.bar(f"{label} validate", len(data.valid_rows), after=best) as advance:
                row |= validate(trainer, data, valid_loader, epoch, _stoppable(advance, stop, trainer))
            with console.bar(f"{label} test", len(data.test.id), after=best) as advance:
                poses = predict_all(trainer, test_loader, _stoppable(advance, stop, trainer))
        trainer.epoch, trainer.step = epoch, 0
        if world.is_main_process:
            write_poses(test_file(job.folder, epoch), poses.id, poses.pose_mm)
            append_log(job.folder, row | {"seconds": round(time.perf_counter() - started, 3)})
            log = read_log(job.folder)
            trainer.save(best=best_row(log)["epoch"] == epoch)
            console.note(_epoch_line(job, log))
    return finish(job) if world.is_main_process else {}


def training_loader(job: Job, data: Data, trainer: Trainer) -> tuple[KeyedBatches, DataLoader[Batch]]:
    """Create the loader of the training rows, shuffled and augmented by seed, fold and epoch."""
    seed = derive(job.workspace.seed, "train", job.fold)
    size, world = trainer.model.input_size, trainer.world
    augment = Augment(size, seed, job.recipe.augmentation) if job.recipe.augment else None
    keys = KeyedBatches(data.train_rows, job.recipe.batch, shuffle_seed=seed, shard=(world.rank, world.size))
    images = PoseImages(job.workspace.data, data.labels, size=size, augment=augment)
    return keys, make_loader(images, keys, workers=job.workers, device=trainer.device)


def prediction_loader(job: Job, source: Labels | TestSet, rows: Int64, trainer: Trainer) -> DataLoader[Batch]:
    """Create the loader of this process's rows for prediction, in order and not augmented."""
    images = PoseImages(job.workspace.data, source, size=trainer.model.input_size)
    keys = KeyedBatches(rows[trainer.world.rank :: trainer.world.size], prediction_batch(trainer.device, job.recipe))
    return make_loader(images, keys, workers=job.workers, device=trainer.device)


def train_epoch(
    trainer: Trainer, loader: DataLoader[Batch], epoch: int, console: Console, advance: Advance, stop: Stop
) -> dict[str, Any]:
    """Train an epoch, or the rest of it; return its learning rate, mean loss and images per second."""
    job, world, device, steps = trainer.job, trainer.world, trainer.device, len(loader)
    if trainer.step == 0:
        torch.manual_seed(derive(job.workspace.seed, "dropout", job.fold, epoch, *([world.rank] if world.rank else [])))
        trainer.loss_sum = torch.zeros((), device=device)
    elif trainer.rng is not None:
        torch.set_rng_state(trainer.rng)
    trainer.model.train()
    trainer.loss_sum = trainer.loss_sum.to(device)
    done, first, saved, last, loss = 0, trainer.step, time.monotonic(), "unknown", "unknown"
    advance(first, "")
    started = warm = time.perf_counter()
    for step, batch in enumerate(batches(loader), start=first + 1):
        trainer.scheduler.step_update((epoch - 1) * steps + step - 1)
        trainer.loss_sum += train_step(trainer, batch, (epoch - 1) * steps + step)
        trainer.step = step

        # progress
        done += len(batch.id) * world.size
        seconds = time.perf_counter() - started
        check = step in (first + 1, steps) or step % LOSS_CHECK_STEPS == 0
        if check:
            last = _check_finite(world.mean(trainer.loss_sum), epoch, step, batch, last)
            loss = f"{float(trainer.loss_sum) / step:.4g}"
        advance(1, f"{done / seconds:.0f} images/s, loss {loss}")
        if step - first in (WARMUP_STEPS, WARMUP_STEPS + TIMED_STEPS):
            float(trainer.loss_sum)  # waits for the GPU
        if step - first == WARMUP_STEPS:
            warm = time.perf_counter()
        elif step - first == WARMUP_STEPS + TIMED_STEPS and not trainer.duration_printed:
            trainer.duration_printed = True
            _print_duration((time.perf_counter() - warm) / TIMED_STEPS * steps, job, console)

        # checkpoint
        if world.size == 1 or check:
            stopped, due = stop.signal is not None, time.monotonic() - saved > 60 * job.checkpoint_minutes
            if any(world.gather(stopped)):
                trainer.save()
                stop.raise_requested()
            if due and step < steps:
                trainer.save()
                saved = time.monotonic()
    trainer.broadcast_buffers()
    return {
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "train_loss": float(world.mean(trainer.loss_sum)) / steps,
        "images_per_second": round(done / (time.perf_counter() - started), 1),
    }


def predict_all(trainer: Trainer, loader: DataLoader[Batch], advance: Advance) -> Poses:
    """Predict the rows of all processes and return them on each, sorted by Id."""
    poses = predict(
        trainer.predictor,
        loader,
        device=trainer.device,
        precision=trainer.precision,
        flip=trainer.job.recipe.flip_test,
        advance=advance,
    )
    parts = trainer.world.gather(poses)
    ids = np.concatenate([part.id for part in parts])
    order = np.argsort(ids)
    return Poses(ids[order], np.concatenate([part.pose_mm for part in parts])[order])


def validate(trainer: Trainer, data: Data, loader: DataLoader[Batch], epoch: int, advance: Advance) -> dict[str, Any]:
    """Predict the held-out rows, write their poses and return their errors, which are None for fold `full`."""
    if len(data.valid_rows) == 0:
        return {"valid_mpjpe": None, "valid_mpjpe_joint": None}
    poses = predict_all(trainer, loader, advance)
    if trainer.world.is_main_process:
        write_valid(valid_file(trainer.job.folder, epoch), poses.id, poses.pose_mm)
    true_mm = data.labels.pose_mm[poses.id - 1]
    return {
        "valid_mpjpe": mpjpe(poses.pose_mm, true_mm),
        "valid_mpjpe_joint": mpjpe_joint(poses.pose_mm, true_mm).tolist(),
    }


def finish(job: Job) -> dict[str, Any]:
    """Write done.json, the run's last file."""
    result = manifest(job.folder)
    write_json(job.folder / "done.json", result)
    return result


def _stoppable(advance: Advance, stop: Stop, trainer: Trainer) -> Advance:
    """Wrap `advance` so that a stop signal during prediction saves the trained epoch and ends the process."""

    def advance_or_stop(count: int, text: str) -> None:
        if stop.signal is not None and trainer.world.size == 1:
            trainer.save()
            stop.raise_requested()
        advance(count, text)

    return advance_or_stop


def _check_finite(loss_sum: torch.Tensor, epoch: int, step: int, batch: Batch, last: str) -> str:
    """Return the mean loss so far as text; raise RunError with the `last` finite one if it isn't finite."""
    if not bool(torch.isfinite(loss_sum)):
        raise RunError(
            f"the loss is no longer finite in epoch {epoch}, at most {LOSS_CHECK_STEPS} steps before step {step} (Ids "
            f"{batch.id[:4].tolist()}...; last finite mean: {last}): {NOT_FINITE_FIX}; the last checkpoint is unchanged"
        )
    return f"{float(loss_sum) / step:.4g} at step {step}"


def _print_duration(epoch_seconds: float, job: Job, console: Console) -> None:
    total = epoch_seconds * job.recipe.epochs
    small = f"{job.name}-small"
    hint = f"; MODEL={small} trains in minutes" if total > LONG_SECONDS and small in models.names() else ""
    console.note(f"{job.run} fold {job.fold}: about {duration(total)} of training for {job.recipe.epochs} epochs{hint}")


def _epoch_line(job: Job, log: list[dict[str, Any]]) -> str:
    row, best = log[-1], best_row(log)
    seconds = float(row["seconds"])
    score = "" if row["valid_mpjpe"] is None else f" valid {row['valid_mpjpe']:.1f} mm (best {best['valid_mpjpe']:.1f})"
    left = (job.recipe.epochs - int(row["epoch"])) * seconds
    return (
        f"{job.run} fold {job.fold} epoch {row['epoch']}/{job.recipe.epochs}: loss {row['train_loss']:.4g}{score}, "
        f"{row['images_per_second']:.0f} images/s, {duration(seconds)}" + f", {duration(left)} left" * (left > 0)
    )


def _best_so_far(job: Job) -> str:
    log = read_log(job.folder)
    best = best_row(log)["valid_mpjpe"] if log else None
    return "" if best is None else f", best {best:.1f} mm"
