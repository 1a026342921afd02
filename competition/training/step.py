"""A step of training: forward, backward, and the optimiser's."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from competition.training.device import autocast
from competition.training.graph import StepGraph
from competition.training.loader import Batch, to_input
from competition.training.trainer import Trainer
from models.contract import Module, Target


def graph_steps(trainer: Trainer, tell: Callable[[str], None]) -> None:
    """Have the steps captured (see StepGraph), where one GPU trains a network that has the same steps throughout, on
    whole batches."""
    recipe = trainer.job.recipe
    whole = (recipe.micro_batch or recipe.batch) >= recipe.batch and trainer.world.size == 1
    if trainer.device.type == "cuda" and trainer.model.same_steps and whole:
        step = partial(forward_backward, trainer.model, trainer.network, trainer.precision)
        trainer.graph = StepGraph(step, trainer.model.parameters(), trainer.device, tell)


def train_step(trainer: Trainer, batch: Batch, step: int) -> torch.Tensor:
    """Take one step, in parts where the batch is too large for the memory; return the batch's loss."""
    network, recipe = trainer.network, trainer.job.recipe
    if trainer.graph is not None:
        total = trainer.graph(batch.labelled)
    else:
        parts = batch.split(recipe.micro_batch or len(batch.id))
        total = torch.zeros((), device=trainer.device)
        trainer.optimizer.zero_grad(set_to_none=True)
        for number, part in enumerate(parts, start=1):
            apart = isinstance(network, DistributedDataParallel) and number < len(parts)
            with network.no_sync() if apart else nullcontext():  # type: ignore[operator]  # gradients meet once a step
                tensors, share = part.to(trainer.device).labelled, len(part.id) / len(batch.id)
                total += forward_backward(trainer.model, network, trainer.precision, *tensors, share=share)

    if recipe.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), recipe.clip_norm)
    trainer.optimizer.step()
    if trainer.ema is not None:
        trainer.ema.update(trainer.model, step=step)
    return total


def forward_backward(
    model: Module,
    network: nn.Module,
    precision: str,
    image: torch.Tensor,
    pose2d_px: torch.Tensor,
    pose_mm: torch.Tensor,
    *,
    share: float = 1.0,
) -> torch.Tensor:
    """Add to the gradients those of a batch (see Batch) on the device, weighted by `share`; return its loss.

    network: the model, or what averages its gradients over processes.
    """
    images = to_input(image, model.spec.mean, model.spec.std)  # [B, 3, S, S]
    with autocast(precision, image.device):
        losses = model.loss(network(images), Target(pose2d_px, pose_mm))
    loss = losses["total"] * share
    torch.autograd.backward(loss)
    return loss.detach()
