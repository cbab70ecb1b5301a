"""3x3 convolutions of stride 1, dilated or not, with 2.25 times fewer multiplications: Winograd's F(2x2, 3x3).

For two neighbouring outputs of a line, y0 = d0 g0 + d1 g1 + d2 g2 and y1 = d1 g0 + d2 g1 + d3 g2, four products do
instead of six:

    m0 = (d0 - d2) g0,   m1 = (d1 + d2) (g0 + g1 + g2) / 2,   m2 = (d2 - d1) (g0 - g1 + g2) / 2,   m3 = (d1 - d3) g2
    y0 = m0 + m1 + m2,   y1 = m1 - m2 - m3

Along both axes, that is 16 products for 2x2 outputs instead of 36, from a tile of 4x4 inputs (Winograd 1980; Lavin &
Gray 2016, sec. 4.1). The products of one place of the tile, over all channels, are a matrix product (tiles, C) (C, D),
so there are 16 of these in a row, and sgemm does them. In the papers' matrices

    Y = A^T [(G g G^T) * (B^T d B)] A,    and transposed, for the weights:    G^T [(B^T d B) * (A y A^T)] G.

Of a kernel whose places are `dh` lines and `dw` pixels apart, each output sees only pixels that lie so far from each
other. Every dw-th pixel of every dh-th line is a small image (a phase), in which the kernel is an ordinary one: the
tiles are those of the dh dw phases, and nothing else changes.

Blocking: some lines of tiles at a time, so that the 16 matrices of inputs and the 16 of outputs (V and M, or V and Z)
stay in the cache. Along a line, the even and odd pixels of a phase are first parted; then all that is left to do is to
add and to subtract long stretches of memory, whatever the number of channels.

Memory: x is read twice (tiles overlap by half) and y written once; V and M, four times as large as x and y, are written
to and read from the cache only. Operations: 2 * 16 C D a tile in sgemm, some 64 C + 48 D additions around it; these,
bound by the cache, take as long as sgemm at 24 channels and a fifth as long at 128.

Precision: sums are 9 times shorter, but their terms up to 4 times larger, and then cancel. Errors are 0.7 to 1.7 times
those of the plain sum (root mean squares, tests/kernels/test_convolution_kernels.py). An output depends on the 3x3
pixels it sees and on no others, but where the kernel has a zero, what is under it may change how the output rounds.
"""

import numpy as np

from .compiling import kernel
from .matmul import multiply

float32 = np.float32
ZERO, HALF = float32(0), float32(0.5)

# -- stretches of memory -----------------------------------------------------------------------------------------------
#
# Each of these takes whole arrays and where to begin in them: to make a slice costs as much as to add up 500 numbers.
# Unsigned, an index cannot count from the end, and the compiler sees that a loop walks straight on.


@kernel
def clear(to, at, count):
    for k in range(count):
        to[np.uint64(at + k)] = ZERO


@kernel
def combine(a, p, sign, b, q, to, at, count):
    """to = a + sign * b"""
    for k in range(count):
        to[np.uint64(at + k)] = a[np.uint64(p + k)] + sign * b[np.uint64(q + k)]


@kernel
def finish(m, p, q, r, s, count):
    """m0, m3 = m0 + m1 + m2, m1 - m2 - m3, where m0 begins at p, m1 at q, m2 at r, m3 at s."""
    for k in range(count):
        m[np.uint64(p + k)] += m[np.uint64(q + k)] + m[np.uint64(r + k)]
    for k in range(count):
        m[np.uint64(s + k)] = m[np.uint64(q + k)] - m[np.uint64(r + k)] - m[np.uint64(s + k)]


# -- every second pixel ------------------------------------------------------------------------------------------------


@kernel
def part(a, p, sign, b, q, c, every, to, at, count):
    """`count` pixels of a + sign * b, each so many pixels further, c channels each, one after the other to `to`."""
    hop = every * c
    for j in range(count):
        for k in range(c):
            to[np.uint64(at + j * c + k)] = a[np.uint64(p + j * hop + k)] + sign * b[np.uint64(q + j * hop + k)]


@kernel
def part_line(a, p, sign, b, q, width, left, c, every, to, at, room):
    """Of `left` zeros, `width` pixels of a + sign * b, and zeros again: pixels 0, every, 2 every, ..., `room` in all.

    They go to to[at:], c channels each; `left` may be negative, by which so many pixels are left out.
    """
    first = -left % every if left >= 0 else -left                # of the line's pixels, the first that is put down
    before = (left + first) // every
    count = max(0, min((width - first + every - 1) // every, room - before))
    clear(to, at, min(before, room) * c)
    part(a, p + first * c, sign, b, q + first * c, c, every, to, at + before * c, count)
    clear(to, at + (before + count) * c, (room - before - count) * c)


@kernel
def join(m, p, q, r, sign, d, to, at, every, count):
    """Puts m0 + sign * (m1 + m2), `count` pixels of d channels, so many pixels apart, into `to`."""
    for j in range(count):
        for k in range(d):
            n = np.uint64(j * d + k)
            sums = m[np.uint64(q) + n] + m[np.uint64(r) + n]
            to[np.uint64(at + every * j * d + k)] = m[np.uint64(p) + n] + sign * sums


# -- the three transforms: `shape` is (H, W, C, I, J, dh, dw, top, left), a geometry without the kernel's size ---------

PLUS, MINUS = float32(1), float32(-1)


@kernel
def line_of(x, n, h, H, size, zeros):
    """Line h of image n, of `size` numbers: an array and where it begins there; zeros where there is no such line."""
    return (x, (n * H + h) * size) if 0 <= h < H else (zeros, 0)


@kernel
def tiles_of(shape):
    """How many tiles a phase of the outputs has, down and along."""
    I, J, dh, dw = shape[3:7]
    return -(-I // (2 * dh)), -(-J // (2 * dw))


@kernel
def place_of(line, shape):
    """The image, and the first of its lines of outputs, that belong to a line of tiles; phases come one by one."""
    high, dh = tiles_of(shape)[0], shape[5]
    n, line = line // (dh * high), line % (dh * high)
    return n, line // high + 2 * dh * (line % high)


@kernel
def transform_inputs(x, v, shape, first, count, zeros, parted):
    """V = B^T d B for lines first ... first + count - 1 of tiles: v (16, tiles, C) flat, parted (2, pixels, C) flat."""
    H, W, C, I, J, dh, dw, top, left = shape
    wide = tiles_of(shape)[1]
    L, size = wide * C, count * dw * wide * C                    # numbers of a line in a phase, in a matrix of V
    even, odd = 0, L + C
    for line in range(count):
        n, i = place_of(first + line, shape)
        for u in range(4):
            one, other = 0 if u == 0 else 2 if u == 2 else 1, 3 if u == 3 else 1 if u == 2 else 2
            sign = PLUS if u == 1 else MINUS
            a, p = line_of(x, n, i - top + dh * one, H, W * C, zeros)
            b, q = line_of(x, n, i - top + dh * other, H, W * C, zeros)
            for phase in range(dw):
                part_line(a, p, sign, b, q, W, left - phase, C, 2 * dw, parted, even, wide + 1)
                part_line(a, p, sign, b, q, W, left - phase - dw, C, 2 * dw, parted, odd, wide + 1)
                at = 4 * u * size + (line * dw + phase) * L
                combine(parted, even, MINUS, parted, even + C, v, at, L)
                combine(parted, odd, PLUS, parted, even + C, v, at + size, L)
                combine(parted, even + C, MINUS, parted, odd, v, at + 2 * size, L)
                combine(parted, odd, MINUS, parted, odd + C, v, at + 3 * size, L)


@kernel
def transform_products(m, y, D, shape, first, count):
    """Y = A^T M A for lines first ... first + count - 1 of tiles: m (16, tiles, D) flat, which is overwritten."""
    H, W, C, I, J, dh, dw, top, left = shape
    wide = tiles_of(shape)[1]
    L, size, every = wide * D, count * dw * wide * D, 2 * dw
    for v in range(4):
        finish(m, v * size, (4 + v) * size, (8 + v) * size, (12 + v) * size, size)
    for line in range(count):
        n, i = place_of(first + line, shape)
        for r in range(2):
            if i + r * dh >= I:
                continue
            for phase in range(dw):
                at, to = 12 * r * size + (line * dw + phase) * L, ((n * I + i + r * dh) * J + phase) * D
                even, odd = (J - 1 - phase + every) // every, (J - 1 - phase + dw) // every          # pixels of each
                join(m, at, at + size, at + 2 * size, PLUS, D, y, to, every, even)
                join(m, at + size, at + 2 * size, at + 3 * size, MINUS, D, y, to + dw * D, every, odd)


@kernel
def transform_outputs(y, z, D, shape, first, count, zeros):
    """Z = A y A^T for lines first ... first + count - 1 of tiles: z (16, tiles, D) flat, with -Z where u or v is 3."""
    H, W, C, I, J, dh, dw, top, left = shape
    wide = tiles_of(shape)[1]
    L, size = wide * D, count * dw * wide * D
    for line in range(count):
        n, i = place_of(first + line, shape)
        for u in range(4):
            a, p = line_of(y, n, i if u < 3 else i + dh, I, J * D, zeros)
            b, q = line_of(y, n, i + dh if 0 < u < 3 else I, I, J * D, zeros)
            sign = PLUS if u == 1 else MINUS
            for phase in range(dw):
                even = 4 * u * size + (line * dw + phase) * L
                odd = even + 3 * size
                part_line(a, p, sign, b, q, J, -phase, D, 2 * dw, z, even, wide)
                part_line(a, p, sign, b, q, J, -phase - dw, D, 2 * dw, z, odd, wide)
                combine(z, even, PLUS, z, odd, z, even + size, L)
                combine(z, even, MINUS, z, odd, z, even + 2 * size, L)


@kernel
def transform_weights(w, between, u, count):
    """U = G g G^T: w (3, 3, count) to u (4, 4, count), where between is (4, 3, count); all flat."""
    for b in range(3):
        to_four(w, b * count, 3 * count, between, b * count, 3 * count, count)
    for a in range(4):
        to_four(between, 3 * a * count, count, u, 4 * a * count, count, count)


@kernel
def to_four(g, p, step, to, at, hop, count):
    """g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2: stretches of memory a step and a hop apart."""
    q, r = p + step, p + 2 * step
    for k in range(count):
        to[np.uint64(at + k)] = g[np.uint64(p + k)]
    for sign, start in ((HALF, at + hop), (-HALF, at + 2 * hop)):
        for k in range(count):
            to[np.uint64(start + k)] = HALF * (g[np.uint64(p + k)] + g[np.uint64(r + k)]) + sign * g[np.uint64(q + k)]
    for k in range(count):
        to[np.uint64(at + 3 * hop + k)] = g[np.uint64(r + k)]


@kernel
def transform_gradient(q, between, w, count):
    """G^T Q G: q (4, 4, count), negative where u or v is 3, to w (3, 3, count), where between is (4, 3, count)."""
    for a in range(4):
        to_three(q, 4 * a * count, count, between, 3 * a * count, count, count)
    for b in range(3):
        to_three(between, b * count, 3 * count, w, b * count, 3 * count, count)


@kernel
def to_three(q, p, step, to, at, hop, count):
    """q0 + (q1 + q2) / 2, (q1 - q2) / 2, (q1 + q2) / 2 - q3: the transpose of `to_four`."""
    one, two, three = p + step, p + 2 * step, p + 3 * step
    for k in range(count):
        half = HALF * (q[np.uint64(one + k)] + q[np.uint64(two + k)])
        to[np.uint64(at + k)] = q[np.uint64(p + k)] + half
    for k in range(count):
        to[np.uint64(at + hop + k)] = HALF * (q[np.uint64(one + k)] - q[np.uint64(two + k)])
    for k in range(count):
        half = HALF * (q[np.uint64(one + k)] + q[np.uint64(two + k)])
        to[np.uint64(at + 2 * hop + k)] = half - q[np.uint64(three + k)]


# -- the products: groups of c channels make groups of d ---------------------------------------------------------------


@kernel
def convolve(x, u, y, shape, groups, D, begin, end, lines, v, m, zeros, parted):
    """Writes what lines begin ... end - 1 of tiles give of y: x, y, u (16, c, D) flat; the rest is scratch."""
    C, wide = shape[2], shape[6] * tiles_of(shape)[1]
    c, d = C // groups, D // groups
    for first in range(begin, end, lines):
        count = min(lines, end - first)
        tiles = count * wide
        transform_inputs(x, v, shape, first, count, zeros, parted)
        for place in range(16):
            for g in range(groups):
                a, b = v[place * tiles * C + g * c :], u[place * c * D + g * d :]
                multiply(a, C, False, b, D, False, m[place * tiles * D + g * d :], D, tiles, c, d, 0)
        transform_products(m, y, D, shape, first, count)


@kernel
def correlate(x, y, q, shape, groups, D, begin, end, lines, v, z, zeros, parted):
    """Adds to q (16, c, D), flat, what lines begin ... end - 1 of tiles give of the transformed weight gradient."""
    C, wide = shape[2], shape[6] * tiles_of(shape)[1]
    c, d = C // groups, D // groups
    for first in range(begin, end, lines):
        count = min(lines, end - first)
        tiles = count * wide
        transform_inputs(x, v, shape, first, count, zeros, parted)
        transform_outputs(y, z, D, shape, first, count, zeros)
        for place in range(16):
            for g in range(groups):
                a, b = v[place * tiles * C + g * c :], z[place * tiles * D + g * d :]
                multiply(a, C, True, b, D, False, q[place * c * D + g * d :], D, c, tiles, d, 1)
