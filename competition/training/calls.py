"""Calls into a model's code, which may be the user's own; its errors and wrong results become RunError."""

from typing import Any

from torch import Tensor, nn

import models
from competition.common.errors import RunError
from competition.training.failures import report_model_errors
from models.contract import Module, Output, Target


def create_model(name: str, **settings: Any) -> Module:
    """Create a model's network; raise ValueError or TypeError if the settings don't fit its recipe."""
    models.recipe(name, **settings)  # errors of the settings aren't the network's
    with report_model_errors(name):
        return models.create(name, **settings)


def forward(name: str, network: nn.Module, images: Tensor) -> Output:
    """Return the output of a network for normalised images [B, 3, S, S]."""
    with report_model_errors(name):
        output: Output = network(images)
    if not isinstance(getattr(output, "pose_mm", None), Tensor):
        raise RunError(f"model {name}: forward returned {_describe(output)}, expected an Output with a tensor pose_mm")
    return output


def total_loss(name: str, model: Module, output: Output, target: Target) -> Tensor:
    """Return the loss to minimise, a scalar."""
    with report_model_errors(name):
        losses = model.loss(output, target)
    total = losses.get("total") if isinstance(losses, dict) else None
    if not isinstance(total, Tensor) or total.ndim:
        raise RunError(f"model {name}: loss returned {_describe(losses)}, expected a dict with a scalar tensor 'total'")
    return total


def _describe(value: object) -> str:
    """Describe a result by its types, and by its keys or shape."""
    if isinstance(value, dict):
        return f"a dict of {', '.join(f'{key!r}: {_describe(item)}' for key, item in value.items()) or 'nothing'}"
    return f"{type(value).__name__} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
