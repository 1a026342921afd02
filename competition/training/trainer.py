"""A network in training: build it, save it in a checkpoint, resume from a checkpoint."""

import inspect
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import models
from competition.common.arrays import Int64
from competition.common.errors import RunError, UserError
from competition.common.seeds import derive
from competition.runs.folders import fold_folder
from competition.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from competition.training.failures import NOT_FINITE_FIX, report_model_errors
from competition.training.graph import StepGraph
from competition.training.jobs import Job, check_init_run
from competition.training.loader import KeyedBatches
from competition.training.muon import Muon
from competition.training.world import World
from models.contract import Module
from models.recipes import Recipe


@dataclass(kw_only=True)
class Trainer:
    """A network in training, with everything that a checkpoint saves."""

    job: Job
    model: Module
    network: nn.Module  # the model, or its DistributedDataParallel wrapper
    ema: ModelEmaV3 | None  # averaged weights, used for prediction if there are any
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler  # a function of the number of steps, so that its state isn't saved
    device: torch.device
    precision: str
    world: World
    epoch: int = 0  # completed epochs
    step: int = 0  # completed steps of the next epoch
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))  # over the completed steps of this epoch
    rng: Tensor | None = None  # state of torch's generator after these steps
    duration_printed: bool = False
    graph: StepGraph | None = None  # a step's forward and backward pass, on a GPU

    @property
    def predictor(self) -> Module:
        """The network used for prediction."""
        if self.ema is None:
            return self.model
        module: Module = self.ema.module
        return module

    def broadcast_buffers(self) -> None:
        """Broadcast rank 0's running statistics, as each process computes them on its own part of the batches."""
        if self.world.size > 1:
            for buffer in [*self.model.buffers(), *self.predictor.buffers()]:
                torch.distributed.broadcast(buffer, 0)

    def save(self, *, best: bool = False) -> None:
        """Save last.pt, from which training resumes, and for the best epoch so far best.pt with the weights only.

        Raise RunError, leaving both files as they are, if the weights are no longer finite.
        """
        if not self.world.is_main_process:
            return
        if not all(bool(torch.isfinite(weight).all()) for weight in self.model.parameters()):
            where = f"epoch {self.epoch + 1}, step {self.step}" if self.step else f"epoch {self.epoch}"
            raise RunError(
                f"the weights are no longer finite ({where}): {NOT_FINITE_FIX}; the last checkpoint is unchanged"
            )
        if best:
            save_checkpoint(self.job.folder / "best.pt", self.job.name, self.predictor, epoch=self.epoch)
        part = {"step": self.step, "loss_sum": self.loss_sum.cpu(), "rng": torch.get_rng_state()} if self.step else {}
        save_checkpoint(
            self.job.folder / "last.pt",
            self.job.name,
            self.model,
            epoch=self.epoch,
            optimizer=self.optimizer.state_dict(),
            ema=None if self.ema is None else self.ema.module.state_dict(),
            part=part or None,
        )


def build(job: Job, train_rows: Int64, pose_mm: Tensor, device: torch.device, precision: str, world: World) -> Trainer:
    """Build the network, its optimizer and its schedule; load the state of the last checkpoint if there is one.

    pose_mm [n, 17, 3]: the training poses; the network stores their mean and standard deviation.
    """
    recipe, last = job.recipe, job.folder / "last.pt"
    torch.manual_seed(derive(job.workspace.seed, "weights", job.fold))
    settings = asdict(recipe)
    if "pretrained" in settings and last.exists():
        settings["pretrained"] = False  # the weights are in the checkpoint
    try:
        with report_model_errors(job.name):
            model = models.create(job.name, **settings)
        model.to(device)
        if job.sync_batch_norm and world.size > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        model.to(memory_format=torch.channels_last)
        optimizer = create_optimizer(model, recipe, precision)
    except (ValueError, AssertionError, RuntimeError) as error:  # unknown backbone or optimizer, failed download
        raise UserError(" ".join(str(error).split())) from None
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine" if recipe.schedule == "cosine" else "step",
        num_epochs=recipe.epochs,
        decay_epochs=1 if recipe.schedule == "halve" else recipe.epochs + 1,
        decay_rate=0.5,
        warmup_epochs=recipe.warmup_epochs,  # may be a fraction of an epoch
        warmup_lr=0.0,
        step_on_epochs=False,
        updates_per_epoch=len(KeyedBatches(train_rows, recipe.batch, shuffle_seed=0)),
    )
    assert scheduler is not None
    model.set_pose_statistics(pose_mm.mean(0), pose_mm.std(0, correction=0))
    if not last.exists() and job.init is not None:
        path = fold_folder(job.workspace.run(job.init), job.fold) / "best.pt"
        check_init_run(job)
        load_weights(model, load_checkpoint(path), path)
    ema = None if recipe.ema is None else ModelEmaV3(model, decay=recipe.ema, use_warmup=True)
    trainer = Trainer(
        job=job, model=model, network=model, ema=ema, optimizer=optimizer, scheduler=scheduler, device=device,
        precision=precision, world=world,
    )  # fmt: skip
    if last.exists():
        _load_state(trainer, load_checkpoint(last))
    if world.size > 1:
        trainer.network = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    if job.compile:
        for region in model.regions:
            region.compile()  # in place, so that the weights keep their names
    return trainer


def _load_state(trainer: Trainer, state: dict[str, Any]) -> None:
    """Load the state of a checkpoint to resume training; raise RunError if it doesn't fit."""
    path = trainer.job.folder / "last.pt"
    load_weights(trainer.model, state, path)
    try:
        trainer.optimizer.load_state_dict(state["optimizer"])
        if trainer.ema is not None:
            trainer.ema.module.load_state_dict(state["ema"])
        trainer.epoch = state["epoch"]
        if state["part"] is not None:
            trainer.step = state["part"]["step"]
            trainer.rng = state["part"]["rng"] if trainer.world.size == 1 else None  # only rank 0's state is saved
            trainer.loss_sum = state["part"]["loss_sum"]
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise RunError(
            f"{path} is damaged or belongs to another optimizer ({reason}): delete it to train again"
        ) from None


def create_optimizer(model: nn.Module, recipe: Recipe, precision: str) -> torch.optim.Optimizer:
    """Create a recipe's optimizer; biases and normalisations are not decayed."""
    name, lr, decay = recipe.optimizer, recipe.lr, recipe.weight_decay
    if name == "muon":
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        return Muon(param_groups_weight_decay(model, decay), lr=lr, weight_decay=decay, dtype=dtype)
    # fused: one kernel for all weights, which is faster
    fused = {"fused": True} if "fused" in inspect.signature(get_optimizer_class(name)).parameters else {}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(model, opt=name, lr=lr, weight_decay=decay, **fused)
    return optimizer
