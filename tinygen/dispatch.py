"""The one place where tinygen knows its kernels: a table from an op to its kernels per kind of array.

A kernel trusts its arguments. So this is also where shapes, dtypes, contiguity and index ranges are checked, and where
an op's view of an array (any shape, any axis) becomes a kernel's (rows of a contiguous matrix). Kernels are float32;
anything else runs the op's definition, as does everything with `TINYGEN_KERNELS=off` in the environment or inside
`with definitions_only():`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tinygen.errors import InputError


class Kernel(NamedTuple):
    """forward(*operands, **parameters) -> (out, residual);
    backward(g, operands, out, residual, parameters, needs) -> one gradient per operand, or None."""

    forward: Callable
    backward: Callable


class _Switch(threading.local):
    on = os.environ.get("TINYGEN_KERNELS", "on").lower() not in ("off", "0", "no")


_switch = _Switch()


@contextlib.contextmanager
def definitions_only() -> Iterator[None]:
    """Within this context of this thread no kernel runs; every op is computed from its definition."""
    before, _switch.on = _switch.on, False
    try:
        yield
    finally:
        _switch.on = before


def find(name: str, values: list, params: dict) -> Kernel | None:
    """The kernels of op `name` for these operands, or None if its definition has to do."""
    kernel = KERNELS.get((name, type(values[0])))
    if kernel is None or not _switch.on or not _have_numba():
        return None
    fits = lambda v: type(v) is type(values[0]) and v.ndim > 0 and (v.dtype == np.float32 or v.dtype.kind in "iub")
    return kernel if values[0].dtype == np.float32 and all(v is None or fits(v) for v in values) else None


@functools.cache
def _have_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


# -- kernels for NumPy arrays, by Numba --------------------------------------------------------------------------------


def _rows(x: np.ndarray, axis: int) -> np.ndarray:
    """`x` as a contiguous matrix whose rows run along `axis`."""
    last = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    return last.reshape(-1, last.shape[-1]) if last.size else last.reshape(0, last.shape[-1])


def _unrows(rows: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """The inverse of `_rows` for an array of `shape`."""
    moved = shape[:axis] + shape[axis + 1 :] + (shape[axis],)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), -1, axis))


def _axis(axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise InputError(f"axis {axis} is outside an array of {ndim} dimensions")
    return axis % ndim


def _softmax_forward(x: np.ndarray, axis: int) -> tuple[np.ndarray, None]:
    from tinygen.kernels.cpu.softmax import softmax_forward

    axis = _axis(axis, x.ndim)
    rows = _rows(x, axis)
    out = np.empty_like(rows)
    softmax_forward(rows, out)
    return _unrows(out, x.shape, axis), None


def _softmax_backward(g, operands, out, residual, params, needs) -> tuple[np.ndarray]:
    from tinygen.kernels.cpu.softmax import softmax_backward

    axis = _axis(params["axis"], out.ndim)
    y = _rows(out, axis)
    dx = np.empty_like(y)
    softmax_backward(_rows(g, axis), y, dx)
    return (_unrows(dx, out.shape, axis),)


def _cross_entropy_forward(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, tuple]:
    from tinygen.kernels.cpu.cross_entropy import cross_entropy_forward

    check_labels(logits, labels)
    rows, flat = _rows(logits, -1), np.ascontiguousarray(labels, np.int64).reshape(-1)
    loss, row_max, log_sum = (np.empty(len(rows), np.float32) for _ in range(3))
    cross_entropy_forward(rows, flat, loss, row_max, log_sum)
    return loss.reshape(labels.shape), (row_max, log_sum)


def _cross_entropy_backward(g, operands, out, residual, params, needs) -> tuple[np.ndarray, None]:
    from tinygen.kernels.cpu.cross_entropy import cross_entropy_backward

    logits, labels = operands
    rows, flat = _rows(logits, -1), np.ascontiguousarray(labels, np.int64).reshape(-1)
    dx = np.empty_like(rows)
    cross_entropy_backward(np.ascontiguousarray(g).reshape(-1), rows, flat, *residual, dx)
    return dx.reshape(logits.shape), None


def check_labels(logits: Any, labels: Any) -> None:
    """Labels are integers in [0, classes), one for each row of the logits."""
    if tuple(labels.shape) != tuple(logits.shape[:-1]):
        raise InputError(f"labels of shape {labels.shape} for logits of shape {logits.shape}: give one label per row")
    if isinstance(labels, np.ndarray) and labels.size and not 0 <= labels.min() <= labels.max() < logits.shape[-1]:
        raise InputError(
            f"labels run from {labels.min()} to {labels.max()}, the {logits.shape[-1]} classes from 0 to "
            f"{logits.shape[-1] - 1}"
        )


KERNELS: dict[tuple[str, type], Kernel] = {
    ("softmax", np.ndarray): Kernel(_softmax_forward, _softmax_backward),
    ("cross_entropy", np.ndarray): Kernel(_cross_entropy_forward, _cross_entropy_backward),
}
