"""Monotone splines, the curves of neural spline flows."""

from __future__ import annotations

from tinygen.errors import InputError, ShapeError
from tinygen.fused import fused
from tinygen.ops.elementwise import abs, clip, less, log, softplus, square, where  # noqa: A004 (NumPy's names)
from tinygen.ops.indexing import take_along_axis
from tinygen.ops.logits import softmax
from tinygen.ops.reductions import cumsum, sum  # noqa: A004
from tinygen.ops.shapes import expand_dims, pad, squeeze

LEAST = 1e-3  # of a width and a height, as a share of all, and of a slope: float32 can still tell them apart


def _curves(draw):
    shape, k = draw.shape(low=1, high=2), 3
    x, raw = 3 * draw.array(shape), [draw.array((*shape, n)) for n in (k, k, k - 1)]
    return (x, *raw), {"bound": 4.0}


@fused(inputs=_curves)
def rational_quadratic(x, widths, heights, slopes, /, bound):
    """Each x (...) on a rising curve of its own from [-bound, bound] to itself, and log dy/dx: (y, log dy/dx), (...).

    widths, heights: (..., K), any numbers, of which a softmax makes the sizes of K pieces; slopes: (..., K - 1), whose
    softplus are the slopes where pieces meet. At both ends the slope is 1, outside y = x. In piece k, of width w and
    height h, with slopes d_k and d_{k+1} at its ends, s = h / w and xi = (x - x_k) / w (Durkan et al. 2019):

        y     = y_k + h (s xi^2 + d_k xi (1 - xi)) / (s + (d_{k+1} + d_k - 2 s) xi (1 - xi))                  eq. 4
        dy/dx = s^2 (d_{k+1} xi^2 + 2 s xi (1 - xi) + d_k (1 - xi)^2) / (the same denominator)^2              eq. 5
    """
    if widths.shape != heights.shape or widths.shape[:-1] != x.shape or widths.shape[-1] < 2:
        raise ShapeError("for x of shape (...) widths and heights must be (..., K), K >= 2")
    if slopes.shape != (*x.shape, widths.shape[-1] - 1):
        raise ShapeError("slopes must be (..., K - 1): one fewer than widths")
    if not bound > 0:
        raise InputError(f"bound must be positive, not {bound}")
    inside, u = less(abs(x), bound), clip(x, -bound, bound)
    (xs, ws), (ys, hs) = pieces(widths, bound), pieces(heights, bound)
    ends = [(0, 0)] * (slopes.ndim - 1) + [(1, 1)]
    ds = pad(softplus(slopes) + LEAST, ends, 1.0)
    k = sum(expand_dims(u, -1) >= xs[..., 1:], -1, keepdims=True)
    at = lambda table, k: squeeze(take_along_axis(table, k, -1), -1)
    w, h, d0, d1 = at(ws, k), at(hs, k), at(ds, k), at(ds, k + 1)
    s, xi = h / w, (u - at(xs, k)) / w
    both = xi * (1 - xi)
    q = s + (d1 + d0 - 2 * s) * both
    y = at(ys, k) + h * (s * square(xi) + d0 * both) / q
    log_slope = 2 * log(s / q) + log(d1 * square(xi) + 2 * s * both + d0 * square(1 - xi))
    return where(inside, y, x), where(inside, log_slope, 0.0)


def pieces(logits, bound):
    """Where the K pieces begin, (..., K), and how long they are."""
    lengths = 2 * bound * (LEAST + (1 - LEAST * logits.shape[-1]) * softmax(logits))
    return cumsum(lengths, -1) - lengths - bound, lengths
