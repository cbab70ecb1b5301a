"""Convolutions over images with features last: x (N, H, W, C), weights (KH, KW, C / groups, D), y (N, I, J, D).

    y[n, i, j, d] = sum_{a,b,c} x[n, stride * i + dilation * a - top, stride * j + dilation * b - left, c] w[a, b, c, d]

Blocking: a line is one (n, i) with all its j. Some lines at a time, what the kernel sees at each step is laid out as
a row of a matrix ("im2col") that stays in the cache, and is multiplied by the weights at once; a thread takes some of
the lines. The weight gradient multiplies the same matrix, transposed, by y; every thread adds up its own lines, and
these sums are added in order. The gradient by x of stride 1 is a convolution with the kernel turned round; of any other
stride, y times the transposed weights makes such rows, which are added to where they were seen ("col2im"). Where each
channel is a group (depthwise) there is no matrix product, only loops along the channels.

Memory: x is read and y written once; the matrix, KH KW times as large as x, is written to and read from the cache only.
Operations: 2 KH KW C D / groups a step, in sgemm, and less the fewer channels there are to pay for laying a row out.
The sgemm is that of SciPy's BLAS, where Numba finds it, held to one thread: the threads are those of `share`. A NumPy
whose BLAS has several threads takes the cores away for a while after each product, so give it one (`runtime.tuned(1)`).

Measured on AVX-512 cores whose sgemm does 265 Gflop/s each, 3x3 kernels, batch 64, 925 Mflop in each (ms, 1 and 2
threads; the gradient by x takes as long as y does):

                          y                     gradient by w
    28x28,  32 channels   4.5, 2.3  78 %        4.6, 2.4  75 %  of that sgemm, on one thread
    14x14,  64 channels   4.0, 2.1  87 %        5.2, 2.8  67 %
     7x7,  128 channels   4.1, 2.2  86 %        4.3, 2.4  80 %

Laying out takes 1.0, 0.5 and 0.2 ms of this; the rest is what smaller matrices lose. With one channel on either side
there is nothing to reuse, and it takes what moving the rows takes, a twentieth of that rate. The depthwise loops load
three numbers and store one for every multiplication, and reach 30 to 40 Gflop/s.
"""

import threading

import numpy as np

from .compiling import kernel
from .threads import one_blas_thread, share, threads

float32 = np.float32
ZERO = float32(0)
SCRATCH = 2**19                 # numbers in the rows laid out at a time, at most: two megabytes
UNPACKED = 10**6                # multiplications up to which OpenBLAS does not pack the matrices first
WORTH_SHARING = 2**22           # multiplications that take about as long as sharing them out, 40 us

# -- laying out and taking back ----------------------------------------------------------------------------------------


@kernel
def clear(to):
    for k in range(to.size):
        to[k] = ZERO


@kernel
def copy(source, to):
    for k in range(to.size):
        to[k] = source[k]


@kernel
def add(source, to):
    for k in range(to.size):
        to[k] += source[k]


@kernel
def clear_pieces(to, start, step, length, count):
    """to[start : start + length] = 0, and so on, `count` times in all, each a `step` further."""
    for j in range(count):
        clear(to[start + j * step : start + j * step + length])


@kernel
def copy_pieces(x, at, stride, to, start, step, length, count):
    """to[start : start + length] = x[at : at + length], and so on, `count` times in all, each a step or stride further.

    A loop of its own, its lengths known before it begins: three times faster than the same inside the loops below.
    """
    for j in range(count):
        copy(x[at + j * stride : at + j * stride + length], to[start + j * step : start + j * step + length])


@kernel
def add_pieces(rows, start, step, x, at, stride, length, count):
    """The transpose of `copy_pieces`: adds each piece to where it would be copied from."""
    for j in range(count):
        add(rows[start + j * step : start + j * step + length], x[at + j * stride : at + j * stride + length])


@kernel
def steps_inside(geometry, b):
    """The first step of a line at which place b of the kernel lies on the image, and the first that follows."""
    W, J, sw, dw, left = geometry[1], geometry[4], geometry[9], geometry[11], geometry[13]
    first = max(0, -((b * dw - left) // sw))
    end = min(J, (W - 1 - b * dw + left) // sw + 1)
    return (first, end) if first < end else (J, J)


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
def take_columns(y, part, first, start):
    """part[p, k] = y[first + p, start + k]: the channels of one group."""
    for p in range(part.shape[0]):
        copy(y[first + p, start : start + part.shape[1]], part[p])


@kernel
def put_columns(part, y, first, start):
    """y[first + p, start + k] = part[p, k]."""
    for p in range(part.shape[0]):
        copy(part[p], y[first + p, start : start + part.shape[1]])


# -- matrix products of what is laid out: x (numbers,), y (steps, D) ---------------------------------------------------


@kernel
def convolve(x, weights, y, geometry, begin, end, rows, part):
    """Writes lines begin ... end - 1 of y; weights (groups, KH KW c, d). `rows` and `part` hold some lines."""
    groups, d, J = weights.shape[0], weights.shape[2], geometry[4]
    lines = rows.shape[0] // J
    for first in range(begin, end, lines):
        count = min(lines, end - first)
        p, q = first * J, (first + count) * J
        for g in range(groups):
            lay_out(x, rows.reshape(rows.size), geometry, g, first, count)
            if groups == 1:
                np.dot(rows[: q - p], weights[0], y[p:q])
            else:
                np.dot(rows[: q - p], weights[g], part[: q - p])
                put_columns(part[: q - p], y, p, g * d)


@kernel
def convolve_back(y, weights, x, geometry, begin, end, rows, part):
    """Adds to x what lines begin ... end - 1 of y give; weights (groups, d, KH KW c)."""
    groups, d, J = weights.shape[0], weights.shape[1], geometry[4]
    lines = rows.shape[0] // J
    for first in range(begin, end, lines):
        count = min(lines, end - first)
        p, q = first * J, (first + count) * J
        for g in range(groups):
            if groups == 1:
                np.dot(y[p:q], weights[0], rows[: q - p])
            else:
                take_columns(y, part[: q - p], p, g * d)
                np.dot(part[: q - p], weights[g], rows[: q - p])
            take_back(rows.reshape(rows.size), x, geometry, g, first, count)


@kernel
def correlate(x, y, total, geometry, begin, end, rows, part, product):
    """Adds to total (groups, KH KW c, d) what lines begin ... end - 1 give; `product` holds one group of it."""
    groups, K, d = total.shape
    J = geometry[4]
    lines = rows.shape[0] // J
    for first in range(begin, end, lines):
        count = min(lines, end - first)
        p, q = first * J, (first + count) * J
        for g in range(groups):
            lay_out(x, rows.reshape(rows.size), geometry, g, first, count)
            if groups == 1:
                np.dot(rows[: q - p].T, y[p:q], product)
            else:
                take_columns(y, part[: q - p], p, g * d)
                np.dot(rows[: q - p].T, part[: q - p], product)
            for k in range(K):
                add(product[k], total[g, k])


# -- each channel by itself: x, weights (KH, KW, C) and y as (numbers,) ------------------------------------------------

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


# -- launching: contiguous float32 arrays, none of them empty; `win` is a tinygen.ops.windows.Window -------------------


def conv2d(x, w, win, groups):
    """y (N, I, J, D)."""
    (n, h, width, c), d = x.shape, w.shape[3]
    geometry = geometry_of((h, width), c, win, groups)
    if groups == c == d:
        y = np.zeros((n, *win.steps, d), float32)
        _each_channel(CONVOLVE, x, w, y, geometry)
    else:
        y = np.empty((n, *win.steps, d), float32)
        _convolve(x, np.ascontiguousarray(_by_group(w, groups)), y, geometry)
    return y


def conv_transpose2d(y, w, image, win, groups):
    """x (N, H, W, C) of that `image` (H, W)."""
    (n, i, j, d), (kh, kw, c, _) = y.shape, w.shape
    geometry, each = geometry_of(image, c * groups, win, groups), d // groups
    x = np.zeros((n, *image, c * groups), float32)
    if groups == c * groups == d:
        _each_channel(CONVOLVE_BACK, x, w, y, geometry)
    elif win.stride == (1, 1):
        before = [e * (k - 1) - p[0] for e, k, p in zip(win.dilation, win.size, win.pads)]
        turned = w[::-1, ::-1].reshape(kh, kw, c, groups, each).transpose(3, 0, 1, 4, 2)
        weights = np.ascontiguousarray(turned).reshape(groups, kh * kw * each, c)
        _convolve(y, weights, x, (i, j, d, *image, kh, kw, each, 1, 1, *win.dilation, *before))
    else:
        weights = np.ascontiguousarray(_by_group(w, groups).swapaxes(1, 2))
        numbers, steps, K = x.reshape(-1), y.reshape(-1, d), kh * kw * c

        def run(_, begin, end):
            room = _lines(geometry, each) * j
            convolve_back(steps, weights, numbers, geometry, begin, end, *_scratch((room, K), (room, each)))

        _share_lines(run, n * i, i, 4, y.size * K)                      # whole images: lines of one overlap in it
    return x


def conv2d_weight_gradient(x, y, win, groups):
    """w (KH, KW, C / groups, D)."""
    (n, i, j, d), channels = y.shape, x.shape[3]
    geometry, c, each = geometry_of(x.shape[1:3], channels, win, groups), channels // groups, d // groups
    if groups == channels == d:
        w = np.zeros((*win.size, 1, d), float32)
        _each_channel(CORRELATE, x, w, y, geometry)
        return w
    numbers, steps, K = x.reshape(-1), y.reshape(-1, d), win.size[0] * win.size[1] * c
    totals = np.zeros((threads(), groups, K, each), float32)

    def run(number, begin, end):
        room = _lines(geometry, each, least=48) * j                     # each product is added to the total
        scratch = _scratch((room, K), (room, each), (K, each))
        correlate(numbers, steps, totals[number], geometry, begin, end, *scratch)

    _share_lines(run, n * i, 1, 1, y.size * K)
    return _in_order(totals).swapaxes(0, 1).reshape(*win.size, c, d)


def _convolve(x, weights, y, geometry):
    numbers, (_, K, each) = x.reshape(-1), weights.shape
    steps, J = y.reshape(-1, y.shape[3]), y.shape[2]

    def run(_, begin, end):
        room = _lines(geometry, each) * J
        convolve(numbers, weights, steps, geometry, begin, end, *_scratch((room, K), (room, each)))

    _share_lines(run, len(steps) // J, 1, 4, y.size * K)


def _each_channel(what, x, w, y, geometry):
    lines, i, both = y.shape[0] * y.shape[1], y.shape[1], (x.reshape(-1), y.reshape(-1))
    # where the weights are what is computed, each thread adds to some of its own
    copies = np.zeros((threads(), w.size), float32) if what == CORRELATE else w.reshape(1, -1)

    def run(number, begin, end):
        weights = copies[number] if what == CORRELATE else copies[0]
        each_channel(what, both[0], weights, both[1], geometry, begin, end)

    _share_lines(run, lines, i if what == CONVOLVE_BACK else 1, 1, 8 * y.size * w.shape[0] * w.shape[1])
    if what == CORRELATE:
        w[...] = _in_order(copies).reshape(w.shape)


def geometry_of(image, channels, win, groups):
    """All numbers that the loops need: H, W, C, I, J, KH, KW, channels of a group, strides, dilations, top, left."""
    before = [p[0] for p in win.pads]
    return (*image, channels, *win.steps, *win.size, channels // groups, *win.stride, *win.dilation, *before)


def _by_group(w, groups):
    """(KH, KW, C / groups, D) -> (groups, KH KW C / groups, D / groups)."""
    kh, kw, c, d = w.shape
    return w.reshape(kh * kw * c, groups, d // groups).swapaxes(0, 1)


def _lines(geometry, d, least=12):
    """How many lines to lay out at a time, when each step makes d numbers.

    A product of no more than UNPACKED multiplications skips a copy of both matrices. If that leaves fewer than `least`
    rows, too few to be worth the rest of what is done for each product, as many as the scratch allows.
    """
    J, KH, KW, c = geometry[4:8]
    rows = UNPACKED // (KH * KW * c * d)
    return max(1, min(rows if rows >= max(J, least) else SCRATCH, SCRATCH // (KH * KW * c)) // J)


_own = threading.local()


def _scratch(*shapes):
    """Arrays of these shapes to write into, of memory that this thread keeps, unless it is more than 32 megabytes."""
    sizes = [a * b for a, b in shapes]
    memory = getattr(_own, "memory", None)
    if memory is None or memory.size < sum(sizes):
        memory = np.empty(sum(sizes), float32)
        if memory.nbytes <= 2**25:
            _own.memory = memory
    starts = np.cumsum([0, *sizes])
    return [memory[at : at + size].reshape(shape) for at, size, shape in zip(starts, sizes, shapes)]


def _share_lines(run, lines, multiple, parts, work):
    """run(number, begin, end) over all lines: `parts` pieces a thread, whole multiples, or one if there is little work.

    Which piece is which depends on the number of threads alone.
    """
    one_blas_thread()
    limit = threads() if work >= WORTH_SHARING else 1
    units = lines // multiple
    pieces = min(units, limit * parts if limit > 1 else 1)
    ends = [units * k // pieces * multiple for k in range(pieces + 1)]
    share(lambda k: run(k, ends[k], ends[k + 1]), pieces, limit)


def _in_order(totals):
    """The sum over the first axis, first to last."""
    for total in totals[1:]:
        totals[0] += total
    return totals[0]
