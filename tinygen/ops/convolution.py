"""Convolutions over images with features last: x (N, H, W, C), w (KH, KW, C / groups, D).

What deep learning calls a convolution is a cross-correlation: the kernel slides over the image without being flipped,

    y[n, i, j, d] = sum_{a,b,c} x[n, stride * i + dilation * a - top, stride * j + dilation * b - left, c] w[a, b, c, d]

with zeros outside x. It is linear in x and in w. So its two gradients are linear maps as well, and the
three ops below are each other's derivatives, to any order: with <., .> for the sum of products,

    <y, conv2d(x, w)> = <x, conv_transpose2d(y, w)> = <w, conv2d_weight_gradient(x, y)>.

All three are one matrix product once everything the kernel sees at one step is laid out as a row ("im2col"). The rows
overlap, and hold KH * KW times the image; they are made for a few images at a time, so that they stay in cache.

In float32 each has a kernel that does the same (kernels/cpu/convolution.py); what stands here says what it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinygen import dispatch
from tinygen.arrays import xp
from tinygen.errors import InputError, ShapeError
from tinygen.explain import explained
from tinygen.ops.shapes import reshape
from tinygen.ops.windows import Pair, Window, margins, pair, places, reach, window
from tinygen.registry import op

_CHUNK = 2**20  # numbers in the rows that are made at a time: four megabytes in float32

# -- what the kernel sees, as rows of a matrix (one for each group) ----------------------------------------------------


def _rows(x, win: Window, groups: int):
    """(N, H, W, C) -> (groups, N * I * J, KH * KW * C / groups). A copy, except for a 1x1 kernel that stops at every
    pixel, whose convolution thereby is the plain matrix product it looks like."""
    x = _pad(x, win.pads)
    (kh, kw), (s, t), (d, e) = win.size, win.stride, win.dilation
    seen = xp(x).lib.stride_tricks.sliding_window_view(x, reach(win.size, win.dilation), axis=(1, 2))
    seen = seen[:, ::s, ::t, :, ::d, ::e]
    n, i, j, c = seen.shape[:4]
    seen = seen.reshape(n, i, j, groups, c // groups, kh, kw).transpose(3, 0, 1, 2, 5, 6, 4)
    return seen.reshape(groups, n * i * j, kh * kw * (c // groups))


def _pad(x, pads: tuple[Pair, Pair]):
    """x with zeros around its rows and columns."""
    (top, bottom), (left, right) = pads
    if not (top or bottom or left or right):
        return x
    n, h, w, c = x.shape
    out = xp(x).zeros((n, top + h + bottom, left + w + right, c), x.dtype)
    out[:, top : top + h, left : left + w] = x
    return out


def _features(y, groups: int):
    """(N, I, J, D) -> (groups, N * I * J, D / groups), a view if y is contiguous."""
    n, i, j, d = y.shape
    return y.reshape(n * i * j, groups, d // groups).swapaxes(0, 1)


def _weights(w, groups: int):
    """(KH, KW, C / groups, D) -> (groups, KH * KW * C / groups, D / groups), a view if w is contiguous."""
    kh, kw, c, d = w.shape
    return w.reshape(kh * kw * c, groups, d // groups).swapaxes(0, 1)


def _chunks(images, win: Window) -> Iterator[slice]:
    """The batch in slices whose rows hold about _CHUNK numbers."""
    (kh, kw), (i, j) = win.size, win.steps
    length = max(1, _CHUNK // max(1, kh * kw * i * j * images.shape[3]))
    return (slice(start, start + length) for start in range(0, images.shape[0], length))


def _check(images: tuple, kernel: tuple, groups: Any, axis: int) -> None:
    """Images and kernel belong together: the images hold what the kernel takes (its axis 2) or makes (its axis 3)."""
    if len(images) != 4 or len(kernel) != 4:
        raise ShapeError("give images (N, H, W, channels) and a kernel (KH, KW, C / groups, D)")
    if not isinstance(groups, int | np.integer) or groups < 1:
        raise InputError(f"groups must be an integer >= 1, not {groups!r}")
    if kernel[3] % groups:
        raise ShapeError(f"the kernel's D = {kernel[3]} channels cannot be divided into {groups} groups")
    channels = kernel[3] if axis == 3 else kernel[2] * groups
    if images[3] != channels:
        raise ShapeError(f"the images have {images[3]} channels, the kernel and groups={groups} ask for {channels}")


# -- the three ops -----------------------------------------------------------------------------------------------------


def _draw_convolution(draw):
    """Images, a kernel that fits in, images of the size that comes out, and the parameters."""
    groups = draw.choice([1, 1, 2, 3])
    size, stride, dilation = [(draw.integer(1, k), draw.integer(1, k)) for k in (3, 2, 2)]
    padding = draw.choice([0, 1, (0, 2), ((1, 0), (0, 2)), "same", "valid"])
    image = tuple(span + draw.integer(0, 2) for span in reach(size, dilation))
    n, c, d = draw.sizes(3, high=2)
    steps = window(image, size, stride, padding, dilation).steps
    shapes = (n, *image, c * groups), (*size, c, d * groups), (n, *steps, d * groups)
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return *[draw.array(shape) for shape in shapes], params


def _convolutions(draw):
    x, w, _, params = _draw_convolution(draw)
    return (x, w), params


@op(inputs=_convolutions)
def conv2d(x, w, /, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate images (N, H, W, C) with kernels (KH, KW, C / groups, D): (N, I, J, D).

    `stride` and `dilation` are integers or pairs. `padding` with zeros is an integer, a pair (for H, for W),
    ((top, bottom), (left, right)), "valid" (none) or "same" (I = ceil(H / stride); what is odd goes to the bottom and
    right). I = (H + top + bottom - dilation * (KH - 1) - 1) // stride + 1. With `groups`, each group of D / groups
    output channels sees its own C / groups input channels. Raises ShapeError for channels or windows that do not fit.
    """
    _check(x.shape, w.shape, groups, 2)
    win = window(x.shape[1:3], w.shape[:2], stride, padding, dilation)
    if fast := dispatch.instead("conv2d", x, w):
        return fast(x, w, win, groups)
    out = xp(x).empty((x.shape[0], *win.steps, w.shape[3]), np.result_type(x, w))
    weights = _weights(w, groups)
    for part in _chunks(x, win):
        np.matmul(_rows(x[part], win, groups), weights, out=_features(out[part], groups))
    return out


def _transposes(draw):
    x, w, y, params = _draw_convolution(draw)
    win, output_padding = _way_back(x.shape, w.shape, params["stride"], params["padding"], params["dilation"])
    return (y, w), params | {"padding": win.pads, "output_padding": output_padding}


@op(inputs=_transposes)
def conv_transpose2d(y, w, /, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """The transpose of `conv2d` as a linear map of its images: from (N, I, J, D) back to (N, H, W, C).

    Kernel and parameters are those of the conv2d that is transposed: w is (KH, KW, C / groups, D), where the D channels
    come in and the C go out. H = (I - 1) * stride + dilation * (KH - 1) + 1 - top - bottom + output_padding;
    `output_padding` < stride says which of the heights that a strided conv2d takes to I is meant. `padding` is as in
    conv2d, without "same". Raises ShapeError for channels or sizes that do not fit.
    """
    _check(y.shape, w.shape, groups, 3)
    image = _size_back(y.shape[1:3], w.shape[:2], stride, padding, output_padding, dilation)
    win = window(image, w.shape[:2], stride, padding, dilation)
    if fast := dispatch.instead("conv_transpose2d", y, w):
        return fast(y, w, image, win, groups)
    out = xp(y).zeros((y.shape[0], *image, w.shape[2] * groups), np.result_type(y, w))
    weights = _weights(w, groups).swapaxes(1, 2)
    for part in _chunks(out, win):
        rows, n = np.matmul(_features(y[part], groups), weights), len(y[part])
        rows = rows.reshape(groups, n, *win.steps, *win.size, w.shape[2]).transpose(4, 5, 1, 2, 3, 0, 6)
        sums = out[part].reshape(n, *image, groups, w.shape[2])
        for a, b, place, steps in places(image, win):
            sums[place] += rows[a, b][steps]
    return out


def _size_back(steps: Pair, size: Pair, stride: Any, padding: Any, output_padding: Any, dilation: Any) -> Pair:
    """The (H, W) of what comes out of conv_transpose2d."""
    stride, more = pair("stride", stride), pair("output_padding", output_padding, least=0)
    if padding == "same":
        raise InputError('padding="same" leaves the size that comes out open; give integers')
    if any(m >= t for m, t in zip(more, stride)):
        raise InputError(f"output_padding {output_padding!r} must be less than the stride {stride}")
    spans = reach(size, pair("dilation", dilation))
    pads = margins(padding, steps, spans, stride)
    image = tuple((i - 1) * t + s - sum(p) + m for i, t, s, p, m in zip(steps, stride, spans, pads, more))
    if min(image) < 1:
        raise ShapeError(f"nothing is left of the result, whose (H, W) would be {image}: the padding is too large")
    return image


def _way_back(images: tuple, kernel: tuple, stride: Any, padding: Any, dilation: Any) -> tuple[Window, Pair]:
    """The window of a conv2d, and the `output_padding` with which conv_transpose2d leads back to the shape `images`."""
    win = window(images[1:3], kernel[:2], stride, padding, dilation)
    room = [n + sum(p) - s for n, p, s in zip(images[1:3], win.pads, reach(win.size, win.dilation))]
    return win, tuple(r % t for r, t in zip(room, win.stride))


def _weight_gradients(draw):
    x, w, y, params = _draw_convolution(draw)
    return (x, y), params | {"size": w.shape[:2]}


@op(inputs=_weight_gradients)
def conv2d_weight_gradient(x, y, /, size, stride=1, padding=0, dilation=1, groups=1):
    """The transpose of `conv2d` as a linear map of its kernel, of `size` (KH, KW): (KH, KW, C / groups, D).

    Its entries correlate the images x (N, H, W, C) with y (N, I, J, D), which has the shape of conv2d's result.
    """
    kernel = (*pair("size", size), x.shape[-1] // groups, y.shape[-1])
    _check(x.shape, kernel, groups, 2)
    win = window(x.shape[1:3], size, stride, padding, dilation)
    if y.shape[:-1] != (x.shape[0], *win.steps):
        raise ShapeError(f"conv2d takes the first to {(x.shape[0], *win.steps, y.shape[-1])}, unlike the second")
    if fast := dispatch.instead("conv2d_weight_gradient", x, y):
        return fast(x, y, win, groups)
    total = xp(x).zeros((groups, kernel[0] * kernel[1] * kernel[2], kernel[3] // groups), np.result_type(x, y))
    for part in _chunks(x, win):
        total += np.matmul(_rows(x[part], win, groups).swapaxes(1, 2), _features(y[part], groups))
    return total.swapaxes(0, 1).reshape(kernel)


# -- each other's derivatives ------------------------------------------------------------------------------------------


def _by_images(g, w, shapes, stride, padding, dilation, groups):
    win, output_padding = _way_back(shapes[0], w.shape, stride, padding, dilation)
    return conv_transpose2d(g, w, stride, win.pads, output_padding, dilation, groups)


def _by_kernel(g, x, shapes, stride, padding, dilation, groups):
    return conv2d_weight_gradient(x, g, shapes[1][:2], stride, padding, dilation, groups)


conv2d.vjp(_by_images, _by_kernel)
conv_transpose2d.vjp(
    lambda g, w, stride, padding, dilation, groups: conv2d(g, w, stride, padding, dilation, groups),
    lambda g, y, shapes, stride, padding, dilation, groups: _by_kernel(y, g, shapes, stride, padding, dilation, groups),
)
conv2d_weight_gradient.vjp(
    lambda g, y, shapes, stride, padding, dilation, groups: _by_images(y, g, shapes, stride, padding, dilation, groups),
    lambda g, x, stride, padding, dilation, groups: conv2d(x, g, stride, padding, dilation, groups),
)

# -- along time --------------------------------------------------------------------------------------------------------


@explained
def conv1d(x: Any, w: Any, stride: int = 1, padding: Any = 0, dilation: int = 1, groups: int = 1) -> Any:
    """`conv2d` along time: (N, T, C) with (K, C / groups, D) gives (N, I, D), as images of height 1.

    `padding` is an integer, (before, after), "same" or "valid"; (dilation * (K - 1), 0) makes it causal.
    """
    if len(x.shape) != 3 or len(w.shape) != 3:
        raise ShapeError("give (N, T, C) and a kernel (K, C / groups, D)")
    n, t, c = x.shape
    if not isinstance(padding, str):
        padding = ((0, 0), pair("padding", padding, least=0))
    y = conv2d(reshape(x, (n, 1, t, c)), reshape(w, (1, *w.shape)), (1, stride), padding, (1, dilation), groups)
    return reshape(y, (n, *y.shape[2:]))
