"""Convolutions over images with features last: x (N, H, W, C), weights (KH, KW, C / groups, D), y (N, I, J, D).

    y[n, i, j, d] = sum_{a,b,c} x[n, stride * i + dilation * a - top, stride * j + dilation * b - left, c] w[a, b, c, d]

Blocking: a line is one (n, i) with all its j. Some lines at a time, what the kernel sees at each step is laid out as
a row of a matrix ("im2col") that stays in the second-level cache, and is multiplied by the weights at once; a thread
takes some of the lines. The weight gradient multiplies the same matrix, transposed, by y; every thread adds up its own
lines, and these sums are added in order. The gradient by x of stride 1 is a convolution with the kernel turned round;
of any other stride, y times the transposed weights makes such rows, which are added to where they were seen ("col2im").
Where each channel is a group (depthwise) there is no matrix product, only loops along the channels.

Memory: x is read and y written once; the matrix, KH KW times as large as x, is written to and read from the cache only.
Operations: 2 KH KW C D / groups a step, in sgemm, and less the fewer channels there are to pay for laying a row out.
The sgemm is that of SciPy's BLAS, where Numba finds it, held to one thread: the threads are those of `share`.
"""

import functools
import threading

import numpy as np

from .compiling import kernel
from .threads import share, threads

float32 = np.float32
ZERO = float32(0)
SCRATCH = 2**18                 # numbers in the rows laid out at a time: one megabyte
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
def multiply_add(a, b, to):
    for k in range(to.size):
        to[k] += a[k] * b[k]


@kernel
def lay_out(x, rows, geometry, group, first, count):
    """im2col: for each step of lines first ... first + count - 1 a row of what the kernel sees of x (numbers,)."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    for line in range(count):
        n, i = (first + line) // I, (first + line) % I
        for a in range(KH):
            h = i * sh + a * dh - top
            pixel = (n * H + h) * W
            for j in range(J):
                to = rows[line * J + j, a * KW * c : (a + 1) * KW * c]
                start = j * sw - left
                if h < 0 or h >= H:
                    clear(to)
                elif c == C and dw == 1:                              # neighbours are one piece of memory
                    low = min(max(0, -start), KW)
                    high = max(low, min(KW, W - start))
                    clear(to[: low * c])
                    copy(x[(pixel + start + low) * c : (pixel + start + high) * c], to[low * c : high * c])
                    clear(to[high * c :])
                else:
                    for b in range(KW):
                        w = start + b * dw
                        at = (pixel + w) * C + group * c
                        if w < 0 or w >= W:
                            clear(to[b * c : (b + 1) * c])
                        else:
                            copy(x[at : at + c], to[b * c : (b + 1) * c])


@kernel
def take_back(rows, x, geometry, group, first, count):
    """col2im, the transpose of `lay_out`: adds what stands in `rows` to where it was seen."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    for line in range(count):
        n, i = (first + line) // I, (first + line) % I
        for a in range(KH):
            h = i * sh + a * dh - top
            if h < 0 or h >= H:
                continue
            for j in range(J):
                for b in range(KW):
                    w = j * sw + b * dw - left
                    if 0 <= w < W:
                        at = ((n * H + h) * W + w) * C + group * c
                        seen = (a * KW + b) * c
                        add(rows[line * J + j, seen : seen + c], x[at : at + c])


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
            lay_out(x, rows, geometry, g, first, count)
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
            take_back(rows, x, geometry, g, first, count)


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
            lay_out(x, rows, geometry, g, first, count)
            if groups == 1:
                np.dot(rows[: q - p].T, y[p:q], product)
            else:
                take_columns(y, part[: q - p], p, g * d)
                np.dot(rows[: q - p].T, part[: q - p], product)
            for k in range(K):
                add(product[k], total[g, k])


# -- each channel by itself: x (pixels, C), weights (KH KW, C), y (steps, C) -------------------------------------------

CONVOLVE, CONVOLVE_BACK, CORRELATE = 0, 1, 2


@kernel
def each_channel(what, x, weights, y, geometry, begin, end):
    """Over lines begin ... end - 1, adds to y (CONVOLVE), to x (CONVOLVE_BACK) or to the weights (CORRELATE)."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    for line in range(begin, end):
        n, i = line // I, line % I
        for j in range(J):
            for a in range(KH):
                h = i * sh + a * dh - top
                if h < 0 or h >= H:
                    continue
                for b in range(KW):
                    w = j * sw + b * dw - left
                    if w < 0 or w >= W:
                        continue
                    pixel, step, place = (n * H + h) * W + w, line * J + j, a * KW + b
                    if what == CONVOLVE:
                        multiply_add(x[pixel], weights[place], y[step])
                    elif what == CONVOLVE_BACK:
                        multiply_add(y[step], weights[place], x[pixel])
                    else:
                        multiply_add(x[pixel], y[step], weights[place])


# -- launching: contiguous float32 arrays, none of them empty; `win` is a tinygen.ops.windows.Window -------------------


def conv2d(x, w, win, groups):
    """y (N, I, J, D)."""
    (n, h, width, c), d = x.shape, w.shape[3]
    geometry = _geometry((h, width), c, win, groups)
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
    geometry, each = _geometry(image, c * groups, win, groups), d // groups
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
    geometry, c, each = _geometry(x.shape[1:3], channels, win, groups), channels // groups, d // groups
    if groups == channels == d:
        w = np.zeros((*win.size, 1, d), float32)
        _each_channel(CORRELATE, x, w, y, geometry)
        return w
    numbers, steps, K = x.reshape(-1), y.reshape(-1, d), win.size[0] * win.size[1] * c
    totals = np.zeros((threads(), groups, K, each), float32)

    def run(number, begin, end):
        room = _lines(geometry, each) * j
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
    c, (kh, kw), i, j = x.shape[3], w.shape[:2], geometry[3], geometry[4]
    pixels, steps = x.reshape(-1, c), y.reshape(-1, c)
    # each thread adds to weights of its own; all read the same ones otherwise
    totals = np.zeros((threads(), kh * kw, c), float32) if what == CORRELATE else w.reshape(1, kh * kw, c)

    def run(number, begin, end):
        weights = totals[number if what == CORRELATE else 0]
        each_channel(what, pixels, weights, steps, geometry, begin, end)

    _share_lines(run, len(steps) // j, i if what == CONVOLVE_BACK else 1, 1, 8 * y.size * kh * kw)
    if what == CORRELATE:
        w[...] = _in_order(totals).reshape(w.shape)


def _geometry(image, channels, win, groups):
    before = [p[0] for p in win.pads]
    return (*image, channels, *win.steps, *win.size, channels // groups, *win.stride, *win.dilation, *before)


def _by_group(w, groups):
    """(KH, KW, C / groups, D) -> (groups, KH KW C / groups, D / groups)."""
    kh, kw, c, d = w.shape
    return w.reshape(kh * kw * c, groups, d // groups).swapaxes(0, 1)


def _lines(geometry, d):
    """How many lines to lay out at a time: more steps the more channels they make, as far as the scratch allows."""
    J, KH, KW, c = geometry[4:8]
    return max(1, min(SCRATCH // (KH * KW * c), max(64, 4 * d)) // J)


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
    _one_blas_thread()
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


def _one_blas_thread():
    """Holds the BLAS that Numba's np.dot calls to one thread, also after somebody has set it to more."""
    for library in _blas():
        if library.num_threads != 1:
            library.set_num_threads(1)


@functools.cache
def _blas():
    """SciPy's BLAS, whatever its kind."""
    import scipy.linalg.cython_blas  # noqa: F401  (loads it)
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().select(user_api="blas").lib_controllers
    return [library for library in found if "numpy" not in library.filepath] or found
