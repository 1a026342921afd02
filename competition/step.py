"""A step of training: forward, backward, and the optimiser's."""

from contextlib import nullcontext
from functools import partial

import torch
from torch.nn.parallel import DistributedDataParallel

from competition.device import autocast
from competition.graph import StepGraph
from competition.loader import Batch, to_input
from competition.trainer import Trainer
from models.contract import Target


def graph_steps(trainer: Trainer) -> None:
    """Have the steps captured (see StepGraph), where a GPU trains a network that has the same steps throughout."""
    whole = trainer.job.recipe.micro_batch is None and trainer.world.size == 1
    if trainer.device.type == "cuda" and trainer.model.same_steps and whole:
        step = partial(forward_backward, trainer)
        trainer.graph = StepGraph(step, trainer.model.parameters(), trainer.device)


def train_step(trainer: Trainer, batch: Batch, step: int) -> torch.Tensor:
    """Take one step, in parts where the batch is too large for the memory; return the batch's loss."""
    network, recipe = trainer.network, trainer.job.recipe
    parts = batch.split(recipe.micro_batch or len(batch.id))
    if trainer.graph is not None:  # then the batch is one part
        total = trainer.graph(batch.labelled)
    else:
        total = torch.zeros((), device=trainer.device)
        trainer.optimizer.zero_grad(set_to_none=True)
        for number, part in enumerate(parts, start=1):
            apart = isinstance(network, DistributedDataParallel) and number < len(parts)
            with network.no_sync() if apart else nullcontext():  # type: ignore[operator]  # gradients meet once a step
                tensors = part.to(trainer.device).labelled
                total += forward_backward(trainer, *tensors, share=len(part.id) / len(batch.id))

    if recipe.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), recipe.clip_norm)
    trainer.optimizer.step()
    if trainer.ema is not None:
        trainer.ema.update(trainer.model, step=step)
    return total


def forward_backward(
    trainer: Trainer, image: torch.Tensor, pose2d_px: torch.Tensor, pose_mm: torch.Tensor, share: float = 1.0
) -> torch.Tensor:
    """Add to the gradients those of a batch (see Batch) on the device, weighted by `share`; return its loss."""
    model = trainer.model
    images = to_input(image, model.spec.mean, model.spec.std)  # [B, 3, S, S]
    with autocast(trainer.precision, trainer.device):
        losses = model.loss(trainer.network(images), Target(pose2d_px, pose_mm))
    loss = losses["total"] * share
    torch.autograd.backward(loss)
    return loss.detach()
