"""Calls into a model's code, which may be the user's own; its errors and wrong results become RunError."""

from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import models
from competition.common.errors import RunError
from competition.training.failures import report_model_errors
from models.contract import JOINTS, Module, Output, Target


def create_model(name: str, **settings: Any) -> Module:
    """Create a model's network; raise ValueError or TypeError if the settings don't fit its recipe."""
    network = models.recipe(name, **settings).network  # errors of the settings aren't the network's
    with report_model_errors(name):
        module = models.create(name, **settings)
    if not isinstance(module, Module):
        raise RunError(f"model {name}: {network} is {_describe(module)}, expected a subclass of models.contract.Module")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise RunError(f"model {name}: {network} has no parameters to train")
    return module


def forward(name: str, network: nn.Module, images: Tensor) -> Output:
    """Return the output of a network for normalised images [B, 3, S, S]: poses of floats, [B, 17, 3]."""
    with report_model_errors(name):
        output: Output = network(images)
    pose_mm, shape = getattr(output, "pose_mm", None), [len(images), JOINTS, 3]
    if not isinstance(pose_mm, Tensor):
        raise RunError(f"model {name}: forward returned {_describe(output)}, expected an Output with a tensor pose_mm")
    if list(pose_mm.shape) != shape or not pose_mm.is_floating_point():
        found = f"pose_mm {list(pose_mm.shape)} of {pose_mm.dtype}"
        raise RunError(f"model {name}: forward returned {found}, expected {shape} of floats")
    return output


def total_loss(name: str, model: Module, output: Output, target: Target) -> Tensor:
    """Return the loss to minimise, a scalar."""
    with report_model_errors(name):
        losses = model.loss(output, target)
    total = losses.get("total") if isinstance(losses, dict) else None
    if not isinstance(total, Tensor) or total.ndim:
        raise RunError(f"model {name}: loss returned {_describe(losses)}, expected a dict with a scalar tensor 'total'")
    if torch.is_grad_enabled() and not total.requires_grad:
        raise RunError(f"model {name}: the loss 'total' depends on no parameter, expected one computed from the output")
    return total


def backward(name: str, loss: Tensor) -> None:
    """Accumulate the gradients of a loss; of several processes, an error may be that of the connection to another."""
    alone = not (dist.is_available() and dist.is_initialized())
    with report_model_errors(name, where="the backward pass") if alone else nullcontext():
        torch.autograd.backward(loss)


def _describe(value: object) -> str:
    """Describe a result by its types, and by its keys or shape."""
    if isinstance(value, dict):
        return f"a dict of {', '.join(f'{key!r}: {_describe(item)}' for key, item in value.items()) or 'nothing'}"
    return f"{type(value).__name__} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
