"""Pooling over images with features last, and its transposes: x (N, H, W, C), y (N, I, J, C).

    y[n, i, j, c] = max_{a,b} x[n, stride * i + a - top, stride * j + b - left, c]        or sum_{a,b}, times a weight

and winner[n, i, j, c] = a KW + b, of equal ones the first, which is all that the gradient of the maximum needs.

Memory: a line of y, one (n, i), stays in the cache while all places of its window are walked, so x is read once, and y
and the winners are written once, 4 bytes a number; the transposes read y and write x, an image at a time, since windows
of different lines may meet the same pixel. Operations: one for each number that a window sees; the channels of a pixel
lie side by side, so vector instructions do many at a time.

Measured on one AVX-512 core at (64, 28, 28, 48), windows of 2x2, beside a copy of an array as large as x, 0.25 ms:
maxima 0.3 to 0.4 ms, their gradient 0.4 to 0.5; averages and theirs 0.3 each.
"""

import numpy as np

from .compiling import kernel
from .convolution import geometry_of, steps_inside
from .threads import share, threads

float32, int32 = np.float32, np.int32
LOWEST, ZERO = float32(-np.inf), float32(0)
WORTH_SHARING = 2**18           # operations that take about as long as sharing them out


# -- along a line: `count` pixels of `length` numbers, a `step` apart. Unsigned, an index cannot count from the end, and
# the compiler sees that it walks straight on; and whether arrays overlap it asks once a line, not at every pixel. -----


@kernel
def fill(to, start, value, count):
    for k in range(count):
        to[np.uint64(start + k)] = value


@kernel
def keep_larger(x, at, step, y, winner, to, length, count, place):
    """y = max(y, x), which is NaN where either is, and winner = place where x is larger. The pixels of y are
    neighbours."""
    for j in range(count):
        for k in range(length):
            new, old = x[np.uint64(at + j * step + k)], np.uint64(to + j * length + k)
            winner[old] = place if new > y[old] else winner[old]
            y[old] = new if new > y[old] or new != new else y[old]


@kernel
def add(source, at, step, to, start, hop, length, count, weight):
    """to += weight source, whose pixels are a hop and a step apart."""
    for j in range(count):
        for k in range(length):
            to[np.uint64(start + j * hop + k)] += weight * source[np.uint64(at + j * step + k)]


@kernel
def add_where(y, winner, place, at, x, start, hop, length, count):
    """x += y where winner = place. The pixels of y are neighbours, those of x a hop apart. A NaN elsewhere does no
    harm."""
    for j in range(count):
        for k in range(length):
            old = np.uint64(at + j * length + k)
            x[np.uint64(start + j * hop + k)] += y[old] if winner[old] == place else ZERO


# -- lines of y, a line being one (n, i), and images of x; all arrays (numbers,) ---------------------------------------


@kernel
def max_pool_lines(x, y, winner, geometry, begin, end):
    """Lines begin ... end - 1 of the maxima and of where they were found."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    for line in range(begin, end):
        n, i = line // I, line % I
        fill(y, line * J * C, LOWEST, J * C)
        fill(winner, line * J * C, int32(0), J * C)
        for a in range(KH):
            h = i * sh + a * dh - top
            if h < 0 or h >= H:
                continue
            for b in range(KW):
                inside, outside = steps_inside(geometry, b)
                at, to = ((n * H + h) * W + inside * sw + b * dw - left) * C, (line * J + inside) * C
                keep_larger(x, at, sw * C, y, winner, to, C, outside - inside, int32(a * KW + b))


@kernel
def sum_pool_lines(x, y, weight, geometry, begin, end):
    """Lines begin ... end - 1 of the sums over windows, times `weight`."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    for line in range(begin, end):
        n, i = line // I, line % I
        fill(y, line * J * C, ZERO, J * C)
        for a in range(KH):
            h = i * sh + a * dh - top
            if h < 0 or h >= H:
                continue
            for b in range(KW):
                inside, outside = steps_inside(geometry, b)
                at, to = ((n * H + h) * W + inside * sw + b * dw - left) * C, (line * J + inside) * C
                add(x, at, sw * C, y, to, C, C, outside - inside, weight)


@kernel
def spread_images(y, x, weight, geometry, begin, end):
    """The transpose of `sum_pool_lines`, for images begin ... end - 1: each number goes to all of its window."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    for n in range(begin, end):
        fill(x, n * H * W * C, ZERO, H * W * C)
        for i in range(I):
            for a in range(KH):
                h = i * sh + a * dh - top
                if h < 0 or h >= H:
                    continue
                for b in range(KW):
                    inside, outside = steps_inside(geometry, b)
                    at, to = ((n * I + i) * J + inside) * C, ((n * H + h) * W + inside * sw + b * dw - left) * C
                    add(y, at, C, x, to, sw * C, C, outside - inside, weight)


@kernel
def put_images(y, winner, x, geometry, begin, end):
    """Images begin ... end - 1 of the transpose of picking winners: each number goes to that place of its window."""
    H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left = geometry
    for n in range(begin, end):
        fill(x, n * H * W * C, ZERO, H * W * C)
        for i in range(I):
            for a in range(KH):
                h = i * sh + a * dh - top
                if h < 0 or h >= H:
                    continue
                for b in range(KW):
                    inside, outside = steps_inside(geometry, b)
                    at, to = ((n * I + i) * J + inside) * C, ((n * H + h) * W + inside * sw + b * dw - left) * C
                    add_where(y, winner, int32(a * KW + b), at, x, to, sw * C, C, outside - inside)


# -- on whole arrays, contiguous and not empty; `win` is a tinygen.ops.windows.Window ----------------------------------


def max_pool2d(x, win):
    """y and the winners, both (N, I, J, C)."""
    shape = (x.shape[0], *win.steps, x.shape[3])
    y, winner = np.empty(shape, float32), np.empty(shape, int32)
    geometry, numbers = geometry_of(x.shape[1:3], x.shape[3], win, 1), [a.reshape(-1) for a in (x, y, winner)]
    in_parts(lambda *part: max_pool_lines(*numbers, geometry, *part), shape[0] * shape[1], y, win)
    return y, winner


def sum_pool2d(x, win, weight):
    """The sum over each window, times `weight`: (N, I, J, C)."""
    y = np.empty((x.shape[0], *win.steps, x.shape[3]), float32)
    geometry, numbers = geometry_of(x.shape[1:3], x.shape[3], win, 1), (x.reshape(-1), y.reshape(-1), float32(weight))
    in_parts(lambda *part: sum_pool_lines(*numbers, geometry, *part), y.shape[0] * y.shape[1], y, win)
    return y


def sum_pool2d_transpose(y, win, weight, shape):
    """Images of `shape` in which each number of y is added to all of its window, times `weight`."""
    x, geometry = np.empty(shape, float32), geometry_of(shape[1:3], shape[3], win, 1)
    numbers = (y.reshape(-1), x.reshape(-1), float32(weight))
    in_parts(lambda *part: spread_images(*numbers, geometry, *part), shape[0], y, win)
    return x


def max_pool2d_put(y, winner, win, shape):
    """Images of `shape` in which each number of y is added to the place numbered `winner` (int32) of its window."""
    x, geometry = np.empty(shape, float32), geometry_of(shape[1:3], shape[3], win, 1)
    numbers = (y.reshape(-1), np.ascontiguousarray(winner).reshape(-1), x.reshape(-1))
    in_parts(lambda *part: put_images(*numbers, geometry, *part), shape[0], y, win)
    return x


def in_parts(work, count, y, win):
    """work(begin, end) until all of `count` lines or images are done; the threads share what is large."""
    limit = threads() if y.size * win.size[0] * win.size[1] >= WORTH_SHARING else 1
    pieces = min(count, 4 * limit)
    share(lambda k: work(count * k // pieces, count * (k + 1) // pieces), pieces, limit)
