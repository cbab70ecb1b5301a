"""Making images (N, H, W, C) smaller and larger: average and max pooling, nearest and bilinear upsampling.

A pooling window is walked place by place: what one place of it sees, at all steps, is one strided slice of the image.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import dispatch
from tinygen.arrays import xp
from tinygen.errors import DtypeError, ShapeError
from tinygen.explain import explained
from tinygen.ops.linear import matmul
from tinygen.ops.shapes import reshape
from tinygen.ops.windows import Window, pair, places, window
from tinygen.registry import op

MOST_PLACES = 2**20  # in a window: each is visited, also those that padding="same" puts outside the image


def _pool_window(shape: tuple, size: Any, stride: Any, padding: Any) -> Window:
    """The window over images of `shape`; without a stride it moves by its own size."""
    if len(shape) != 4:
        raise ShapeError("give images (N, H, W, C)")
    if math.prod(pair("size", size)) > MOST_PLACES:
        raise ShapeError(f"a window of {pair('size', size)} is larger than any image; at most 2^20 places make sense")
    win = window(shape[1:3], size, size if stride is None else stride, padding)
    if any(max(p) >= k for p, k in zip(win.pads, win.size)):
        raise ShapeError(f"padding {win.pads} with a window of {win.size}: some windows would see nothing of the image")
    return win


def _draw_pooling(draw):
    """A shape of images and the parameters of a window that fits in."""
    size = (draw.integer(1, 3), draw.integer(1, 3))
    stride = draw.choice([None, 1, (2, 1), (1, 3)])
    padding = draw.choice([0, 0, tuple(k // 2 for k in size), "same"])
    shape = (draw.integer(1, 2), *[k + draw.integer(0, 3) for k in size], draw.integer(1, 2))
    return shape, {"size": size[0] if size[0] == size[1] else size, "stride": stride, "padding": padding}


# -- the average, linear -----------------------------------------------------------------------------------------------


def _averages(draw):
    shape, params = _draw_pooling(draw)
    return (draw.array(shape),), params


@op(inputs=_averages)
def avg_pool2d(x, /, size, stride=None, padding=0):
    """The mean over each window of `size`, an integer or a pair: (N, H, W, C) -> (N, I, J, C).

    The window moves by `stride`, by default its size; `padding` is as in `conv2d`, and its zeros count in the mean.
    """
    win = _pool_window(x.shape, size, stride, padding)
    return _sums(x, win, 1 / math.prod(win.size))


def _average_gradients(draw):
    shape, params = _draw_pooling(draw)
    win = _pool_window(shape, **params)
    return (draw.array((shape[0], *win.steps, shape[3])),), params | {"shape": shape}


@op(inputs=_average_gradients)
def avg_pool2d_transpose(y, /, shape, size, stride=None, padding=0):
    """The transpose of `avg_pool2d`: each number is spread evenly over its window in images of `shape`."""
    win = _pool_window(shape, size, stride, padding)
    return _spread(y, win, 1 / math.prod(win.size), shape)


def _sums(x, win, weight):
    """The sum over each window, times a number."""
    if fast := dispatch.instead("sum_pool2d", x):
        return fast(x, win, weight)
    out = xp(x).zeros((x.shape[0], *win.steps, x.shape[3]), x.dtype)
    for _, _, place, steps in places(x.shape[1:3], win):
        out[steps] += x[place]
    out *= weight
    return out


def _spread(y, win, weight, shape):
    """Each number of y times `weight` added to all of its window, in images of `shape`: the transpose of `_sums`."""
    if y.shape != (shape[0], *win.steps, shape[3]):
        raise ShapeError(f"windows over images {shape} take {(shape[0], *win.steps, shape[3])} steps, not {y.shape}")
    if fast := dispatch.instead("sum_pool2d_transpose", y):
        return fast(y, win, weight, shape)
    y = y * weight
    out = xp(y).zeros(shape, y.dtype)
    for _, _, place, steps in places(shape[1:3], win):
        out[place] += y[steps]
    return out


avg_pool2d.vjp(
    lambda g, shapes, size, stride, padding: avg_pool2d_transpose(g, shapes[0], size, stride, padding)
)
avg_pool2d_transpose.vjp(lambda g, size, stride, padding: avg_pool2d(g, size, stride, padding))

# -- the maximum, linear once it is known where it lies ----------------------------------------------------------------


def _maxima(draw):
    shape, params = _draw_pooling(draw)
    return (draw.distinct(shape),), params


@op(inputs=_maxima, residual=True)
def max_pool2d(x, /, size, stride=None, padding=0):
    """The maximum over each window of `size`, an integer or a pair: (N, H, W, C) -> (N, I, J, C).

    The window moves by `stride`, by default its size; `padding` is as in `conv2d`, and never holds the maximum. Of
    equal maxima the first in the window (row by row) gets the whole gradient. A NaN in the window is the maximum.
    """
    win = _pool_window(x.shape, size, stride, padding)
    if x.dtype.kind != "f":
        raise DtypeError("max_pool2d takes floats")
    if fast := dispatch.instead("max_pool2d", x):
        return fast(x, win)
    best = xp(x).full((x.shape[0], *win.steps, x.shape[3]), -np.inf, x.dtype)
    winner = xp(x).zeros(best.shape, np.int32)
    for a, b, place, steps in places(x.shape[1:3], win):
        seen = x[place]
        winner[steps][seen > best[steps]] = a * win.size[1] + b
        best[steps] = xp(x).maximum(best[steps], seen)
    return best, winner


def _winners(draw):
    """Numbers of places in the window, one for each step: those of the maxima of random images."""
    shape, params = _draw_pooling(draw)
    x = draw.distinct(shape)
    return x, max_pool2d.forward(x, **params)[1], params


def _max_gradients(draw):
    x, winner, params = _winners(draw)
    return (draw.array(winner.shape), winner), params | {"shape": x.shape}


@op(inputs=_max_gradients, constants=("winner",))
def max_pool2d_put(y, winner, /, shape, size, stride=None, padding=0):
    """Add each number of y to the place numbered `winner` of its window, in images of `shape` that are 0 elsewhere."""
    win = _pool_window(shape, size, stride, padding)
    if y.shape != (shape[0], *win.steps, shape[3]) or winner.shape != y.shape:
        raise ShapeError(f"windows over images {shape} take {(shape[0], *win.steps, shape[3])} steps")
    if winner.dtype == np.int32 and (fast := dispatch.instead("max_pool2d_put", y)):
        return fast(y, winner, win, shape)
    out = xp(y).zeros(shape, y.dtype)
    for a, b, place, steps in places(shape[1:3], win):
        out[place] += xp(y).where(winner[steps] == a * win.size[1] + b, y[steps], 0)
    return out


def _max_picks(draw):
    x, winner, params = _winners(draw)
    return (x, winner), params


@op(inputs=_max_picks, constants=("winner",))
def max_pool2d_pick(x, winner, /, size, stride=None, padding=0):
    """What stands at the place numbered `winner` of each window: the transpose of `max_pool2d_put`."""
    win = _pool_window(x.shape, size, stride, padding)
    out = xp(x).zeros(winner.shape, x.dtype)
    for a, b, place, steps in places(x.shape[1:3], win):
        out[steps] += x[place] * (winner[steps] == a * win.size[1] + b)
    return out


max_pool2d.vjp(
    lambda g, residual, shapes, size, stride, padding: max_pool2d_put(g, residual, shapes[0], size, stride, padding)
)
max_pool2d_put.vjp(
    lambda g, winner, size, stride, padding: max_pool2d_pick(g, winner, size, stride, padding), None
)
max_pool2d_pick.vjp(
    lambda g, winner, shapes, size, stride, padding: max_pool2d_put(g, winner, shapes[0], size, stride, padding), None
)

# -- upsampling --------------------------------------------------------------------------------------------------------


def _scales(draw):
    scale = draw.choice([1, 2, (1, 3), (3, 2)])
    return (draw.array(tuple(draw.sizes(4))),), {"scale": scale}


@op(inputs=_scales)
def upsample_nearest(x, /, scale=2):
    """Each pixel of (N, H, W, C) repeated `scale` times (an integer or a pair) along H and W."""
    (n, h, w, c), (s, t) = _images(x), pair("scale", scale)
    repeated = xp(x).broadcast_to(x.reshape((n, h, 1, w, 1, c)), (n, h, s, w, t, c))
    return repeated.reshape((n, h * s, w * t, c))


def _enlarged(draw):
    (x,), params = _scales(draw)
    return (draw.array(upsample_nearest.forward(x, **params).shape),), params


@op(inputs=_enlarged)
def upsample_nearest_transpose(y, /, scale=2):
    """The sum of each `scale` by `scale` pixels: (N, H s, W t, C) -> (N, H, W, C)."""
    (n, h, w, c), (s, t) = _images(y), pair("scale", scale)
    if h % s or w % t:
        raise ShapeError(f"height and width must be multiples of the scale {(s, t)}")
    if fast := dispatch.instead("sum_pool2d", y):
        return fast(y, window((h, w), (s, t), (s, t), 0), 1)
    return y.reshape((n, h // s, s, w // t, t, c)).sum((2, 4))


upsample_nearest.vjp(lambda g, scale: upsample_nearest_transpose(g, scale))
upsample_nearest_transpose.vjp(lambda g, scale: upsample_nearest(g, scale))


@explained
def upsample_bilinear(x: Any, scale: Any = 2) -> Any:
    """(N, H, W, C) enlarged `scale` times (an integer or a pair) by linear interpolation along W, then along H.

    Pixels are squares with their value at the centre, and the border is continued by its own value (what other
    libraries call align_corners=False).
    """
    (n, h, w, c), (s, t) = _images(x), pair("scale", scale)
    wide = matmul(_interpolation(w, t, x), x)
    return reshape(matmul(_interpolation(h, s, x), reshape(wide, (n, h, w * t * c))), (n, h * s, w * t, c))


def _interpolation(n: int, scale: int, like: Any) -> Any:
    """The (n * scale, n) matrix that interpolates: pixel i lies at (i + 1/2) / scale - 1/2 among the old ones and
    weighs each of them by 1 minus its distance."""
    at = np.clip((np.arange(n * scale) + 0.5) / scale - 0.5, 0, n - 1)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n)))
    return xp(getattr(like, "_array", like)).asarray(weights, like.dtype)


def _images(x: Any) -> tuple:
    if len(x.shape) != 4:
        raise ShapeError("give images (N, H, W, C)")
    return x.shape
