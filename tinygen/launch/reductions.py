"""Launches of reductions over neighbouring axes of a contiguous array: seen as (A, B, C), over B.

They return None for what they are not made for, and NumPy does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinygen.launch.pieces import in_pieces, pieces


def sum(x: np.ndarray, axes: tuple[int, ...], keepdims: bool = False) -> np.ndarray | None:  # noqa: A001
    """The sum over `axes`, which count from the front."""
    if (sides := _sides(x, axes)) is None:
        return None
    from tinygen.kernels.cpu import columns, reductions

    cube = x.reshape(sides)
    if sides[2] == 1:
        return _shaped(_rows(reductions.sum_rows, cube[:, :, 0]), x, axes, keepdims)
    found = _down(columns.sum_columns, reductions.sum_middle, cube, (sides[2],))
    return _shaped(found, x, axes, keepdims)


def var(x: np.ndarray, axes: tuple[int, ...], keepdims: bool = False, ddof: int = 0) -> np.ndarray | None:
    """The variance over `axes`."""
    if (sides := _sides(x, axes)) is None or (freedom := sides[1] - ddof) <= 0:
        return None
    from tinygen.kernels.cpu import batch_norm, reductions

    cube = x.reshape(sides)
    if sides[2] == 1:
        run = lambda rows, out: reductions.var_rows(rows, float(freedom), out)
        return _shaped(_rows(run, cube[:, :, 0]), x, axes, keepdims)
    pivot = cube[0, sides[1] // 2]
    piece = lambda rows, out: batch_norm.moments(rows, pivot, out)
    first, second = np.moveaxis(_down(piece, reductions.moments_middle, cube, (2, sides[2])), 1, 0)
    return _shaped(np.maximum(second - first * first / sides[1], 0) / freedom, x, axes, keepdims)


def logsumexp(x: np.ndarray, axes: tuple[int, ...], keepdims: bool = False) -> np.ndarray | None:
    """log(sum(exp(x))) over `axes`, the last ones."""
    if (sides := _sides(x, axes)) is None or sides[2] != 1:
        return None
    from tinygen.kernels.cpu.reductions import logsumexp_rows

    return _shaped(_rows(logsumexp_rows, x.reshape(sides[:2])), x, axes, keepdims)


def _sides(x: np.ndarray, axes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(A, B, C): the numbers before, over and after `axes`; None if these are not neighbours or x is not contiguous."""
    if not (x.flags.carray and x.size and axes):
        return None
    first, last = min(axes), max(axes)
    if len(axes) != last - first + 1:
        return None
    return math.prod(x.shape[:first]), math.prod(x.shape[first : last + 1]), math.prod(x.shape[last + 1 :])


def _rows(kernel: Callable, rows: np.ndarray) -> np.ndarray:
    out = np.empty(len(rows), np.float32)
    in_pieces(lambda _, part: kernel(rows[part], out[part]), *rows.shape)
    return out


def _down(piece: Callable, whole: Callable, cube: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sums over the middle axis: threads share A with the kernel `whole`, or if A is 1, B with the kernel `piece`."""
    A, B, C = cube.shape
    if A > 1:
        out = np.empty((A, *shape))
        in_pieces(lambda _, part: whole(cube[part], out[part]), A, B * C)
        return out
    number = pieces(B, C)[1]
    if number == 1:
        piece(cube[0], out := np.empty(shape))
        return out[None]
    out = np.empty((number, *shape))
    in_pieces(lambda k, part: piece(cube[0, part], out[k]), B, C)
    return out.sum(0, keepdims=True)


def _shaped(found: np.ndarray, x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    kept = [1 if i in axes else side for i, side in enumerate(x.shape) if keepdims or i not in axes]
    return found.astype(np.float32, copy=False).reshape(kept)
