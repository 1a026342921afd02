"""Coordinates, the closed-form loss, the decoders and the marginals, compared with direct computations."""

import math

import pytest
import torch

from models import heatmaps
from models.integral import Marginals, cross_entropy, expectation_mm

B, J, D, H, W = 2, 17, 5, 6, 7
CUBE_MM = 2000.0


def naive(maps: torch.Tensor, positions: torch.Tensor, sigmas: tuple[float, ...]) -> torch.Tensor:
    """Return the squared error, computed with a target map stored voxel by voxel."""
    sizes = maps.shape[2:]
    grid = torch.meshgrid(*[torch.arange(size, dtype=maps.dtype) for size in sizes], indexing="ij")
    exponent = torch.zeros_like(maps)
    for axis, sigma in enumerate(sigmas):
        centre = positions[..., axis].view(*positions.shape[:2], *[1] * len(sizes))
        exponent = exponent + ((grid[-1 - axis] - centre) / sigma) ** 2
    energy = math.prod(math.sqrt(math.pi) * sigma for sigma in sigmas)
    return (maps - torch.exp(-0.5 * exponent)).square().sum() / (energy * maps.shape[0] * maps.shape[1])


def target_maps(positions: torch.Tensor, sizes: tuple[int, ...], sigmas: tuple[float, ...]) -> torch.Tensor:
    """Return noise-free target maps for positions x, y (, z)."""
    rows = [heatmaps.gaussian(positions[..., axis], sizes[-1 - axis], sigma) for axis, sigma in enumerate(sigmas)]
    if len(rows) == 2:
        return torch.einsum("bjx,bjy->bjyx", *rows)
    return torch.einsum("bjx,bjy,bjz->bjzyx", *rows)


def random_positions(sizes: tuple[int, ...], margin: float) -> torch.Tensor:
    """Return random positions x, y (, z), at least `margin` voxels inside the centres of the outer voxels."""
    generator = torch.Generator().manual_seed(0)
    reach = torch.tensor([size - 1 - 2 * margin for size in reversed(sizes)])
    return margin + reach * torch.rand(B, J, len(sizes), generator=generator)


def test_voxel_positions_fill_the_cube_and_convert_back() -> None:
    index = torch.tensor([-0.5, 0.0, 31.5, 63.0, 63.5])
    expected = torch.tensor([-1000.0, -984.375, 0.0, 984.375, 1000.0])
    torch.testing.assert_close(heatmaps.index_to_mm(index, 64, CUBE_MM), expected)
    torch.testing.assert_close(heatmaps.mm_to_index(expected, 64, CUBE_MM), index)


def test_resampling_preserves_edges_and_is_invertible() -> None:
    positions = torch.tensor([-0.5, 1.5, 100.0, 255.5])
    coarse = heatmaps.resample(positions, 256, 64)
    torch.testing.assert_close(coarse[[0, 1, 3]], torch.tensor([-0.5, 0.0, 63.5]))
    torch.testing.assert_close(heatmaps.resample(coarse, 64, 256), positions)


def test_gaussian_is_one_at_its_sub_pixel_centre() -> None:
    row = heatmaps.gaussian(torch.tensor([[2.0, 2.5]]), W, 1.0)
    assert row.shape == (1, 2, W)
    assert row[0, 0, 2] == 1.0
    assert row[0, 1, 2] == row[0, 1, 3] == pytest.approx(math.exp(-0.125))


@pytest.mark.parametrize("sizes", [(H, W), (D, H, W), (1, H, W)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_closed_form_equals_the_direct_computation(sizes: tuple[int, ...], channels_last: bool) -> None:
    sigmas = (1.3, 0.9, 0.75)[: len(sizes)]
    positions = random_positions(sizes, -2.0).double()  # some lie outside
    maps = torch.randn(B, J, *sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if channels_last:
        maps = maps.flatten(1, -3).contiguous(memory_format=torch.channels_last).view_as(maps)
    closed, direct = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    loss, expected = heatmaps.gaussian_squares(closed, positions, sigmas), naive(direct, positions, sigmas)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(closed.grad, direct.grad, rtol=1e-5, atol=1e-12)


def test_loss_of_empty_maps_is_one_at_every_depth() -> None:
    for sizes, sigmas in (((31, 33), (1.0, 1.5)), ((29, 31, 33), (2.0, 2.0, 1.7))):
        positions = random_positions(sizes, 10.0)
        loss = heatmaps.gaussian_squares(torch.zeros(B, J, *sizes), positions, sigmas)
        assert loss.item() == pytest.approx(1.0, rel=1e-3)


def test_loss_of_half_precision_maps_is_computed_in_float32() -> None:
    maps = torch.randn(B, J, D, H, W).bfloat16().requires_grad_()
    positions = random_positions((D, H, W), 1.0)
    loss = heatmaps.gaussian_squares(maps, positions, (1.0, 1.0, 1.0))
    loss.backward()
    assert loss.dtype == torch.float32
    assert maps.grad is not None
    assert maps.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, naive(maps.detach().float(), positions, (1.0, 1.0, 1.0)))


@pytest.mark.parametrize("method", ["dark", "local"])
@pytest.mark.parametrize(
    ("sizes", "sigma"), [((23, 25), 1.0), ((64, 63), 2.0), ((23, 24, 25), 1.5), ((32, 31, 33), 2.5)]
)
def test_decoders_recover_the_positions_in_millimetres(method: str, sizes: tuple[int, ...], sigma: float) -> None:
    sigmas = (sigma,) * len(sizes)
    positions = random_positions(sizes, 4 * sigma)
    decoded, height = heatmaps.decode(target_maps(positions, sizes, sigmas), method, sigmas)
    bins = torch.tensor(sizes[::-1])
    error_mm = heatmaps.index_to_mm(decoded, bins, CUBE_MM) - heatmaps.index_to_mm(positions, bins, CUBE_MM)
    assert error_mm.abs().max() < 0.1
    assert height.shape == (B, J)
    assert bool((height <= 1.0).all())
    assert bool((height > 0.5).all())


def test_decoders_recover_the_positions_from_anisotropic_volumes() -> None:
    sizes, sigmas = (17, 31, 33), (2.0, 1.5, 1.0)
    positions = random_positions(sizes, 7.0)
    for method in ("dark", "local"):
        decoded, _ = heatmaps.decode(target_maps(positions, sizes, sigmas), method, sigmas)
        torch.testing.assert_close(decoded, positions, rtol=0, atol=1e-3)


@pytest.mark.parametrize("method", ["dark", "local"])
def test_maps_as_small_as_a_window_are_decoded_like_larger_ones(method: str) -> None:
    sizes, sigmas = (12, 11, 12), (1.2, 1.2, 1.2)
    larger = tuple(size + 20 for size in sizes)
    positions = random_positions(sizes, 4.5)
    decoded = [heatmaps.decode(target_maps(positions, size, sigmas), method, sigmas)[0] for size in (sizes, larger)]
    torch.testing.assert_close(*decoded, rtol=0, atol=1e-3)


@pytest.mark.parametrize("sizes", [(H, W), (D, H, W)])
def test_argmax_finds_the_highest_voxel(sizes: tuple[int, ...]) -> None:
    positions = random_positions(sizes, 0.0).round()
    sigmas = (1.0,) * len(sizes)
    decoded, height = heatmaps.decode(target_maps(positions, sizes, sigmas), "argmax", sigmas)
    torch.testing.assert_close(decoded, positions)
    torch.testing.assert_close(height, torch.ones(B, J))


@pytest.mark.parametrize("method", ["argmax", "dark", "local"])
@pytest.mark.parametrize("sizes", [(H, W), (D, H, W), (2, 3, 1)])
@pytest.mark.parametrize("fill", [-1.0, 0.0, 1.0])
def test_decoded_positions_stay_within_flat_and_small_maps(method: str, sizes: tuple[int, ...], fill: float) -> None:
    decoded, _ = heatmaps.decode(torch.full((B, J, *sizes), fill), method, (1.0,) * len(sizes))
    assert bool(decoded.isfinite().all())
    assert bool((decoded >= -1).all())
    assert bool((decoded <= torch.tensor(sizes[::-1])).all())


@pytest.mark.parametrize("method", ["dark", "local"])
def test_gradient_of_a_decoder_matches_finite_differences(method: str) -> None:
    maps = target_maps(random_positions((H, W), 1.5), (H, W), (1.0, 1.0)).double()
    maps = (maps + 0.01 * torch.rand(maps.shape, generator=torch.Generator().manual_seed(2))).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m: heatmaps.decode(m[:1, :2], method, (1.0, 1.0)), [maps], eps=1e-7, atol=1e-5
    )


def test_unknown_decoder_raises_an_error_that_lists_the_decoders() -> None:
    with pytest.raises(ValueError, match=r"one of argmax, dark, local.*'best'"):
        heatmaps.decode(torch.zeros(B, J, H, W), "best", (1.0, 1.0))


def test_expectation_equals_a_softmax_over_the_whole_volume() -> None:
    volume = (2 * torch.randn(B, J, D, H, W, dtype=torch.float64)).requires_grad_()
    weights = volume.flatten(2).softmax(2).view_as(volume)
    z, y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float64) for size in (D, H, W)], indexing="ij")
    index = torch.stack([(weights * along).sum((2, 3, 4)) for along in (x, y, z)], 2)
    expected = heatmaps.index_to_mm(index, torch.tensor([W, H, D]), CUBE_MM)
    marginals = Marginals.apply(volume)
    for marginal, axes in zip(marginals, ((2, 3), (2, 4), (3, 4)), strict=True):
        torch.testing.assert_close(marginal, weights.sum(axes))
    result = expectation_mm(marginals, CUBE_MM)
    torch.testing.assert_close(result, expected)
    direction = torch.randn(B, J, 3, dtype=torch.float64)
    gradients = [torch.autograd.grad((value * direction).sum(), volume)[0] for value in (result, expected)]
    torch.testing.assert_close(*gradients)


def test_expectation_of_a_peaked_volume_is_its_voxel() -> None:
    volume = torch.zeros(B, J, D, H, W)
    volume[:, :, 1, 2, 3] = 100.0
    expected = heatmaps.index_to_mm(torch.tensor([3, 2, 1]), torch.tensor([W, H, D]), CUBE_MM)
    torch.testing.assert_close(expectation_mm(Marginals.apply(volume), CUBE_MM), expected.expand(B, J, 3))


def test_cross_entropy_is_least_for_a_gaussian_around_the_true_position() -> None:
    index = torch.arange(16.0)
    position = torch.tensor([[7.3]])
    expected = torch.exp(-0.5 * ((index - 7.3) / 2) ** 2)
    expected /= expected.sum()
    marginal = expected[None, None].clone().requires_grad_()
    entropy = cross_entropy(marginal, position, 2.0)
    torch.testing.assert_close(entropy, -(expected * expected.log()).sum())
    entropy.backward()
    assert marginal.grad is not None
    torch.testing.assert_close(marginal.grad, -torch.ones(1, 1, 16))  # no change that keeps the sum lowers it
    assert cross_entropy(expected.roll(1)[None, None], position, 2.0) > entropy
