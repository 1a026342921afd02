"""Train one fold of one run: a plain loop that writes out-of-fold poses and a test CSV after every epoch.

An epoch's files are written in the order valid, test, log, checkpoint. Training resumes from the last checkpoint and
ends with the same files as without the interruption, as all random numbers depend only on (seed, fold, epoch). Of
several processes (DDP) each runs this loop, and only the main process writes.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader

from competition.common.console import Advance, Console, bar, duration
from competition.common.files import locked
from competition.common.metrics import mpjpe, mpjpe_joint
from competition.common.pose_csv import Poses, write_poses
from competition.common.stop import Stop
from competition.runs.folders import test_file, valid_file, write_valid
from competition.runs.record import (
    Done,
    LogRow,
    append_log,
    best_row,
    prepare_folder,
    read_done,
    read_log,
    write_done,
)
from competition.training.build import build
from competition.training.device import choose_device, choose_precision, fold_threads, threads
from competition.training.failures import report_out_of_memory
from competition.training.jobs import Data, Job, recorded_precision, run_config
from competition.training.loader import Loaded, batches, prediction_loader, training_loader
from competition.training.meter import Meter
from competition.training.predict import predict
from competition.training.saver import Saver
from competition.training.trainer import Trainer
from competition.training.world import join_world

log = logging.getLogger(__name__)


def train(job: Job, data: Data, after_epoch: Callable[[LogRow], None] | None = None) -> Done | None:
    """Train a fold to the recipe's last epoch and return its done.json; None in all but the main process.

    Returns at once if the fold is finished, and resumes if it was interrupted. The main process calls `after_epoch`
    with each epoch's row of the log, when the epoch is saved; an error that it raises ends the training. Raise RunError
    if the run's folder has another configuration or is being trained by another process, DataError for an image that
    can't be read.
    """
    device = choose_device()
    with threads(fold_threads(job.name, device)), join_world(device) as world:
        world.require_divisible(job.recipe.batch)
        if not world.is_main_process:
            Console(quiet=True).activate()
        precision = world.gather(choose_precision(recorded_precision(job), device))[0]
        with _lock(job) if world.is_main_process else nullcontext():
            if device.type == "cpu" and world.size > 1:
                log.warning(
                    f"--gpus {world.size}: this machine has {torch.cuda.device_count()} GPUs: "
                    f"{job.run} fold {job.fold} trains on the CPU"
                )
            if world.is_main_process:
                number = torch.get_num_threads()
                config = run_config(job, data, precision, threads=number, processes=world.size)
                for remark in prepare_folder(job.folder, config, job.advice.configuration):
                    log.info(remark)
            world.barrier()
            if (job.folder / "done.json").exists():
                log.info(f"{job.run} fold {job.fold}: already finished")
                return read_done(job.folder)
            fix = job.advice.out_of_memory(job.recipe.micro_batch or job.recipe.batch)
            with Stop() as stop, report_out_of_memory(fix):
                return _train(build(job, data, device, precision, world), data, stop, after_epoch)


def _lock(job: Job) -> AbstractContextManager[None]:
    return locked(job.folder, f"{job.folder} is being trained by another process: {job.advice.busy}")


def _train(trainer: Trainer, data: Data, stop: Stop, after_epoch: Callable[[LogRow], None] | None) -> Done | None:
    job, world, test, labels = trainer.job, trainer.world, data.dataset.test, data.dataset.labels
    train_rows, valid_rows, test_rows = data.train_rows(job.fold), data.valid_rows(job.fold), np.arange(len(test.id))
    log.info(
        f"{job.run} fold {job.fold}: training on {len(train_rows)} images, validating on {len(valid_rows)}, "
        f"predicting {len(test_rows)}; {trainer.device.type}{f' x {world.size}' * (world.size > 1)}, "
        f"{trainer.precision}, from epoch {trainer.epoch + 1}" + f", step {trainer.step + 1}" * bool(trainer.step)
    )
    keys, loader = training_loader(job, data, trainer.model.input_size, trainer.device, world)
    valid_loader, test_loader = (
        prediction_loader(
            data.dataset.folder,
            source,
            rows,
            trainer.model,
            workers=job.workers or 0,
            device=trainer.device,
            world=world,
        )
        for source, rows in ((labels, valid_rows), (test, test_rows))
    )
    meter, saver = Meter(trainer), Saver(trainer, stop)

    while trainer.epoch < job.recipe.epochs:
        started, epoch = time.perf_counter(), trainer.epoch + 1
        keys.epoch, keys.skip = epoch, trainer.step
        row = train_epoch(trainer, loader, meter, saver)
        if len(valid_rows):
            row = validate(trainer, data, valid_loader, saver, row)
        poses = predict_all(trainer, test_loader, saver, "test", len(test_rows))
        trainer.finish_epoch()
        if world.is_main_process:
            write_poses(test_file(job.folder, epoch), poses.id, poses.pose_mm)
            append_log(job.folder, replace(row, seconds=round(time.perf_counter() - started, 3)))
            rows = read_log(job.folder)
            saver.save(best=best_row(rows).epoch == epoch)
            log.info(_epoch_line(job, rows))
            if after_epoch is not None:
                after_epoch(rows[-1])
    return write_done(job.folder) if world.is_main_process else None


def train_epoch(trainer: Trainer, loader: DataLoader[Loaded], meter: Meter, saver: Saver) -> LogRow:
    """Train the next epoch, or the rest of it; return its learning rate, mean loss and images per second."""
    trainer.start_epoch()
    with _bar(trainer, "train", trainer.steps) as advance:
        meter.start(advance)
        for batch in batches(loader, saver.while_waiting):
            trainer.train_step(batch)
            meter.report(batch)
            saver.after_step()
    trainer.broadcast_buffers()
    return LogRow(
        epoch=trainer.epoch + 1,
        lr=trainer.lr,
        train_loss=trainer.mean_loss,
        images_per_second=round(meter.images_per_second, 1),
    )


def validate(trainer: Trainer, data: Data, loader: DataLoader[Loaded], saver: Saver, row: LogRow) -> LogRow:
    """Predict the held-out rows and write their poses; return the epoch's row of the log with their errors."""
    poses = predict_all(trainer, loader, saver, "validate", len(data.valid_rows(trainer.job.fold)))
    if trainer.world.is_main_process:
        write_valid(valid_file(trainer.job.folder, row.epoch), poses.id, poses.pose_mm)
    true_mm = data.dataset.labels.pose_mm[poses.id - 1]
    joint_mm = mpjpe_joint(poses.pose_mm, true_mm).tolist()
    return replace(row, valid_mpjpe=mpjpe(poses.pose_mm, true_mm), valid_mpjpe_joint=joint_mm)


def predict_all(trainer: Trainer, loader: DataLoader[Loaded], saver: Saver, what: str, total: int) -> Poses:
    """Predict the rows of all processes and return them on each, sorted by Id."""
    with _bar(trainer, what, total) as advance:
        poses = predict(
            trainer.predictor,
            loader,
            name=trainer.job.name,
            device=trainer.device,
            precision=trainer.precision,
            flip=trainer.job.recipe.flip_test,
            advance=advance,
            saver=saver,
        )
    parts = trainer.world.gather(poses)
    ids = np.concatenate([part.id for part in parts])
    order = np.argsort(ids)
    return Poses(ids[order], np.concatenate([part.pose_mm for part in parts])[order])


def _bar(trainer: Trainer, what: str, total: int) -> AbstractContextManager[Advance]:
    """Show the progress of a part of the next epoch, and the best MPJPE so far."""
    rows = read_log(trainer.job.folder) if trainer.world.is_main_process else []
    best_mm = best_row(rows).valid_mpjpe if rows else None
    label = f"epoch {trainer.epoch + 1}/{trainer.job.recipe.epochs} {what}"
    return bar(label, total, after="" if best_mm is None else f", best {best_mm:.1f} mm")


def _epoch_line(job: Job, rows: list[LogRow]) -> str:
    row, best_mm = rows[-1], best_row(rows).valid_mpjpe
    seconds = row.seconds or 0.0
    score = "" if row.valid_mpjpe is None else f" valid {row.valid_mpjpe:.1f} mm (best {best_mm:.1f})"
    left = (job.recipe.epochs - row.epoch) * seconds
    return (
        f"{job.run} fold {job.fold} epoch {row.epoch}/{job.recipe.epochs}: loss {row.train_loss:.4g}{score}, "
        f"{row.images_per_second:.0f} images/s, {duration(seconds)}" + f", {duration(left)} left" * (left > 0)
    )
