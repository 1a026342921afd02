"""Stacked hourglasses compute the function of the published network, whose convolutions have biases."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from models.hourglass import Score, StackedHourglass

CHANNELS, SCORES, SIZE, BATCH = 16, (3, 5, 7), 64, 3


class PlainResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 2
        self.body = nn.Sequential(
            *(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, middle, 1)),
            *(nn.BatchNorm2d(middle), nn.ReLU(), nn.Conv2d(middle, middle, 3, padding=1)),
            *(nn.BatchNorm2d(middle), nn.ReLU(), nn.Conv2d(middle, outputs, 1)),
        )
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.body(x)


class PlainHourglass(nn.Module):
    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.stay, self.down = PlainResidual(channels, channels), PlainResidual(channels, channels)
        self.inner = PlainHourglass(channels, depth - 1) if depth > 1 else PlainResidual(channels, channels)
        self.up = PlainResidual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        low = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        return self.stay(x) + F.interpolate(low, scale_factor=2.0)


class PlainStack(nn.Module):
    def __init__(self, channels: int, scores: int, last: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(PlainHourglass(channels, 4), PlainResidual(channels, channels)),
            *(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU()),
        )
        self.score = nn.Conv2d(channels, scores, 1)
        self.back = nn.ModuleList([] if last else [nn.Conv2d(count, channels, 1) for count in (channels, scores)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        score = self.score(features)
        return x + sum(conv(y) for conv, y in zip(self.back, (features, score), strict=False)), score


class PlainNetwork(nn.Module):
    """The network of the paper, its convolutions and normalisations in the same order as in StackedHourglass."""

    def __init__(self, channels: int, scores: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *(nn.Conv2d(3, channels // 4, 7, stride=2, padding=3), nn.BatchNorm2d(channels // 4), nn.ReLU()),
            *(PlainResidual(channels // 4, channels // 2), nn.MaxPool2d(2)),
            *(PlainResidual(channels // 2, channels // 2), PlainResidual(channels // 2, channels)),
        )
        self.stacks = nn.ModuleList(PlainStack(channels, count, count == scores[-1]) for count in scores)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, scores = self.stem(images), []
        for stack in self.stacks:
            x, score = stack(x)
            scores.append(score)
        return scores


def layers(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


def pair(momentum: float = 1.0) -> tuple[StackedHourglass, PlainNetwork]:
    """Return both networks in float64 with the same random weights, and random biases in the plain one."""
    torch.manual_seed(0)
    network, plain = StackedHourglass(CHANNELS, SCORES).double(), PlainNetwork(CHANNELS, SCORES).double()
    for one, other in zip(layers(network, nn.Conv2d), layers(plain, nn.Conv2d), strict=True):
        nn.init.normal_(other.weight, std=other.weight[0].numel() ** -0.5)
        nn.init.normal_(other.bias)
        one.weight.data.copy_(other.weight)
        if one.bias is not None:
            one.bias.data.copy_(other.bias)
    for one, other in zip(layers(network, nn.BatchNorm2d), layers(plain, nn.BatchNorm2d), strict=True):
        nn.init.uniform_(other.weight, 0.5, 1.5)
        nn.init.normal_(other.bias)
        one.load_state_dict(other.state_dict())
        one.momentum = other.momentum = momentum
    return network, plain


def images(seed: int) -> Tensor:
    return torch.randn(BATCH, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9 * float(other.detach().abs().max()))


def test_scores_and_gradients_in_training_are_those_of_the_network_with_biases() -> None:
    network, plain = pair()
    found, expected = network(images(1)), plain(images(1))
    assert_close(found, expected)
    weights = [torch.randn_like(score) for score in expected]
    for scores in (found, expected):
        sum((score * weight).sum() for score, weight in zip(scores, weights, strict=True)).backward()
    for kind in (nn.Conv2d, nn.BatchNorm2d):
        pairs = list(zip(layers(network, kind), layers(plain, kind), strict=True))
        assert_close([one.weight.grad for one, _ in pairs], [other.weight.grad for _, other in pairs])
        biased = [(one, other) for one, other in pairs if one.bias is not None]
        assert_close([one.bias.grad for one, _ in biased], [other.bias.grad for _, other in biased])


def test_predictions_are_those_of_the_network_with_biases_once_running_means_contain_them() -> None:
    """With a momentum of 1 the running statistics are the batch's: means with the biases, and the same variances."""
    network, plain = pair(momentum=1.0)
    network(images(1)), plain(images(1))
    norms = list(zip(layers(network, nn.BatchNorm2d), layers(plain, nn.BatchNorm2d), strict=True))
    same = [index for index, (one, other) in enumerate(norms) if torch.allclose(one.running_mean, other.running_mean)]
    assert same == [1]  # the only one behind a ReLU instead of a convolution
    assert_close([one.running_var for one, _ in norms], [other.running_var for _, other in norms])
    assert_close(network.eval()(images(2)), plain.eval()(images(2)))


def test_only_the_scores_have_biases() -> None:
    network = models.create("3dhg-small").hourglass
    biased = [module for module in layers(network, nn.Conv2d) if module.bias is not None]
    assert biased == [stack.score for stack in network.stacks]  # type: ignore[union-attr]


@pytest.mark.parametrize("scores", [1, 8, 17, 34])
def test_padded_scores_and_their_gradients_are_the_unpadded_ones(scores: int) -> None:
    torch.manual_seed(0)
    score = Score(16, scores).double().to(memory_format=torch.channels_last)
    nn.init.normal_(score.bias)
    x = torch.randn(2, 16, 4, 6, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn(2, scores, 4, 6, dtype=torch.float64)
    results = []
    for function in (score.pad, score.forward):
        y = function(x)
        results.append([y, *torch.autograd.grad(y, [x, score.weight, score.bias], gradient)])
    assert_close(*results)
    padded = score.pad(x)
    assert padded.stride(3) == -(-scores // 8) * 8  # a view: nothing is copied
    assert {tuple(parameter.shape) for parameter in score.parameters()} == {(scores, 16, 1, 1), (scores,)}
