"""Monotone splines of rational quadratics, a curve of its own for each number; what they compute: `ops.splines`.

For each number the K widths, K heights and K + 1 slopes of its curve are made and used where they stand, in a few cache
lines, instead of passing through some forty arrays. Backward makes them again, goes back through the piece that the
number lies on, and spreads what arrives at its corner over all pieces before it:

    with o = 1 - xi, b = xi o, r = d1 + d0 - 2 s, num = s xi^2 + d0 b, q = s + r b, A = d1 xi^2 + 2 s b + d0 o^2:
    y = y_k + h num / q,    log dy/dx = 2 log(s / q) + log A

Memory: 4 (3 K + 2) bytes a number forward, twice that backward. Operations: about 60 K forward, nearly all in the
exponentials of softmax and softplus, 80 K backward.
"""

import numpy as np

from .compiling import kernel
from .elementary import ONE, TWO, ZERO, sigmoid, softplus
from .rows import dot, exponentials, shift

float32 = np.float32


@kernel
def lay_out(logits, bound, least, shares, corners):
    """The shares softmax(logits) of K pieces, and the K corners where they begin, from -bound on."""
    K = logits.size
    scale = ONE / exponentials(logits, shift(logits), shares)
    reached = ZERO
    for i in range(K):
        shares[i] *= scale
        corners[i] = reached - bound
        reached += length(shares[i], K, bound, least)


@kernel
def length(share, K, bound, least):
    """Of a piece: its share of 2 bound, of which each of K has `least` in any case."""
    return TWO * bound * (least + (ONE - least * float32(K)) * share)


@kernel
def piece_of(u, corners):
    """The number of the piece that u lies on."""
    k = 0
    for i in range(1, corners.size):
        k += 1 if u >= corners[i] else 0
    return k


@kernel
def slope_at(k, slopes, least):
    """That of the curve at corner k: 1 at both ends, softplus(slopes) between."""
    return softplus(slopes[k - 1]) + least if 0 < k <= slopes.size else ONE


@kernel
def spline_forward(x, widths, heights, slopes, bound, least, y, log_slope):
    """x, y, log_slope: (N,), widths, heights: (N, K), slopes: (N, K - 1); float32, C-contiguous."""
    K = widths.shape[1]
    (across, up), (wide, high) = np.empty((2, K), float32), np.empty((2, K), float32)
    for n in range(x.size):
        if not abs(x[n]) < bound:
            y[n], log_slope[n] = x[n], ZERO
            continue
        lay_out(widths[n], bound, least, wide, across)
        lay_out(heights[n], bound, least, high, up)
        k = piece_of(x[n], across)
        w, h = length(wide[k], K, bound, least), length(high[k], K, bound, least)
        d0, d1 = slope_at(k, slopes[n], least), slope_at(k + 1, slopes[n], least)
        s, xi = h / w, (x[n] - across[k]) / w
        o = ONE - xi
        b = xi * o
        q = s + (d1 + d0 - TWO * s) * b
        y[n] = up[k] + h * (s * (xi * xi) + d0 * b) / q
        log_slope[n] = TWO * np.log(s / q) + np.log(d1 * (xi * xi) + TWO * s * b + d0 * (o * o))


@kernel
def through_layout(at_corner, at_length, k, bound, least, shares, dlogits):
    """What arrives at corner k and at the length of piece k, by the logits: corner k is the sum of the lengths before
    it, and lengths are shares of the whole."""
    K = shares.size
    scale = TWO * bound * (ONE - least * float32(K))
    for i in range(K):
        dlogits[i] = scale * (at_corner if i < k else at_length if i == k else ZERO)
    mean = dot(shares, dlogits)
    for i in range(K):
        dlogits[i] = shares[i] * (dlogits[i] - mean)


@kernel
def spline_backward(gy, gl, x, widths, heights, slopes, bound, least, dx, dwidths, dheights, dslopes):
    """From gy = dL/dy and gl = dL/d log_slope writes the gradients of the four operands, shaped like them."""
    K = widths.shape[1]
    (across, up), (wide, high) = np.empty((2, K), float32), np.empty((2, K), float32)
    for n in range(x.size):
        for i in range(K):
            dwidths[n, i] = dheights[n, i] = ZERO
        for i in range(K - 1):
            dslopes[n, i] = ZERO
        if not abs(x[n]) < bound:
            dx[n] = gy[n]
            continue
        lay_out(widths[n], bound, least, wide, across)
        lay_out(heights[n], bound, least, high, up)
        k = piece_of(x[n], across)
        w, h = length(wide[k], K, bound, least), length(high[k], K, bound, least)
        d0, d1 = slope_at(k, slopes[n], least), slope_at(k + 1, slopes[n], least)
        s, xi = h / w, (x[n] - across[k]) / w
        o = ONE - xi
        b, r = xi * o, d1 + d0 - TWO * s
        num, q = s * (xi * xi) + d0 * b, s + r * b
        by_num, by_a = gy[n] * h / q, gl[n] / (d1 * (xi * xi) + TWO * s * b + d0 * (o * o))
        by_q = -(by_num * num + TWO * gl[n]) / q
        by_d0 = by_num * b + by_q * b + by_a * (o * o)
        by_d1 = by_q * b + by_a * (xi * xi)
        by_b = by_num * d0 + by_q * r + by_a * (TWO * s)
        by_s = TWO * gl[n] / s + by_num * (xi * xi) + by_q * (ONE - TWO * b) + by_a * (TWO * b)
        by_xi = by_num * (TWO * s * xi) + by_a * (TWO * (d1 * xi - d0 * o)) + by_b * (ONE - TWO * xi)
        dx[n] = by_xi / w
        through_layout(-by_xi / w, -(by_s * s + by_xi * xi) / w, k, bound, least, wide, dwidths[n])
        through_layout(gy[n], gy[n] * num / q + by_s / w, k, bound, least, high, dheights[n])
        if k > 0:
            dslopes[n, k - 1] = by_d0 * sigmoid(slopes[n, k - 1])
        if k < K - 1:
            dslopes[n, k] = by_d1 * sigmoid(slopes[n, k])
