"""Convolutions as matrix products of what the kernel sees: im2col, for any window, stride, dilation and groups.

Blocking: a line is one (n, i) with all its j. Some lines at a time, what the kernel sees at each step is laid out as
a row of a matrix that stays in the cache, and is multiplied by the weights at once. The weight gradient multiplies the
same matrix, transposed, by y, and adds to what was there. The gradient by x multiplies y by the transposed weights,
which makes such rows, and adds them to where they were seen ("col2im"). Of a single channel the rows would be a few
numbers long; there, what each place of the kernel sees along a line is laid out in a row, which is as long as a line.

Memory: x is read and y written once; the matrix, KH KW times as large as x, is written to and read from the cache only.
Operations: 2 KH KW C D / groups a step, in sgemm, and less the fewer channels there are to pay for laying a row out.
"""

import numpy as np

from .compiling import kernel
from .matmul import multiply
from .windows import steps_inside

ZERO = np.float32(0)

# -- stretches of memory: an unsigned index cannot count from the end, so the compiler sees that it walks straight on --


@kernel
def clear_pieces(to, start, step, length, count):
    """to[start : start + length] = 0, and so on, `count` times in all, each a `step` further."""
    for j in range(count):
        for k in range(length):
            to[np.uint64(start + j * step + k)] = ZERO


@kernel
def copy_pieces(x, at, stride, to, start, step, length, count):
    """to[start : start + length] = x[at : at + length], and so on, `count` times in all, each a step or stride further.

    A loop of its own, its lengths known before it begins: three times faster than the same inside the loops below.
    """
    for j in range(count):
        for k in range(length):
            to[np.uint64(start + j * step + k)] = x[np.uint64(at + j * stride + k)]


@kernel
def add_pieces(rows, start, step, x, at, stride, length, count):
    """The transpose of `copy_pieces`: adds each piece to where it would be copied from."""
    for j in range(count):
        for k in range(length):
            x[np.uint64(at + j * stride + k)] += rows[np.uint64(start + j * step + k)]


# -- laying out and taking back ----------------------------------------------------------------------------------------


@kernel
def lay_out(x, rows, geometry, group, first, count):
    """im2col: a row of what the kernel sees of x for each step of lines first ... first + count - 1, all (numbers,)."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    begin, (some, end) = steps_inside(geometry, 0)[0], steps_inside(geometry, KW - 1)
    whole = begin < end and some < end                   # at steps begin ... end - 1 all of the kernel is on the image
    joined = c == C and dw == 1 and whole                # and there neighbours are one piece of memory
    K, stride = KH * KW * c, sw * C
    for line in range(count):
        n, i = (first + line) // I, (first + line) % I
        for a in range(KH):
            h = i * sh + a * dh - top
            row = line * J * K + a * KW * c
            if h < 0 or h >= H:
                clear_pieces(rows, row, K, KW * c, J)
                continue
            pixel = ((n * H + h) * W - left) * C + group * c
            if joined:
                copy_pieces(x, pixel + begin * stride, stride, rows, row + begin * K, K, KW * c, end - begin)
            for b in range(KW):
                inside, outside = steps_inside(geometry, b)
                low, high = (begin, end) if joined else (outside, outside)       # these steps are there already
                part, at = row + b * c, pixel + b * dw * C
                clear_pieces(rows, part, K, c, inside)
                copy_pieces(x, at + inside * stride, stride, rows, part + inside * K, K, c, low - inside)
                copy_pieces(x, at + high * stride, stride, rows, part + high * K, K, c, outside - high)
                clear_pieces(rows, part + outside * K, K, c, J - outside)


@kernel
def take_back(rows, x, geometry, group, first, count):
    """col2im, the transpose of `lay_out`: adds what stands in `rows` to where it was seen."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    K, stride = KH * KW * c, sw * C
    for line in range(count):
        n, i = (first + line) // I, (first + line) % I
        for a in range(KH):
            h = i * sh + a * dh - top
            if h < 0 or h >= H:
                continue
            for b in range(KW):
                inside, outside = steps_inside(geometry, b)
                at = ((n * H + h) * W + inside * sw + b * dw - left) * C + group * c
                row = (line * J + inside) * K + (a * KW + b) * c
                add_pieces(rows, row, K, x, at, stride, c, outside - inside)


@kernel
def lay_out_channel(x, rows, geometry, first, count):
    """The same of images with one channel, transposed: a row for each place of the kernel, with all steps."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    for a in range(KH):
        for b in range(KW):
            inside, outside = steps_inside(geometry, b)
            for line in range(count):
                n, i = (first + line) // I, (first + line) % I
                h, row = i * sh + a * dh - top, ((a * KW + b) * count + line) * J
                low, high = (inside, outside) if 0 <= h < H else (J, J)
                clear_pieces(rows, row, 0, low, 1)
                copy_line(x, (n * H + h) * W + low * sw + b * dw - left, sw, rows, row + low, high - low)
                clear_pieces(rows, row + high, 0, J - high, 1)


@kernel
def copy_line(x, at, stride, to, start, count):
    for j in range(count):
        to[np.uint64(start + j)] = x[np.uint64(at + j * stride)]


@kernel
def take_back_channel(rows, x, geometry, first, count):
    """The transpose of `lay_out_channel`: adds what stands in `rows` to where it was seen."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    for a in range(KH):
        for b in range(KW):
            inside, outside = steps_inside(geometry, b)
            for line in range(count):
                n, i = (first + line) // I, (first + line) % I
                h, row = i * sh + a * dh - top, ((a * KW + b) * count + line) * J
                if 0 <= h < H and inside < outside:
                    at = (n * H + h) * W + inside * sw + b * dw - left
                    add_line(rows, row + inside, x, at, sw, outside - inside)


@kernel
def add_line(rows, start, x, at, stride, count):
    for j in range(count):
        x[np.uint64(at + j * stride)] += rows[np.uint64(start + j)]


# -- matrix products of what is laid out: x, weights and y flat --------------------------------------------------------


@kernel
def convolve(x, weights, y, geometry, groups, D, begin, end, lines, rows):
    """Writes lines begin ... end - 1 of y; weights (KH KW c, D). `rows` holds what is laid out of `lines` lines."""
    J, K, d = geometry[4], geometry[5] * geometry[6] * geometry[7], D // groups
    for first in range(begin, end, lines):
        count = min(lines, end - first)
        start, steps = first * J * D, count * J
        if geometry[2] == 1:
            lay_out_channel(x, rows, geometry, first, count)
            multiply(rows, steps, True, weights, D, False, y[start:], D, steps, K, D, 0)
            continue
        for g in range(groups):
            lay_out(x, rows, geometry, g, first, count)
            multiply(rows, K, False, weights[g * d :], D, False, y[start + g * d :], D, steps, K, d, 0)


@kernel
def convolve_back(y, weights, x, geometry, groups, D, begin, end, lines, rows):
    """Adds to x what lines begin ... end - 1 of y give; weights (groups, d, KH KW c)."""
    J, K, d = geometry[4], geometry[5] * geometry[6] * geometry[7], D // groups
    for first in range(begin, end, lines):
        count = min(lines, end - first)
        start, steps = first * J * D, count * J
        if geometry[2] == 1:
            multiply(weights, K, True, y[start:], D, True, rows, steps, K, D, steps, 0)
            take_back_channel(rows, x, geometry, first, count)
            continue
        for g in range(groups):
            multiply(y[start + g * d :], D, False, weights[g * d * K :], K, False, rows, K, steps, d, K, 0)
            take_back(rows, x, geometry, g, first, count)


@kernel
def correlate(x, y, total, geometry, groups, D, begin, end, lines, rows):
    """Adds to total (KH KW c, D) what lines begin ... end - 1 give."""
    J, K, d = geometry[4], geometry[5] * geometry[6] * geometry[7], D // groups
    for first in range(begin, end, lines):
        count = min(lines, end - first)
        start, steps = first * J * D, count * J
        if geometry[2] == 1:
            lay_out_channel(x, rows, geometry, first, count)
            multiply(rows, steps, False, y[start:], D, False, total, D, K, steps, D, 1)
            continue
        for g in range(groups):
            lay_out(x, rows, geometry, g, first, count)
            multiply(rows, K, True, y[start + g * d :], D, False, total[g * d :], D, K, steps, d, 1)
