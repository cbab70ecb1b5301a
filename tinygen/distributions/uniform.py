"""The uniform distribution on an interval."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import ops
from tinygen.distributions.distribution import Distribution, as_tuple, finite, positive
from tinygen.random import Generator, Shape


class Uniform(Distribution):
    """p(x) = 1 / (high - low) from low to high, both ends included, and 0 elsewhere.

    low, high: numbers, arrays or Tensors that broadcast together; low < high
    event:     how many of the last axes are one event

    No gradient flows through the choice of being inside: `log_prob` is flat, with steps at the ends.
    """

    def __init__(self, low: Any = 0.0, high: Any = 1.0, event: int = 0):
        super().__init__(event)
        self.low, self.high = self._parameters(low, high)
        self.shape = self._fitting(self.low.shape, self.high.shape)
        self._require("low", self.low, finite, "finite")
        self._require("high - low", self.width, positive, "positive and finite")

    @property
    def width(self) -> Any:
        """high - low"""
        return self.high - self.low

    def rsample(self, rng: Generator, shape: Shape = ()) -> Any:
        u = rng.uniform((*as_tuple(shape), *self.shape), dtype=np.float64)
        return self._at(self._noise(u))

    def _log_prob(self, x: Any) -> Any:
        return ops.where(_between(x, self.low, self.high), -ops.log(self.width), -math.inf)

    def _cdf(self, x: Any) -> Any:
        return ops.clip((x - self.low) / self.width, 0.0, 1.0)

    def _icdf(self, u: Any) -> Any:
        return ops.where(_between(u, 0.0, 1.0), self._at(u), math.nan)

    def _at(self, u: Any) -> Any:
        """low + u (high - low), which rounding could carry past the end."""
        return ops.clip(self.low + self.width * u, self.low, self.high)

    def _entropy(self) -> Any:
        return ops.log(self.width)

    def _mean(self) -> Any:
        return self.low + 0.5 * self.width

    def _variance(self) -> Any:
        return ops.square(self.width) / 12


def _between(x: Any, low: Any, high: Any) -> Any:
    return ops.logical_and(ops.greater_equal(x, low), ops.less_equal(x, high))
