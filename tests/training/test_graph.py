"""Training steps replayed as CUDA graphs, on a GPU if there is one; the logic also with a fake of the CUDA API."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from competition.training.graph import WARMUP_STEPS, StepGraph
from models.contract import JOINTS, Target

CPU, DEVICE = torch.device("cpu"), torch.device("cuda")
STEPS = WARMUP_STEPS + 4


def _batches(sizes: list[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
    random = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(size, 3, 64, 64, generator=random).double(),
            64 * torch.rand(size, JOINTS, 2, generator=random).double(),
            200 * torch.randn(size, JOINTS, 3, generator=random).double(),
        )
        for size in sizes
    ]


def _train(sizes: list[int], *, graph: bool, name: str = "2dhg-small") -> tuple[list[float], dict[str, Tensor]]:
    torch.manual_seed(0)
    model = models.create(
        name, **({"input_size": 64, "lifter_dropout": 0.0, "lifter_copies": 0} if name == "2dhg-small" else {})
    )
    model.to(DEVICE).double().train()  # in float32, sums in varying order can move an untrained map's peak
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step(images: Tensor, pose2d_px: Tensor, pose_mm: Tensor) -> Tensor:
        loss = model.loss(model(images), Target(pose2d_px, pose_mm))["total"]
        torch.autograd.backward(loss)
        return loss.detach()

    replayed = StepGraph(step, model.parameters(), DEVICE)
    losses = []
    for batch in _batches(sizes):
        if graph:
            losses.append(float(replayed(batch)))
        else:
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(step(*(tensor.to(DEVICE) for tensor in batch))))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # as code between two steps may do
    assert not graph or replayed.graph is not None
    return losses, {key: value.cpu() for key, value in model.state_dict().items()}


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["2dhg-small", "3dhg-small", "integral-small"])
def test_replayed_steps_train_as_normal_steps(name: str):
    sizes = [4] * STEPS
    (losses, weights), (expected_losses, expected) = (_train(sizes, graph=graph, name=name) for graph in (True, False))
    assert losses == pytest.approx(expected_losses, rel=1e-9)
    assert len(set(losses)) == STEPS  # every batch is different
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-6, atol=1e-8)


@pytest.mark.gpu
def test_a_batch_of_another_size_is_computed_without_the_graph():
    sizes = [4] * (WARMUP_STEPS + 2) + [3, 4]
    assert _train(sizes, graph=True)[0] == pytest.approx(_train(sizes, graph=False)[0], rel=1e-9)


@pytest.mark.gpu
def test_a_step_that_synchronises_is_not_captured(caplog: pytest.LogCaptureFixture):
    weight = nn.Parameter(torch.ones(3, device=DEVICE))

    def step(x: Tensor) -> Tensor:
        loss = (weight * x).sum() * (1 if float(x.sum()) > 0 else 2)
        torch.autograd.backward(loss)
        return loss.detach()

    steps = StepGraph(step, [weight], DEVICE)
    for number in range(STEPS):
        x = torch.full((3,), float(number - 2))
        assert float(steps((x,))) == pytest.approx(3 * (number - 2) * (1 if number > 2 else 2))
        assert weight.grad is not None
        assert weight.grad.tolist() == pytest.approx((x * (1 if number > 2 else 2)).tolist())
    assert len(caplog.messages) == 1


class FakeGpu:
    """Replaces the CUDA API; its step (loss: the sum of weight * x) is recorded and computed again by replay()."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: bool = False) -> None:
        self.weight = nn.Parameter(torch.ones(2))
        self.capturing, self.replayed, self.failing = False, 0, failing
        stream = SimpleNamespace(wait_stream=lambda other: None)
        fakes: dict[str, Callable[..., Any]] = {
            "Stream": lambda device: stream,
            "current_stream": lambda device: stream,
            "stream": lambda stream: nullcontext(),
            "synchronize": lambda device: None,
            "CUDAGraph": lambda: SimpleNamespace(replay=self.replay),
            "graph": self.capture,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        self.steps = StepGraph(self.step, [self.weight], CPU)

    def step(self, x: Tensor) -> Tensor:
        if self.capturing:
            self.inputs = x
            if self.failing:
                raise RuntimeError("operation not permitted\nwhen stream is capturing")
        loss = (self.weight * x).sum()
        torch.autograd.backward(loss)
        return loss.detach()

    @contextmanager
    def capture(self, graph: object, **_: object) -> Iterator[None]:
        assert self.weight.grad is None, "the graph must allocate its own gradients"
        self.capturing = True
        try:
            yield
        finally:
            self.capturing = False

    def replay(self) -> None:
        self.replayed += 1
        gradient = self.steps.gradients[0]
        assert gradient is not None
        gradient.copy_(self.inputs)  # in place, whatever .grad is now
        self.steps.loss.copy_((self.weight.detach() * self.inputs).sum())


def test_steps_are_replayed_on_new_batches_of_the_same_shape_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    fake = FakeGpu(monkeypatch)
    for number, size in enumerate([2] * (WARMUP_STEPS + 2) + [1, 2]):
        x = torch.full((size,), float(number + 1))
        assert float(fake.steps((x,))) == pytest.approx(2 * (number + 1))
        assert fake.weight.grad is not None
        assert fake.weight.grad.tolist() == [number + 1] * 2
        fake.weight.grad = None  # as an optimizer's zero_grad does
    assert fake.replayed == 3
    assert not caplog.messages


def test_steps_run_normally_if_the_capture_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    fake = FakeGpu(monkeypatch, failing=True)
    for number in range(WARMUP_STEPS + 3):
        assert float(fake.steps((torch.full((2,), float(number)),))) == pytest.approx(2 * number)
        assert fake.weight.grad is not None
        assert fake.weight.grad.tolist() == [number] * 2
    assert fake.replayed == 0
    (warning,) = caplog.messages
    assert warning.startswith("training steps can't be captured")
    assert warning.endswith(": operation not permitted when stream is capturing")
