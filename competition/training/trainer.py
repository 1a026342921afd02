"""A network in training: its state, one step, and what a checkpoint saves of it."""

from dataclasses import dataclass, field

import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor

from competition.common.errors import DivergedError, RunError
from competition.common.seeds import derive
from competition.training.checkpoint import Checkpoint, Part, checkpoint_of, load_weights, save_checkpoint
from competition.training.jobs import Job
from competition.training.loader import Batch
from competition.training.step import Gradients
from competition.training.world import World
from models.contract import Module

CHECK_STEPS = 20  # steps between two checks, as each waits for the GPU


@dataclass(kw_only=True)
class Trainer:
    """A network in training, with everything that a checkpoint saves. Only its methods change it."""

    job: Job
    model: Module
    gradients: Gradients
    ema: ModelEmaV3 | None  # averaged weights, used for prediction if there are any
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler  # a function of the number of steps, so that its state isn't saved
    steps: int  # of an epoch
    device: torch.device
    precision: str
    world: World
    epoch: int = 0  # completed epochs
    step: int = 0  # completed steps of the next epoch
    first: int = 0  # its value when this process began the epoch
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))  # over the completed steps of this epoch
    rng: Tensor | None = None  # state of torch's generator after these steps
    gpu_rng: Tensor | None = None  # and of the GPU's

    @property
    def predictor(self) -> Module:
        """The network used for prediction."""
        if self.ema is None:
            return self.model
        module: Module = self.ema.module
        return module

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def at_check(self) -> bool:
        """Whether the loss is checked after this step, and several processes agree on whether to stop."""
        return self.step in (self.first + 1, self.steps) or self.step % CHECK_STEPS == 0

    @property
    def mean_loss(self) -> float:
        """The mean loss of the completed steps, over all processes."""
        return float(self.world.mean(self.loss_sum)) / max(1, self.step)

    def start_epoch(self) -> None:
        """Begin the next epoch, or continue it after its completed steps."""
        seed, rank = self.job.workspace.seed, self.world.rank
        if self.step == 0:
            torch.manual_seed(derive(seed, "dropout", self.job.fold, self.epoch + 1, *([rank] if rank else [])))
            self.loss_sum = torch.zeros(())
        elif self.rng is not None:
            torch.set_rng_state(self.rng)
            if self.gpu_rng is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(self.gpu_rng, self.device)
        self.loss_sum = self.loss_sum.to(self.device)
        self.first = self.step
        self.model.train()

    def train_step(self, batch: Batch) -> None:
        """Take the next step of the epoch."""
        number = self.epoch * self.steps + self.step  # completed steps of all epochs
        self.scheduler.step_update(number)
        self.loss_sum += self.update_weights(batch)
        if self.ema is not None:
            self.ema.update(self.model, step=number + 1)
        self.step += 1

    def update_weights(self, batch: Batch) -> Tensor:
        """Change the weights by the gradients of a batch; return its loss."""
        loss = self.gradients(batch)
        if self.job.recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.job.recipe.clip_norm)
        self.optimizer.step()
        return loss

    def broadcast_buffers(self) -> None:
        """Broadcast rank 0's running statistics, as each process computes them on its own part of the batches."""
        if self.world.size > 1:
            for buffer in [*self.model.buffers(), *self.predictor.buffers()]:
                torch.distributed.broadcast(buffer, 0)

    def finish_epoch(self) -> None:
        """Count the epoch as completed."""
        self.epoch, self.step = self.epoch + 1, 0

    def save(self, *, best: bool = False) -> None:
        """Save last.pt, from which training resumes, and for the best epoch so far best.pt with the weights only.

        Raise RunError, leaving both files as they are, if the weights are no longer finite. Only the main process
        saves.
        """
        if not self.world.is_main_process:
            return
        if not all(bool(torch.isfinite(weight).all()) for weight in self.model.parameters()):
            where = f"epoch {self.epoch + 1}, step {self.step}" if self.step else f"epoch {self.epoch}"
            raise DivergedError(
                f"the weights are no longer finite ({where})",
                fix=f"{self.job.advice.not_finite}; the last checkpoint is unchanged",
            )
        if best:
            averaged = checkpoint_of(self.job.name, self.predictor, epoch=self.epoch)
            save_checkpoint(self.job.folder / "best.pt", averaged)
        part = None
        if self.step:
            gpu_rng = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
            part = Part(step=self.step, loss_sum=self.loss_sum.cpu(), rng=torch.get_rng_state(), gpu_rng=gpu_rng)
        checkpoint = checkpoint_of(
            self.job.name,
            self.model,
            epoch=self.epoch,
            optimizer=self.optimizer.state_dict(),
            ema=None if self.ema is None else self.ema.module.state_dict(),
            part=part,
        )
        save_checkpoint(self.job.folder / "last.pt", checkpoint)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint; raise RunError if it doesn't fit."""
        path, part = self.job.folder / "last.pt", checkpoint.part
        load_weights(self.model, checkpoint.model, path)
        try:
            self.optimizer.load_state_dict(checkpoint.optimizer or {})
            if self.ema is not None:
                self.ema.module.load_state_dict(checkpoint.ema or {})
            self.epoch = checkpoint.epoch
            if part is not None:
                self.step, self.loss_sum = part.step, part.loss_sum
                if self.world.size == 1:  # only rank 0's state is saved
                    self.rng, self.gpu_rng = part.rng, part.gpu_rng
        except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:100]
            raise RunError(
                f"{path} is damaged or belongs to another optimizer ({reason})", fix="delete it to train again"
            ) from None
