"""Steps replayed as CUDA graphs; these tests need a GPU."""

import pytest
import torch
from torch import Tensor, nn

import models
from competition.graph import WARM_STEPS, StepGraph
from models.contract import JOINTS, Target

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

DEVICE = torch.device("cuda")
STEPS = WARM_STEPS + 4


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
    model = models.create(name, **({"input_size": 64, "lifter_dropout": 0.0} if name == "2dhg-small" else {}))
    model.to(DEVICE).double().train()  # kernels that sum in no fixed order differ in float32: a young map's peak leaps
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
        optimizer.zero_grad(set_to_none=True)  # as whoever predicts in between may
    assert not graph or (replayed.graph is not None and replayed.failure is None), replayed.failure
    return losses, {key: value.cpu() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ["2dhg-small", "3dhg-small", "integral-small"])
def test_replayed_steps_train_as_steps_one_by_one(name: str):
    sizes = [4] * STEPS
    (losses, weights), (expected_losses, expected) = (_train(sizes, graph=graph, name=name) for graph in (True, False))
    assert losses == pytest.approx(expected_losses, rel=1e-9)
    assert len(set(losses)) == STEPS  # every batch is another one
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-6, atol=1e-8)


def test_a_batch_of_another_size_is_computed_too():
    sizes = [4] * (WARM_STEPS + 2) + [3, 4]
    assert _train(sizes, graph=True)[0] == pytest.approx(_train(sizes, graph=False)[0], rel=1e-9)


def test_a_step_that_waits_for_the_device_is_taken_one_by_one():
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
    assert steps.failure is not None
