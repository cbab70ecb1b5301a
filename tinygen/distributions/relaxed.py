"""Categorical draws that a gradient can pass through: relaxed, or rounded with the gradient of what was rounded.

Found independently by Jang et al. (2017), "Categorical reparameterization with Gumbel-softmax", and Maddison et al.
(2017), "The concrete distribution", whose symbols are used here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import ops
from tinygen.autograd import stop_gradient
from tinygen.distributions.distribution import Distribution, as_tuple, positive, possible
from tinygen.distributions.location_scale import Gumbel
from tinygen.errors import ShapeError
from tinygen.random import Generator, Shape


class GumbelSoftmax(Distribution):
    """x = softmax((log alpha + g) / lambda) with Gumbel noise g: points of a simplex, near its corners if lambda is
    small. Replacing softmax by argmax gives exact draws of Categorical(log alpha).

    logits:      log alpha, unnormalised, shape (..., K), K of two or more
    temperature: lambda > 0, one number (or a Tensor of shape ())
    event:       how many axes before the last are one event with it

    Small temperatures make draws nearly discrete, and their gradients large and noisy.
    """

    vector = 1

    def __init__(self, logits: Any, temperature: Any, event: int = 0):
        super().__init__(event)
        self.logits, self.temperature = self._parameters(logits, temperature)
        if not self.logits.ndim or self.logits.shape[-1] < 2 or self.temperature.shape:
            raise ShapeError(
                "GumbelSoftmax: logits must have shape (..., K), K at least 2, and the temperature must be one number; "
                f"their shapes are {self.logits.shape} and {self.temperature.shape}."
            )
        self._require("logits", self.logits, possible, "numbers or -inf, not all -inf")
        self._require("temperature", self.temperature, positive, "positive and finite")
        self.shape = self.logits.shape

    def rsample(self, rng: Generator, shape: Shape = (), hard: bool = False) -> Any:
        """Points of the simplex. With `hard=True` each is rounded to the corner that it is nearest to, which is a draw
        of the Categorical as a one-hot vector, and the gradient is that of the point before rounding."""
        noise = self._noise(Gumbel.standard_sample(rng, (*as_tuple(shape), *self.shape)))
        soft = ops.softmax((self.logits + noise) / self.temperature, -1)
        if not hard:
            return soft
        corner = ops.argmax(stop_gradient(soft), -1)
        return straight_through(ops.one_hot(corner, self.shape[-1], soft.dtype), soft)

    def _log_prob(self, x: Any) -> Any:
        """Of the first K - 1 coordinates (Maddison et al. 2017, eq. 10):

        log p(x) = log (K-1)! + (K-1) log lambda + sum_k (log alpha_k - (lambda + 1) log x_k)
                   - K log sum_k alpha_k x_k^-lambda

        At the edge of the simplex, where p is 0 or infinite, coordinates count as the smallest positive float.
        """
        k = self.shape[-1]
        log_x = ops.log(ops.maximum(x, float(np.finfo(x.dtype).tiny)))
        log_alpha = ops.log_softmax(self.logits, -1)
        terms = ops.sum(log_alpha - (self.temperature + 1) * log_x, -1)
        total = ops.logsumexp(log_alpha - self.temperature * log_x, -1)
        return _log_factorial(k - 1) + (k - 1) * ops.log(self.temperature) + terms - k * total


def straight_through(hard: Any, soft: Any) -> Any:
    """The values of `hard` with the gradient of `soft` (Bengio et al. 2013): a biased, but useful, gradient through a
    step that has none, such as rounding.

    `soft` minus itself is zero to the bit, so that the values are exactly those of `hard`.
    """
    return stop_gradient(hard) + (soft - stop_gradient(soft))


def _log_factorial(n: int) -> float:
    return float(np.sum(np.log(np.arange(1, n + 1))))
