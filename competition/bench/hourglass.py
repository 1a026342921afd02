"""A stacked hourglass as public PyTorch implementations train it, and the bytes that training one has to move."""

import torch.nn.functional as F
from torch import Tensor, nn

DEPTH = 4  # levels of an hourglass
BYTES = 2  # of a value in bf16


class PublicHourglass(nn.Module):
    """Newell's network, images [B,3,S,S] -> the scores of every stack, [B,scores[i],S/4,S/4]; with all biases."""

    def __init__(self, channels: int, scores: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels // 4, 7, stride=2, padding=3), nn.BatchNorm2d(channels // 4), nn.ReLU(),
            PublicResidual(channels // 4, channels // 2), nn.MaxPool2d(2),
            PublicResidual(channels // 2, channels // 2), PublicResidual(channels // 2, channels),
        )  # fmt: skip
        self.features = nn.ModuleList(
            nn.Sequential(
                PublicLevel(channels, DEPTH), PublicResidual(channels, channels),
                nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(),
            )
            for _ in scores
        )  # fmt: skip
        self.scores = nn.ModuleList(nn.Conv2d(channels, count, 1) for count in scores)
        self.features_back = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in scores[1:])
        self.scores_back = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in scores[:-1])

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)
        maps: list[Tensor] = []
        for index, (features, score) in enumerate(zip(self.features, self.scores, strict=True)):
            found = features(x)
            maps.append(score(found))
            if index < len(self.features_back):
                x = x + self.features_back[index](found) + self.scores_back[index](maps[-1])
        return maps


class PublicResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 2
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, middle, 1),
            nn.BatchNorm2d(middle), nn.ReLU(), nn.Conv2d(middle, middle, 3, padding=1),
            nn.BatchNorm2d(middle), nn.ReLU(), nn.Conv2d(middle, outputs, 1),
        )  # fmt: skip
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(x) + self.skip(x)
        return result


class PublicLevel(nn.Module):
    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.stay, self.down, self.up = (PublicResidual(channels, channels) for _ in range(3))
        self.inner = PublicLevel(channels, depth - 1) if depth > 1 else PublicResidual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        low = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        result: Tensor = self.stay(x) + F.interpolate(low, scale_factor=2)
        return result


def training_bytes(channels: int, scores: tuple[int, ...], size: int) -> float:
    """Return the bytes that a training step moves per image of `size` pixels, if every kernel reads its inputs once.

    Activations in bf16; batch norm with ReLU and pooling or upsampling with its addition are one kernel per pass (of
    batch norm two, as it needs sums first). Weights are left out: they don't depend on the batch.
    """
    half, side = size // 2, size // 4
    total = BYTES * 2 * (_map(size, 3) + _map(half, channels // 4))  # without a gradient of the images
    total += _norm(half, channels // 4)
    total += _residual(half, channels // 4, channels // 2) + BYTES * 3.5 * _map(half, channels // 2)
    total += _residual(side, channels // 2, channels // 2) + _residual(side, channels // 2, channels)
    for index, count in enumerate(scores):
        total += _level(side, channels, DEPTH) + _residual(side, channels, channels)
        total += _convolution(side, channels, channels) + _norm(side, channels) + _convolution(side, channels, count)
        total += BYTES * 3 * _map(side, count)  # the loss reads the maps, and once more to write their gradient
        if index < len(scores) - 1:  # the features again, added to the input; their gradients and the input's are sums
            total += _convolution(side, channels, channels) + BYTES * 9 * _map(side, channels)
    return total


def _map(side: int, channels: int) -> float:
    return float(side * side * channels)


def _convolution(side: int, inputs: int, outputs: int) -> float:
    """Forward, gradient of the input and gradient of the weights."""
    return BYTES * 3 * (_map(side, inputs) + _map(side, outputs))


def _norm(side: int, channels: int, *, skip: bool = False) -> float:
    """Sums, then values: 3 maps forward, 5 backward, and the gradient of a skip connection."""
    return BYTES * (9 if skip else 8) * _map(side, channels)


def _residual(side: int, inputs: int, outputs: int) -> float:
    middle = outputs // 2
    total = _norm(side, inputs, skip=inputs == outputs) + 2 * _norm(side, middle)
    total += _convolution(side, inputs, middle) + _convolution(side, middle, middle)
    total += _convolution(side, middle, outputs) + BYTES * 3 * _map(side, outputs)
    if inputs != outputs:
        total += _convolution(side, inputs, outputs) + BYTES * 3 * _map(side, inputs)
    return total


def _level(side: int, channels: int, depth: int) -> float:
    """Pooling (1.25 maps, backward 3.25 with the skip's gradient), upsampling with its addition (2.25 and 1.25)."""
    low = side // 2
    inner = _level(low, channels, depth - 1) if depth > 1 else _residual(low, channels, channels)
    own = _residual(side, channels, channels) + BYTES * 8 * _map(side, channels)
    return own + 2 * _residual(low, channels, channels) + inner
