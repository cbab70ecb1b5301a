"""What every launch needs: contiguous arrays of float32, and work cut into pieces for the threads to share.

The pieces depend on the shapes alone, so every number of threads gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

PIECE = 1 << 16  # elements in a piece of work
LARGE, LINE = 1 << 14, 16  # elements of an array whose alignment matters, and of a cache line
SHARED = 1 << 18  # elements from which on threads share the work: below, waking them costs more than it saves


def is_float32(x: Any) -> bool:
    return type(x) is np.ndarray and x.dtype == np.float32


def plain(x: np.ndarray) -> np.ndarray:
    """`x`, or a copy unless it is contiguous, aligned and writable: for a read-only array Numba would compile anew."""
    return x if x.flags.carray else x.copy()


def empty(shape: tuple[int, ...]) -> np.ndarray:
    """An array of float32 to write to. A large one begins on a cache line (64 bytes, where NumPy asks for 16): vectors
    written across two lines cost a kernel that only adds and multiplies up to twice the time."""
    size = math.prod(shape)
    if size < LARGE:
        return np.empty(shape, np.float32)
    room = np.empty(size + LINE, np.float32)
    start = -room.__array_interface__["data"][0] // room.itemsize % LINE
    return room[start : start + size].reshape(shape)


def in_pieces(work: Callable[[int, slice], object], count: int, size: int) -> None:
    """work(0, slice(0, a)), work(1, slice(a, 2a)), ... up to `count` items, each of `size` elements."""
    if 0 < count * size <= PIECE:
        work(0, slice(0, count))
        return
    each, number = pieces(count, size)
    task = lambda k: work(k, slice(k * each, min((k + 1) * each, count)))
    if count * size < SHARED:
        for k in range(number):
            task(k)
        return
    from tinygen.kernels.cpu.threads import share, threads

    share(task, number, threads())


def pieces(count: int, size: int) -> tuple[int, int]:
    """Items in a piece, and the number of pieces."""
    each = max(1, PIECE // max(size, 1))
    return each, -(-count // each)


def sum_to(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Broadcasting from `shape` to that of x undone."""
    new = x.ndim - len(shape)
    axes = tuple(i for i in range(x.ndim) if i < new or shape[i - new] != x.shape[i])
    return x.sum(axes).reshape(shape) if axes else x


def elementwise(kernel: Callable, *operands: np.ndarray) -> np.ndarray:
    """kernel(*operands, out) on flat arrays of one shape."""
    out = empty(operands[0].shape)
    flat = [plain(x).reshape(-1) for x in operands] + [out.reshape(-1)]
    in_pieces(lambda _, part: kernel(*[x[part] for x in flat]), out.size, 1)
    return out
