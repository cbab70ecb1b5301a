"""Convolutions in which each channel is a group: x, weights (KH, KW, C) and y flat.

There is no matrix product, only loops along the channels, which load three numbers and store one for every
multiplication: at most 30 to 40 Gflop/s on a core whose sgemm does 265.
"""

import numpy as np

from .compiling import kernel
from .windows import steps_inside

CONVOLVE, CONVOLVE_BACK, CORRELATE = 0, 1, 2


@kernel
def multiply_add_pieces(a, at_a, stride_a, b, at_b, stride_b, to, at, stride, length, count):
    """to[at : at + length] += a[at_a : ...] * b[at_b : ...], and so on, `count` times in all, each a stride further.

    Unsigned, an index cannot count from the end, and the compiler sees that it walks straight on.
    """
    for j in range(count):
        p, q, r = at_a + j * stride_a, at_b + j * stride_b, at + j * stride
        for k in range(length):
            to[np.uint64(r + k)] += a[np.uint64(p + k)] * b[np.uint64(q + k)]


@kernel
def each_channel(what, x, weights, y, geometry, begin, end):
    """Over lines begin ... end - 1, adds to y (CONVOLVE), to x (CONVOLVE_BACK) or to the weights (CORRELATE)."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    for line in range(begin, end):
        n, i = line // I, line % I
        for a in range(KH):
            h = i * sh + a * dh - top
            if h < 0 or h >= H:
                continue
            for b in range(KW):
                inside, outside = steps_inside(geometry, b)
                count, stride = outside - inside, sw * C
                pixel = ((n * H + h) * W + inside * sw + b * dw - left) * C
                step, place = (line * J + inside) * C, (a * KW + b) * C
                if what == CONVOLVE:
                    multiply_add_pieces(x, pixel, stride, weights, place, 0, y, step, C, C, count)
                elif what == CONVOLVE_BACK:
                    multiply_add_pieces(y, step, C, weights, place, 0, x, pixel, stride, C, count)
                else:
                    multiply_add_pieces(x, pixel, stride, y, step, C, weights, place, 0, C, count)
