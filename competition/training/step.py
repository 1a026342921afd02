"""The gradients of a training step: forward and backward pass, in micro-batches or replayed as a CUDA graph."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from competition.training.calls import backward, forward, total_loss
from competition.training.device import autocast
from competition.training.graph import StepGraph
from competition.training.loader import Batch, to_input
from models.contract import Module, Target


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
        self.graph = StepGraph(self.forward_backward, self.model.parameters(), self.device)

    def __call__(self, batch: Batch) -> Tensor:
        """Set the gradients of the parameters and return the batch's loss, which the next call may overwrite."""
        if self.graph is not None:
            return self.graph(batch.step_inputs)
        parts = batch.split(self.micro_batch or len(batch.id))
        total = torch.zeros((), device=self.device)
        self.model.zero_grad(set_to_none=True)
        network = self.network
        for number, part in enumerate(parts, start=1):
            last = number == len(parts)  # only then synchronise
            with network.no_sync() if isinstance(network, DistributedDataParallel) and not last else nullcontext():
                weight = len(part.id) / len(batch.id)
                total += self.forward_backward(*part.to(self.device).step_inputs, weight=weight)
        return total

    def forward_backward(self, image: Tensor, pose2d_px: Tensor, pose_mm: Tensor, *, weight: float = 1.0) -> Tensor:
        """Accumulate the gradients of a batch's loss times `weight`; return the weighted loss.

        image, pose2d_px, pose_mm: see Batch, on the device.
        """
        images = to_input(image, self.model.spec.mean, self.model.spec.std)  # [B, 3, S, S]
        with autocast(self.precision, self.device):
            output = forward(self.name, self.network, images)
            loss = weight * total_loss(self.name, self.model, output, Target(pose2d_px, pose_mm))
        backward(self.name, loss)
        return loss.detach()
