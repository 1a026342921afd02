"""Heatmaps: coordinates, target Gaussians, their loss and the decoders, in two and three dimensions.

The convention of every pixel and voxel position here: integers lie at centres, so a row of W = 4 reaches from -.5 to
3.5.

    position   -.5   0   .5   1   1.5   2   2.5   3   3.5
                |    o    |   o    |    o    |    o    |
    metres      |-------- the same length -------------|      (the metric cube's edge: -1000 mm to 1000 mm)

Hence a position on a map of another resolution is (p + .5) * to / from - .5, and a voxel's centre is at
mm = ((index + .5) / bins - .5) * cube_mm. Maps are [B,J,H,W], volumes [B,J,D,H,W]; positions come as x, y or x, y, z in
the last dimension, that is in the reverse order of the sizes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.recipes import DECODERS, require

PIECE, PIECE_ON_GPU = 2**22, 2**26  # voxels at a time: what a processor's caches hold, what keeps a GPU busy
LOCAL_TAPER = 2.0  # width of local's window in target sigmas; the best of .7 to 3 on young networks by a little
BLUR = 1.0  # width of DARK's blur in target sigmas; Zhang's
LOWEST = 1e-6  # of what is divided by and of what a logarithm is taken of; a peak's height is 1
LEAST_TOTAL = 0.02  # of local's summed weights, as a share of a clean peak's


def sizes(maps: Tensor) -> Tensor:
    """Return the sizes of maps [B,J,(D,)H,W] as float32 [2 or 3] on their device, in the order x, y (, z).

    Filled there: what is copied from the host makes it wait for all that a GPU was told before.
    """
    return torch.stack([torch.full((), float(size), device=maps.device) for size in maps.shape[:1:-1]])


def resample(positions: Tensor, source: float, target: float) -> Tensor:
    """Move positions on a row of source pixels to a row of target pixels of the same length."""
    return (positions + 0.5) * (target / source) - 0.5


def index_to_mm(index: Tensor, bins: Tensor | int, cube_mm: float) -> Tensor:
    """Turn voxel positions into mm from the cube's centre."""
    return ((index + 0.5) / bins - 0.5) * cube_mm


def mm_to_index(position_mm: Tensor, bins: Tensor | int, cube_mm: float) -> Tensor:
    """Turn mm from the cube's centre into voxel positions."""
    return (position_mm / cube_mm + 0.5) * bins - 0.5


def gaussian(positions: Tensor, bins: int, sigma: float) -> Tensor:
    """Draw Gaussians of height 1 at unrounded positions [B,J] into rows, [B,J,bins]; what lies outside is cut off."""
    index = torch.arange(bins, dtype=positions.dtype, device=positions.device)
    return torch.exp(-0.5 * ((index - positions[..., None]) / sigma) ** 2)


def gaussian_squares(maps: Tensor, positions: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Return the squares of maps less target Gaussians, in units of a whole Gaussian's energy, averaged over B and J.

    maps [B,J,H,W] or [B,J,D,H,W]; positions [B,J,2] or [B,J,3] and sigmas in voxels, both in the order x, y (, z).
    Squares are summed, not averaged, over the voxels: an average of 64x64x64 would be drowned by the empty ones. The
    unit makes an empty map cost 1 at every resolution, so stacks of different depth weigh the same.
    """
    positions = positions.to(torch.promote_types(maps.dtype, torch.float32))
    rows = [gaussian(positions[..., axis], maps.shape[-1 - axis], sigma) for axis, sigma in enumerate(sigmas)]
    if maps.dim() == 4:
        maps = maps.unsqueeze(2)
        rows.append(torch.ones_like(rows[0][..., :1]))
    with torch.autocast(maps.device.type, enabled=False):
        total: Tensor = SeparableSquares.apply(maps, *rows)
    energy = math.prod(math.sqrt(math.pi) * sigma for sigma in sigmas)
    return total / (energy * maps.shape[0] * maps.shape[1])


class SeparableSquares(torch.autograd.Function):
    """sum((P - G)^2) for volumes P [B,J,D,H,W] and G the outer product of rows x [B,J,W], y [B,J,H], z [B,J,D].

    As sum(P^2) - 2 <P,G> + sum(G^2), of which the last two are contractions with the rows: no target volume is made. It
    is computed piece by piece in the rows' precision, which bounds the copies of half-precision volumes, and works
    on any memory format.
    """

    @staticmethod
    def forward(ctx: Any, volume: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        ctx.save_for_backward(volume, x, y, z)
        inner = x.new_zeros(())
        for piece in pieces(volume):
            flat = volume[piece].flatten(3)
            flat = flat[0] if len(flat) == 1 else flat.contiguous().flatten(0, 1)  # BJ,D,HW
            flat = flat.to(x.dtype)
            plane = planes(x[piece], y[piece]).flatten(2).view(len(flat), 1, -1)
            # BJ,D; a row times matrices: several times as fast as matrices times a column, the more so in channels_last
            lines = torch.bmm(plane, flat.transpose(1, 2)).view_as(z[piece])
            inner = inner + torch.linalg.vector_norm(flat).square() - 2 * (lines * z[piece]).sum()
        target = (x.square().sum(2) * y.square().sum(2) * z.square().sum(2)).sum()
        return inner + target

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        volume, x, y, z = ctx.saved_tensors
        result = torch.empty_like(volume)
        with torch.autocast(volume.device.type, enabled=False):
            for piece in pieces(volume):
                lines, surface = z[piece][..., None, None], planes(x[piece], y[piece])[:, :, None]
                torch.addcmul(volume[piece], lines, surface, value=-1, out=result[piece]).mul_(2 * gradient)
        return result, None, None, None


def pieces(volume: Tensor) -> list[slice]:
    """Cut a batch so that a piece has at most PIECE voxels (on a GPU PIECE_ON_GPU), or is one sample."""
    limit = PIECE if volume.device.type == "cpu" else PIECE_ON_GPU
    count = max(1, limit // math.prod(volume.shape[1:]))
    return [slice(first, first + count) for first in range(0, len(volume), count)]


def planes(x: Tensor, y: Tensor) -> Tensor:
    """Return the outer products of rows y [B,J,H] and x [B,J,W] as [B,J,H,W]."""
    return y[..., :, None] * x[..., None, :]


def decode(maps: Tensor, method: str, sigmas: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Read positions off maps [B,J,H,W] or volumes [B,J,D,H,W].

    method: argmax (the highest voxel), dark (blur and log-Taylor, Zhang et al. 2020) or local (soft-argmax in a window
    around the highest voxel); the last two are differentiable and exact on Gaussians off the border. sigmas: of the
    target Gaussians, in voxels, x, y (, z). Returns positions float32 [B,J,2 or 3], x, y (, z), and the peaks' heights
    float32 [B,J].
    """
    require(method in DECODERS, "decoder", "one of " + ", ".join(DECODERS), method)
    with torch.autocast(maps.device.type, enabled=False):
        peak = highest(maps)
        at_peak, _ = cut(maps, peak, (0,) * len(sigmas))
        height = at_peak.flatten(2).squeeze(2)  # B,J
        centre = peak.to(height.dtype)
        if method == "argmax":
            return centre, height
        refine = refine_dark if method == "dark" else refine_local
        return centre + refine(maps, peak, sigmas), height


def highest(maps: Tensor) -> Tensor:
    """Return the int64 position [B,J,2 or 3] of the highest voxel, x, y (, z)."""
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


def cut(maps: Tensor, peak: Tensor, radii: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
    """Cut windows of up to 2 * radius + 1 voxels around peaks [B,J,2 or 3]; near the border they move inward.

    Returns the windows in float32 (or float64), [B,J,h,w] or [B,J,d,h,w], and for x, y (, z) their voxels' distances
    from the peak, [B,J,w], [B,J,h] (, [B,J,d]).
    """
    dims = len(radii)
    indices: list[Tensor] = []
    distances = []
    for axis, radius in enumerate(radii):
        size = maps.shape[-1 - axis]
        count = min(2 * radius + 1, size)
        start = (peak[..., axis] - radius).clamp(0, size - count)
        along = start[..., None] + torch.arange(count, device=maps.device)  # B,J,count
        distances.append(along - peak[..., axis, None])
        shape = [1] * dims
        shape[-1 - axis] = count
        indices.insert(0, along.view(*along.shape[:2], *shape))
    batch, joint = sample_and_joint(maps)
    ones = [1] * dims
    where: tuple[Tensor, ...] = (batch.view(*batch.shape, *ones), joint.view(*joint.shape, *ones), *indices)
    window = maps[where]
    window = window.to(torch.promote_types(window.dtype, torch.float32))
    return window, [distance.to(window.dtype) for distance in distances]


def contract(window: Tensor, rows: list[Tensor]) -> Tensor:
    """Contract windows [B,J,(d,)h,w] with rows [B,J,n,w], [B,J,n,h] (, [B,J,n,d]) to [B,J,(n,)n,n], axes in order."""
    if len(rows) == 2:
        return torch.einsum("bjyx,bjnx,bjmy->bjmn", window, *rows)
    return torch.einsum("bjzyx,bjnx,bjmy,bjkz->bjkmn", window, *rows)


def refine_local(maps: Tensor, peak: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Return how far the centre of mass of a Gaussian window around the peak is off it, [B,J,2 or 3].

    A Gaussian of width s seen through a window of width k around a voxel at distance d from its centre has its centre
    of mass at d / (1 + s^2/k^2): the answer is stretched by that factor. With k = s this is one Gauss-Newton step of
    fitting the Gaussian to the map by least squares, the best there is under white noise. Where the map is low, a floor
    under the summed weights keeps the gradient bounded and the answer close to the peak.
    """
    stretch = 1 + 1 / LOCAL_TAPER**2
    radii = tuple(math.ceil(4 * sigma / math.sqrt(stretch)) for sigma in sigmas)  # four sigmas of what is seen
    window, distances = cut(maps, peak, radii)
    tapers = [torch.exp(-0.5 * (d / (LOCAL_TAPER * sigma)) ** 2) for d, sigma in zip(distances, sigmas, strict=True)]
    rows = [torch.stack([taper, taper * d], 2) for taper, d in zip(tapers, distances, strict=True)]  # B,J,2,n
    moments = contract(window.clamp(min=0), rows)
    clean = math.prod(math.sqrt(2 * math.pi / stretch) * sigma for sigma in sigmas)
    total = moments.flatten(2)[..., 0].clamp(min=LEAST_TOTAL * clean)  # B,J
    first = [moments.select(-1 - axis, 1).flatten(2)[..., 0] for axis in range(len(sigmas))]
    return stretch * torch.stack(first, 2) / total[..., None]


def refine_dark(maps: Tensor, peak: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Return the Taylor step from the peak to the top of the blurred map's logarithm, [B,J,2 or 3], up to a voxel.

    Zhang et al. 2020 ("Distribution-aware coordinate representation for human pose estimation"), equation 9, with the
    diagonal of the Hessian only, as the maps are trained toward Gaussians along the axes. Only the blurred values next
    to the peak are computed.
    """
    axes = zip(peak.unbind(2), maps.shape[:1:-1], strict=True)
    inside = [along.clamp(min(1, size - 1), max(size - 2, 0)) for along, size in axes]
    centre = torch.stack(inside, 2)  # its neighbours are on the map
    radii = tuple(math.ceil(4 * BLUR * sigma) + 1 for sigma in sigmas)
    window, distances = cut(maps, centre, radii)
    step = torch.arange(-1, 2, dtype=window.dtype, device=maps.device)[:, None]
    widths = [BLUR * sigma for sigma in sigmas]
    rows = [torch.exp(-0.5 * ((d[:, :, None] - step) / width) ** 2) for d, width in zip(distances, widths, strict=True)]
    logarithm = contract(window.clamp(min=0), rows).clamp(min=LOWEST).log()  # B,J,(3,)3,3
    steps = []
    for axis in range(len(sigmas)):
        line = logarithm
        for other in range(len(sigmas)):
            line = line if other == axis else line.narrow(-1 - other, 1, 1)
        before, middle, after = line.flatten(2).unbind(2)
        curvature = (2 * middle - before - after).clamp(min=LOWEST)
        steps.append(((after - before) / (2 * curvature)).clamp(-1, 1))
    return (centre - peak).to(window.dtype) + torch.stack(steps, 2)
