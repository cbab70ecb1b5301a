"""Gradients against finite differences: for the tests, and for a reader's own ops.

    tinygen.gradcheck(lambda x: tinygen.ops.log(x).sum(), np.array([1.0, 2.0]))
    python -m tinygen.gradcheck my_ops.py

For a function f, a random weighting u of its output and a random direction v of its input, the derivative of
phi(e) = <u, f(x + e v)> at 0 is <vjp(u), v>. It is compared with the central difference

    D(h) = (phi(h) - phi(-h)) / 2h,     extrapolated to  (4 D(h/2) - D(h)) / 3, which leaves an error of order h^4.

The vjp is a function too, of x and u, so the same comparison applied to it checks the second derivatives, and so on.
Everything is float64. Where f has a kink between x - hv and x + hv, D(h) and D(h/2) disagree by far more than a
smooth function allows: such a point proves nothing, and `Kink` is raised instead of an error being tolerated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import autograd
from tinygen.errors import GradientError, InputError
from tinygen.registry import Op
from tinygen.tensor import Tensor, tensor

STEP = 1e-4
TOLERANCE = 1e-6  # relative; what the extrapolated difference leaves at this step is far smaller


class Kink(Exception):
    """The function has a kink at the point that was drawn; draw another."""


def gradcheck(function: Callable, *inputs: Any, order: int = 2, seed: int = 0) -> None:
    """Compare the derivatives of `function(*inputs)`, up to `order`, with finite differences.

    Floats (arrays, Tensors, numbers and lists, taken as float64) are differentiated; arrays of integers and booleans
    are passed on. Raises GradientError with both values where they differ, Kink where the function has one, and
    InputError where there is nothing to check.
    """
    arrays = [tensor(x)._array for x in inputs]  # lists of whole numbers are floats
    arrays = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in arrays]
    if not any(map(_differentiable, arrays)) or not _outputs(function, arrays):
        raise InputError("gradcheck: there is nothing to check; the function needs an input and an output of floats.")
    _check(function, arrays, order, np.random.default_rng(seed), "gradient")


def check_op(op: Op, draw: Any, order: int = 2, seed: int = 0) -> None:
    """`gradcheck` of one op at inputs drawn from its own description."""
    operands, params = op.inputs(draw)
    fixed = [x for x in operands if not _differentiable(x)]
    rebuilt = lambda xs: [next(xs) if _differentiable(x) else x for x in operands]
    function = lambda *xs: op(*rebuilt(iter(xs)), **params)
    xs = [x for x in operands if _differentiable(x)]
    if not xs:
        return
    try:
        _check(function, xs, order, np.random.default_rng(seed), "gradient")
    except GradientError as error:
        given = f" with {fixed}" if fixed else ""
        raise GradientError(f"{op.name}, parameters {params}{given}: {error}") from None


def _differentiable(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def _check(function: Callable, xs: list, order: int, rng: np.random.Generator, what: str) -> None:
    outs = _outputs(function, xs)
    us = [rng.standard_normal(out.shape) for out in outs]
    directions = [_direction(x, rng) for x in xs]
    grads = _gradients(function, xs, us)
    numeric, kinked = _numeric(function, xs, us, directions)
    analytic = sum(float(np.sum(g * v)) for g, v in zip(grads, directions, strict=True))
    scale = 1e-2 * sum(float(np.sum(np.abs(u * y))) for u, y in zip(us, outs, strict=True))
    if not abs(analytic - numeric) <= TOLERANCE * (abs(numeric) + scale + 1e-3):
        if kinked:
            raise Kink
        raise GradientError(_report(function, xs, us, directions, grads, what))
    if order > 1:
        pull = lambda *args: _recorded_gradients(function, args[: len(xs)], args[len(xs) :])
        _check(pull, [*xs, *us], order - 1, rng, "derivative of the " + what)


def _direction(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0.25, 1.0, x.shape) * rng.choice([-1.0, 1.0], x.shape)


def _outputs(function: Callable, xs: list) -> list[np.ndarray]:
    """The float outputs of `function`, as arrays."""
    out = function(*[Tensor(x) if isinstance(x, np.ndarray) else x for x in xs])
    outs = out if isinstance(out, tuple) else (out,)
    return [y._array for y in outs if y is not None and y.dtype.kind == "f"]


def _gradients(function: Callable, xs: list, us: list) -> list[np.ndarray]:
    """By the ordinary backward pass, on plain arrays; zeros where an output does not depend on an input."""
    leaves = [Tensor(x, requires_grad=x.dtype.kind == "f") for x in xs]
    asked = [leaf for leaf in leaves if leaf.requires_grad]
    outs = function(*leaves)
    pairs = _tracked(outs, us)
    found = autograd.grad([y for y, _ in pairs], asked, [u for _, u in pairs], allow_unused=True)
    found = iter(found)
    zeros = [np.zeros(leaf.shape) for leaf in leaves]
    found = [next(found) if leaf.requires_grad else None for leaf in leaves]
    return [zero if g is None else g._array for g, zero in zip(found, zeros, strict=True)]


def _recorded_gradients(function: Callable, xs: tuple, us: tuple) -> tuple[Tensor, ...]:
    """The same as Tensors that can be differentiated by both x and u."""
    leaves = [x if x.requires_grad or x.dtype.kind != "f" else Tensor(x._array, requires_grad=True) for x in xs]
    asked = [leaf for leaf in leaves if leaf.requires_grad]
    pairs = _tracked(function(*leaves), us)
    found = autograd.grad([y for y, _ in pairs], asked, [u for _, u in pairs], create_graph=True, allow_unused=True)
    return tuple(g if g is not None else Tensor(np.zeros(x.shape)) for g, x in zip(found, asked, strict=True))


def _tracked(outs: Any, us: Any) -> list[tuple[Tensor, Any]]:
    outs = [y for y in (outs if isinstance(outs, tuple) else (outs,)) if y is not None and y.dtype.kind == "f"]
    return [(y, u) for y, u in zip(outs, us, strict=True) if y.requires_grad]


def _numeric(function: Callable, xs: list, us: list, directions: list) -> tuple[float, bool]:
    """The extrapolated central difference of <u, f> along the directions, and whether it met a kink."""

    def phi(e: float) -> float:
        moved = [np.asarray(x + e * v) if x.dtype.kind == "f" else x for x, v in zip(xs, directions, strict=True)]
        return sum(float(np.sum(u * y)) for u, y in zip(us, _outputs(function, moved), strict=True))

    coarse, fine = [(phi(h) - phi(-h)) / (2 * h) for h in (STEP, STEP / 2)]
    return (4 * fine - coarse) / 3, abs(coarse - fine) > 1e-5 * (abs(coarse) + abs(fine)) + 1e-9


def _report(function: Callable, xs: list, us: list, directions: list, grads: list, what: str) -> str:
    """Which input it is, with both values."""
    lines = []
    for i, (x, g, v) in enumerate(zip(xs, grads, directions, strict=True)):
        alone = [v if j == i else np.zeros_like(w) for j, w in enumerate(directions)]
        numeric, _ = _numeric(function, xs, us, alone)
        analytic = float(np.sum(g * v))
        if abs(analytic - numeric) > TOLERANCE * (abs(numeric) + 1e-3):
            values = np.array2string(x, precision=4, threshold=20)
            lines.append(
                f"the {what} by input {i} is {analytic:.8g} along a random direction, finite differences give "
                f"{numeric:.8g} (input {i} of shape {x.shape}: {values})"
            )
    return "; ".join(lines) or f"the {what} along a random direction disagrees with finite differences."
