"""Training one fold of one run: a plain loop that leaves out-of-fold poses and a test CSV after every epoch.

An epoch's files appear in the order valid, test, log, checkpoint. The checkpoint is what counts: a run that was
interrupted anywhere goes on after the last one and ends with the same files, as every random draw is keyed by
(seed, fold, epoch) and nothing else.
"""

import inspect
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from timm.optim import create_optimizer_v2, get_optimizer_class
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch.utils.data import DataLoader

import models
from competition.augment import Augment
from competition.checkpoint import load_checkpoint, load_weights, save_checkpoint
from competition.config import fold_folder
from competition.console import Advance, Console, duration
from competition.dataset import Labels, TestSet
from competition.device import autocast, choose_device, choose_precision, told_when_out_of_memory
from competition.errors import RunError, UserError
from competition.files import read_json, write_json
from competition.jobs import Data, Job, describe, open_data, recorded_precision
from competition.loader import Batch, KeyedBatches, PoseImages, batches, make_loader, to_input
from competition.metrics import mpjpe, mpjpe_joint
from competition.predict import BATCH, predict
from competition.runs import append_log, best_row, read_log, settle, test_file, valid_file, write_valid
from competition.seeds import derive
from competition.table import write_poses
from models.contract import Module, Target

LOOK_EVERY = 20  # steps between two looks at the loss, as each makes a GPU wait
WARM_STEPS, TIMED_STEPS = 3, 6  # at the start of a run, to say what it will cost
LONG_SECONDS = 3600.0


@dataclass(kw_only=True)
class Trainer:
    """A network in training."""

    model: Module
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler  # a function of the steps taken: nothing of it needs saving
    device: torch.device
    precision: str
    epoch: int  # epochs done


def train(job: Job, console: Console) -> dict[str, Any]:
    """Train a fold to the recipe's last epoch and return what done.json says of it.

    Finished already: returns at once. Interrupted: goes on. Raise RunError when the run's folder was made with
    another configuration, FoldsError or DataError when there is nothing sound to train on.
    """
    data = open_data(job)
    device = choose_device()
    precision = choose_precision(recorded_precision(job), device)
    for remark in settle(job.folder, describe(job, data, precision)):
        console.note(remark)
    if (done := job.folder / "done.json").exists():
        console.note(f"{job.run} fold {job.fold}: finished already")
        return read_json(done, what="run")

    trainer = build(job, data, device, precision)
    console.note(
        f"{job.run} fold {job.fold}: training on {len(data.train_rows)} images, validating on {len(data.valid_rows)}, "
        f"predicting {len(data.test.id)}; {device.type}, {precision}, from epoch {trainer.epoch + 1}"
    )
    keys, loader = training_loader(job, data, trainer)
    valid_loader = prediction_loader(job, data.labels, data.valid_rows, trainer)
    test_loader = prediction_loader(job, data.test, np.arange(len(data.test.id)), trainer)

    for epoch in range(trainer.epoch + 1, job.recipe.epochs + 1):
        started = time.perf_counter()
        keys.epoch = epoch
        less = (
            f"set --batch below {job.recipe.batch}, or take a smaller model; the last epoch's checkpoint is untouched"
        )
        with console.bar(f"epoch {epoch} train", len(keys)) as advance, told_when_out_of_memory(less):
            row = {"epoch": epoch, **train_epoch(trainer, job, loader, epoch, console, advance)}
        with console.bar(f"epoch {epoch} validate", len(data.valid_rows)) as advance:
            row |= validate(trainer, job, data, valid_loader, epoch, advance)
        with console.bar(f"epoch {epoch} test", len(data.test.id)) as advance:
            poses = predict(trainer.model, test_loader, device=device, precision=precision, advance=advance)
            write_poses(test_file(job.folder, epoch), poses.id, poses.pose_mm)
        append_log(job.folder, row | {"seconds": round(time.perf_counter() - started, 3)})
        save(trainer, job, epoch)
        console.note(_epoch_line(job, read_log(job.folder)))
    return finish(job)


def build(job: Job, data: Data, device: torch.device, precision: str) -> Trainer:
    """Make the network, its optimiser and schedule, with the state of the last checkpoint if there is one."""
    recipe = job.recipe
    torch.manual_seed(derive(job.workspace.seed, "weights", job.fold))
    last = job.folder / "last.pt"
    settings = asdict(recipe)
    if "pretrained" in settings and last.exists():
        settings["pretrained"] = False  # the weights are in the checkpoint
    try:
        model = models.create(job.name, **settings)
        optimizer = create_optimizer_v2(
            model.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
            opt=recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            **_fused(recipe.optimizer),
        )
    except (
        ValueError,
        AssertionError,
        RuntimeError,
    ) as error:  # an unknown backbone or optimiser, weights not to be had
        raise UserError(" ".join(str(error).split())) from None
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine" if recipe.schedule == "cosine" else "step",
        num_epochs=recipe.epochs,
        decay_epochs=1 if recipe.schedule == "halve" else recipe.epochs + 1,
        decay_rate=0.5,
        warmup_epochs=recipe.warmup_epochs,  # a fraction of an epoch is meant
        warmup_lr=0.0,
        step_on_epochs=False,
        updates_per_epoch=len(KeyedBatches(data.train_rows, recipe.batch, shuffle_seed=0)),
    )
    assert scheduler is not None
    pose_mm = torch.from_numpy(data.labels.pose_mm[data.train_rows])
    model.set_pose_statistics(pose_mm.mean(0), pose_mm.std(0, correction=0))
    trainer = Trainer(
        model=model, optimizer=optimizer, scheduler=scheduler, device=device, precision=precision, epoch=0
    )
    if last.exists():
        state = load_checkpoint(last)
        load_weights(model, state, last)
        optimizer.load_state_dict(state["optimizer"])
        trainer.epoch = state["epoch"]
    elif job.init is not None:
        path = fold_folder(job.workspace.run(job.init), job.fold) / "best.pt"
        load_weights(model, load_checkpoint(path), path)
    return trainer


def training_loader(job: Job, data: Data, trainer: Trainer) -> tuple[KeyedBatches, DataLoader[Batch]]:
    """Load the training rows, shuffled and augmented by the seed, the fold and the epoch."""
    seed = derive(job.workspace.seed, "train", job.fold)
    size = trainer.model.input_size
    augment = Augment(size, seed) if job.recipe.augment else None
    keys = KeyedBatches(data.train_rows, job.recipe.batch, shuffle_seed=seed)
    images = PoseImages(job.workspace.data, data.labels, size=size, augment=augment)
    return keys, make_loader(images, keys, workers=job.workers, device=trainer.device)


def prediction_loader(
    job: Job, source: Labels | TestSet, rows: npt.NDArray[np.int64], trainer: Trainer
) -> DataLoader[Batch]:
    """Load rows in order, as they are."""
    images = PoseImages(job.workspace.data, source, size=trainer.model.input_size)
    return make_loader(images, KeyedBatches(rows, BATCH), workers=job.workers, device=trainer.device)


def train_epoch(
    trainer: Trainer, job: Job, loader: DataLoader[Batch], epoch: int, console: Console, advance: Advance
) -> dict[str, Any]:
    """Train one epoch; return its learning rate, mean loss and images a second."""
    model, optimizer, device = trainer.model.train(), trainer.optimizer, trainer.device
    torch.manual_seed(derive(job.workspace.seed, "dropout", job.fold, epoch))
    loss_sum, done, steps = torch.zeros((), device=device), 0, len(loader)
    started = warm = time.perf_counter()
    for step, batch in enumerate(batches(loader), start=1):
        # to the device
        batch = batch.to(device)
        images = to_input(batch.image, model.spec.mean, model.spec.std)  # [B, 3, S, S]
        assert batch.pose2d_px is not None
        assert batch.pose_mm is not None

        # forward
        with autocast(trainer.precision, device):
            output = model(images)
            loss = model.loss(output, Target(batch.pose2d_px, batch.pose_mm))["total"]

        # backward
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if job.recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), job.recipe.clip_norm)
        trainer.scheduler.step_update((epoch - 1) * steps + step - 1)
        optimizer.step()

        # tell
        loss_sum += loss.detach()
        done += len(batch.id)
        seconds = time.perf_counter() - started
        if step % LOOK_EVERY == 0 or step == steps:
            _check_finite(loss_sum, epoch, step, batch)
        advance(
            1, f"{done / seconds:.0f} images/s, loss {float(loss_sum) / step:.4g}" if step % LOOK_EVERY == 0 else ""
        )
        if step == WARM_STEPS:
            warm = time.perf_counter()
        elif step == WARM_STEPS + TIMED_STEPS and epoch == trainer.epoch + 1:
            _tell_cost((time.perf_counter() - warm) / TIMED_STEPS * steps, job, console)
    return {
        "lr": optimizer.param_groups[0]["lr"],
        "train_loss": float(loss_sum) / steps,
        "images_per_second": round(done / (time.perf_counter() - started), 1),
    }


def validate(
    trainer: Trainer, job: Job, data: Data, loader: DataLoader[Batch], epoch: int, advance: Advance
) -> dict[str, Any]:
    """Predict the rows held out, keep the poses, and return their errors; nothing to do for the fold `full`."""
    if len(data.valid_rows) == 0:
        return {"valid_mpjpe": None, "valid_mpjpe_joint": None}
    poses = predict(trainer.model, loader, device=trainer.device, precision=trainer.precision, advance=advance)
    write_valid(valid_file(job.folder, epoch), poses.id, poses.pose_mm)
    true_mm = data.labels.pose_mm[poses.id - 1]
    return {
        "valid_mpjpe": mpjpe(poses.pose_mm, true_mm),
        "valid_mpjpe_joint": mpjpe_joint(poses.pose_mm, true_mm).tolist(),
    }


def save(trainer: Trainer, job: Job, epoch: int) -> None:
    """Keep the weights: of the best epoch so far, and of this one to go on from."""
    if best_row(read_log(job.folder))["epoch"] == epoch:
        save_checkpoint(job.folder / "best.pt", job.name, trainer.model, epoch=epoch)
    save_checkpoint(job.folder / "last.pt", job.name, trainer.model, epoch=epoch, optimizer=trainer.optimizer)


def finish(job: Job) -> dict[str, Any]:
    """Write done.json, the run's last file."""
    log = read_log(job.folder)
    best = best_row(log)
    result = {
        "best_epoch": best["epoch"],
        "valid_mpjpe": best["valid_mpjpe"],
        "epochs": len(log),
        "seconds": round(sum(row["seconds"] for row in log), 3),
    }
    write_json(job.folder / "done.json", result)
    return result


def _fused(optimizer: str) -> dict[str, bool]:
    """Ask for one kernel over all weights where the optimiser has it: five times as fast with many small ones."""
    parameters = inspect.signature(get_optimizer_class(optimizer)).parameters
    return {"fused": True} if "fused" in parameters else {}


def _check_finite(loss_sum: torch.Tensor, epoch: int, step: int, batch: Batch) -> None:
    if not bool(torch.isfinite(loss_sum)):
        raise RunError(
            f"the loss is no longer finite in epoch {epoch}, at most {LOOK_EVERY} steps before step {step} (Ids "
            f"{batch.id[:4].tolist()}...): lower --lr or set --clip-norm; the last epoch's checkpoint is untouched"
        )


def _tell_cost(epoch_seconds: float, job: Job, console: Console) -> None:
    total = epoch_seconds * job.recipe.epochs
    small = f"{job.name}-small"
    hint = f"; MODEL={small} trains in minutes" if total > LONG_SECONDS and small in models.names() else ""
    console.note(
        f"{job.run} fold {job.fold}: about {duration(total)} for {job.recipe.epochs} epochs of training here{hint}"
    )


def _epoch_line(job: Job, log: list[dict[str, Any]]) -> str:
    row, best = log[-1], best_row(log)
    seconds = float(row["seconds"])
    score = "" if row["valid_mpjpe"] is None else f" valid {row['valid_mpjpe']:.1f} mm (best {best['valid_mpjpe']:.1f})"
    left = (job.recipe.epochs - int(row["epoch"])) * seconds
    return (
        f"{job.run} fold {job.fold} epoch {row['epoch']}/{job.recipe.epochs}: loss {row['train_loss']:.4g}{score}, "
        f"{row['images_per_second']:.0f} images/s, {duration(seconds)}" + f", {duration(left)} left" * (left > 0)
    )
