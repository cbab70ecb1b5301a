"""Solving dy/dt = f(t, y) from t0 to t1, forwards or backwards in time.

`rk4` takes the steps that it is told to, `dormand_prince` those that a tolerance asks for. Both are a few lines of
arithmetic on y, which may be an array or a Tensor: gradients flow through the solver's steps like through anything else
("discretise, then optimise"), and are those of the solution that was computed, not of the one it approximates.

Papers: Runge 1895; Kutta 1901; Dormand & Prince 1980, "A family of embedded Runge-Kutta formulae".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinygen.errors import InputError, TinygenError
from tinygen.tensor import Tensor

__all__ = ["Solution", "SolverError", "dormand_prince", "rk4"]

Field = Callable[[float, Any], Any]
"""f(t, y) -> dy/dt, of the shape of y."""


class SolverError(TinygenError):
    """The solution cannot be followed: it blows up, or changes faster than the arithmetic can tell times apart."""


class Solution(NamedTuple):
    """y at t1, and what it took: evaluations of f, and steps that were kept."""

    y: Any
    evaluations: int
    steps: int


def rk4(f: Field, y: Any, t0: float, t1: float, steps: int) -> Any:
    """y at t1, by `steps` equal steps of the classical Runge-Kutta method; its error shrinks like steps^-4.

        k1 = f(t, y)
        k2 = f(t + h/2, y + h/2 k1)
        k3 = f(t + h/2, y + h/2 k2)
        k4 = f(t + h, y + h k3)
        y  = y + h/6 (k1 + 2 k2 + 2 k3 + k4)
    """
    if steps < 1:
        raise InputError(f"rk4: steps must be at least 1, not {steps}.")
    h = (t1 - t0) / steps
    for i in range(steps):
        t = t0 + i * h
        k1 = f(t, y)
        k2 = f(t + h / 2, y + h / 2 * k1)
        k3 = f(t + h / 2, y + h / 2 * k2)
        k4 = f(t + h, y + h * k3)
        y = y + h / 6 * (k1 + 2 * (k2 + k3) + k4)
    return y


# The Dormand-Prince tableau: the times c, the weights a of earlier stages, and by how much the solutions of fifth and
# fourth order differ. The last row of a is the fifth-order solution, so the last stage is the first of the next step.
C = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
E = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def dormand_prince(
    f: Field, y: Any, t0: float, t1: float, rtol: float = 1e-5, atol: float = 1e-5, first: float | None = None
) -> Solution:
    """y at t1, by steps whose error is estimated and kept within atol + rtol |y| (root mean square over all of y).

    Each step yields solutions of orders 5 and 4 from the same seven stages. Their difference estimates the error; a
    step with too large a one is taken again, smaller. The next is as long as an error that shrinks like h^5 allows.

    first: the length of the first attempt, by default a twentieth of the way

    Raises SolverError when a step would have to be too short for t to change, as where y goes to infinity.
    """
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0):
        raise InputError(f"dormand_prince: rtol and atol must not be negative, nor both 0, not {rtol} and {atol}.")
    t, h = t0, (t1 - t0) / 20 if first is None else math.copysign(first, t1 - t0)
    stages, evaluations, steps = [f(t, y)], 1, 0
    while t != t1:
        h = h if abs(h) < abs(t1 - t) else t1 - t
        if not abs(h) > 1e-14 * max(abs(t), abs(t1 - t0)):
            raise SolverError(f"dormand_prince: at t = {t:.6g} no step is short enough for the tolerance asked for.")
        stages = stages[:1]
        for c, a in zip(C[1:], A[1:], strict=True):
            reached = y + _combined(a, stages, h)
            stages.append(f(t + c * h, reached))
        evaluations += 6
        error = _error(_combined(E, stages, h), y, reached, rtol, atol)
        if error <= 1:
            t, y, stages, steps = (t1 if h == t1 - t else t + h), reached, stages[-1:], steps + 1
        h *= min(max(0.9 * error**-0.2, 0.2), 5.0) if 0 < error < math.inf else (5.0 if error == 0 else 0.2)
    return Solution(y, evaluations, steps)


def _combined(weights: tuple[float, ...], stages: list, h: float) -> Any:
    """h times the weighted sum of the stages."""
    return sum(h * w * k for w, k in zip(weights, stages, strict=True) if w)


def _error(difference: Any, before: Any, after: Any, rtol: float, atol: float) -> float:
    """The root mean square of the estimated error over what is allowed: up to 1 is good; NaN counts as infinite."""
    plain = lambda v: np.asarray(v.data if isinstance(v, Tensor) else v, np.float64)
    difference, before, after = map(plain, (difference, before, after))
    allowed = atol + rtol * np.maximum(np.abs(before), np.abs(after))
    with np.errstate(invalid="ignore", over="ignore"):
        error = float(np.sqrt(np.mean(np.square(difference / allowed))))
    return error if error == error else math.inf
