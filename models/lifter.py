"""The lifter of Martinez et al. 2017 ("A simple yet effective baseline for 3d human pose estimation")."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = 2


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation [B,width]; a training batch of one, which has no spread, takes the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def layer(inputs: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), BatchNorm(width), nn.ReLU(inplace=True), nn.Dropout(dropout))


class Block(nn.Module):
    """Two layers around a skip, [B,width] -> the same."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(layer(width, width, dropout), layer(width, width, dropout))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


class Lifter(nn.Module):
    """Features [B,inputs] -> [B,outputs], through a layer, two residual blocks and a linear end."""

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        blocks = [Block(width, dropout) for _ in range(BLOCKS)]
        self.body = nn.Sequential(layer(inputs, width, dropout), *blocks, nn.Linear(width, outputs))

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.body(features)
        return result
