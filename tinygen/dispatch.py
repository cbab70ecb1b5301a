"""The one place where tinygen knows its kernels: a table from an op and an array library to the op's kernels.

A kernel trusts its arguments. So before one is picked, shapes, dtypes and index ranges are checked, and an op's view
of an array (any shape, any axis) becomes a kernel's (the rows of a contiguous matrix): by the functions of
`tinygen.launch`. What a kernel does not accept runs the op's definition, and that includes everything wrong: the
definition says what is wrong with it. Kernels are float32; so float64 runs definitions, as does everything with
`TINYGEN_KERNELS=off` in the environment or inside `with definitions_only():`.
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

from tinygen import arrays
from tinygen.errors import InputError
from tinygen.launch import (
    activations,
    affine,
    attention,
    batch_norm,
    losses,
    norms,
    recurrences,
    rows,
    splines,
    updates,
)
from tinygen.launch.pieces import is_float32, plain


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


KERNELS: dict[tuple[str, str], Kernel] = {
    ("softmax", "numpy"): Kernel(rows.row_accepts, rows.softmax_forward, rows.softmax_backward),
    ("log_softmax", "numpy"): Kernel(rows.row_accepts, rows.log_softmax_forward, rows.log_softmax_backward),
    ("cross_entropy", "numpy"): Kernel(
        losses.cross_entropy_accepts, losses.cross_entropy_forward, losses.cross_entropy_backward
    ),
    ("silu", "numpy"): Kernel(activations.activation_accepts, activations.silu_forward, activations.silu_backward),
    ("gelu", "numpy"): Kernel(activations.activation_accepts, activations.gelu_forward, activations.gelu_backward),
    ("tanh_gate", "numpy"): Kernel(activations.gate_accepts, activations.gate_forward, activations.gate_backward),
    ("binary_cross_entropy_with_logits", "numpy"): Kernel(
        losses.binary_cross_entropy_accepts, losses.binary_cross_entropy_forward, losses.binary_cross_entropy_backward
    ),
    ("scaled_dot_product_attention", "numpy"): Kernel(
        attention.attention_accepts, attention.attention_forward, attention.attention_backward
    ),
    ("layer_norm", "numpy"): Kernel(norms.layer_norm_accepts, norms.layer_norm_forward, norms.layer_norm_backward),
    ("rms_norm", "numpy"): Kernel(norms.layer_norm_accepts, norms.rms_norm_forward, norms.rms_norm_backward),
    ("group_norm", "numpy"): Kernel(norms.group_norm_accepts, norms.group_norm_forward, norms.group_norm_backward),
    ("group_norm_silu", "numpy"): Kernel(
        norms.group_norm_accepts, norms.group_norm_silu_forward, norms.group_norm_silu_backward
    ),
    ("affine", "numpy"): Kernel(affine.affine_accepts, affine.affine_forward, affine.affine_backward),
    ("batch_norm", "numpy"): Kernel(
        batch_norm.batch_norm_accepts, batch_norm.batch_norm_forward, batch_norm.batch_norm_backward
    ),
    ("batch_norm_inference", "numpy"): Kernel(
        batch_norm.batch_norm_accepts, batch_norm.inference_forward, batch_norm.inference_backward
    ),
    ("rational_quadratic", "numpy"): Kernel(splines.spline_accepts, splines.spline_forward, splines.spline_backward),
    ("nade", "numpy"): Kernel(recurrences.nade_accepts, recurrences.nade_forward, recurrences.nade_backward),
}


# -- kernels of primitive ops, which have vjps of their own: in place of the forward, behind its checks ---------------


def instead(name: str, *operands: Any) -> Callable | None:
    """The kernel to run in place of the forward of op `name` on these operands, or None if the definition has to do.

    It takes the operands, and then what the op has worked out from its parameters.
    """
    module = FORWARDS.get((name, arrays.xp(*operands).__name__))
    if module is None or not _switch.on or not _have_numba():
        return None
    if not all(is_float32(x) and x.size for x in operands):
        return None
    kernel = _imported(module, name)
    if name in ANY_LAYOUT:
        return kernel
    return lambda *args: kernel(*map(plain, args[: len(operands)]), *args[len(operands) :])


@functools.cache
def _imported(module: str, name: str) -> Callable:
    return getattr(importlib.import_module(module), name)


FORWARDS: dict[tuple[str, str], str] = {
    ("conv2d", "numpy"): "tinygen.kernels.cpu.convolution",
    ("conv_transpose2d", "numpy"): "tinygen.kernels.cpu.convolution",
    ("conv2d_weight_gradient", "numpy"): "tinygen.kernels.cpu.convolution",
    ("dropout", "numpy"): "tinygen.launch.dropout",
    ("logsumexp", "numpy"): "tinygen.launch.reductions",
    ("matmul", "numpy"): "tinygen.kernels.cpu.matmul",
    ("max_pool2d", "numpy"): "tinygen.kernels.cpu.pooling",
    ("sum", "numpy"): "tinygen.launch.reductions",
    ("var", "numpy"): "tinygen.launch.reductions",
    ("max_pool2d_put", "numpy"): "tinygen.kernels.cpu.pooling",
    ("sum_pool2d", "numpy"): "tinygen.kernels.cpu.pooling",
    ("sum_pool2d_transpose", "numpy"): "tinygen.kernels.cpu.pooling",
    ("take_along_axis", "numpy"): "tinygen.kernels.cpu.scatter",
    ("add_along_axis", "numpy"): "tinygen.kernels.cpu.scatter",
    ("add_rows", "numpy"): "tinygen.kernels.cpu.scatter",
}
ANY_LAYOUT = {"logsumexp", "matmul", "sum", "var"}  # kernels that take arrays as they lie in memory


# -- kernels that change many arrays in place: the rules of optimisers, clipping ---------------------------------------


def update(name: str, rule: Callable, jobs: list[tuple], *numbers: float) -> None:
    """rule(*arrays, *numbers), which changes the arrays in place, for each tuple of arrays in `jobs`.

    By the kernel of that name in one pass over all jobs that it accepts; the others by `rule`, the definition.
    """
    left, kernel = jobs, _update_kernel(name, jobs)
    if kernel is not None:
        left, fitting = [], []
        for job in jobs:
            (fitting if updates.fits(job) else left).append(job)
        if fitting:
            kernel(fitting, *numbers)
    for job in left:
        rule(*job, *numbers)


def together(name: str, jobs: list[tuple]) -> Callable | None:
    """The kernel of that name if it accepts all the `jobs`, which it takes as its first argument, or else None."""
    kernel = _update_kernel(name, jobs)
    return kernel if kernel is not None and all(map(updates.fits, jobs)) else None


def _update_kernel(name: str, jobs: list[tuple]) -> Callable | None:
    kernel = UPDATES.get((name, arrays.xp(*[job[0] for job in jobs]).__name__))
    return kernel if _switch.on and _have_numba() else None


UPDATES: dict[tuple[str, str], Callable] = {
    ("adam_step", "numpy"): updates.adam_step,
    ("move_average", "numpy"): updates.move_average,
    ("clip", "numpy"): updates.clip,
}
