"""The Muon optimizer (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks").

timm has it too, but orthogonalises one matrix at a time. Networks of many small convolutions have dozens of matrices of
a few shapes; here all matrices of one shape are orthogonalised together.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)  # of the quintic Newton-Schulz iteration; Jordan's
ITERATIONS: Final = 5
# Root mean square of an update at learning rate 1: about Adam's, so its learning rates fit (Liu et al. 2025).
RMS: Final = 0.2
EPSILON: Final = 1e-7  # smallest norm to divide by; as timm's


class Muon(torch.optim.Optimizer):
    """Muon for matrices, AdamW for vectors.

    Weights of convolutions are flattened to [first dimension, the rest]. dtype: the precision of the orthogonalisation.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(params, defaults)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            trained = [value for value in group["params"] if value.grad is not None]
            matrices = [value for value in trained if is_matrix(value)]
            vectors = [value for value in trained if not is_matrix(value)]
            if group["weight_decay"]:
                torch._foreach_mul_(trained, 1 - group["lr"] * group["weight_decay"])
            if matrices:
                self._update_matrices(group, matrices)
            if vectors:
                self._update_vectors(group, vectors)

    def _update_matrices(self, group: MutableMapping[str, Any], values: list[Tensor]) -> None:
        momenta = self._state(values, "momentum")
        torch._foreach_lerp_(momenta, gradients(values), 1 - group["momentum"])
        for value, update in zip(values, orthogonalize(momenta, self.dtype), strict=True):
            value.add_(update, alpha=-group["lr"])

    def _update_vectors(self, group: MutableMapping[str, Any], values: list[Tensor]) -> None:
        first, second = group["betas"]
        step = group.get("step", 0) + 1
        group["step"] = step
        means, squares = self._state(values, "mean"), self._state(values, "square")
        torch._foreach_lerp_(means, gradients(values), 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients(values), gradients(values), 1 - second)
        divisors = torch._foreach_div(squares, 1 - second**step)
        torch._foreach_sqrt_(divisors)
        torch._foreach_add_(divisors, group["eps"])
        torch._foreach_addcdiv_(values, means, divisors, -group["lr"] / (1 - first**step))

    def _state(self, values: Sequence[Tensor], name: str) -> list[Tensor]:
        for value in values:
            if name not in self.state[value]:
                self.state[value][name] = torch.zeros_like(value)
        return [self.state[value][name] for value in values]


def gradients(values: Sequence[Tensor]) -> list[Tensor]:
    return [value.grad for value in values if value.grad is not None]


def is_matrix(value: Tensor) -> bool:
    """Return whether Muon updates a parameter: a matrix of at least 2 x 2, but no depthwise convolution."""
    return value.dim() >= 2 and min(value.shape[:2]) > 1


def orthogonalize(matrices: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return each matrix U S V' as about RMS * sqrt(longer side) * U V', in its own shape.

    Singular values above a hundredth of the matrix's norm become about .7 to 1.2, smaller ones less; that is enough.
    """
    by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, matrix in enumerate(matrices):
        by_shape[len(matrix), matrix[0].numel()].append(index)
    results = list(matrices)
    a, b, c = COEFFICIENTS
    for (rows, columns), indices in by_shape.items():
        x = torch.stack([matrices[index].reshape(rows, columns) for index in indices])  # N,rows,columns
        tall = rows > columns
        x = x.mT if tall else x
        x = (x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPSILON)).to(dtype)
        for _ in range(ITERATIONS):
            gram = x @ x.mT
            x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
        x = (x.mT if tall else x).to(matrices[0].dtype) * (RMS * math.sqrt(max(rows, columns)))
        for index, update in zip(indices, x, strict=True):
            results[index] = update.view_as(matrices[index])
    return results
