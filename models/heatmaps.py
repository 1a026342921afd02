"""Heatmaps in two and three dimensions: coordinates, target Gaussians, their loss and the decoders.

Pixel and voxel positions are integers at the centres, so a row of W = 4 pixels extends from -.5 to 3.5.

    position   -.5   0   .5   1   1.5   2   2.5   3   3.5
                |    o    |   o    |    o    |    o    |
    metres      |-------- the same length -------------|      (edge of the metric cube: -1000 mm to 1000 mm)

Hence a position p becomes (p + .5) * to / from - .5 at another resolution, and the centre of a voxel is at
((index + .5) / bins - .5) * cube_mm. Maps are [B,J,H,W], volumes [B,J,D,H,W]. The last dimension of positions is
x, y (, z), the reverse of the order of the sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models import volumes
from models.recipes import DECODERS, require

CHUNK, CHUNK_ON_GPU = 2**22, 2**26  # voxels per chunk: fits into a CPU's caches; keeps a GPU busy
LOCAL_TAPER = 2.0  # standard deviation of the window of `local`, in target sigmas
BLUR = 1.0  # standard deviation of the blur of `dark`, in target sigmas, as in the paper
EPSILON = 1e-6  # lower bound of divisors and arguments of logarithms; peaks have height 1
MIN_TOTAL = 0.02  # lower bound of the summed weights of `local`, relative to a noise-free peak


def sizes(maps: Tensor) -> Tensor:
    """Return the sizes of maps [B,J,(D,)H,W] as float32 [2 or 3] on their device, in the order x, y (, z).

    The tensor is filled on the device, because a copy from the host would wait for all queued GPU work.
    """
    return torch.stack([torch.full((), float(size), device=maps.device) for size in maps.shape[:1:-1]])


def resample(positions: Tensor, source: float, target: float) -> Tensor:
    """Convert positions in a row of `source` pixels to positions in a row of `target` pixels of the same length."""
    return (positions + 0.5) * (target / source) - 0.5


def index_to_mm(index: Tensor, bins: Tensor | int, cube_mm: float) -> Tensor:
    """Convert voxel positions to mm from the cube's centre."""
    return ((index + 0.5) / bins - 0.5) * cube_mm


def mm_to_index(position_mm: Tensor, bins: Tensor | int, cube_mm: float) -> Tensor:
    """Convert mm from the cube's centre to voxel positions."""
    return (position_mm / cube_mm + 0.5) * bins - 0.5


def gaussian(positions: Tensor, bins: int, sigma: float) -> Tensor:
    """Return Gaussians of height 1 at sub-pixel positions [B,J], sampled at the pixels of rows, [B,J,bins]."""
    index = torch.arange(bins, dtype=positions.dtype, device=positions.device)
    return torch.exp(-0.5 * ((index - positions[..., None]) / sigma) ** 2)


def gaussian_squares(maps: Tensor, positions: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Return the squared error of maps against target Gaussians, relative to a Gaussian's energy, mean over B and J.

    maps [B,J,H,W] or [B,J,D,H,W]; positions [B,J,2] or [B,J,3] and sigmas in voxels, both in the order x, y (, z).
    Squares are summed over the voxels: in a mean over 64x64x64, the empty voxels would hide the peak. Relative to the
    energy, the loss of an empty map is 1 at every resolution, so stacks of different depth have equal weight.
    """
    positions = positions.to(torch.promote_types(maps.dtype, torch.float32)).contiguous()
    volume = maps.unsqueeze(2) if maps.dim() == 4 else maps
    total: Tensor
    with torch.autocast(maps.device.type, enabled=False):
        if volumes.fits(volume):
            total = volumes.GaussianSquares.apply(volume, positions, sigmas)
        else:
            rows = [gaussian(positions[..., axis], maps.shape[-1 - axis], sigma) for axis, sigma in enumerate(sigmas)]
            rows += [torch.ones_like(rows[0][..., :1])] * (3 - len(sigmas))
            total = SeparableSquares.apply(volume, *rows)
    energy = math.prod(math.sqrt(math.pi) * sigma for sigma in sigmas)
    return total / (energy * maps.shape[0] * maps.shape[1])


class SeparableSquares(torch.autograd.Function):
    """sum((P - G)^2) for volumes P [B,J,D,H,W] and the outer product G of rows x [B,J,W], y [B,J,H], z [B,J,D].

    Computed as sum(P^2) - 2 <P,G> + sum(G^2). The last two terms are contractions with the rows, so G is never stored.
    Chunks are computed in the precision of the rows, which limits the memory for converted half-precision volumes. Any
    memory format works.
    """

    @staticmethod
    def forward(ctx: Any, volume: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        ctx.save_for_backward(volume, x, y, z)
        inner = x.new_zeros(())
        for chunk in chunks(volume):
            flat = volume[chunk].flatten(3)
            flat = flat[0] if len(flat) == 1 else flat.contiguous().flatten(0, 1)  # BJ,D,HW
            flat = flat.to(x.dtype)
            plane = outer_products(x[chunk], y[chunk]).flatten(2).view(len(flat), 1, -1)
            # BJ,D; row @ matrices is several times as fast as matrices @ column, especially in channels_last
            lines = torch.bmm(plane, flat.transpose(1, 2)).view_as(z[chunk])
            inner = inner + torch.linalg.vector_norm(flat).square() - 2 * (lines * z[chunk]).sum()
        target = (x.square().sum(2) * y.square().sum(2) * z.square().sum(2)).sum()
        return inner + target

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        volume, x, y, z = ctx.saved_tensors
        result = torch.empty_like(volume)
        with torch.autocast(volume.device.type, enabled=False):
            for chunk in chunks(volume):
                lines, surface = z[chunk][..., None, None], outer_products(x[chunk], y[chunk])[:, :, None]
                torch.addcmul(volume[chunk], lines, surface, value=-1, out=result[chunk]).mul_(2 * gradient)
        return result, None, None, None


def chunks(volume: Tensor) -> list[slice]:
    """Split a batch into chunks of at most CHUNK voxels (CHUNK_ON_GPU on a GPU), but of at least one sample."""
    limit = CHUNK if volume.device.type == "cpu" else CHUNK_ON_GPU
    count = max(1, limit // math.prod(volume.shape[1:]))
    return [slice(first, first + count) for first in range(0, len(volume), count)]


def outer_products(x: Tensor, y: Tensor) -> Tensor:
    """Return the outer products of rows y [B,J,H] and x [B,J,W] as [B,J,H,W]."""
    return y[..., :, None] * x[..., None, :]


def decode(maps: Tensor, method: str, sigmas: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Decode maps [B,J,H,W] or volumes [B,J,D,H,W] into positions float32 [B,J,2 or 3] and peak heights float32 [B,J].

    method: argmax (the highest voxel), dark (Taylor expansion of the blurred map's logarithm, Zhang et al. 2020) or
    local (soft-argmax in a window around the highest voxel). dark and local are differentiable, and exact for Gaussians
    away from the border. sigmas: those of the target Gaussians, in voxels. Positions and sigmas are x, y (, z).
    Raises ValueError for an unknown method.
    """
    require(method in DECODERS, "decoder", "one of " + ", ".join(DECODERS), method)
    with torch.autocast(maps.device.type, enabled=False):
        peak = highest_voxels(maps)
        at_peak, _ = extract_windows(maps, peak, (0,) * len(sigmas))
        height = at_peak.flatten(2).squeeze(2)  # B,J
        centre = peak.to(height.dtype)
        refine = REFINEMENTS[method]
        return (centre if refine is None else centre + refine(maps, peak, sigmas)), height


def highest_voxels(maps: Tensor) -> Tensor:
    """Return the positions of the highest voxels, int64 [B,J,2 or 3], x, y (, z)."""
    maps = maps.detach()
    width = maps.shape[-1]
    flat = (maps if maps.dim() == 4 else maps.amax(2)).flatten(2)  # B,J,HW
    plane = flat.argmax(2)
    x, y = plane % width, plane // width
    if maps.dim() == 4:
        return torch.stack([x, y], 2)
    batch, joint = sample_and_joint(maps)
    z = maps[batch, joint, :, y, x].argmax(2)
    return torch.stack([x, y, z], 2)


def sample_and_joint(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return index tensors [B,1] and [1,J]."""
    batch = torch.arange(maps.shape[0], device=maps.device)[:, None]
    return batch, torch.arange(maps.shape[1], device=maps.device)[None, :]


def extract_windows(maps: Tensor, peak: Tensor, radii: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
    """Extract windows of up to 2 * radius + 1 voxels around peaks [B,J,2 or 3], shifted inward at the border.

    Maps at most one voxel larger than the windows are returned whole, without the cost of copying. Returns the windows
    in float32 (or float64), [B,J,h,w] or [B,J,d,h,w], and the signed distances of their voxels from the peak along
    x, y (, z): [B,J,w], [B,J,h] (, [B,J,d]).
    """
    dims = len(radii)
    indices: list[Tensor] = []
    distances = []
    sides = maps.shape[:1:-1]
    whole = all(radius and 2 * radius + 2 >= size for radius, size in zip(radii, sides, strict=True))
    for axis, (radius, size) in enumerate(zip(radii, sides, strict=True)):
        count = size if whole else min(2 * radius + 1, size)
        start = (peak[..., axis] - radius).clamp(0, size - count)
        along = start[..., None] + torch.arange(count, device=maps.device)  # B,J,count
        distances.append(along - peak[..., axis, None])
        shape = [1] * dims
        shape[-1 - axis] = count
        indices.insert(0, along.view(*along.shape[:2], *shape))
    batch, joint = sample_and_joint(maps)
    ones = [1] * dims
    where: tuple[Tensor, ...] = (batch.view(*batch.shape, *ones), joint.view(*joint.shape, *ones), *indices)
    window = maps if whole else maps[where]
    window = window.to(torch.promote_types(window.dtype, torch.float32))
    return window, [distance.to(window.dtype) for distance in distances]


def contract(window: Tensor, rows: list[Tensor]) -> Tensor:
    """Contract windows [B,J,(d,)h,w] with rows [B,J,n,w], [B,J,n,h] (, [B,J,n,d]) to [B,J,(n,)n,n], z, y, x."""
    if len(rows) == 2:
        return torch.einsum("bjyx,bjnx,bjmy->bjmn", window, *rows)
    return torch.einsum("bjzyx,bjnx,bjmy,bjkz->bjkmn", window, *rows)


def refine_local(maps: Tensor, peak: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Return the offset [B,J,2 or 3] from the peak to the centre of mass in a Gaussian window around it, unbiased.

    For a Gaussian of width s at distance d from the centre of a window of width k, the centre of mass is at
    d / (1 + s^2/k^2), so it is multiplied by 1 + s^2/k^2. With k = s this is one Gauss-Newton step of the least-squares
    fit of the Gaussian, which is optimal under white noise. On low maps a lower bound of the summed weights keeps the
    gradient bounded and the position close to the peak.
    """
    stretch = 1 + 1 / LOCAL_TAPER**2
    radii = tuple(math.ceil(4 * sigma / math.sqrt(stretch)) for sigma in sigmas)  # 4 sigmas of Gaussian times window
    window, distances = extract_windows(maps, peak, radii)
    tapers = [torch.exp(-0.5 * (d / (LOCAL_TAPER * sigma)) ** 2) for d, sigma in zip(distances, sigmas, strict=True)]
    rows = [torch.stack([taper, taper * d], 2) for taper, d in zip(tapers, distances, strict=True)]  # B,J,2,n
    moments = contract(window.clamp(min=0), rows)
    clean = math.prod(math.sqrt(2 * math.pi / stretch) * sigma for sigma in sigmas)
    total = moments.flatten(2)[..., 0].clamp(min=MIN_TOTAL * clean)  # B,J
    first = [moments.select(-1 - axis, 1).flatten(2)[..., 0] for axis in range(len(sigmas))]
    return stretch * torch.stack(first, 2) / total[..., None]


def refine_dark(maps: Tensor, peak: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Return the offset [B,J,2 or 3] from the peak to the maximum of the blurred map's logarithm, by Taylor expansion.

    Zhang et al. 2020 ("Distribution-aware coordinate representation for human pose estimation"), equation 9, with only
    the diagonal of the Hessian, because the target Gaussians are aligned with the axes. The step is limited to one
    voxel along each axis. Only the blurred values next to the peak are computed.
    """
    axes = zip(peak.unbind(2), maps.shape[:1:-1], strict=True)
    inside = [along.clamp(min(1, size - 1), max(size - 2, 0)) for along, size in axes]
    centre = torch.stack(inside, 2)  # its neighbours lie on the map
    radii = tuple(math.ceil(4 * BLUR * sigma) + 1 for sigma in sigmas)
    window, distances = extract_windows(maps, centre, radii)
    step = torch.arange(-1, 2, dtype=window.dtype, device=maps.device)[:, None]
    widths = [BLUR * sigma for sigma in sigmas]
    rows = [torch.exp(-0.5 * ((d[:, :, None] - step) / width) ** 2) for d, width in zip(distances, widths, strict=True)]
    logarithm = contract(window.clamp(min=0), rows).clamp(min=EPSILON).log()  # B,J,(3,)3,3
    steps = []
    for axis in range(len(sigmas)):
        line = logarithm
        for other in range(len(sigmas)):
            line = line if other == axis else line.narrow(-1 - other, 1, 1)
        before, middle, after = line.flatten(2).unbind(2)
        curvature = (2 * middle - before - after).clamp(min=EPSILON)
        steps.append(((after - before) / (2 * curvature)).clamp(-1, 1))
    return (centre - peak).to(window.dtype) + torch.stack(steps, 2)


# The decoders: each returns the offset from the highest voxel; None: no offset
REFINEMENTS: Final[dict[str, Callable[[Tensor, Tensor, tuple[float, ...]], Tensor] | None]] = {
    "argmax": None,
    "dark": refine_dark,
    "local": refine_local,
}
