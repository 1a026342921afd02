"""Training steps replayed as CUDA graphs compute what normal steps do, on a GPU if there is one.

Whole trainings can't be compared: untrained maps are nearly flat, so the rounding of one step can move a peak, and a
few steps later the trainings have nothing in common. Single steps from the same state are compared instead. On a CPU a
fake of the CUDA API tests the logic of the replay, and that the comparison notices wrong ones.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

from competition.training.graph import WARMUP_STEPS, StepGraph
from tests.training.replay import FakeGpu, Steps, make_batch

CPU, DEVICE = torch.device("cpu"), torch.device("cuda")
NAMES = ["2dhg-small", "3dhg-small", "integral-small"]


def captured(steps: Steps, size: int = 3) -> None:
    """Take the warm-up steps, the first replayed one and one more."""
    for number in range(WARMUP_STEPS + 2):
        steps.train(make_batch(size, number))


def check_every_situation(steps: Steps) -> None:
    """Assert that replayed steps equal normal ones, whatever comes between them; steps are already replayed."""
    assert steps.gradients.graph is not None
    assert steps.gradients.graph.graph is not None, "the capture failed"
    assert not steps.differences(make_batch(3, 100))
    steps.train(make_batch(3, 101))
    assert not steps.differences(make_batch(3, 102)), "after a step"

    assert not steps.differences(make_batch(2, 103)), "of another size"
    steps.train(make_batch(2, 103))
    assert not steps.differences(make_batch(3, 104)), "after a batch of another size"

    steps.model.eval()
    with torch.no_grad():
        steps.model(torch.zeros(5, 3, 64, 64, device=steps.gradients.device, dtype=steps.dtype))
    steps.model.train()
    assert not steps.differences(make_batch(3, 105)), "after an evaluation"

    weights, state = copy.deepcopy(steps.model.state_dict()), copy.deepcopy(steps.optimizer.state_dict())
    steps.train(make_batch(3, 106))
    steps.model.load_state_dict(weights)
    steps.optimizer.load_state_dict(state)
    torch.manual_seed(1)
    assert not steps.differences(make_batch(3, 107)), "after the weights of a checkpoint"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp64", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_replayed_steps_equal_normal_steps(name: str, precision: str):
    steps = Steps(name, precision, DEVICE)
    steps.gradients.use_graph()
    captured(steps)
    check_every_situation(steps)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_training_replays_the_same_steps(name: str):
    steps, resumed = (Steps(name, "fp64", DEVICE) for _ in range(2))
    for each in (steps, resumed):
        each.gradients.use_graph()
    captured(steps)
    resumed.model.load_state_dict(steps.model.state_dict())
    resumed.optimizer.load_state_dict(copy.deepcopy(steps.optimizer.state_dict()))
    captured(resumed)  # its own warm-up and capture
    assert not resumed.differences(make_batch(3, 100))


@pytest.mark.gpu
def test_the_comparison_notices_other_batches():
    """What a replay of stale inputs would do is far beyond what rounding does, also in bf16."""
    for precision in ("fp64", "bf16"):
        steps = Steps("3dhg-small", precision, DEVICE)
        steps.gradients.use_graph()
        captured(steps)
        step, graph = steps.normal, steps.gradients.graph
        assert graph is not None
        steps.normal = lambda batch, step=step: step(make_batch(3, 999))  # type: ignore[method-assign]
        found = steps.differences(make_batch(3, 100))
        assert len(found) > 0.9 * sum(1 for _ in steps.model.parameters()), found


@pytest.mark.gpu
def test_a_step_that_synchronises_is_not_captured(caplog: pytest.LogCaptureFixture):
    weight = nn.Parameter(torch.ones(3, device=DEVICE))

    def step(x: Tensor) -> Tensor:
        loss = (weight * x).sum() * (1 if float(x.sum()) > 0 else 2)
        torch.autograd.backward(loss)
        return loss.detach()

    steps = StepGraph(step, [weight], DEVICE)
    for number in range(WARMUP_STEPS + 4):
        x = torch.full((3,), float(number - 2))
        assert float(steps((x,))) == pytest.approx(3 * (number - 2) * (1 if number > 2 else 2))
        assert weight.grad is not None
        assert weight.grad.tolist() == pytest.approx((x * (1 if number > 2 else 2)).tolist())
    assert len(caplog.messages) == 1


def replaying(monkeypatch: pytest.MonkeyPatch, name: str = "2dhg-small", fault: str = "") -> tuple[Steps, FakeGpu]:
    """Return steps in float64 on the CPU, replayed by a fake of the CUDA API."""
    steps = Steps(name, "fp64", CPU)
    fake = FakeGpu(monkeypatch, steps.model, fault)
    steps.gradients.graph = fake.steps(steps.gradients.forward_backward)
    captured(steps)
    return steps, fake


@pytest.mark.parametrize("name", NAMES)
def test_a_right_replay_equals_normal_steps(monkeypatch: pytest.MonkeyPatch, name: str):
    steps, fake = replaying(monkeypatch, name)
    check_every_situation(steps)
    assert fake.replayed > 4


@pytest.mark.parametrize("fault", FakeGpu.FAULTS)
def test_the_comparison_notices_a_wrong_replay(monkeypatch: pytest.MonkeyPatch, fault: str):
    steps, _ = replaying(monkeypatch, fault=fault)
    found = steps.differences(make_batch(3, 100))
    part = {"gradients": "gradient of", "statistics": "buffer", "loss": "loss"}.get(fault, "gradient of lifter")
    assert any(line.startswith(part) for line in found)


class Scale(nn.Module):
    """Its step's loss is the sum of weight * x, so the gradient is x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def step(self, x: Tensor) -> Tensor:
        loss = (self.weight * x).sum()
        torch.autograd.backward(loss)
        return loss.detach()


def test_steps_are_replayed_on_new_batches_of_the_same_shape_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    model = Scale()
    fake = FakeGpu(monkeypatch, model)
    steps = fake.steps(model.step)
    for number, size in enumerate([2] * (WARMUP_STEPS + 2) + [1, 2]):
        x = torch.full((size,), float(number + 1))
        assert float(steps((x,))) == pytest.approx(2 * (number + 1))
        assert model.weight.grad is not None
        assert model.weight.grad.tolist() == [number + 1] * 2
        model.weight.grad = None  # as an optimizer's zero_grad does
    assert fake.replayed == 3
    assert not caplog.messages


def test_a_replay_leaves_the_batch_of_the_capture_unchanged(monkeypatch: pytest.MonkeyPatch):
    """A batch that is already on the device must not become the graph's own input."""
    model = Scale()
    steps = FakeGpu(monkeypatch, model).steps(model.step)
    batches = [torch.full((2,), float(number)) for number in range(WARMUP_STEPS + 3)]
    for batch in batches:
        steps((batch,))
    assert [float(batch[0]) for batch in batches] == list(range(WARMUP_STEPS + 3))


def test_steps_run_normally_if_the_capture_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    model = Scale()
    fake = FakeGpu(monkeypatch, model)
    steps, fake.failing = fake.steps(model.step), True
    for number in range(WARMUP_STEPS + 3):
        assert float(steps((torch.full((2,), float(number)),))) == pytest.approx(2 * number)
        assert model.weight.grad is not None
        assert model.weight.grad.tolist() == [number] * 2
    assert fake.replayed == 0
    (warning,) = caplog.messages
    assert warning.startswith("training steps can't be captured")
    assert warning.endswith(": operation not permitted when stream is capturing")
