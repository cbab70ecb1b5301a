"""Rows, or single numbers, added to the places of a table, one after the other: the gradient of looking them up.

    table[starts[i] + k] += rows[i, k]                  table[i, indices[i, j, k], k] += x[i, j, k]

Several may go to one place; they are added in the order in which they come, so the bits are always the same. That
is why one thread does it all: it takes 2 ms for a million numbers, and two threads would have to agree on an order.
Memory: rows and indices are read once; a table of some hundred kilobytes, such as that of an embedding, stays in the
cache, and so do the places that belong to one i.
"""

import math

import numpy as np

from .compiling import kernel


@kernel
def add_rows(table, rows, starts):
    """`table` (numbers,) and `rows` (count, length) float32, `starts` (count,) int64, in range; all C-contiguous."""
    length = rows.shape[1]
    for i in range(rows.shape[0]):
        start = starts[i]
        for k in range(length):
            table[np.uint64(start + k)] += rows[i, k]


@kernel
def add_along(table, x, indices, side, length):
    """table (count * side * length,) and x (count * steps * length,) float32; indices as x, int64, from -side on."""
    count = table.size // (side * length)
    steps = x.size // (count * length)
    for i in range(count):
        for j in range(steps):
            for k in range(length):
                at = np.uint64((i * steps + j) * length + k)
                index = indices[at] + side if indices[at] < 0 else indices[at]
                table[np.uint64((i * side + index) * length + k)] += x[at]


def add_along_axis(x, indices, shape, axis):
    """Zeros of `shape` with x added at `indices` along `axis`, which are in range; x and they have one shape."""
    table, side, length = np.zeros(shape, np.float32), shape[axis], math.prod(shape[axis + 1 :])
    if indices.dtype != np.int64 or not indices.flags.carray:           # for others Numba would compile anew
        indices = indices.astype(np.int64, order="C")
    add_along(table.reshape(-1), x.reshape(-1), indices.reshape(-1), side, length)
    return table
