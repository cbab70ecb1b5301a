"""A logistic distribution cut into bins: a likelihood for pixels (PixelCNN++, Salimans et al. 2017, sec. 2.1).

A pixel with 256 levels is the rounded value of something continuous. Levels near one another then get similar
probabilities, which a Categorical would have to learn, and the outermost bins reach out to infinity, which puts
probability on black and white themselves. A mixture of them, `Mixture(logits, DiscretisedLogistic(loc, scale))`, is the
paper's eq. 2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import ops
from tinygen.autograd import stop_gradient
from tinygen.distributions.discrete import expected_terms
from tinygen.distributions.distribution import Distribution, as_tuple, finite, plain, positive
from tinygen.distributions.location_scale import Logistic
from tinygen.errors import InputError
from tinygen.random import Generator, Shape


class DiscretisedLogistic(Distribution):
    """P(x) = sigmoid((x + w/2 - mu) / s) - sigmoid((x - w/2 - mu) / s)                                   eq. 2

    on `bins` evenly spaced values x from `low` to `high`, w apart; at `low` the second term is 0, at `high` the first
    is 1. An x off the grid counts as the nearest value; more than half a bin outside, its probability is 0.

    loc, scale: mu and s > 0, in the units of x; numbers, arrays or Tensors that broadcast together
    low, high:  the outermost values; 0 and bins - 1, the paper's, unless given
    event:      how many of the last axes are one event

    The moments and the entropy are sums over all values, exact, at `bins` times the memory of a draw.
    """

    def __init__(
        self, loc: Any, scale: Any, bins: int = 256, low: float = 0.0, high: float | None = None, event: int = 0
    ):
        super().__init__(event)
        high = low + bins - 1 if high is None else high
        if not isinstance(bins, int) or bins < 2 or not -math.inf < low < high < math.inf:
            raise InputError(f"DiscretisedLogistic: {bins} bins from {low} to {high}; take two or more, low < high.")
        self.loc, self.scale = self._parameters(loc, scale)
        self._require("loc", self.loc, finite, "finite")
        self._require("scale", self.scale, positive, "positive and finite")
        self.shape = self._fitting(self.loc.shape, self.scale.shape)
        self.bins, self.low, self.width = bins, float(low), float(high - low) / (bins - 1)

    def sample(self, rng: Generator, shape: Shape = ()) -> Any:
        """Draws of the logistic distribution, each rounded to the nearest value."""
        z = self._noise(Logistic.standard_sample(rng, (*as_tuple(shape), *self.shape)))
        k = self._nearest(self._place(plain(self.loc) + plain(self.scale) * z))
        return plain(self.low + self.width * k)

    def _log_prob(self, x: Any) -> Any:
        """The difference of two sigmoids cancels in the tails. With a, b their arguments, it equals

        sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)),    a - b = w / s

        whose logarithm is a sum of terms that neither cancel nor underflow; at an end, only one of them is there.
        """
        place = self._place(x)
        k = self._nearest(place)
        first, last = ops.equal(k, 0), ops.equal(k, self.bins - 1)
        below_upper = ops.log_sigmoid(self._z(k + 0.5))
        above_lower = ops.log_sigmoid(-self._z(k - 0.5))
        between = ops.log(-ops.expm1(-self.width / self.scale))
        log_p = ops.where(last, 0.0, below_upper) + ops.where(first, 0.0, above_lower)
        log_p = log_p + ops.where(ops.logical_or(first, last), 0.0, between)
        return ops.where(ops.greater(ops.abs(place - k), 0.5), -math.inf, log_p)

    def _cdf(self, x: Any) -> Any:
        place = self._place(x)
        k = self._nearest(place)
        below = ops.where(ops.equal(k, self.bins - 1), 1.0, ops.exp(ops.log_sigmoid(self._z(k + 0.5))))
        return ops.where(ops.less(place, -0.5), 0.0, below)

    def _place(self, x: Any) -> Any:
        """Where x lies among the values: 0 at the first, bins - 1 at the last."""
        return (stop_gradient(x) - self.low) / self.width

    def _nearest(self, place: Any) -> Any:
        return ops.clip(ops.round(place), 0, self.bins - 1)

    def _z(self, place: Any) -> Any:
        return (self.low + self.width * place - self.loc) / self.scale

    # -- sums over all values --------------------------------------------------------------------------------------

    @property
    def values(self) -> np.ndarray:
        """All values that a draw can have, shape (bins,)."""
        return self._noise(self.low + self.width * np.arange(self.bins))

    def _table(self) -> tuple[Any, Any]:
        """The values, along a new first axis, and their log-probabilities, (bins, *shape)."""
        values = self.values.reshape((-1, *(1 for _ in self.shape)))
        return values, self._log_prob(values)

    def _mean(self) -> Any:
        values, log_p = self._table()
        return ops.sum(ops.exp(log_p) * values, 0)

    def _variance(self) -> Any:
        values, log_p = self._table()
        return ops.sum(ops.exp(log_p) * ops.square(values - self._mean()), 0)

    def _entropy(self) -> Any:
        _, log_p = self._table()
        return ops.sum(expected_terms(log_p, -log_p), 0)
