"""Training steps as CUDA graphs: all kernels of a step are launched at once, so the GPU doesn't wait for Python.

A step can be captured if it runs the same kernels on tensors of the same shapes and addresses for every batch; see
"whole-network capture" in PyTorch's notes on CUDA semantics.
"""

import logging
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from competition.common.errors import UserError

log = logging.getLogger(__name__)

WARMUP_STEPS = 3  # before the capture, as libraries initialise and choose algorithms in their first calls


class StepGraph:
    """Forward and backward pass of a training step, captured after the warm-up steps and replayed from then on.

    `step` takes a batch's tensors on the device, sets the parameters' gradients and returns the loss. It is called
    directly for batches of another shape, and for all batches if the capture fails, which logs a warning.
    """

    def __init__(self, step: Callable[..., Tensor], parameters: Iterable[nn.Parameter], device: torch.device) -> None:
        self.step = step
        self.parameters = list(parameters)
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.steps = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor | None] = []
        self.loss = torch.zeros(())

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """Compute a batch's gradients and return its loss, a tensor that the next call may overwrite."""
        self.steps += 1
        if self.steps == WARMUP_STEPS + 1:
            self._capture(batch)
        same_shapes = [tensor.shape for tensor in batch] == [tensor.shape for tensor in self.inputs]
        if self.graph is None or not same_shapes:
            return self._run_step(batch)
        for graph_input, tensor in zip(self.inputs, batch, strict=True):
            graph_input.copy_(tensor, non_blocking=True)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient  # zero_grad may have removed it
        return self.loss

    def _run_step(self, batch: Sequence[Tensor]) -> Tensor:
        self._clear_gradients()
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):  # a capture can't wait for work on the default stream
            loss = self.step(*(tensor.to(self.device, non_blocking=True) for tensor in batch))
        current.wait_stream(self.stream)
        return loss

    def _capture(self, batch: Sequence[Tensor]) -> None:
        """Capture the step without executing it."""
        self._clear_gradients()  # the graph allocates gradients in its own memory
        self.inputs = [tensor.to(self.device, copy=True) for tensor in batch]  # replays overwrite them
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: the loader's thread pins memory during the capture
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.loss = self.step(*self.inputs)
        except (RuntimeError, UserError) as error:  # the latter if the error came from the model's code
            torch.cuda.synchronize(self.device)
            self._clear_gradients()
            reason = " ".join(str(error).split())[:200]
            log.warning(f"training steps can't be captured as a CUDA graph and are slower: {reason}")
        else:
            self.graph = graph
            self.gradients = [parameter.grad for parameter in self.parameters]

    def _clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
