"""Convolutions over images with features last: x (N, H, W, C), weights (KH, KW, C / groups, D), y (N, I, J, D).

    y[n, i, j, d] = sum_{a,b,c} x[n, stride * i + dilation * a - top, stride * j + dilation * b - left, c] w[a, b, c, d]

What is computed, how it is shared out, and by which of five ways:

    1x1, stride 1           one product of matrices                                                 matmul.py
    3x3, stride 1           2.25 times fewer multiplications, from 8 channels a group on            winograd.py
    4x4, 3x3, stride 2      1.78 and 1.44 times fewer, from 8 channels on                           winograd_strided.py
    groups = C = D          loops along the channels                                                depthwise.py
    all other               what the kernel sees is laid out as rows of a matrix, and multiplied    im2col.py

The gradient by x of a convolution of stride 1 is a convolution with the kernel turned round; of any other stride it is
the transpose of im2col, or of 4x4 tiles. Each thread takes some of the lines (n, i); where weights are computed, every
thread adds up its own, and these sums are added in order. All of it lives on the sgemm of one thread that matmul.py
describes.

Measured on one thread, ms, and operations a second beside that sgemm at 1024 x 1024 (each multiplication that the sum
above has counts, also where a way gets by with fewer):

                                                 y             gradient by x     gradient by w
    3x3,  28x28, batch 64,  32 channels         3.4, 112 %       3.3, 114 %       3.7, 103 %
    3x3,  14x14,            64                  2.3, 169 %       2.4, 163 %       2.6, 148 %
    3x3,   7x7,            128                  3.4, 110 %       3.5, 105 %       2.9, 131 %
    4x4,  14x14, stride 2,  64 to 128           3.4, 101 %       3.0, 112 %       3.3, 102 %
    3x3,  28x28, stride 2,  32 to 64            2.4,  80 %       2.4,  78 %       2.5,  75 %
    3x3,  28x28, dilation 2, 32                 3.5, 109 %       3.6, 107 %       4.3,  89 %
    1x1,  14x14,            64 to 128           0.8, 100 %       1.0,  82 %       0.9,  90 %
    3x3,  28x28,             1 to 32            0.3,  39 %       0.5,  22 %       0.4,  34 %

Tiles of 7x7 pixels are a quarter outside. Two threads take 0.54 to 0.6 times as long from 14x14 pixels on.
"""

import threading

import numpy as np

from . import depthwise, im2col, winograd, winograd_strided
from .matmul import UNPACKED, matmul
from .threads import one_blas_thread, share, threads
from .windows import geometry_of, steps_inside  # noqa: F401  (both are also what pooling needs)

float32 = np.float32
SCRATCH = 2**19                 # numbers in the rows laid out at a time, at most: two megabytes
TILES = 2**17                   # numbers in the transformed tiles at a time: half a megabyte
NARROW = 8                      # channels of a group below which tiles are not worth it
LINE = 16                       # numbers in a line of the cache
WORTH_SHARING = 2**23           # multiplications that take about as long as sharing them out, 50 us

# -- launching: contiguous float32 arrays, none of them empty; `win` is a tinygen.ops.windows.Window -------------------


def conv2d(x, w, win, groups):
    """y (N, I, J, D)."""
    (n, h, width, c), d = x.shape, w.shape[3]
    geometry = geometry_of((h, width), c, win, groups)
    if _is_product(win, groups):
        return matmul(x.reshape(-1, c), w.reshape(c, d)).reshape(n, h, width, d)
    if groups == c == d:
        y = np.zeros((n, *win.steps, d), float32)
        _each_channel(depthwise.CONVOLVE, x, w, y, geometry)
    elif d == 1 < c and win.stride == (1, 1):                   # from many channels to one: rather the other way round
        y = np.zeros((n, *win.steps, 1), float32)
        back, size = _turned(geometry, 1, 1), win.size
        _convolve_back(x, np.ascontiguousarray(w[::-1, ::-1].reshape(*size, 1, c)), y, back, 1)
    else:
        y = np.empty((n, *win.steps, d), float32)
        _convolve(x, w, y, geometry, groups)
    return y


def conv_transpose2d(y, w, image, win, groups):
    """x (N, H, W, C) of that `image` (H, W)."""
    (n, _, _, d), (kh, kw, c, _) = y.shape, w.shape
    geometry, each = geometry_of(image, c * groups, win, groups), d // groups
    if _is_product(win, groups):
        return matmul(y.reshape(-1, d), w.reshape(c, d).T).reshape(n, *image, c)
    if groups == c * groups == d:
        x = np.zeros((n, *image, d), float32)
        _each_channel(depthwise.CONVOLVE_BACK, x, w, y, geometry)
    elif win.stride == (1, 1) and not c == groups == 1 < d:
        x = np.empty((n, *image, c * groups), float32)
        turned = w[::-1, ::-1].reshape(kh, kw, c, groups, each).transpose(0, 1, 4, 3, 2)
        turned = np.ascontiguousarray(turned).reshape(kh, kw, each, groups * c)
        _convolve(y, turned, x, _turned(geometry, d, groups), groups)
    elif kh == kw == 4 and _by_strided_tiles(geometry, w.shape, groups, n):
        x = np.empty((n, *image, c), float32)
        _convolve_back_strided(y, w, x, geometry)
    else:
        x = np.zeros((n, *image, c * groups), float32)
        _convolve_back(y, w, x, geometry, groups)
    return x


def conv2d_weight_gradient(x, y, win, groups):
    """w (KH, KW, C / groups, D)."""
    d, channels, geometry = y.shape[3], x.shape[3], geometry_of(x.shape[1:3], x.shape[3], win, groups)
    if _is_product(win, groups):
        return matmul(x.reshape(-1, channels).T, y.reshape(-1, d)).reshape(1, 1, channels, d)
    if groups == channels == d:
        w = np.zeros((*win.size, 1, d), float32)
        _each_channel(depthwise.CORRELATE, x, w, y, geometry)
        return w
    if d == 1 < channels and win.stride == (1, 1):
        turned = _correlate(y, x, _turned(geometry, 1, 1), 1)
        return np.ascontiguousarray(turned[::-1, ::-1]).reshape(*win.size, channels, 1)
    return _correlate(x, y, geometry, groups)


def _is_product(win, groups):
    """Whether every pixel is multiplied by the same matrix, and that is all."""
    return groups == 1 and win.size == win.stride == (1, 1) and win.pads == ((0, 0), (0, 0))


def _turned(geometry, D, groups):
    """The geometry of the convolution, of stride 1, that leads from y to x with the kernel turned round."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    return I, J, D, H, W, KH, KW, D // groups, 1, 1, dh, dw, dh * (KH - 1) - top, dw * (KW - 1) - left


# -- im2col and Winograd -----------------------------------------------------------------------------------------------


def _convolve(x, w, y, geometry, groups):
    if _by_tiles(geometry, w.shape, groups, len(x)):
        return _convolve_tiles(x, w, y, geometry, groups)
    if _by_strided_tiles(geometry, w.shape, groups, len(x)):
        return _convolve_strided(x, w, y, geometry)
    D, J, K = y.shape[3], geometry[4], w.size // y.shape[3]
    operands, lines = (x.reshape(-1), w.reshape(-1), y.reshape(-1), geometry, groups, D), _lines(geometry, D // groups)
    run = lambda _, begin, end: im2col.convolve(*operands, begin, end, lines, *_scratch(lines * J * K))
    _share_lines(run, len(x) * geometry[3], 1, 4, y.size * K)


def _convolve_back(y, w, x, geometry, groups):
    D, I, J, K = y.shape[3], geometry[3], geometry[4], w.size // y.shape[3]
    weights = np.ascontiguousarray(w.reshape(K, D).T)                       # those of a group stand together
    operands, lines = (y.reshape(-1), weights.reshape(-1), x.reshape(-1), geometry, groups, D), _lines(geometry, D)
    run = lambda _, begin, end: im2col.convolve_back(*operands, begin, end, lines, *_scratch(lines * J * K))
    _share_lines(run, len(y) * I, I, 4, y.size * K)                         # whole images: lines of one overlap in it


def _correlate(x, y, geometry, groups):
    D, I, J, KH, KW, c = y.shape[3], *geometry[3:8]
    K = KH * KW * c
    if _by_tiles(geometry, (KH, KW, c, D), groups, len(x)):
        return _correlate_tiles(x, y, geometry, groups)
    if _by_strided_tiles(geometry, (KH, KW, c, D), groups, len(x)):
        return _correlate_strided(x, y, geometry)
    totals, lines = np.zeros((threads(), K * D), float32), _lines(geometry, D // groups, least=24)

    def run(number, begin, end):
        operands = x.reshape(-1), y.reshape(-1), totals[number], geometry, groups, D
        im2col.correlate(*operands, begin, end, lines, *_scratch(lines * J * K))

    _share_lines(run, len(x) * I, 1, 1, y.size * K)
    return _in_order(totals).reshape(KH, KW, c, D)


def _lines(geometry, d, least=96):
    """How many lines to lay out at a time, when each step makes d numbers.

    A product of no more than UNPACKED multiplications is done straight from where the matrices lie. If that leaves
    fewer than `least` rows, too few to be worth the rest of what each product costs, as many as the scratch holds.
    """
    J, KH, KW, c = geometry[4:8]
    rows = UNPACKED // (KH * KW * c * d)
    return max(1, min(rows if rows >= max(J, least) else SCRATCH, SCRATCH // (KH * KW * c)) // J)


def _by_tiles(geometry, kernel, groups, images):
    """Whether Winograd's way is faster: not if a quarter of the tiles is outside, or there are only a few of them."""
    I, J, (KH, KW, c, D), (high, wide) = geometry[3], geometry[4], kernel, _lines_of_tiles(_shape(geometry))
    fits = KH == KW == 3 and geometry[8:10] == (1, 1) and min(c, D // groups) >= NARROW
    return fits and I * J >= 0.7 * 4 * high * wide and images * high * wide >= 64


def _convolve_tiles(x, w, y, geometry, groups):
    D, shape, count = y.shape[3], _shape(geometry), w.size // 9
    between, u = np.empty(12 * count, float32), np.empty(16 * count, float32)
    winograd.transform_weights(w.reshape(-1), between, u, count)
    lines, sizes, zeros = _tiles(shape, D)
    operands = x.reshape(-1), u, y.reshape(-1), shape, groups, D

    def run(_, begin, end):
        v, m, parted = _scratch(*sizes)
        winograd.convolve(*operands, begin, end, lines, v, m, zeros, parted)

    _share_lines(run, len(x) * _lines_of_tiles(shape)[0], 1, 4, 4 * y.size * geometry[7])


def _correlate_tiles(x, y, geometry, groups):
    D, shape, c = y.shape[3], _shape(geometry), geometry[7]
    totals, (lines, sizes, zeros) = np.zeros((threads(), 16 * c * D), float32), _tiles(shape, D)

    def run(number, begin, end):
        v, z, parted = _scratch(*sizes)
        operands = x.reshape(-1), y.reshape(-1), totals[number], shape, groups, D
        winograd.correlate(*operands, begin, end, lines, v, z, zeros, parted)

    _share_lines(run, len(x) * _lines_of_tiles(shape)[0], 1, 1, 4 * y.size * c)
    between, w = np.empty(12 * c * D, float32), np.empty(9 * c * D, float32)
    winograd.transform_gradient(_in_order(totals), between, w, c * D)
    return w.reshape(3, 3, c, D)


def _shape(geometry):
    """H, W, C, I, J, dh, dw, top, left: what is left of a geometry when the window and the stride are given."""
    return (*geometry[:5], *geometry[10:])


def _lines_of_tiles(shape):
    """How many lines of tiles an image has, and how many tiles there are in one."""
    I, J, dh, dw = shape[3:7]
    return dh * -(-I // (2 * dh)), dw * -(-J // (2 * dw))


def _tiles(shape, D):
    """Lines of tiles at a time, the sizes of their V, M and parted lines, and a line of zeros."""
    H, W, C, I, J = shape[:5]
    wide = _lines_of_tiles(shape)[1]
    lines = max(1, min(TILES // (16 * (C + D)), UNPACKED // (C * D)) // wide)
    sizes = 16 * lines * wide * C, 16 * lines * wide * D, 2 * (wide + 1) * C
    return lines, sizes, np.zeros(max(W * C, J * D), float32)


# -- Winograd with stride 2 --------------------------------------------------------------------------------------------


def _by_strided_tiles(geometry, kernel, groups, images):
    """Whether Winograd's way is faster."""
    I, J, (KH, KW, c, D), rest = geometry[3], geometry[4], kernel, geometry[8:12]
    tiles = -(-I // 2) * -(-J // 2)
    fits = {KH, KW} <= {3, 4} and rest == (2, 2, 1, 1) and groups == 1 and min(c, D) >= NARROW
    return fits and I * J >= 0.7 * 4 * tiles and images * tiles >= 64


def _convolve_strided(x, w, y, geometry):
    (C, D), shape = w.shape[2:], _strided_shape(geometry)
    lines, sizes, zeros = _strided_tiles(shape, D, -(-shape[4] // 2), 36 * C, 9 * D, 4 * C)
    operands = x.reshape(-1), _strided_weights(_phases(w)), y.reshape(-1), shape, D

    def run(_, begin, end):
        v, m, parted = _scratch(*sizes)
        winograd_strided.convolve(*operands, begin, end, lines, v, m, zeros, parted)

    _share_lines(run, len(x) * -(-shape[3] // 2), 1, 4, 9 * y.size * C)


def _convolve_back_strided(y, w, x, geometry):
    (C, D), shape = w.shape[2:], _strided_shape(geometry)
    high, wide = (((side - 1 + before) // 2 + 2) // 2 for side, before in zip(shape[:2], shape[7:]))
    lines, sizes, zeros = _strided_tiles(shape, D, wide, 9 * D, 9 * C, 2 * D)
    turned = _phases(w)[::-1, :, ::-1].swapaxes(4, 5)
    operands = y.reshape(-1), _strided_weights(turned), x.reshape(-1), shape, D

    def run(_, begin, end):
        v, m, parted = _scratch(*sizes)
        winograd_strided.convolve_back(*operands, begin, end, lines, v, m, zeros, parted)

    _share_lines(run, len(x) * high, 1, 4, 9 * y.size * C)


def _correlate_strided(x, y, geometry):
    C, D, shape = x.shape[3], y.shape[3], _strided_shape(geometry)
    totals = np.zeros((threads(), 36 * C * D), float32)
    lines, sizes, zeros = _strided_tiles(shape, D, -(-shape[4] // 2), 36 * C, 9 * D, 4 * C)

    def run(number, begin, end):
        v, z, parted = _scratch(*sizes)
        operands = x.reshape(-1), y.reshape(-1), totals[number], shape, D
        winograd_strided.correlate(*operands, begin, end, lines, v, z, zeros, parted)

    _share_lines(run, len(x) * -(-shape[3] // 2), 1, 1, 9 * y.size * C)
    q = _in_order(totals).reshape(3, 3, 2, 2, C, D)
    q = np.stack([q[0] + q[1], q[1] + q[2]])                                                    # G^T Q: (a, v, p, q)
    q = np.stack([q[:, 0] + q[:, 1], q[:, 1] + q[:, 2]])                                        # and (b, a, p, q)
    w, (KH, KW) = q.transpose(1, 2, 0, 3, 4, 5).reshape(4, 4, C, D), shape[5:7]
    if KH == 3:                                                                                 # as in `_phases`
        w[1] += w[3]
    if KW == 3:
        w[:, 1] += w[:, 3]
    return np.ascontiguousarray(w[:KH, :KW])


def _strided_shape(geometry):
    """H, W, C, I, J, KH, KW, top, left: what is left of a geometry when the strides are given."""
    return (*geometry[:7], *geometry[12:])


def _phases(w):
    """The 2x2 kernels of the phases, (a, p, b, q, C, D); where a phase has a single line or column, it stands twice."""
    lines, columns = ([0, 1, 2, 3 if size == 4 else 1] for size in w.shape[:2])
    return w[lines][:, columns].reshape(2, 2, 2, 2, *w.shape[2:])


def _strided_weights(g):
    """G g G^T of each phase: (2, 2, 2, 2, C, D) -> (3, 3, 2, 2, C, D), flat."""
    g = np.stack([g[0], g[0] + g[1], g[1]])                                                     # (u, p, b, q)
    g = np.stack([g[:, :, 0], g[:, :, 0] + g[:, :, 1], g[:, :, 1]], axis=1)                     # (u, v, p, q)
    return g.reshape(-1)


def _strided_tiles(shape, D, wide, first, second, parted):
    """Lines of tiles at a time, the sizes of two matrices with so many numbers a tile, and of parted lines; zeros."""
    H, W, C, I, J = shape[:5]
    lines = max(1, min(TILES // (first + second), UNPACKED // (C * D)) // wide)
    sizes = lines * wide * first, lines * wide * second, (wide + 1) * parted
    return lines, sizes, np.zeros(max(W * C, J * D, wide * max(C, D)), float32)


# -- each channel by itself --------------------------------------------------------------------------------------------


def _each_channel(what, x, w, y, geometry):
    lines, i, both = y.shape[0] * y.shape[1], y.shape[1], (x.reshape(-1), y.reshape(-1))
    # where the weights are what is computed, each thread adds to some of its own
    copies = np.zeros((threads(), w.size), float32) if what == depthwise.CORRELATE else w.reshape(1, -1)

    def run(number, begin, end):
        weights = copies[number] if what == depthwise.CORRELATE else copies[0]
        depthwise.each_channel(what, both[0], weights, both[1], geometry, begin, end)

    multiple = i if what == depthwise.CONVOLVE_BACK else 1
    _share_lines(run, lines, multiple, 1, 8 * y.size * w.shape[0] * w.shape[1])
    if what == depthwise.CORRELATE:
        w[...] = _in_order(copies).reshape(w.shape)


# -- what all have in common -------------------------------------------------------------------------------------------

_own = threading.local()


def _scratch(*sizes):
    """Arrays of so many numbers to write into, of memory that this thread keeps, unless it is more than 32 megabytes.

    Each begins where a line of the cache does: sgemm is up to a fifth slower elsewhere.
    """
    ends = np.cumsum([0, *(-(-size // LINE) * LINE for size in sizes)])
    memory = getattr(_own, "memory", None)
    if memory is None or memory.size < ends[-1]:
        memory = np.empty(ends[-1] + LINE, float32)
        memory = memory[-memory.ctypes.data // 4 % LINE :]
        if memory.nbytes <= 2**25:
            _own.memory = memory
    return [memory[at : at + size] for at, size in zip(ends, sizes)]


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
