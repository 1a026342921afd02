"""The gradients of a training step: forward and backward pass, in micro-batches or replayed as a CUDA graph."""

import logging
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from competition.training.device import autocast
from competition.training.failures import report_model_errors
from competition.training.graph import StepGraph
from competition.training.loader import Batch, to_input
from models.contract import Module, Target

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Gradients:
    """Computes the gradients of a batch's mean loss."""

    name: str  # of the model
    model: Module
    network: nn.Module  # the model, or its DistributedDataParallel wrapper
    precision: str
    device: torch.device
    micro_batch: int | None  # images per forward pass; None: the whole batch
    graph: StepGraph | None = None

    def use_graph(self) -> None:
        """Replay steps as a CUDA graph from now on; needs a network with `same_steps` and whole batches."""
        self.graph = StepGraph(self.forward_backward, self.model.parameters(), self.device, log.warning)

    def __call__(self, batch: Batch) -> Tensor:
        """Set the gradients of the parameters and return the batch's loss, which the next call may overwrite."""
        if self.graph is not None:
            return self.graph(batch.step_inputs)
        parts = batch.split(self.micro_batch or len(batch.id))
        total = torch.zeros((), device=self.device)
        self.model.zero_grad(set_to_none=True)
        for number, part in enumerate(parts, start=1):
            local = isinstance(self.network, DistributedDataParallel) and number < len(parts)
            with self.network.no_sync() if local else nullcontext():  # type: ignore[operator]  # synchronise only once
                weight = len(part.id) / len(batch.id)
                total += self.forward_backward(*part.to(self.device).step_inputs, weight=weight)
        return total

    def forward_backward(self, image: Tensor, pose2d_px: Tensor, pose_mm: Tensor, *, weight: float = 1.0) -> Tensor:
        """Accumulate the gradients of a batch's loss times `weight`; return the weighted loss.

        image, pose2d_px, pose_mm: see Batch, on the device.
        """
        images = to_input(image, self.model.spec.mean, self.model.spec.std)  # [B, 3, S, S]
        with autocast(self.precision, self.device):
            with report_model_errors(self.name):
                output = self.network(images)
            with report_model_errors(self.name):
                losses = self.model.loss(output, Target(pose2d_px, pose_mm))
        loss = losses["total"] * weight
        torch.autograd.backward(loss)
        return loss.detach()
