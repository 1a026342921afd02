"""Benchmarks of whole training steps: complete rows, the public-style network, and the bytes that training moves."""

import pytest
import torch

import models
from competition.bench import gpu, suite
from competition.bench.hourglass import PublicHourglass, PublicLevel, PublicResidual, training_bytes

CPU = torch.device("cpu")
TINY = {
    "2dhg": {"input_size": 64, "channels": 8, "stacks": 2},
    "3dhg": {"input_size": 64, "channels": 8, "depths": (1, 4)},
}


@pytest.mark.parametrize("name", TINY)
def test_rows_compare_with_public_steps_and_the_floor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STEPS", 1)
    rows = gpu.step_rows(name, 2, CPU, **TINY[name])
    assert [row.name for row in rows] == [f"gpu-{name}-2-{kind}" for kind in ("tf32", "bf16", "floor")]
    for row in rows:
        assert row.ratio == pytest.approx(row.ours / row.reference)
        assert row.ours == rows[0].ours > 0
        assert f"{name}, batch 2, 64 px" in row.note
    assert "GB per image at" in rows[2].note


def test_a_public_step_takes_the_largest_batch_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def measure(make, batch: int, device: torch.device) -> tuple[float, float]:
        tried.append(batch)
        if batch > 8:
            raise torch.OutOfMemoryError
        return 100.0, 1.0

    monkeypatch.setattr(gpu, "images_per_second", measure)
    tf32 = torch.backends.cuda.matmul.allow_tf32
    assert gpu._largest_batch(32, lambda batch: torch.zeros, CPU) == (8, (100.0, 1.0))
    assert tried == [32, 16, 8]
    assert torch.backends.cuda.matmul.allow_tf32 == tf32


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures for minutes")
def test_without_a_gpu_there_are_no_rows() -> None:
    assert list(suite.run(["gpu-2dhg", "gpu-3dhg"])) == [("gpu-2dhg", []), ("gpu-3dhg", [])]


def test_the_public_network_has_the_same_maps_as_ours() -> None:
    model = models.create("3dhg", **TINY["3dhg"])
    images = torch.zeros(2, 3, 64, 64)
    public = PublicHourglass(8, (17, 68))(images)
    assert [maps.shape for maps in public] == [maps.flatten(1, 2).shape for maps in model(images).maps]


def test_bytes_of_training_a_full_size_network() -> None:
    """Counted kernel by kernel by hand for eight stacks of 256 channels: 2.58 GB, of which the loss is 1 %."""
    assert training_bytes(256, (17,) * 8, 256) / 1e9 == pytest.approx(2.58, rel=0.015)
    deeper = training_bytes(256, (17, 34), 256) - training_bytes(256, (17, 17), 256)
    assert deeper == 17 * 64 * 64 * 2 * 6  # 17 more maps: three passes of the product, three of the loss


def test_bytes_of_training_are_those_of_the_networks_layers() -> None:
    """Maps read or written, of each layer of the public-style network, in bytes; without the scores' way back."""
    network, moved = PublicHourglass(8, (17, 34)).eval(), 0.0

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal moved
        x, y = inputs[0].numel(), output.numel()
        if isinstance(module, torch.nn.Conv2d):
            moved += (2 if module.in_channels == 3 else 3) * (x + y)  # no gradient of the images
        elif isinstance(module, torch.nn.BatchNorm2d):
            moved += 8 * y
        elif isinstance(module, torch.nn.MaxPool2d):
            moved += 3.5 * x
        elif isinstance(module, PublicLevel):
            moved += 8 * x
        elif isinstance(module, PublicResidual):
            moved += 3 * y + (x if x == y else 3 * x)

    for module in set(network.modules()) - {network, *network.scores_back}:
        module.register_forward_hook(count)
    maps = network(torch.zeros(1, 3, 64, 64))
    moved += 3 * sum(m.numel() for m in maps) + 9 * 8 * 16 * 16
    assert training_bytes(8, (17, 34), 64) == pytest.approx(2 * moved, rel=1e-9)
