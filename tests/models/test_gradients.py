"""The gradient of an untrained network must be accurate, not rounding noise.

The variance of a residual stream grows from block to block. With PyTorch's default weights the bf16 gradient of stacked
hourglasses is nearly unrelated to the exact one on noise images, and inaccurate on synthetic ones.
"""

import copy
from pathlib import Path

import pytest
import torch

import models
from competition.data.images import read_image, to_input_px
from competition.data.labels import read_labels
from competition.training.loader import to_input
from models.contract import Module

SIZE = 128  # pixels; a quarter of the computation of 256
BATCH = 4
MIN_COSINE = {torch.bfloat16: 0.95, torch.float32: 0.999}
SMALL = ["2dhg-small", "2dhg-decay-small", "3dhg-small", "3dhg-plus-small"]
FULL_SIZE = ["2dhg", "2dhg-decay", "3dhg"]  # other recipes differ only in training settings


def batch(data: Path, module: Module) -> tuple[torch.Tensor, models.Target]:
    """Return the first images of the synthetic competition as the network's input, with their labels."""
    labels = read_labels(data)
    pixels = [torch.from_numpy(read_image(data / "images" / name, SIZE)) for name in labels.images[:BATCH]]
    images = to_input(torch.stack(pixels), module.spec.mean, module.spec.std)
    pose2d_px = torch.stack([torch.from_numpy(to_input_px(pose, SIZE)) for pose in labels.pose2d_px[:BATCH]])
    return images, models.Target(pose2d_px, torch.from_numpy(labels.pose_mm[:BATCH]))


def gradient(module: Module, images: torch.Tensor, target: models.Target, precision: torch.dtype) -> torch.Tensor:
    """Return the gradient of the heatmap loss with respect to all parameters, as one float64 vector."""
    network = copy.deepcopy(module).train()
    if precision == torch.float64:
        network, images = network.double(), images.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        losses = network.loss(network(images), target)
    losses.get("heatmap", losses["total"]).backward()
    parts = [value.grad for value in network.parameters() if value.grad is not None]  # the lifter has no gradient
    return torch.cat([part.double().flatten() for part in parts])


def check_gradients(name: str, data: Path) -> None:
    """Assert that bf16 and fp32 gradients point in the direction of the float64 gradient, for both kinds of images."""
    torch.manual_seed(0)
    module = models.create(name, input_size=SIZE)
    images, target = batch(data, module)
    for inputs in (images, torch.randn_like(images)):
        exact = gradient(module, inputs, target, torch.float64)
        for precision, minimum in MIN_COSINE.items():
            cosine = torch.cosine_similarity(exact, gradient(module, inputs, target, precision), dim=0)
            assert float(cosine) >= minimum, precision


@pytest.mark.parametrize("name", SMALL)
def test_first_gradient_of_a_small_network_is_accurate(name: str, data: Path) -> None:
    check_gradients(name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_first_gradient_of_a_full_size_network_is_accurate(name: str, data: Path) -> None:
    check_gradients(name, data)


@pytest.mark.parametrize("name", ["2dhg-small", "3dhg-small"])
def test_an_untrained_residual_block_is_its_skip(name: str) -> None:
    module = models.create(name)
    stack = module.hourglass.stacks[0].features  # type: ignore[union-attr, index]
    x = torch.randn(2, models.recipe(name).channels, 4, 4)  # type: ignore[attr-defined]
    assert torch.equal(stack[1](x), x)
