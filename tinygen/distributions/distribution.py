"""What all distributions share: parameters, shapes, and which axes make up an event. The conventions are the package's.

A subclass sets its parameters and `shape`, and writes those of `_log_prob`, `_cdf`, `_icdf`, `_entropy`, `_mean`,
`_variance` and `rsample` (or `sample`) that it has. They need not care about events, or about broadcasting results that
depend on some of the parameters only: the public methods do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import arrays, ops
from tinygen.autograd import no_grad
from tinygen.errors import InputError, ShapeError
from tinygen.random import Generator, Shape
from tinygen.tensor import Tensor


class Distribution:
    """A distribution, or an array of them; see the package's docstring for shapes and events."""

    shape: tuple[int, ...] = ()
    vector = 0  # how many axes one draw has: 0 if it is a number, 1 if it is a vector

    def __init__(self, event: int = 0):
        if not isinstance(event, int) or event < 0:
            raise InputError(f"{self._name}: event counts the axes of one event, 0 or more; it is {event!r}.")
        self.event = event

    # -- what a person calls -------------------------------------------------------------------------------------

    def log_prob(self, x: Any) -> Any:
        """log p(x) in nats, one number for each event; -inf where p(x) is zero. x broadcasts with `shape`."""
        x = self._points(x)
        self._fitting(x.shape, self.shape)
        with np.errstate(over="ignore", divide="ignore"):  # what is too unlikely for a float has log p = -inf
            return self._per_event(self._log_prob(x))

    def cdf(self, x: Any) -> Any:
        """P(X <= x) for each draw."""
        x = self._points(x)
        self._fitting(x.shape, self.shape)
        with np.errstate(over="ignore"):
            return self._cdf(x)

    def icdf(self, u: Any) -> Any:
        """The x at which the CDF is u, for u from 0 to 1 (there, the ends of the support); NaN for any other."""
        u = self._points(u)
        self._fitting(u.shape, self.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._icdf(u)

    def sample(self, rng: Generator, shape: Shape = ()) -> Any:
        """Draws as a plain array of shape (*shape, *self.shape)."""
        with no_grad():
            return plain(self.rsample(rng, shape))

    def rsample(self, rng: Generator, shape: Shape = ()) -> Any:
        """The draws of `sample` as a function of the parameters, through which gradients flow to them."""
        raise self._without("rsample", "its draws are no differentiable function of the parameters")

    def entropy(self) -> Any:
        """-E[log p(x)] in nats, one number for each event."""
        per_draw = self.shape[: len(self.shape) - self.vector]
        return self._per_event(ops.broadcast_to(self._entropy(), per_draw))

    @property
    def mean(self) -> Any:
        return ops.broadcast_to(self._mean(), self.shape)

    @property
    def variance(self) -> Any:
        return ops.broadcast_to(self._variance(), self.shape)

    @property
    def std(self) -> Any:
        return ops.sqrt(self.variance)

    @property
    def axes(self) -> int:
        """How many of the last axes of a draw go into one number of `log_prob`."""
        return self.vector + self.event

    def __repr__(self) -> str:
        return f"{self._name}(shape={self.shape}, event={self.event})"

    # -- what a subclass may not have ----------------------------------------------------------------------------

    def _log_prob(self, x: Any) -> Any:
        raise self._without("log_prob")

    def _cdf(self, x: Any) -> Any:
        raise self._without("cdf")

    def _icdf(self, u: Any) -> Any:
        raise self._without("icdf")

    def _entropy(self) -> Any:
        raise self._without("entropy", "estimate it as the mean of -log_prob over samples")

    def _mean(self) -> Any:
        raise self._without("mean")

    def _variance(self) -> Any:
        raise self._without("variance")

    def _without(self, method: str, why: str = "there is no formula for it") -> InputError:
        return InputError(f"{self._name} has no {method}: {why}.")

    # -- parameters and points -----------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _parameters(self, *values: Any) -> list:
        """The values as parameters, and with them the dtype and the device of this distribution."""
        given = [value for value in values if isinstance(value, Tensor) or arrays.is_array(value)]
        floats = [value.dtype for value in given if value.dtype.kind == "f"]
        self.dtype = np.result_type(*floats) if floats else np.dtype(np.float32)
        self.device = arrays.device_of(plain(given[0])) if given else "cpu"
        return [self._floating(value) for value in values]

    def _floating(self, value: Any) -> Any:
        """Float arrays and Tensors as they are; anything else in this distribution's dtype.

        Numbers become NumPy scalars, which ops take for weak: they never widen a Tensor, nor clash with its dtype.
        """
        if not isinstance(value, Tensor) and not arrays.is_array(value):
            try:
                value = np.asarray(value, self.dtype)[()]
            except (TypeError, ValueError):
                raise InputError(f"{self._name}: expected numbers, an array or a Tensor, not {value!r:.60}.") from None
            return arrays.to_device(value, self.device) if value.ndim else value
        if value.dtype.kind not in "fiub":
            raise InputError(f"{self._name}: expected real numbers, not {value.dtype}.")
        return value if value.dtype.kind == "f" else value.astype(self.dtype)

    _points = _floating

    def _noise(self, noise: np.ndarray) -> Any:
        """Random numbers in the dtype and on the device of the parameters."""
        return arrays.to_device(noise.astype(self.dtype, copy=False), self.device)

    def _require(self, name: str, value: Any, holds: Callable, rule: str) -> None:
        """InputError for a parameter that breaks its rule; values that may be on a GPU are not looked at."""
        if isinstance(value, Tensor) or arrays.xp(value) is not np:
            return
        kept = np.broadcast_to(holds(value), np.shape(value))
        if not kept.all():
            raise InputError(f"{self._name}: {name} must be {rule}; {np.asarray(value)[~kept].flat[0]:g} is not.")

    # -- shapes --------------------------------------------------------------------------------------------------

    def _fitting(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """The shape to which all of them broadcast."""
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            raise ShapeError(f"{self._name}: shapes {' and '.join(map(str, shapes))} do not broadcast.") from None

    def _per_event(self, per_draw: Any) -> Any:
        """The sum over the axes of an event."""
        if self.event == 0:
            return per_draw
        if per_draw.ndim < self.event:
            raise ShapeError(
                f"{self._name}: event={self.event} asks to sum over more axes than there are in shape {per_draw.shape};"
                " give points, or parameters, in their full shape."
            )
        return ops.sum(per_draw, tuple(range(-self.event, 0)))


def finite(value: Any) -> Any:
    return np.isfinite(value)


def positive(value: Any) -> Any:
    return (value > 0) & np.isfinite(value)


def possible(value: Any) -> Any:
    """Of logits: minus infinity is the logit of what cannot happen, but something must be able to."""
    return (value < np.inf) & (np.max(value, -1, keepdims=True) > -np.inf)


def as_tuple(shape: Shape) -> tuple[int, ...]:
    return tuple(shape) if isinstance(shape, tuple | list) else (shape,)


def open_uniform(rng: Generator, shape: Shape) -> np.ndarray:
    """Uniform on (0, 1), float64: both ends left out, so that an inverse CDF of it is finite."""
    return rng.uniform(shape, low=2.0**-54, dtype=np.float64)


def plain(value: Any) -> Any:
    """The array of a Tensor; arrays as they are, NumPy scalars as 0-d arrays."""
    value = value.data if isinstance(value, Tensor) else value
    return np.asarray(value) if isinstance(value, np.generic) else value
