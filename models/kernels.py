"""Triton kernels of the hourglasses' layers. Importing this file needs Triton; see models/layers.py.

A tensor [B,C,H,W] in channels_last is a row-major matrix of M = B*H*W rows (pixels) and C columns (channels). Batch
normalisation sums over rows. Its statistics are computed in float32 about a value of the data, which loses no digits of
channels far from zero, and partial sums of groups of rows are combined in a fixed order without atomic operations, so
that the same input gives the same bits.

    large maps   partial sums of every group of rows -> one kernel that combines them -> one that writes the result
    small maps   one kernel, whose programs have all rows of a few channels and read them twice, then from the cache
"""

import triton
import triton.language as tl


@triton.jit
def _greater(a, b):
    """Return the maximum; NaN if either is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _tile(first, end, c, C: tl.constexpr, BM: tl.constexpr):
    """Return the offsets [BM,BC] of the rows from `first` and of the channels c [BC]; which rows are below `end`."""
    rows = first + tl.arange(0, BM)
    return rows[:, None] * C + c[None, :], (rows < end)[:, None]


@triton.jit
def _moments(x, first, end, c, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
    """Return the channels' means over rows and the sums of squares about them, computed about the first row."""
    shift = tl.load(x + first * C + c).to(tl.float32)
    total = tl.zeros((BM, BC), tl.float32)
    squares = tl.zeros((BM, BC), tl.float32)
    for row in range(first, end, BM):
        offsets, valid = _tile(row, end, c, C, BM)
        value = tl.load(x + offsets, mask=valid, other=0.0).to(tl.float32)
        difference = tl.where(valid, value - shift[None, :], 0.0)
        total += difference
        squares += difference * difference
    count = end - first
    moved = tl.sum(total, 0) / count
    return shift + moved, tl.sum(squares, 0) - moved * moved * count


@triton.jit
def _record(mean, squares, statistics, running_mean, running_var, batches, momentum, epsilon, M, c, C: tl.constexpr):
    """Store mean and 1 / standard deviation in `statistics` [2,C], update the running statistics; return the latter."""
    squares = _greater(squares, 0.0)  # rounding may make it negative
    inverse = 1.0 / tl.sqrt(squares / M + epsilon)
    tl.store(statistics + c, mean)
    tl.store(statistics + C + c, inverse)
    tl.store(running_mean + c, (1.0 - momentum) * tl.load(running_mean + c) + momentum * mean)
    tl.store(running_var + c, (1.0 - momentum) * tl.load(running_var + c) + momentum * (squares / (M - 1)))
    if tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)
    return inverse


@triton.jit
def _rectify(x, y, weight, bias, mean, inverse, first, end, c, C: tl.constexpr, BM: tl.constexpr):
    """Write y = relu(batch norm(x)) of some rows; NaN stays NaN."""
    scale = tl.load(weight + c) * inverse
    shift = tl.load(bias + c) - mean * scale
    for row in range(first, end, BM):
        offsets, valid = _tile(row, end, c, C, BM)
        z = tl.load(x + offsets, mask=valid, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
        tl.store(y + offsets, tl.where(z <= 0.0, 0.0, z).to(y.dtype.element_ty), mask=valid)


@triton.jit
def _affine(weight, bias, statistics, c, C: tl.constexpr):
    """Return mean and 1 / standard deviation, and the scale and shift that the batch norm amounts to."""
    mean, inverse = tl.load(statistics + c), tl.load(statistics + C + c)
    scale = tl.load(weight + c) * inverse
    return mean, inverse, scale, tl.load(bias + c) - mean * scale


@triton.jit
def _gradients(dy, x, scale, shift, mean, inverse, offsets, valid):
    """Return the gradient at the batch norm's result, before the ReLU, and its normalised input."""
    value = tl.load(x + offsets, mask=valid, other=0.0).to(tl.float32)
    gradient = tl.load(dy + offsets, mask=valid, other=0.0).to(tl.float32)
    z = value * scale[None, :] + shift[None, :]
    return tl.where(z <= 0.0, 0.0, gradient), (value - mean[None, :]) * inverse[None, :]


@triton.jit
def _sums(dy, x, weight, bias, statistics, first, end, c, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
    """Return the channels' sums over rows of the gradient, and of the gradient times the normalised input."""
    mean, inverse, scale, shift = _affine(weight, bias, statistics, c, C)
    total = tl.zeros((BM, BC), tl.float32)
    product = tl.zeros((BM, BC), tl.float32)
    for row in range(first, end, BM):
        offsets, valid = _tile(row, end, c, C, BM)
        gradient, normal = _gradients(dy, x, scale, shift, mean, inverse, offsets, valid)
        total += gradient
        product += gradient * normal
    return tl.sum(total, 0), tl.sum(product, 0)


@triton.jit
def _input_gradient(dy, x, weight, bias, statistics, skip, dx, total, product, first, end, c, M, C: tl.constexpr,
                    BM: tl.constexpr, SKIP: tl.constexpr):  # fmt: skip
    """Write the gradient of x of some rows, and add that of the skip connection."""
    mean, inverse, scale, shift = _affine(weight, bias, statistics, c, C)
    total, product = total / M, product / M
    for row in range(first, end, BM):
        offsets, valid = _tile(row, end, c, C, BM)
        gradient, normal = _gradients(dy, x, scale, shift, mean, inverse, offsets, valid)
        result = scale[None, :] * (gradient - total[None, :] - normal * product[None, :])
        if SKIP:
            result += tl.load(skip + offsets, mask=valid, other=0.0).to(tl.float32)
        tl.store(dx + offsets, result.to(dx.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=["M"])
def small_forward(x, y, weight, bias, statistics, running_mean, running_var, batches, momentum, epsilon, M,
                  C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    mean, squares = _moments(x, 0, M, c, C, BM, BC)
    inverse = _record(mean, squares, statistics, running_mean, running_var, batches, momentum, epsilon, M, c, C)
    _rectify(x, y, weight, bias, mean, inverse, 0, M, c, C, BM)


@triton.jit(do_not_specialize=["M"])
def small_backward(dy, x, weight, bias, statistics, skip, dx, dweight, dbias, M, C: tl.constexpr, BM: tl.constexpr,
                   BC: tl.constexpr, SKIP: tl.constexpr):  # fmt: skip
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    total, product = _sums(dy, x, weight, bias, statistics, 0, M, c, C, BM, BC)
    tl.store(dbias + c, total)
    tl.store(dweight + c, product)
    _input_gradient(dy, x, weight, bias, statistics, skip, dx, total, product, 0, M, c, M, C, BM, SKIP)


@triton.jit(do_not_specialize=["M", "rows"])
def group_moments(x, parts, M, rows, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
    """Write the moments of every group of rows to parts [groups,2,C]."""
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    first = tl.program_id(0) * rows
    mean, squares = _moments(x, first, tl.minimum(first + rows, M), c, C, BM, BC)
    part = parts + 2 * tl.program_id(0) * C + c
    tl.store(part, mean)
    tl.store(part + C, squares)


@triton.jit(do_not_specialize=["M", "rows", "groups"])
def combine_moments(parts, statistics, running_mean, running_var, batches, momentum, epsilon, M, rows, groups,
                    C: tl.constexpr, BG: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    shift = tl.load(parts + c)
    total = tl.zeros((BG, BC), tl.float32)
    squares = tl.zeros((BG, BC), tl.float32)
    for group in range(0, groups, BG):
        index = group + tl.arange(0, BG)
        offsets, valid = _tile(group, groups, c, 2 * C, BG)
        count = tl.where(index < groups, tl.minimum(M - index * rows, rows), 0)[:, None]
        mean = tl.load(parts + offsets, mask=valid, other=0.0)
        difference = tl.where(valid, mean - shift[None, :], 0.0)
        total += count * difference
        squares += tl.load(parts + C + offsets, mask=valid, other=0.0) + count * difference * difference
    moved = tl.sum(total, 0) / M
    squares = tl.sum(squares, 0) - moved * moved * M
    _record(shift + moved, squares, statistics, running_mean, running_var, batches, momentum, epsilon, M, c, C)


@triton.jit(do_not_specialize=["M"])
def rectify(x, y, weight, bias, statistics, M, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    first = tl.program_id(0) * BM
    mean, inverse = tl.load(statistics + c), tl.load(statistics + C + c)
    _rectify(x, y, weight, bias, mean, inverse, first, tl.minimum(first + BM, M), c, C, BM)


@triton.jit(do_not_specialize=["M", "rows"])
def group_sums(dy, x, weight, bias, statistics, parts, M, rows, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
    """Write the sums of every group of rows to parts [groups,2,C]."""
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    first = tl.program_id(0) * rows
    total, product = _sums(dy, x, weight, bias, statistics, first, tl.minimum(first + rows, M), c, C, BM, BC)
    part = parts + 2 * tl.program_id(0) * C + c
    tl.store(part, total)
    tl.store(part + C, product)


@triton.jit(do_not_specialize=["groups"])
def combine_sums(parts, dweight, dbias, groups, C: tl.constexpr, BG: tl.constexpr, BC: tl.constexpr):
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    total = tl.zeros((BG, BC), tl.float32)
    product = tl.zeros((BG, BC), tl.float32)
    for group in range(0, groups, BG):
        offsets, valid = _tile(group, groups, c, 2 * C, BG)
        total += tl.load(parts + offsets, mask=valid, other=0.0)
        product += tl.load(parts + C + offsets, mask=valid, other=0.0)
    tl.store(dbias + c, tl.sum(total, 0))
    tl.store(dweight + c, tl.sum(product, 0))


@triton.jit(do_not_specialize=["M"])
def input_gradient(dy, x, weight, bias, statistics, skip, dx, dweight, dbias, M, C: tl.constexpr, BM: tl.constexpr,
                   BC: tl.constexpr, SKIP: tl.constexpr):  # fmt: skip
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    first = tl.program_id(0) * BM
    end = tl.minimum(first + BM, M)
    total, product = tl.load(dbias + c), tl.load(dweight + c)
    _input_gradient(dy, x, weight, bias, statistics, skip, dx, total, product, first, end, c, M, C, BM, SKIP)


@triton.jit
def _windows(M, W, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
    """Return the offsets of a program's pixels, and those of the upper left ones of their 2x2 windows.

    M and W are the number of pixels and the width of the smaller map.
    """
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    corner = (rows // W) * 4 * W + 2 * (rows % W)
    return rows[:, None] * C + c[None, :], corner[:, None] * C + c[None, :], (rows < M)[:, None]


@triton.jit(do_not_specialize=["M", "W"])
def max_pool(x, y, M, W, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
    offsets, corner, valid = _windows(M, W, C, BM, BC)
    greatest = tl.load(x + corner, mask=valid, other=0.0).to(tl.float32)
    for pixel in tl.static_range(1, 4):
        other = corner + (pixel // 2) * 2 * W * C + (pixel % 2) * C
        greatest = _greater(greatest, tl.load(x + other, mask=valid, other=0.0).to(tl.float32))
    tl.store(y + offsets, greatest.to(y.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=["M", "W"])
def max_pool_gradient(dy, x, y, skip, dx, M, W, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
                      SKIP: tl.constexpr):  # fmt: skip
    """Write the gradient of x: that of y for the first greatest pixel of a window, plus that of the other use of x."""
    offsets, corner, valid = _windows(M, W, C, BM, BC)
    greatest = tl.load(y + offsets, mask=valid, other=0.0).to(tl.float32)
    gradient = tl.load(dy + offsets, mask=valid, other=0.0).to(tl.float32)
    for pixel in tl.static_range(4):
        place = corner + (pixel // 2) * 2 * W * C + (pixel % 2) * C
        found = tl.load(x + place, mask=valid, other=0.0).to(tl.float32) == greatest
        result = tl.where(found, gradient, 0.0)
        gradient = tl.where(found, 0.0, gradient)
        if SKIP:
            result += tl.load(skip + place, mask=valid, other=0.0).to(tl.float32)
        tl.store(dx + place, result.to(dx.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=["M", "W"])
def add_upsampled(x, low, y, M, W, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
    offsets, corner, valid = _windows(M, W, C, BM, BC)
    added = tl.load(low + offsets, mask=valid, other=0.0).to(tl.float32)
    for pixel in tl.static_range(4):
        place = corner + (pixel // 2) * 2 * W * C + (pixel % 2) * C
        value = tl.load(x + place, mask=valid, other=0.0).to(tl.float32)
        tl.store(y + place, (value + added).to(y.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=["M", "W"])
def sum_windows(x, y, M, W, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
    offsets, corner, valid = _windows(M, W, C, BM, BC)
    total = tl.zeros((BM, BC), tl.float32)
    for pixel in tl.static_range(4):
        place = corner + (pixel // 2) * 2 * W * C + (pixel % 2) * C
        total += tl.load(x + place, mask=valid, other=0.0).to(tl.float32)
    tl.store(y + offsets, total.to(y.dtype.element_ty), mask=valid)
