"""One training step: forward pass, backward pass and optimizer step."""

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


def set_up_graph(trainer: Trainer, warn: Callable[[str], None]) -> None:
    """Let StepGraph run the steps if a single GPU trains a network with `same_steps` and without micro-batches."""
    recipe = trainer.job.recipe
    whole = (recipe.micro_batch or recipe.batch) >= recipe.batch and trainer.world.size == 1
    if trainer.device.type == "cuda" and trainer.model.same_steps and whole:
        step = partial(forward_backward, trainer.model, trainer.network, trainer.precision)
        trainer.graph = StepGraph(step, trainer.model.parameters(), trainer.device, warn)


def train_step(trainer: Trainer, batch: Batch, step: int) -> torch.Tensor:
    """Take one step, in micro-batches if the recipe sets their size; return the batch's loss."""
    network, recipe = trainer.network, trainer.job.recipe
    if trainer.graph is not None:
        total = trainer.graph(batch.step_inputs)
    else:
        parts = batch.split(recipe.micro_batch or len(batch.id))
        total = torch.zeros((), device=trainer.device)
        trainer.optimizer.zero_grad(set_to_none=True)
        for number, part in enumerate(parts, start=1):
            local = isinstance(network, DistributedDataParallel) and number < len(parts)
            with network.no_sync() if local else nullcontext():  # type: ignore[operator]  # synchronise once per step
                tensors, weight = part.to(trainer.device).step_inputs, len(part.id) / len(batch.id)
                total += forward_backward(trainer.model, network, trainer.precision, *tensors, weight=weight)

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
    weight: float = 1.0,
) -> torch.Tensor:
    """Accumulate the gradients of a batch's loss times `weight`; return the weighted loss.

    image, pose2d_px, pose_mm: see Batch, on the device. network: the model, or its DistributedDataParallel wrapper.
    """
    images = to_input(image, model.spec.mean, model.spec.std)  # [B, 3, S, S]
    with autocast(precision, image.device):
        losses = model.loss(network(images), Target(pose2d_px, pose_mm))
    loss = losses["total"] * weight
    torch.autograd.backward(loss)
    return loss.detach()
