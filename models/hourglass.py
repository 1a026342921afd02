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

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.layers import BatchNormReLU, MaxPool, add_upsampled, fits, max_pool, own_precision

DEPTH = 4  # levels of an hourglass: 64 to 4 pixels
SCORE_STD = 1e-3  # of the initial score weights: maps start near 0, like most of the target
ALIGNED_CHANNELS = 8  # 16 bytes in bf16, below which a GPU's memory accesses and matrix products are slow


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
        self.norm = BatchNormReLU(inputs)
        self.body = nn.Sequential(
            convolution(inputs, middle),
            BatchNormReLU(middle),
            convolution(middle, middle, 3),
            BatchNormReLU(middle),
            convolution(middle, outputs),
        )
        self.skip = nn.Identity() if inputs == outputs else convolution(inputs, outputs)
        for weight in self.body[-1].parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        normal, x = self.norm.with_input(x)
        result: Tensor = self.skip(x) + self.body(normal)
        return result


class Hourglass(nn.Module):
    """One hourglass [B,channels,H,W] -> the same shape; H and W must be multiples of 2^depth."""

    def __init__(self, channels: int, depth: int = DEPTH) -> None:
        super().__init__()
        self.depth = depth
        self.stay = Residual(channels, channels)
        self.down = Residual(channels, channels)
        self.inner: nn.Module = Hourglass(channels, depth - 1) if depth > 1 else Residual(channels, channels)
        self.up = Residual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x, half = max_pool(x)
        stay, low = side_by_side(
            lambda: self.stay(x), lambda: self.up(self.inner(self.down(half))), x, level=self.depth
        )  # fmt: skip
        return add_upsampled(stay, low)


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
            BatchNormReLU(channels),
        )
        self.score = Score(channels, scores)
        self.features_back = None if last else convolution(channels, channels)
        self.score_back = None if last else convolution(scores, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next stack's input [B,channels,H,W] and the score [B,scores,H,W]."""
        features = call(self.features, x)
        if self.features_back is not None and self.score_back is not None:
            x = x + F.conv2d(features, self.back(self.features_back.weight, self.score_back.weight))
        return x, self.score(features)

    def back(self, features_back: Tensor, score_back: Tensor) -> Tensor:
        """Return F + S W, where W is the score's weight: F f + S (W f + bias) = (F + S W) f + constant."""
        factors = (weight.flatten(1) for weight in (features_back, score_back, self.score.weight))
        with own_precision(features_back):
            return torch.addmm(*factors)[..., None, None]


class StackedHourglass(nn.Module):
    """Stem and stacks: images [B,3,4H,4W] -> the scores of every stack i, [B,scores[i],H,W]."""

    def __init__(self, channels: int, scores: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            convolution(3, channels // 4, 7, stride=2),
            BatchNormReLU(channels // 4),
            Residual(channels // 4, channels // 2),
            MaxPool(),
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
        x = call(self.stem, images)
        scores = []
        for stack in self.stacks:
            x, score = stack(x)
            scores.append(score)
        return scores


def side_by_side(
    side: Callable[[], Tensor], main: Callable[[], Tensor], x: Tensor, level: int
) -> tuple[Tensor, Tensor]:
    """Return side(), computed from a result x of max_pool, and main(); on a GPU at the same time.

    The kernels of `side`, forward and backward, run on the level's own stream. Tensors that cross the streams need no
    record_stream, which would keep their memory until the end of a captured step: max_pool holds x, and CastWeights the
    weights, until their own backward passes, which wait for those of `side`; and the side stream waits for this one
    before it allocates memory again, after this one has used the result of `side`.
    """
    if not fits(x) or (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return side(), main()  # DistributedDataParallel accumulates gradients on one stream
    current, beside = torch.cuda.current_stream(x.device), level_stream(x.device, level)
    beside.wait_stream(current)
    with torch.cuda.stream(beside):
        kept = side()
    result = main()
    current.wait_stream(beside)
    return kept, result


@functools.cache
def level_stream(device: torch.device, level: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def call(module: nn.Module, x: Tensor) -> Tensor:
    """Return module(x); under autocast on a GPU with all convolutions' weights converted by one kernel."""
    if not (x.is_cuda and torch.is_autocast_enabled("cuda")) or torch.compiler.is_compiling():
        plain: Tensor = module(x)
        return plain
    weights = {name: weight for name, weight in module.named_parameters() if weight.dim() == 4}
    copies = CastWeights.apply(torch.get_autocast_dtype("cuda"), *weights.values())
    result: Tensor = torch.func.functional_call(module, dict(zip(weights, copies, strict=True)), (x,))
    return result


class CastWeights(torch.autograd.Function):
    """Copies of weights in another precision. Their gradients are converted together, after all of them are known."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        copies = tuple(torch.empty_like(weight, dtype=dtype) for weight in weights)
        torch._foreach_copy_(copies, weights)
        ctx.save_for_backward(*copies)  # see side_by_side
        ctx.dtype = weights[0].dtype
        return copies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        results = [torch.empty_like(gradient, dtype=ctx.dtype) for gradient in gradients]
        torch._foreach_copy_(results, gradients)
        return None, *results
