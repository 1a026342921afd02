"""The progress of training: speed and loss beside the bar, an estimate of the duration, a loss that isn't finite."""

import logging
import time

import torch

from competition.common.console import Advance
from competition.common.errors import DivergedError, RunError
from competition.training.cost import StepTimer, describe_duration
from competition.training.loader import Batch
from competition.training.trainer import CHECK_STEPS, Trainer

log = logging.getLogger(__name__)


class Meter:
    """Reports a trainer's progress after every step."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.timer = StepTimer()
        self.advance: Advance = lambda count, text: None
        self.images = 0
        self.loss = self.last_finite = "unknown"
        self.started = time.perf_counter()

    def start(self, advance: Advance) -> None:
        """Begin an epoch, or continue it after its completed steps."""
        self.advance = advance
        self.images = 0
        self.loss = self.last_finite = "unknown"
        self.started = time.perf_counter()
        if not self.timer.complete:
            self.timer = StepTimer()
        advance(self.trainer.step, "")

    @property
    def images_per_second(self) -> float:
        """The speed of this epoch in this run of the process."""
        return self.images / (time.perf_counter() - self.started)

    def report(self, batch: Batch) -> None:
        """Report the step taken with a batch; raise RunError if the loss is no longer finite."""
        trainer = self.trainer
        self.images += len(batch.id) * trainer.world.size
        if trainer.at_check:
            self._check_loss(batch)
        self.advance(1, f"{self.images_per_second:.0f} images/s, loss {self.loss}")
        if not self.timer.complete:
            self.timer.tick(trainer.loss_sum)
            if self.timer.complete:
                log.info(describe_duration(trainer.job, self.timer.seconds * trainer.steps))

    def _check_loss(self, batch: Batch) -> None:
        trainer = self.trainer
        mean = trainer.world.mean(trainer.loss_sum)
        if not bool(torch.isfinite(mean)):
            if trainer.epoch == 0 and trainer.step == 1:
                raise RunError(
                    f"model {trainer.job.name}: the loss of the first step is {float(mean)} (Ids "
                    f"{batch.id[:4].tolist()}...), expected a finite number",
                    fix="correct its forward or loss, or its initial weights",
                )
            raise DivergedError(
                f"the loss is no longer finite in epoch {trainer.epoch + 1}, at most {CHECK_STEPS} steps before step "
                f"{trainer.step} (Ids {batch.id[:4].tolist()}...; last finite mean: {self.last_finite})",
                fix=f"{trainer.job.advice.not_finite}; the last checkpoint is unchanged",
            )
        self.last_finite = f"{float(mean) / trainer.step:.4g} at step {trainer.step}"
        self.loss = f"{float(trainer.loss_sum) / trainer.step:.4g}"
