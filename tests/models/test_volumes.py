"""The Triton kernels, interpreted on the CPU and on a GPU, compared with the plain functions in float64."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import models
from models import volumes
from models.heatmaps import SeparableSquares, gaussian
from models.integral import Marginals

pytest.importorskip("triton")

SHAPES = [(3, 17, 1, 6, 7), (2, 17, 4, 8, 9), (1, 3, 24, 5, 9), (2, 5, 16, 11, 10)]  # B, J, D, H, W
FULL_SIZE = [(3, 17, 1, 64, 64), (3, 17, 4, 64, 64), (3, 17, 64, 64, 64)]
# relative to the largest value: of gradients, which have the volume's type; Triton's interpreter truncates bfloat16
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-7}
SUMS = 1e-5  # of losses and marginals, in float32


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
runs_kernels = pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.skipif(INTERPRETED, reason="this is the process in which Triton interprets")
def test_kernels_interpreted_on_the_cpu() -> None:
    command = [sys.executable, "-m", "pytest", "-m", "", "-p", "no:cacheprovider", str(Path(__file__).resolve())]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "15 passed" in done.stdout  # the tests weren't skipped


def make_volume(shape: tuple[int, ...], dtype: torch.dtype, device: str, padding: int = 0) -> Tensor:
    """Return a random volume in channels_last memory, with `padding` channels behind those of the joints."""
    batch, joints, depth, height, width = shape
    rows = torch.randn(batch, height, width, joints * depth + padding, generator=torch.Generator().manual_seed(0))
    rows = rows.to(device, dtype)[..., : joints * depth]
    return rows.permute(0, 3, 1, 2).unflatten(1, (joints, depth)).detach().requires_grad_()


def make_positions(shape: tuple[int, ...], device: str) -> Tensor:
    """Return random positions x, y, z; some lie outside the volume."""
    random = torch.rand(*shape[:2], 3, generator=torch.Generator().manual_seed(1))
    return (random * 1.4 * torch.tensor(shape[:1:-1]) - 1).to(device)


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    largest = float(expected.detach().abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * largest)


def check_squares(volume: Tensor, positions: Tensor) -> None:
    sigmas = (2.0, 1.5, 0.75)[: positions.shape[2]]
    exact = volume.detach().double().requires_grad_()
    rows = [gaussian(positions[..., axis].double(), exact.shape[-1 - axis], s) for axis, s in enumerate(sigmas)]
    rows += [torch.ones_like(rows[0][..., :1])] * (3 - len(sigmas))
    found, expected = volumes.GaussianSquares.apply(volume, positions, sigmas), SeparableSquares.apply(exact, *rows)
    assert_close(found, expected, SUMS)
    gradients = [torch.autograd.grad(3 * loss, of)[0] for loss, of in ((found, volume), (expected, exact))]
    assert gradients[0].dtype == volume.dtype
    assert_close(*gradients, TOLERANCE[volume.dtype])


def check_marginals(volume: Tensor) -> None:
    exact = volume.detach().double().requires_grad_()
    found, expected = volumes.Marginals.apply(volume), Marginals.apply(exact)
    directions = [torch.randn_like(marginal.mT.contiguous()).mT for marginal in expected]  # not contiguous
    for marginal, other in zip(found, expected, strict=True):
        assert marginal.dtype == torch.float32
        assert_close(marginal, other, SUMS)
    gradients = []
    for marginals, of in ((found, volume), (expected, exact)):
        total = torch.stack([(m * d).sum() for m, d in zip(marginals, directions, strict=True)]).sum()
        gradients.append(torch.autograd.grad(total, of)[0])
    assert_close(*gradients, TOLERANCE[volume.dtype])


@runs_kernels
@pytest.mark.parametrize(("dtype", "padding"), [(torch.float32, 0), (torch.bfloat16, 3)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_equal_the_plain_functions(shape: tuple[int, ...], dtype: torch.dtype, padding: int) -> None:
    volume, positions = make_volume(shape, dtype, DEVICE, padding), make_positions(shape, DEVICE)
    assert volumes.readable(volume)
    check_squares(volume, positions)
    if shape[2] > 1:
        check_marginals(volume)
    else:
        check_squares(volume, positions[..., :2].contiguous())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", FULL_SIZE, ids=str)
def test_kernels_equal_the_plain_functions_at_full_size(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    volume = make_volume(shape, dtype, "cuda")
    check_squares(volume, make_positions(shape, "cuda"))
    check_marginals(volume)


@pytest.mark.gpu
def test_the_same_volume_gives_the_same_bits() -> None:
    volume = make_volume(FULL_SIZE[-1], torch.bfloat16, "cuda")
    positions = make_positions(FULL_SIZE[-1], "cuda")
    for _ in range(5):
        losses = [volumes.GaussianSquares.apply(volume, positions, (2.0, 2.0, 2.0)) for _ in range(2)]
        assert torch.equal(*losses)
        first, second = volumes.Marginals.apply(volume), volumes.Marginals.apply(volume)
        assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@runs_kernels
def test_marginals_of_huge_logits_are_finite() -> None:
    volume = (1e4 * make_volume(SHAPES[2], torch.float32, DEVICE)).detach()
    for marginal in volumes.Marginals.apply(volume):
        torch.testing.assert_close(marginal.sum(2), torch.ones_like(marginal[..., 0]))


@pytest.mark.parametrize("kind", ["contiguous", "float64", "a part of its columns", "one pixel expanded"])
def test_other_volumes_are_not_readable(kind: str) -> None:
    volume = make_volume(SHAPES[1], torch.float64 if kind == "float64" else torch.float32, "cpu")
    expanded = volume[:1, ..., :1, :1].expand(volume.shape)
    others = {"contiguous": volume.contiguous(), "float64": volume, "one pixel expanded": expanded}
    volume = others.get(kind, volume[..., 1:])
    assert not volumes.readable(volume)


def test_volumes_on_a_cpu_take_the_plain_functions() -> None:
    volume = make_volume(SHAPES[1], torch.float32, "cpu")
    assert volumes.readable(volume)
    assert not volumes.fits(volume)


def test_without_a_working_triton_a_gpu_takes_the_plain_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    # a process without a C compiler can import Triton, but compiles nothing
    on_gpu = SimpleNamespace(is_cuda=True)
    monkeypatch.setattr(volumes, "readable", lambda _: True)
    for works in (True, False):
        monkeypatch.setattr(volumes, "has_kernels", lambda works=works: works)
        assert volumes.fits(on_gpu) is works  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["2dhg-small", "3dhg-small", "integral-small"])
def test_networks_on_a_gpu_use_the_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(volumes, "fits", lambda volume: used.append(volumes.readable(volume)))
    model = models.create(name).to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(2, 3, model.input_size, model.input_size, device="cuda")
    target = models.Target(64 * torch.rand(2, 17, 2, device="cuda"), torch.zeros(2, 17, 3, device="cuda"))
    with torch.autocast("cuda", torch.bfloat16):
        model.loss(model(images.contiguous(memory_format=torch.channels_last)), target)
    assert used
    assert all(used)
