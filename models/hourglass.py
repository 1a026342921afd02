"""The stacked hourglass network of Newell et al. 2016 ("Stacked hourglass networks for human pose estimation").

    images -> stem -> [hourglass -> Residual -> 1x1 conv-BN-ReLU = features -> 1x1 conv = score] x stacks
                   next input = input + 1x1 conv(features) + 1x1 conv(score), except after the last stack

Only the scores have a bias. Any other would only add a constant to a channel: pooling, upsampling, 1x1 convolutions and
sums keep it constant until the next batch normalisation removes it.

One hourglass of depth 4 on 64x64 maps: at each level one branch keeps its resolution; the other is pooled, processed by
the next level, and upsampled.

    64 --Residual-------------------------------(+)--
     \\-pool-Residual- 32 - (the same) -Residual-nearest x2-/
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTH = 4  # levels of an hourglass: 64 to 4 pixels
SCORE_STD = 1e-3  # of the initial score weights: maps start near 0, like most of the target
ALIGNED_CHANNELS = 8  # 16 bytes in bf16, below which a GPU's memory accesses and matrix products are slow


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that uses its running statistics where a channel has a single value: one image at 1x1."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def convolution(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that keeps the height and width, divided by the stride."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class Residual(nn.Module):
    """Pre-activation bottleneck [B,inputs,H,W] -> [B,outputs,H,W]; the skip is a 1x1 conv if inputs != outputs.

    The last convolution is initialised to zero, so an untrained block equals its skip. With PyTorch's default weights
    the variance grows over the blocks (112 in eight stacks), and the first bf16 gradients are mostly rounding noise.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 2
        self.body = nn.Sequential(
            BatchNorm(inputs),
            nn.ReLU(inplace=True),
            convolution(inputs, middle),
            BatchNorm(middle),
            nn.ReLU(inplace=True),
            convolution(middle, middle, 3),
            BatchNorm(middle),
            nn.ReLU(inplace=True),
            convolution(middle, outputs),
        )
        self.skip = nn.Identity() if inputs == outputs else convolution(inputs, outputs)
        for weight in self.body[-1].parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.skip(x) + self.body(x)
        return result


class Hourglass(nn.Module):
    """One hourglass [B,channels,H,W] -> the same shape; H and W must be multiples of 2^depth."""

    def __init__(self, channels: int, depth: int = DEPTH) -> None:
        super().__init__()
        self.stay = Residual(channels, channels)
        self.down = Residual(channels, channels)
        self.inner: nn.Module = Hourglass(channels, depth - 1) if depth > 1 else Residual(channels, channels)
        self.up = Residual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        low = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        skip: Tensor = self.stay(x)
        return skip + upsample(low)


def upsample(x: Tensor) -> Tensor:
    """Double the height and width of x [B,C,H,W] in its own precision; autocast would convert it to float32."""
    with without_autocast(x):
        return F.interpolate(x, scale_factor=2, mode="nearest")


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Compute in the precision of the operands on the device of x; meta tensors have no autocast to disable."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class Score(nn.Conv2d):
    """1x1 convolution to scores [B,outputs,H,W]; on a GPU with zero channels up to a multiple of 16 bytes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)
        nn.init.normal_(self.weight, std=SCORE_STD)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.pad(x) if x.is_cuda and self.out_channels % ALIGNED_CHANNELS else super().forward(x)

    def pad(self, x: Tensor) -> Tensor:
        """Return the scores as a view of the padded result."""
        assert self.bias is not None
        missing = -self.out_channels % ALIGNED_CHANNELS
        weight, bias = F.pad(self.weight, (0, 0, 0, 0, 0, 0, 0, missing)), F.pad(self.bias, (0, missing))
        return F.conv2d(x, weight, bias)[:, : self.out_channels]


class Stack(nn.Module):
    """One hourglass and its score, which are added to the next stack's input, except after the last stack."""

    def __init__(self, channels: int, scores: int, last: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            Hourglass(channels),
            Residual(channels, channels),
            convolution(channels, channels),
            BatchNorm(channels),
            nn.ReLU(inplace=True),
        )
        self.score = Score(channels, scores)
        self.features_back = None if last else convolution(channels, channels)
        self.score_back = None if last else convolution(scores, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next stack's input [B,channels,H,W] and the score [B,scores,H,W]."""
        features = self.features(x)
        if self.features_back is not None and self.score_back is not None:
            x = x + F.conv2d(features, self.back(self.features_back.weight, self.score_back.weight))
        return x, self.score(features)

    def back(self, features_back: Tensor, score_back: Tensor) -> Tensor:
        """Return F + S W, where W is the score's weight: F f + S (W f + bias) = (F + S W) f + constant."""
        with without_autocast(features_back):
            factors = (weight.flatten(1) for weight in (features_back, score_back, self.score.weight))
            return torch.addmm(*factors)[..., None, None]


class StackedHourglass(nn.Module):
    """Stem and stacks: images [B,3,4H,4W] -> the scores of every stack i, [B,scores[i],H,W]."""

    def __init__(self, channels: int, scores: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            convolution(3, channels // 4, 7, stride=2),
            BatchNorm(channels // 4),
            nn.ReLU(inplace=True),
            Residual(channels // 4, channels // 2),
            nn.MaxPool2d(2),
            Residual(channels // 2, channels // 2),
            Residual(channels // 2, channels),
        )
        last = len(scores) - 1
        self.stacks = nn.ModuleList(Stack(channels, count, last=index == last) for index, count in enumerate(scores))

    @property
    def regions(self) -> list[nn.Module]:
        """The submodules to compile separately: the stem and the identical hourglasses (see Module.regions)."""
        return [self.stem, *(stack.get_submodule("features") for stack in self.stacks)]

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)
        scores = []
        for stack in self.stacks:
            x, score = stack(x)
            scores.append(score)
        return scores
