"""Build what is trained: the network, its optimizer and its schedule, from a job or from a checkpoint."""

import inspect
from dataclasses import asdict

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from competition.common.errors import UserError
from competition.common.seeds import derive
from competition.runs.folders import fold_folder
from competition.training.calls import create_model
from competition.training.checkpoint import load_checkpoint, load_weights
from competition.training.jobs import Data, Job, check_init_run
from competition.training.loader import KeyedBatches
from competition.training.muon import Muon
from competition.training.step import Gradients
from competition.training.trainer import Trainer
from competition.training.world import World
from models.contract import Module
from models.layers import BatchNormReLU
from models.recipes import Recipe


def build(job: Job, data: Data, device: torch.device, precision: str, world: World) -> Trainer:
    """Build the trainer of a job and load the state of its last checkpoint if there is one."""
    recipe, last, rows = job.recipe, job.folder / "last.pt", data.train_rows(job.fold)
    torch.manual_seed(derive(job.workspace.seed, "weights", job.fold))
    model = _create_model(job, device, world, trained=last.exists())
    if job.compile:
        check_compile(job.name, model, device)
    optimizer = _create_optimizer(model, recipe, precision)
    steps = len(KeyedBatches(rows, recipe.batch, shuffle_seed=0))
    pose_mm = torch.from_numpy(data.dataset.labels.pose_mm[rows])
    model.set_pose_statistics(pose_mm.mean(0), pose_mm.std(0, correction=0))
    if not last.exists() and job.init is not None:
        path = fold_folder(job.workspace.run(job.init), job.fold) / "best.pt"
        check_init_run(job, data)
        load_weights(model, load_checkpoint(path).model, path)
    ema = None if recipe.ema is None else ModelEmaV3(model, decay=recipe.ema, use_warmup=True)
    network: nn.Module = model
    if world.size > 1:
        network = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    gradients = Gradients(
        name=job.name, model=model, network=network, precision=precision, device=device, micro_batch=recipe.micro_batch
    )
    trainer = Trainer(
        job=job, model=model, gradients=gradients, ema=ema, optimizer=optimizer,
        scheduler=_create_scheduler(optimizer, recipe, steps), steps=steps, device=device, precision=precision,
        world=world,
    )  # fmt: skip
    if last.exists():
        trainer.resume(load_checkpoint(last))
    if job.compile:
        for region in model.regions:
            region.compile()  # in place, so that the weights keep their names
    whole = (recipe.micro_batch or recipe.batch) >= recipe.batch and world.size == 1
    if device.type == "cuda" and model.same_steps and whole:
        gradients.use_graph()
    return trainer


def check_compile(name: str, model: nn.Module, device: torch.device) -> None:
    """Raise UserError for networks with kernels of their own, which are faster than compiled code."""
    if device.type == "cuda" and any(isinstance(module, BatchNormReLU) for module in model.modules()):
        raise UserError(
            f"--compile: {name} has kernels of its own, which are faster on a GPU", fix="leave out --compile"
        )


def _create_model(job: Job, device: torch.device, world: World, *, trained: bool) -> Module:
    """Create a job's network on a device; `trained`: its weights are in a checkpoint and needn't be downloaded."""
    settings = asdict(job.recipe)
    if "pretrained" in settings and trained:
        settings["pretrained"] = False
    try:
        model = create_model(job.name, **settings)
    except (ValueError, AssertionError, RuntimeError) as error:  # unknown backbone, failed download
        raise UserError(" ".join(str(error).split())) from error
    model.to(device)
    if job.sync_batch_norm and world.size > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    model.to(memory_format=torch.channels_last)
    return model


def _create_optimizer(model: nn.Module, recipe: Recipe, precision: str) -> torch.optim.Optimizer:
    """Create a recipe's optimizer; biases and normalisations are not decayed. Raise UserError for invalid settings."""
    name, lr, decay = recipe.optimizer, recipe.lr, recipe.weight_decay
    if name == "muon":
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        return Muon(param_groups_weight_decay(model, decay), lr=lr, weight_decay=decay, dtype=dtype)
    # fused: one kernel for all weights, which is faster
    fused = {"fused": True} if "fused" in inspect.signature(get_optimizer_class(name)).parameters else {}
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(model, opt=name, lr=lr, weight_decay=decay, **fused)
    except (ValueError, AssertionError, RuntimeError) as error:
        raise UserError(" ".join(str(error).split())) from error
    return optimizer


def _create_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Scheduler:
    """Create a recipe's schedule of the learning rate for epochs of `steps` steps."""
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine" if recipe.schedule == "cosine" else "step",
        num_epochs=recipe.epochs,
        decay_epochs=1 if recipe.schedule == "halve" else recipe.epochs + 1,
        decay_rate=0.5,
        warmup_epochs=recipe.warmup_epochs,  # may be a fraction of an epoch
        warmup_lr=0.0,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    assert scheduler is not None
    return scheduler
