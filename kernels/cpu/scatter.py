"""Rows added to the places of a table, one after the other: the gradient of looking them up.

    table[starts[i] + k] += rows[i, k]

Several rows may go to one place; they are added in the order in which they come, so the bits are always the same. That
is why one thread does it all: it takes 2 ms for a million numbers, and two threads would have to agree on an order.
Memory: rows are read once; a table of some hundred kilobytes, such as that of an embedding, stays in the cache.
"""

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
