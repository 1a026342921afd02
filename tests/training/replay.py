"""Training steps compared from the same state: replayed against normal, and what rounding alone changes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from competition.training import graph
from competition.training.loader import Batch
from competition.training.step import Gradients
from models.contract import JOINTS, Output

SIZE = 64  # pixels
SETTINGS = {  # with random numbers in the step: dropout, and the draws of the copies
    "2dhg-small": {"input_size": SIZE, "channels": 8, "lifter_width": 32, "lifter_dropout": 0.5, "lifter_copies": 2},
    "3dhg-small": {"input_size": SIZE, "channels": 8, "depths": (1, 4)},
    "integral-small": {"input_size": SIZE},
}
MARGIN = 8  # times what rounding does
ROUNDING = {"fp64": 2.0**-52, "fp32": 2.0**-23, "bf16": 2.0**-8}  # relative, of one operation


class InDouble(nn.Module):
    """Computes a network in float64."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, images: Tensor) -> Output:
        output: Output = self.network(images.double())
        return output


class Steps:
    """Training steps of a network, replayed or normal."""

    def __init__(self, name: str, precision: str, device: torch.device) -> None:
        torch.manual_seed(0)
        self.model = models.create(name, **SETTINGS[name]).to(device).train()
        self.model.to(memory_format=torch.channels_last)
        network = InDouble(self.model) if precision == "fp64" else self.model
        self.precision = precision
        self.gradients = Gradients(
            name=name, model=self.model, network=network, precision=precision, device=device, micro_batch=None
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.model.parameters()).dtype

    def train(self, batch: Batch) -> None:
        """Take a step as training does."""
        self.gradients(batch)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)  # as code between two steps may do

    def normal(self, batch: Batch) -> Tensor:
        self.model.zero_grad(set_to_none=True)
        return self.gradients.forward_backward(*batch.to(self.gradients.device).step_inputs)

    def differences(self, batch: Batch) -> list[str]:
        """Return what a replayed step computes otherwise than a normal one from the same state, beyond rounding.

        What rounding does is measured with two controls: the normal step again, and with rounded weights. The state is
        left unchanged.
        """
        before = State(self.model)
        replayed = self.outcome(self.gradients, batch, before)
        expected = self.outcome(self.normal, batch, before)
        controls = [self.outcome(self.normal, batch, before, rounding) for rounding in (False, True)]
        before.restore()
        if replayed.keys() != expected.keys():
            return sorted(replayed.keys() ^ expected.keys())
        found = []
        for key in expected:
            rounding = max(distance(control, expected, key) for control in controls)
            difference = distance(replayed, expected, key)
            if not difference <= MARGIN * (rounding + ROUNDING[self.precision]):
                found.append(f"{key}: {difference:.2g}, by rounding {rounding:.2g}")
        return found

    def outcome(
        self, step: Callable[[Batch], Tensor], batch: Batch, before: "State", rounded: bool = False
    ) -> dict[str, Tensor]:
        """Return the loss, the gradients, the buffers and the random state after a step from a state."""
        before.restore()
        if rounded:
            before.round(ROUNDING[self.precision])
        values = {"loss": step(batch).detach().clone()}
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                values[f"gradient of {name}"] = parameter.grad.clone()
        values |= {f"buffer {name}": buffer.clone() for name, buffer in self.model.named_buffers()}
        return {key: value.double() for key, value in values.items()} | {"random": random_state(self.model).double()}


class State:
    """The weights, buffers and random state of a model, to which it can return in place."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.values = {key: value.clone() for key, value in model.state_dict().items()}
        self.random = random_state(model)

    def restore(self) -> None:
        self.model.load_state_dict(self.values)
        if next(self.model.parameters()).is_cuda:
            torch.cuda.set_rng_state(self.random)
        else:
            torch.set_rng_state(self.random)

    def round(self, rounding: float) -> None:
        """Change every weight by at most `rounding`, relative to its value."""
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.model.parameters():
                change = 2 * torch.rand(parameter.shape, dtype=torch.float64, generator=random) - 1
                parameter.copy_(parameter.double() * (1 + rounding * change.to(parameter.device)))


def random_state(model: nn.Module) -> Tensor:
    return torch.cuda.get_rng_state() if next(model.parameters()).is_cuda else torch.get_rng_state()


def distance(values: dict[str, Tensor], expected: dict[str, Tensor], key: str) -> float:
    """Return the greatest difference relative to the greatest value; gradients near 0 count relative to the others."""
    scale = float(expected[key].abs().max())
    if key.startswith("gradient"):
        scale += 1e-4 * max(float(expected[name].abs().max()) for name in expected if name.startswith("gradient"))
    difference = float((values[key] - expected[key]).abs().max())
    return difference / scale if scale else difference


def make_batch(size: int, seed: int) -> Batch:
    """Return a random batch of images of SIZE pixels."""
    random = torch.Generator().manual_seed(seed)
    return Batch(
        torch.arange(size),
        torch.randint(256, (size, SIZE, SIZE, 3), dtype=torch.uint8, generator=random),
        SIZE * torch.rand(size, JOINTS, 2, generator=random),
        200 * torch.randn(size, JOINTS, 3, generator=random),
    )


class FakeGpu:
    """Replaces the CUDA API: a capture records the step's inputs, replay() computes the step again with their values.

    fault: what replay() does wrong, of FAULTS.
    """

    FAULTS = ("inputs", "gradients", "statistics", "random numbers", "weights", "loss")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: nn.Module, fault: str = "") -> None:
        self.model, self.fault = model, fault
        self.capturing, self.failing, self.replayed = False, False, 0
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

    def steps(self, step: Callable[..., Tensor]) -> graph.StepGraph:
        """Return the steps to test; `step` is recorded in a capture."""

        def recorded(*inputs: Tensor) -> Tensor:
            if self.capturing:
                self.inputs, self.first = inputs, [tensor.clone() for tensor in inputs]
                if self.failing:
                    raise RuntimeError("operation not permitted\nwhen stream is capturing")
            return step(*inputs)

        self.step = step
        self.graph = graph.StepGraph(recorded, self.model.parameters(), torch.device("cpu"))
        return self.graph

    @contextmanager
    def capture(self, graph: object, **_: object) -> Iterator[None]:
        assert all(p.grad is None for p in self.model.parameters()), "the graph must allocate its own gradients"
        self.captured = State(self.model)
        self.capturing = True
        try:
            yield
        finally:
            self.capturing = False
            self.captured.restore()  # a capture executes nothing

    def replay(self) -> None:
        self.replayed += 1
        now = State(self.model)
        if self.fault == "weights":
            self.captured.restore()
            torch.set_rng_state(now.random)
        if self.fault == "random numbers":
            torch.set_rng_state(self.captured.random)
        for parameter in self.model.parameters():
            parameter.grad = None
        loss = self.step(*(self.first if self.fault == "inputs" else self.inputs))
        for parameter, gradient in zip(self.model.parameters(), self.graph.gradients, strict=True):
            if gradient is not None and parameter.grad is not None:
                (gradient.add_ if self.fault == "gradients" else gradient.copy_)(parameter.grad)
        if self.fault != "loss":
            self.graph.loss.copy_(loss)
        if self.fault == "statistics":
            random = torch.get_rng_state()
            now.restore()
            torch.set_rng_state(random)
        if self.fault == "weights":
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(now.values[name])
