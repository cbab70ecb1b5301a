"""Sums down the columns of a matrix, as norms and bias gradients need them: one number per feature, over many rows.

Rows of few features make short loops, and a loop of 24 spends more time beginning and ending than adding. So k rows, of
which `folded` says how many, are walked as one row of k C numbers, each with a sum of its own; at the end the k sums of
a feature are added up. Memory: 4 bytes an element, read once. Operations: 1 to 3 an element. Eight numbers (or four, or
two) are added in float32, and their sums in float64, so that rounding does not grow with the number of rows.

The compiler uses vector instructions only if a few comparisons of addresses, at most eight, can show that what is
written overlaps nothing that is read: that is why a loop here reads no more than eight rows.
"""

import numpy as np

from .compiling import kernel
from .elementary import ZERO

float32, float64 = np.float32, np.float64
BLOCK = 8                                                      # rows whose sum is taken in float32
WIDTH = 256                                                    # numbers in a folded row, unless one row has more


@kernel
def folded(rows, features):
    """How many rows to walk as one: the largest divisor of `rows` with which they have at most WIDTH numbers."""
    k = max(1, min(rows, WIDTH // max(features, 1)))
    while rows % k:
        k -= 1
    return k


@kernel
def repeat(values, out):
    """out_i = values for each of the k rows folded into one. values: (C,); out: (k, C)."""
    k, C = out.shape
    for i in range(k):
        for c in range(C):
            out[i, c] = values[c]


@kernel
def fold(sums, out):
    """out_c = sum_i sums_ic, of the k rows folded into one: (k, C) -> (C,), float64."""
    k, C = sums.shape
    for c in range(C):
        out[c] = 0
    for i in range(k):
        for c in range(C):
            out[c] += sums[i, c]


@kernel
def add_columns(x, sums):
    """sums_c += sum_p x_pc. x: (rows, C) float32; sums: (C,) float64."""
    rows, C = x.shape
    whole = rows - rows % 8
    for p in range(0, whole, 8):
        for c in range(C):
            first = (x[p, c] + x[p + 1, c]) + (x[p + 2, c] + x[p + 3, c])
            sums[c] += float64(first + ((x[p + 4, c] + x[p + 5, c]) + (x[p + 6, c] + x[p + 7, c])))
    for p in range(whole, rows):
        for c in range(C):
            sums[c] += float64(x[p, c])


@kernel
def add_moments(x, pivot, work, sums, squares):
    """sums_c += sum_p (x_pc - pivot_c),  squares_c += sum_p (x_pc - pivot_c)^2: the mean and the variance in one pass.

    The variance is squares / n - (sums / n)^2, a difference that keeps its digits if the pivot is one of the numbers:
    then (mean - pivot)^2 is in practice little more than the variance, and at most n times it.
    work: (2, C) float32, which is overwritten.
    """
    rows, C = x.shape
    first, second = work[0], work[1]
    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        work[:] = ZERO
        for p in range(start, end - 1, 2):
            for c in range(C):
                a, b = x[p, c] - pivot[c], x[p + 1, c] - pivot[c]
                first[c] += a + b
                second[c] += a * a + b * b
        for c in range(C * ((end - start) % 2)):
            a = x[end - 1, c] - pivot[c]
            first[c] += a
            second[c] += a * a
        for c in range(C):
            sums[c] += float64(first[c])
            squares[c] += float64(second[c])


@kernel
def add_slopes(d, x, mu, work, sums, products):
    """sums_c += sum_p d_pc,  products_c += sum_p d_pc (x_pc - mu_c), of a few rows, BLOCK at most."""
    rows, C = x.shape
    first, second = work[0], work[1]
    work[:] = ZERO
    for p in range(rows):
        for c in range(C):
            first[c] += d[p, c]
            second[c] += d[p, c] * (x[p, c] - mu[c])
    for c in range(C):
        sums[c] += float64(first[c])
        products[c] += float64(second[c])


@kernel
def sum_columns(x, out):
    """out_c = sum_p x_pc. x: (rows, C) float32, C-contiguous; out: (C,) float64."""
    rows, C = x.shape
    k = folded(rows, C)
    sums = np.zeros((k, C))
    add_columns(x.reshape(rows // k, k * C), sums.reshape(k * C))
    fold(sums, out)
