"""4x4 and 3x3 convolutions of stride 2 with 1.78 and 1.44 times fewer multiplications: Winograd's F(2x2, 2x2).

Of the pixels that lie at the same place of a 2x2 square (a phase of the image) such a kernel sees 2x2 at a time, and
moves on by one: so it is four convolutions with 2x2 kernels, whose results are added. Two neighbouring outputs of one,
y0 = d0 g0 + d1 g1 and y1 = d1 g0 + d2 g1, take three products instead of four:

    m0 = (d0 - d1) g0,   m1 = d1 (g0 + g1),   m2 = (d2 - d1) g1;        y0 = m0 + m1,   y1 = m1 + m2

and along both axes 9 instead of 16. The products of one place of the tile and one phase, over all channels, are a
matrix product (tiles, C) (C, D); the four phases are added up in sgemm, 36 products for 2x2 outputs instead of 64. The
gradient by x makes each phase of x from the same tiles of y.

Of a kernel 3 high, a single line g0 falls on the odd phase, and y0 = d0 g0, y1 = d1 g0 are added to m0 and m2, with no
m1: so a 3x3 kernel takes 25 products instead of 36. (Were it one of 4x4 with zeros, y0 would round with d1, which it
does not see.) Its gradient by x is no faster this way than by im2col, where it stays. All else, memory and blocking, is
as in winograd.py.
"""

import numpy as np

from .compiling import kernel
from .matmul import multiply
from .winograd import MINUS, PLUS, combine, line_of, part_line


@kernel
def add_to(m, p, q, count):
    """m[p:] += m[q:]"""
    for k in range(count):
        m[np.uint64(p + k)] += m[np.uint64(q + k)]


@kernel
def join_two(m, p, q, d, to, at, every, count):
    """Puts m[p:] + m[q:], `count` pixels of d channels, so many pixels apart, into `to`."""
    for j in range(count):
        for k in range(d):
            n, place = np.uint64(j * d + k), np.uint64(at + every * j * d + k)
            to[place] = m[np.uint64(p) + n] + m[np.uint64(q) + n]


# -- `shape` is (H, W, C, I, J, KH, KW, top, left), a geometry without strides ----------------------------------------


@kernel
def is_left_out(place, phase, shape):
    """Whether this of 9 places needs no product in this of 4 phases: it is an m1, and the kernel has no g1 there."""
    KH, KW = shape[5:7]
    return (KH == 3 and phase // 2 == 1 and place // 3 == 1) or (KW == 3 and phase % 2 == 1 and place % 3 == 1)


@kernel
def transform_images(x, v, shape, first, count, zeros, parted):
    """V = B^T d B of each phase of x, lines first ... first + count - 1 of tiles: v (9, 4, tiles, C) flat."""
    H, W, C, I, J, KH, KW, top, left = shape
    high, wide = (I + 1) // 2, (J + 1) // 2
    L, size, room = wide * C, count * wide * C, (wide + 1) * C
    for line in range(count):
        n, h = (first + line) // high, 4 * ((first + line) % high) - top
        for phase in range(2):
            single = phase == 1 and KH == 3
            middle, q = line_of(x, n, h + phase + 2, H, W * C, zeros)
            for u in range(3):
                if single and u == 1:
                    continue
                a, p = line_of(x, n, h + phase + (u if single else 2 * u), H, W * C, zeros)
                b, r = (zeros, 0) if single or u == 1 else (middle, q)
                for residue in range(4):
                    part_line(a, p, MINUS, b, r, W, left - residue, C, 4, parted, residue * room, wide + 1)
                for other in range(2):
                    d0, d1, at = other * room, (other + 2) * room, (12 * u + 2 * phase + other) * size + line * L
                    if other == 1 and KW == 3:
                        combine(parted, d0, PLUS, zeros, 0, v, at, L)
                        combine(parted, d1, PLUS, zeros, 0, v, at + 8 * size, L)
                    else:
                        combine(parted, d0, MINUS, parted, d1, v, at, L)
                        combine(parted, d1, PLUS, zeros, 0, v, at + 4 * size, L)
                        combine(parted, d0 + C, MINUS, parted, d1, v, at + 8 * size, L)


@kernel
def convolve(x, u, y, shape, D, begin, end, lines, v, m, zeros, parted):
    """Writes what lines begin ... end - 1 of tiles give of y: x, y, u (9, 4, C, D) flat; the rest is scratch."""
    H, W, C, I, J, KH, KW, top, left = shape
    high, wide = (I + 1) // 2, (J + 1) // 2
    for first in range(begin, end, lines):
        count = min(lines, end - first)
        tiles = count * wide
        transform_images(x, v, shape, first, count, zeros, parted)
        for k in range(36):
            a, b, to = v[k * tiles * C :], u[k * C * D :], m[k // 4 * tiles * D :]
            if not is_left_out(k // 4, k % 4, shape):
                multiply(a, C, False, b, D, False, to, D, tiles, C, D, 1 if k % 4 else 0)
        add_to(m, 0, 3 * tiles * D, 3 * tiles * D)
        add_to(m, 6 * tiles * D, 3 * tiles * D, 3 * tiles * D)
        for line in range(count):
            n, i = (first + line) // high, 2 * ((first + line) % high)
            for r in range(min(2, I - i)):
                at, to, size = (6 * r * tiles + line * wide) * D, (n * I + i + r) * J * D, tiles * D
                join_two(m, at, at + size, D, y, to, 2, wide)
                join_two(m, at + size, at + 2 * size, D, y, to + D, 2, J // 2)


@kernel
def correlate(x, y, q, shape, D, begin, end, lines, v, z, zeros, parted):
    """Adds to q (9, 4, C, D), flat, what lines begin ... end - 1 of tiles give of the transformed weight gradient."""
    H, W, C, I, J, KH, KW, top, left = shape
    high, wide = (I + 1) // 2, (J + 1) // 2
    for first in range(begin, end, lines):
        count = min(lines, end - first)
        tiles = count * wide
        transform_images(x, v, shape, first, count, zeros, parted)
        for line in range(count):
            n, i = (first + line) // high, 2 * ((first + line) % high)
            for u in range(3):
                a, p = line_of(y, n, i + u // 2, I, J * D, zeros)
                b, r = line_of(y, n, i + 1 if u == 1 else I, I, J * D, zeros)
                at, size = (3 * u * tiles + line * wide) * D, tiles * D
                part_line(a, p, PLUS, b, r, J, 0, D, 2, z, at, wide)
                part_line(a, p, PLUS, b, r, J, -1, D, 2, z, at + 2 * size, wide)
                combine(z, at, PLUS, z, at + 2 * size, z, at + size, wide * D)
        for k in range(36):
            a, b, to = v[k * tiles * C :], z[k // 4 * tiles * D :], q[k * C * D :]
            if not is_left_out(k // 4, k % 4, shape):
                multiply(a, C, True, b, D, False, to, D, C, tiles, D, 1)


@kernel
def convolve_back(y, u, x, shape, D, begin, end, lines, v, m, zeros, parted):
    """Writes what lines begin ... end - 1 of tiles give of x: u (9, 4, D, C), of the kernel turned round."""
    H, W, C, I, J, KH, KW, top, left = shape
    high, wide = ((H - 1 + top) // 2 + 2) // 2, ((W - 1 + left) // 2 + 2) // 2       # tiles of a phase of x
    for first in range(begin, end, lines):
        count = min(lines, end - first)
        tiles, L = count * wide, wide * D
        for line in range(count):
            n, i = (first + line) // high, 2 * ((first + line) % high) - 1
            middle, r = line_of(y, n, i + 1, I, J * D, zeros)
            for k in range(3):
                a, p = line_of(y, n, i + k, I, J * D, zeros)
                b, q = (zeros, 0) if k == 1 else (middle, r)
                even, odd = 0, (wide + 1) * D
                part_line(a, p, MINUS, b, q, J, 1, D, 2, parted, even, wide + 1)
                part_line(a, p, MINUS, b, q, J, 0, D, 2, parted, odd, wide + 1)
                at, size = 3 * k * tiles * D + line * L, tiles * D
                combine(parted, even, MINUS, parted, odd, v, at, L)
                combine(parted, odd, PLUS, zeros, 0, v, at + size, L)
                combine(parted, even + D, MINUS, parted, odd, v, at + 2 * size, L)
        for phase in range(4):
            for k in range(9):
                a, b, to = v[k * tiles * D :], u[(4 * k + phase) * C * D :], m[k * tiles * C :]
                multiply(a, D, False, b, C, False, to, C, tiles, D, C, 0)
            add_to(m, 0, 3 * tiles * C, 3 * tiles * C)
            add_to(m, 6 * tiles * C, 3 * tiles * C, 3 * tiles * C)
            for line in range(count):
                put_phase(m, x, shape, phase, first + line, high, line * wide * C, tiles * C)


@kernel
def put_phase(m, x, shape, phase, line, high, start, size):
    """Puts one line of tiles, at m[start:], to the pixels of x in this phase."""
    H, W, C, I, J, KH, KW, top, left = shape
    n, h = line // high, 4 * (line % high) + phase // 2 - top
    for r in range(2):
        row = h + 2 * r
        if row < 0 or row >= H:
            continue
        for s in range(2):
            w = 2 * s + phase % 2 - left                                            # of the first tile
            first, end = max(0, -(w // 4)), (W - 1 - w) // 4 + 1                    # the tiles that lie on the image
            p = start + (6 * r + s) * size + first * C
            join_two(m, p, p + size, C, x, ((n * H + row) * W + w + 4 * first) * C, 4, end - first)
