"""The one place where tinygen knows its kernels: a table from an op and an array library to the op's kernels.

A kernel trusts its arguments. So this is where shapes, dtypes, contiguity and index ranges are checked, and where an
op's view of an array (any shape, any axis) becomes a kernel's (the rows of a contiguous matrix). What a kernel does not
accept runs the op's definition, and that includes everything wrong: the definition says what is wrong with it. Kernels
are float32; so float64 runs definitions, as does everything with `TINYGEN_KERNELS=off` in the environment or inside
`with definitions_only():`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tinygen import arrays, launch
from tinygen.errors import InputError


class Kernel(NamedTuple):
    """The kernels of one op, as functions of its operands (None for one left out) and its parameters.

    accepts(operands, params) -> whether these are what the kernels were written for
    forward(operands, params) -> (out, residual), where residual is whatever else backward needs
    backward(g, operands, out, residual, params, needs) -> one gradient per operand; None where it needs none
    """

    accepts: Callable[[list, dict], bool]
    forward: Callable[[list, dict], tuple[Any, Any]]
    backward: Callable[[Any, list, Any, Any, dict, list], tuple]


def _wanted() -> bool:
    setting = os.environ.get("TINYGEN_KERNELS", "on")
    if setting not in ("on", "off"):
        raise InputError(f'TINYGEN_KERNELS is "{setting}" in the environment; it must be "on" or "off".')
    return setting == "on"


class _Switch(threading.local):
    on = _wanted()


_switch = _Switch()


@contextlib.contextmanager
def definitions_only() -> Iterator[None]:
    """Within this context (or decorated function) of this thread no kernel runs forward: definitions are computed and
    recorded instead. A kernel's node that was recorded outside keeps its backward kernel."""
    before, _switch.on = _switch.on, False
    try:
        yield
    finally:
        _switch.on = before


def find(name: str, operands: list, params: dict) -> Kernel | None:
    """The kernels of op `name` for these operands, or None if its definition has to do."""
    library = arrays.xp(operands[0]).__name__
    kernel = KERNELS.get((name, library))
    if kernel is None or not _switch.on or (library == "numpy" and not _have_numba()):
        return None
    return kernel if kernel.accepts(operands, params) else None


@functools.cache
def _have_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


# -- kernels for NumPy arrays, by Numba --------------------------------------------------------------------------------


def _is_float32(x: Any) -> bool:
    return type(x) is np.ndarray and x.dtype == np.float32


def _rows(x: np.ndarray, axis: int) -> np.ndarray:
    """`x` as a contiguous matrix whose rows run along `axis`."""
    last = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    return last.reshape(last.size // max(last.shape[-1], 1), last.shape[-1])


def _unrows(rows: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """The inverse of `_rows` for an array of `shape`."""
    axis %= len(shape)
    moved = shape[:axis] + shape[axis + 1 :] + (shape[axis],)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), -1, axis))


def _softmax_accepts(operands: list, params: dict) -> bool:
    (x,), axis = operands, params["axis"]
    return _is_float32(x) and type(axis) is int and -x.ndim <= axis < x.ndim


def _softmax_forward(operands: list, params: dict) -> tuple[np.ndarray, None]:
    from tinygen.kernels.cpu.softmax import softmax_forward

    (x,), axis = operands, params["axis"]
    rows = _rows(x, axis)
    out = np.empty_like(rows)
    softmax_forward(rows, out)
    return _unrows(out, x.shape, axis), None


def _softmax_backward(g, operands: list, out: np.ndarray, residual: None, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu.softmax import softmax_backward

    axis = params["axis"]
    y = _rows(out, axis)
    dx = np.empty_like(y)
    softmax_backward(_rows(g, axis), y, dx)
    return (_unrows(dx, out.shape, axis),)


def _cross_entropy_accepts(operands: list, params: dict) -> bool:
    logits, labels = operands
    if not (_is_float32(logits) and type(labels) is np.ndarray and labels.dtype.kind in "iu"):
        return False
    if not (logits.ndim and labels.shape == logits.shape[:-1]):
        return False
    return not labels.size or bool(0 <= labels.min() and labels.max() < logits.shape[-1])


def _cross_entropy_forward(operands: list, params: dict) -> tuple[np.ndarray, tuple]:
    from tinygen.kernels.cpu.cross_entropy import cross_entropy_forward

    logits, labels = operands
    rows = _rows(logits, -1)
    labels = labels.reshape(-1).astype(np.int64)  # a copy: one written to later could send backward out of bounds
    loss, row_max, log_sum = (np.empty(labels.shape, np.float32) for _ in range(3))
    cross_entropy_forward(rows, labels, loss, row_max, log_sum)
    return loss.reshape(logits.shape[:-1]), (labels, row_max, log_sum)


def _cross_entropy_backward(g, operands: list, out: np.ndarray, residual: tuple, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu.cross_entropy import cross_entropy_backward

    logits = operands[0]
    rows = _rows(logits, -1)
    dx = np.empty_like(rows)
    cross_entropy_backward(np.ascontiguousarray(g).reshape(-1), rows, *residual, dx)
    return dx.reshape(logits.shape), None


KERNELS: dict[tuple[str, str], Kernel] = {
    ("softmax", "numpy"): Kernel(_softmax_accepts, _softmax_forward, _softmax_backward),
    ("cross_entropy", "numpy"): Kernel(_cross_entropy_accepts, _cross_entropy_forward, _cross_entropy_backward),
    ("silu", "numpy"): Kernel(launch.activation_accepts, launch.silu_forward, launch.silu_backward),
    ("gelu", "numpy"): Kernel(launch.activation_accepts, launch.gelu_forward, launch.gelu_backward),
    ("binary_cross_entropy_with_logits", "numpy"): Kernel(
        launch.binary_cross_entropy_accepts, launch.binary_cross_entropy_forward, launch.binary_cross_entropy_backward
    ),
    ("scaled_dot_product_attention", "numpy"): Kernel(
        launch.attention_accepts, launch.attention_forward, launch.attention_backward
    ),
    ("layer_norm", "numpy"): Kernel(launch.layer_norm_accepts, launch.layer_norm_forward, launch.layer_norm_backward),
    ("rms_norm", "numpy"): Kernel(launch.layer_norm_accepts, launch.rms_norm_forward, launch.rms_norm_backward),
    ("group_norm", "numpy"): Kernel(launch.group_norm_accepts, launch.group_norm_forward, launch.group_norm_backward),
    ("group_norm_silu", "numpy"): Kernel(
        launch.group_norm_accepts, launch.group_norm_silu_forward, launch.group_norm_silu_backward
    ),
}


# -- kernels of primitive ops, which have vjps of their own: in place of the forward, behind its checks ---------------


def instead(name: str, *operands: Any) -> Callable | None:
    """The kernel to run in place of the forward of op `name` on these operands, or None if the definition has to do.

    It takes the operands, and then what the op has worked out from its parameters.
    """
    module = FORWARDS.get((name, arrays.xp(*operands).__name__))
    if module is None or not _switch.on or not all(_is_float32(x) and x.size for x in operands) or not _have_numba():
        return None
    kernel = getattr(importlib.import_module(module), name)
    return lambda *args: kernel(*map(_plain, args[: len(operands)]), *args[len(operands) :])


def _plain(x: np.ndarray) -> np.ndarray:
    """`x`, or a copy unless it is contiguous, aligned and writable: for a read-only array Numba would compile anew."""
    return x if x.flags.carray else x.copy()


FORWARDS: dict[tuple[str, str], str] = {
    ("conv2d", "numpy"): "tinygen.kernels.cpu.convolution",
    ("conv_transpose2d", "numpy"): "tinygen.kernels.cpu.convolution",
    ("conv2d_weight_gradient", "numpy"): "tinygen.kernels.cpu.convolution",
}


# -- kernels that change arrays in place: the rules of optimisers ------------------------------------------------------


def update_rule(name: str, theta: Any, g: Any, *slots: Any) -> Callable | None:
    """The kernel of the update rule `name`, taking the same arguments, or None if its definition has to do."""
    rule = UPDATES.get((name, arrays.xp(theta).__name__))
    if rule is None or not _switch.on or not _have_numba():
        return None
    kind, shape = type(theta), theta.shape
    fits = lambda a: type(a) is kind and a.dtype == np.float32 and a.shape == shape and a.flags.c_contiguous
    return rule if all(map(fits, (theta, g, *slots))) else None


def _adam_step(theta: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, *numbers: float) -> None:
    from tinygen.kernels.cpu.adam import adam_step

    adam_step(theta.reshape(-1), g.reshape(-1), m.reshape(-1), v.reshape(-1), *numbers)


UPDATES: dict[tuple[str, str], Callable] = {("adam_step", "numpy"): _adam_step}
