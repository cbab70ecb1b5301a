"""Batch norm: each feature normalised over all examples and positions (Ioffe & Szegedy 2015, algorithm 1).

    h = (x - mu) r,    r = 1 / sqrt(var + eps),    y = h gain + bias                mu, var over all rows, per feature

Backward, with means over the rows:   dL/dx = r (g gain - mean(g gain) - h mean(g gain h))
                                      dL/dgain = sum g h,    dL/dbias = sum g

The matrix is cut into pieces of rows for threads to share, so each pass is a kernel: `moments` adds up a piece, the
caller adds up the pieces, `normalise_rows` writes a piece; `slopes` and `through_norm_rows` do the same on the way
back.

Memory: 12 bytes an element forward, x twice and y, since no number of y can be written before all of x has been seen;
20 backward. Against a bound that counts each input once, 8 and 12, a matrix that no cache holds can reach two thirds.
Operations: 6 forward, 12 backward. Rows are folded together (see `columns`).
"""

import numpy as np

from .columns import BLOCK, add_moments, add_slopes, fold, folded, repeat
from .compiling import kernel
from .group_norm import normalise, through_norm

float32 = np.float32


@kernel
def moments(x, pivot, out):
    """out = sum_p (x_p - pivot) and sum_p (x_p - pivot)^2. x: (rows, C), pivot: (C,) float32; out: (2, C) float64."""
    rows, C = x.shape
    k = folded(rows, C)
    pivots, work, sums = np.empty((k, C), float32), np.empty((2, k * C), float32), np.zeros((2, k, C))
    repeat(pivot, pivots)
    flat = sums.reshape(2, k * C)
    add_moments(x.reshape(rows // k, k * C), pivots.reshape(k * C), work, flat[0], flat[1])
    fold(sums[0], out[0])
    fold(sums[1], out[1])


@kernel
def slopes(g, x, mu, out):
    """out = sum_p g_p and sum_p g_p (x_p - mu). g, x: (rows, C), mu: (C,) float32; out: (2, C) float64."""
    rows, C = x.shape
    k = folded(rows, C)
    mus, work, sums = np.empty((k, C), float32), np.empty((2, k * C), float32), np.zeros((2, k, C))
    repeat(mu, mus)
    flat = sums.reshape(2, k * C)
    g, x = g.reshape(rows // k, k * C), x.reshape(rows // k, k * C)
    for start in range(0, rows // k, BLOCK):
        part = slice(start, min(start + BLOCK, rows // k))
        add_slopes(g[part], x[part], mus.reshape(k * C), work, flat[0], flat[1])
    fold(sums[0], out[0])
    fold(sums[1], out[1])


@kernel
def normalise_rows(x, vectors, out):
    """out = (x - mu) a + b. x, out: (rows, C); vectors: (3, C), which are mu, a and b; all float32."""
    rows, C = x.shape
    k = folded(rows, C)
    lanes = np.empty((3, k, C), float32)
    for i in range(3):
        repeat(vectors[i], lanes[i])
    v = lanes.reshape(3, k * C)
    normalise(x.reshape(rows // k, k * C), v[0], v[1], v[2], out.reshape(rows // k, k * C))


@kernel
def through_norm_rows(g, x, vectors, dx):
    """dx = r (g gain - mean_d - (x - mu) slope). vectors: (5, C), which are mu, r, gain, mean_d and slope."""
    rows, C = x.shape
    k = folded(rows, C)
    lanes = np.empty((5, k, C), float32)
    for i in range(5):
        repeat(vectors[i], lanes[i])
    v, shape = lanes.reshape(5, k * C), (rows // k, k * C)
    through_norm(g.reshape(shape), x.reshape(shape), v[0], v[1], v[2], v[3], v[4], dx.reshape(shape))
