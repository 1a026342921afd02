"""Muon against its definition and against timm's; its state."""

import copy

import pytest
import timm.optim
import torch
from torch import nn

from competition.training.muon import RMS, Muon, is_matrix, orthogonalize

SHAPES = [(6, 4), (4, 6), (6, 4), (5, 3, 3, 3), (5, 5)]


def matrices() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def test_orthogonalized_matrices_keep_their_singular_vectors_and_have_equal_singular_values() -> None:
    for matrix, result in zip(matrices(), orthogonalize(matrices(), torch.float32), strict=True):
        assert result.shape == matrix.shape
        flat = matrix.flatten(1)
        u, _, v = torch.linalg.svd(flat, full_matrices=False)
        inner = u.T @ result.flatten(1) @ v.T / (RMS * max(flat.shape) ** 0.5)
        singular = inner.diagonal()
        assert float((inner - singular.diag()).abs().max()) < 1e-3
        assert 0.6 < float(singular.min()) <= float(singular.max()) < 1.3


def test_the_order_and_company_of_matrices_do_not_matter() -> None:
    together = orthogonalize(matrices(), torch.float32)
    for matrix, expected in zip(matrices(), together, strict=True):
        torch.testing.assert_close(orthogonalize([matrix], torch.float32)[0], expected, rtol=1e-4, atol=1e-5)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4)
    )


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.randn(8, 3, 8, 8, generator=generator)).square().mean().backward()
        optimizer.step()


def test_steps_agree_with_timm() -> None:
    mine, theirs, untrained = network(), network(), network()
    train(mine, Muon(mine.parameters(), lr=0.01), 5)
    reference = timm.optim.create_optimizer_v2(theirs.parameters(), "muon", lr=0.01, weight_decay=0.0)
    train(theirs, reference, 5)
    for start, one, other in zip(untrained.parameters(), mine.parameters(), theirs.parameters(), strict=True):
        moved = (one - start).detach().flatten(), (other - start).detach().flatten()
        assert float(torch.cosine_similarity(*moved, dim=0)) > 0.97  # timm's works in bf16
        assert float(moved[0].norm() / moved[1].norm()) == pytest.approx(1, abs=0.15)


def test_training_resumes_from_the_state_with_the_same_result() -> None:
    whole, parts = network(), network()
    train(whole, Muon(whole.parameters(), lr=0.01), 3)
    optimizer = Muon(parts.parameters(), lr=0.01)
    train(parts, optimizer, 2)
    state = copy.deepcopy(optimizer.state_dict())
    resumed = Muon(parts.parameters(), lr=0.01)
    resumed.load_state_dict(state)
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(8, 3, 8, 8, generator=generator) for _ in range(3)]
    resumed.zero_grad()
    parts(batches[2]).square().mean().backward()
    resumed.step()
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(3, 4), (3,)])
def test_weights_decay_by_learning_rate_times_decay(shape: tuple[int, ...]) -> None:
    value = nn.Parameter(torch.ones(shape))
    optimizer = Muon([value], lr=0.01, weight_decay=0.1)
    value.grad = torch.zeros(shape)
    optimizer.step()
    torch.testing.assert_close(value.detach(), torch.full(shape, 1 - 0.01 * 0.1))


def test_a_gradient_that_vanishes_leaves_the_weights_finite_and_at_rest() -> None:
    generator = torch.Generator().manual_seed(0)
    value = nn.Parameter(torch.zeros(16, 8))
    optimizer = Muon([value], lr=0.01)
    for step in range(620):
        value.grad = 1e-3 * torch.randn(16, 8, generator=generator) if step < 20 else torch.zeros(16, 8)
        before = value.detach().clone()
        optimizer.step()
    assert bool(value.isfinite().all())
    assert torch.equal(value, before)


def test_vectors_and_single_rows_are_not_matrices() -> None:
    assert is_matrix(torch.zeros(2, 3, 1, 1))
    assert not any(is_matrix(torch.zeros(shape)) for shape in ((), (4,), (1, 4), (4, 1, 1, 1), (32, 1, 3, 3)))
