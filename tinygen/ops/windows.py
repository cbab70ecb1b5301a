"""How a window moves over an image: the geometry that convolution and pooling share. Numbers only, no arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tinygen.errors import InputError, ShapeError

Pair = tuple[int, int]  # one number for the rows, one for the columns


class Window(NamedTuple):
    """A window of `size` that takes `steps` over an image; `pads` are ((top, bottom), (left, right))."""

    size: Pair
    stride: Pair
    pads: tuple[Pair, Pair]
    dilation: Pair
    steps: Pair


def window(image: Pair, size: Any, stride: Any, padding: Any, dilation: Any = 1) -> Window:
    """The window that these parameters describe on an image of (H, W); ShapeError if it does not fit in."""
    size, stride, dilation = pair("size", size), pair("stride", stride), pair("dilation", dilation)
    spans = reach(size, dilation)
    pads = margins(padding, image, spans, stride)
    room = tuple(n + sum(p) for n, p in zip(image, pads))
    for side, s, r in zip(("high", "wide"), spans, room):
        if s > r:
            raise ShapeError(f"the window is {s} {side} (dilation included), the padded image only {r}")
    return Window(size, stride, pads, dilation, tuple((r - s) // t + 1 for r, s, t in zip(room, spans, stride)))


def reach(size: Pair, dilation: Pair) -> Pair:
    """The rows and columns from the first place of a window to its last, both included."""
    return tuple(d * (k - 1) + 1 for k, d in zip(size, dilation))


def pair(name: str, value: Any, least: int = 1) -> Pair:
    """An integer for both axes, or a pair of them, as a pair; InputError if one is below `least`."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or not all(isinstance(v, int | np.integer) and v >= least for v in both):
        raise InputError(f"{name} must be an integer >= {least} or a pair of them, not {value!r}")
    return both


def margins(padding: Any, image: Pair, spans: Pair, stride: Pair) -> tuple[Pair, Pair]:
    """((top, bottom), (left, right)) from what `conv2d` takes as padding."""
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise InputError(f'padding must be "same", "valid" or integers, not {padding!r}')
        missing = [max((-(-n // t) - 1) * t + s - n, 0) for n, s, t in zip(image, spans, stride)]
        return tuple((m // 2, m - m // 2) if padding == "same" else (0, 0) for m in missing)
    both = padding if isinstance(padding, tuple | list) and len(padding) == 2 else (padding, padding)
    return tuple(pair("padding", p, least=0) for p in both)


def places(image: Pair, win: Window) -> Iterator[tuple[int, int, tuple, tuple]]:
    """For each place (a, b) of the window: what it meets of the image as the window moves, and at which steps.

    Both are index tuples, for arrays (N, H, W, ...) and (N, I, J, ...). Steps at which the place lies in the padding
    are left out.
    """
    rows, columns = (
        [_meetings(n, steps, a * d - before, t) for a in range(size)]
        for n, size, t, (before, _), d, steps in zip(image, *win, strict=True)
    )
    for a, (row, i) in enumerate(rows):
        for b, (column, j) in enumerate(columns):
            yield a, b, (slice(None), row, column), (slice(None), i, j)


def _meetings(side: int, steps: int, offset: int, stride: int) -> tuple[slice, slice]:
    """The positions i * stride + offset that lie in [0, side), and their i < steps, both as slices."""
    first, last = max(0, -(offset // stride)), min(steps - 1, (side - 1 - offset) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    return slice(offset + first * stride, offset + last * stride + 1, stride), slice(first, last + 1)
