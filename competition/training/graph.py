"""Steps as CUDA graphs: a GPU is told all of a step's thousands of kernels at once, where one by one it would wait.

PyTorch's notes on CUDA semantics ("whole-network capture") say what may be captured: the same kernels on tensors of the
same shapes at the same places, whatever the batch.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

WARM_STEPS = 3  # are taken one kernel after another: libraries choose and set up in their first calls


class StepGraph:
    """A training step's forward and backward pass, captured when it has been seen to work and replayed from then on.

    `step` takes a batch's tensors on the device, fills the parameters' gradients and returns the loss. A batch of
    another shape is computed by it, and all are where it can't be captured, of which `tell` says why.
    """

    def __init__(
        self,
        step: Callable[..., Tensor],
        parameters: Iterable[nn.Parameter],
        device: torch.device,
        tell: Callable[[str], None],
    ) -> None:
        self.step = step
        self.parameters = list(parameters)
        self.device = device
        self.tell = tell
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.steps = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor | None] = []
        self.loss = torch.zeros(())

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """Compute a batch's gradients and return its loss, which the next call may overwrite."""
        self.steps += 1
        if self.steps == WARM_STEPS + 1:
            self._capture(batch)
        alike = [tensor.shape for tensor in batch] == [tensor.shape for tensor in self.inputs]
        if self.graph is None or not alike:
            return self._one_by_one(batch)
        for mine, tensor in zip(self.inputs, batch, strict=True):
            mine.copy_(tensor, non_blocking=True)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient  # it may have been taken away in the meantime
        return self.loss

    def _one_by_one(self, batch: Sequence[Tensor]) -> Tensor:
        self._forget_gradients()
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):  # not the default one, whose work a capture may not wait for
            loss = self.step(*(tensor.to(self.device, non_blocking=True) for tensor in batch))
        current.wait_stream(self.stream)
        return loss

    def _capture(self, batch: Sequence[Tensor]) -> None:
        """Record the step without taking it."""
        self._forget_gradients()  # the graph makes its own, in its own memory
        self.inputs = [tensor.to(self.device) for tensor in batch]
        graph = torch.cuda.CUDAGraph()
        try:
            # the loader's thread goes on pinning memory meanwhile, which only its own captures would forbid
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.loss = self.step(*self.inputs)
        except RuntimeError as error:
            torch.cuda.synchronize(self.device)
            self._forget_gradients()
            reason = " ".join(str(error).split())[:200]
            self.tell(f"steps can't be captured as a CUDA graph, so they are slower: {reason}")
        else:
            self.graph = graph
            self.gradients = [parameter.grad for parameter in self.parameters]

    def _forget_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
