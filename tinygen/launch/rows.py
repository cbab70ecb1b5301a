"""Launches of what runs along rows: softmax and its logarithm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinygen.launch.pieces import empty, in_pieces, is_float32, plain


def rows_along(x: np.ndarray, axis: int) -> np.ndarray:
    """`x` as a contiguous matrix whose rows run along `axis`."""
    last = plain(x if axis in (-1, x.ndim - 1) else np.moveaxis(x, axis, -1))
    return last.reshape(last.size // max(last.shape[-1], 1), last.shape[-1])


def rows_back(rows: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """The inverse of `rows_along` for an array of `shape`."""
    axis %= len(shape)
    if axis == len(shape) - 1:
        return rows.reshape(shape)
    moved = shape[:axis] + shape[axis + 1 :] + (shape[axis],)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), -1, axis))


def row_accepts(operands: list, params: dict) -> bool:
    (x,), axis = operands, params["axis"]
    return is_float32(x) and type(axis) is int and -x.ndim <= axis < x.ndim


def by_rows(kernel: Callable, *operands: np.ndarray, axis: int) -> np.ndarray:
    """kernel(*operands, out) on the rows along `axis` of arrays of one shape."""
    rows = [rows_along(x, axis) for x in operands]
    out = empty(rows[0].shape)
    in_pieces(lambda _, part: kernel(*[x[part] for x in rows], out[part]), *out.shape)
    return rows_back(out, operands[0].shape, axis)


def softmax_forward(operands: list, params: dict) -> tuple[np.ndarray, None]:
    from tinygen.kernels.cpu import softmax

    return by_rows(softmax.softmax_forward, *operands, **params), None


def softmax_backward(g, operands: list, out: np.ndarray, residual: None, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu import softmax

    return (by_rows(softmax.softmax_backward, g, out, **params),)


def log_softmax_forward(operands: list, params: dict) -> tuple[np.ndarray, None]:
    from tinygen.kernels.cpu import log_softmax

    return by_rows(log_softmax.log_softmax_forward, *operands, **params), None


def log_softmax_backward(g, operands: list, out: np.ndarray, residual: None, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu import log_softmax

    return (by_rows(log_softmax.log_softmax_backward, g, out, **params),)
