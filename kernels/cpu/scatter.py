"""Rows, or single numbers, added to the places of a table, one after the other: the gradient of looking them up.

    table[starts[i] + k] += rows[i, k]
    table[i, indices[i, j, k], k] += x[i, j, k]         out[i, j, k] = table[i, indices[i, j, k], k]

Several may go to one place; they are added in the order in which they come, so the bits are always the same. That is
why one thread adds all rows: two would have to agree on an order. Along an axis, threads take some of the i each, whose
places are their own.

Memory: rows and indices are read once; a table of some hundred kilobytes, such as that of an embedding, stays in the
cache, and so do the places and the indices that belong to one i, which are looked at twice: are they in range?
"""

import math

import numpy as np

from .compiling import kernel
from .threads import share, threads

WORTH_SHARING = 2**18           # numbers that take several times as long as sharing them out


@kernel
def add_rows(table, rows, starts):
    """`table` (numbers,) and `rows` (count, length) float32, `starts` (count,) int64, in range; all C-contiguous."""
    flat, length = rows.reshape(-1), rows.shape[1]
    for i in range(rows.shape[0]):
        add_row(table, starts[i], flat, i * length, length)


@kernel
def add_row(table, start, rows, at, length):
    """Unsigned, an index cannot count from the end, and the compiler sees that it walks straight on."""
    for k in range(length):
        table[np.uint64(start + k)] += rows[np.uint64(at + k)]


# -- along an axis: table (count, side, length), x and indices (count, steps, length), all (numbers,) ------------------


@kernel
def are_inside(indices, begin, end, side):
    """Whether indices[begin:end] are from -side to side - 1."""
    low, high = indices[begin], indices[begin]
    for k in range(end - begin):
        index = indices[np.uint64(begin + k)]
        low, high = min(low, index), max(high, index)
    return -side <= low and high < side


@kernel
def add_places(table, corner, x, start, indices, side, length, count):
    """`count` numbers of x from `start` on are added to the part of the table that begins at row `corner`."""
    k = 0                                       # not a loop within the loop: most often it would run once
    for number in range(count):
        at = np.uint64(start + number)
        row = corner + indices[at] + (side if indices[at] < 0 else 0)
        table[np.uint64(row * length + k)] += x[at]
        k = k + 1 if k + 1 < length else 0


@kernel
def take_places(table, corner, x, start, indices, side, length, count):
    """The other way round: x is what stands there."""
    k = 0
    for number in range(count):
        at = np.uint64(start + number)
        row = corner + indices[at] + (side if indices[at] < 0 else 0)
        x[at] = table[np.uint64(row * length + k)]
        k = k + 1 if k + 1 < length else 0


@kernel
def along(put, table, x, indices, side, steps, length, begin, end):
    """Adds x to the table, or with put=False writes to x what stands there, for begin <= i < end.

    Tells whether all indices are in range, and stops at the first i that has one which is not.
    """
    size = steps * length
    for i in range(begin, end):
        if not are_inside(indices, i * size, (i + 1) * size, side):
            return False
        if put:
            add_places(table, i * side, x, i * size, indices, side, length, size)
        else:
            take_places(table, i * side, x, i * size, indices, side, length, size)
    return True


def add_along_axis(x, indices, shape, axis):
    """Zeros of `shape` with x added at `indices` along `axis`; None if one is out of range."""
    table = np.zeros(shape, np.float32)
    return table if _along(True, table, x, indices, axis) else None


def take_along_axis(table, indices, axis):
    """What stands at `indices` along `axis`; None if one is out of range."""
    x = np.empty(indices.shape, np.float32)
    return x if _along(False, table, x, indices, axis) else None


def _along(put, table, x, indices, axis):
    """The shapes of x and indices are that of table but along `axis`; none of the three is empty."""
    side, steps, length = table.shape[axis], x.shape[axis], math.prod(table.shape[axis + 1 :])
    if indices.dtype != np.int64 or not indices.flags.carray:           # for others Numba would compile anew
        indices = indices.astype(np.int64, order="C")
    flat, count = [a.reshape(-1) for a in (table, x, indices)], table.size // (side * length)
    limit = threads() if x.size >= WORTH_SHARING else 1
    parts = min(count, limit)
    ends, inside = [count * k // parts for k in range(parts + 1)], [True] * parts

    def run(k):
        inside[k] = along(put, *flat, side, steps, length, ends[k], ends[k + 1])

    share(run, parts, limit)
    return all(inside)
