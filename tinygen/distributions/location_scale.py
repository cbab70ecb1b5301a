"""Distributions that are one standard distribution, shifted and stretched: x = loc + scale z.

With f and F the density and the CDF of z, everything else follows:

    log p(x) = log f(z) - log scale,    P(X <= x) = F(z),    z = (x - loc) / scale
    H(x) = H(z) + log scale,    E x = loc + scale E z,    Var x = scale^2 Var z

and a draw loc + scale z, with the noise z drawn apart from the parameters, is differentiable in both: the
reparameterisation of Kingma & Welling (2014) and Rezende et al. (2014).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import ops
from tinygen.distributions.distribution import Distribution, as_tuple, finite, open_uniform, positive
from tinygen.random import Generator, Shape

EULER = float(np.euler_gamma)
LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)


class LocationScale(Distribution):
    """x = loc + scale z. A subclass says what z is: its log-density, CDF, quantile, mean, variance and entropy.

    loc, scale: numbers, arrays or Tensors that broadcast together; scale > 0
    event:      how many of the last axes are one event
    """

    standard_mean: float
    standard_variance: float
    standard_entropy: float

    def __init__(self, loc: Any = 0.0, scale: Any = 1.0, event: int = 0):
        super().__init__(event)
        self.loc, self.scale = self._parameters(loc, scale)
        self._require("loc", self.loc, finite, "finite")
        self._require("scale", self.scale, positive, "positive and finite")
        self.shape = self._fitting(self.loc.shape, self.scale.shape)

    def rsample(self, rng: Generator, shape: Shape = ()) -> Any:
        return self.loc + self.scale * self._noise(self.standard_sample(rng, (*as_tuple(shape), *self.shape)))

    def _log_prob(self, x: Any) -> Any:
        return self.standard_log_prob((x - self.loc) / self.scale) - ops.log(self.scale)

    def _cdf(self, x: Any) -> Any:
        return self.standard_cdf((x - self.loc) / self.scale)

    def _icdf(self, u: Any) -> Any:
        return self.loc + self.scale * self.standard_icdf(u)

    def _entropy(self) -> Any:
        return ops.log(self.scale) + self.standard_entropy

    def _mean(self) -> Any:
        return self.loc + self.scale * self.standard_mean

    def _variance(self) -> Any:
        return ops.square(self.scale) * self.standard_variance

    @staticmethod
    def standard_log_prob(z: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def standard_cdf(z: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def standard_icdf(u: Any) -> Any:
        raise NotImplementedError

    @classmethod
    def standard_sample(cls, rng: Generator, shape: Shape) -> np.ndarray:
        """z as the quantile of a uniform number; in float64, so that float32 draws reach far into the tails too."""
        return cls.standard_icdf(open_uniform(rng, shape))


class Normal(LocationScale):
    """f(z) = exp(-z^2 / 2) / sqrt(2 pi). `loc` is the mean, `scale` the standard deviation."""

    standard_mean, standard_variance, standard_entropy = 0.0, 1.0, LOG_SQRT_2_PI + 0.5

    @staticmethod
    def standard_log_prob(z: Any) -> Any:
        return -0.5 * ops.square(z) - LOG_SQRT_2_PI

    @staticmethod
    def standard_cdf(z: Any) -> Any:
        return ops.ndtr(z)

    @staticmethod
    def standard_icdf(u: Any) -> Any:
        return ops.ndtri(u)

    @classmethod
    def standard_sample(cls, rng: Generator, shape: Shape) -> np.ndarray:
        return rng.normal(shape, np.float64)


class Laplace(LocationScale):
    """f(z) = exp(-|z|) / 2: two exponentials back to back. The standard deviation is sqrt(2) scale."""

    standard_mean, standard_variance, standard_entropy = 0.0, 2.0, 1 + math.log(2)

    @staticmethod
    def standard_log_prob(z: Any) -> Any:
        return -ops.abs(z) - math.log(2)

    @staticmethod
    def standard_cdf(z: Any) -> Any:
        """exp(z) / 2 on the left, 1 - exp(-z) / 2 on the right; each term below is constant on the other's side."""
        return 0.5 * (ops.exp(ops.minimum(z, 0.0)) - ops.expm1(-ops.maximum(z, 0.0)))

    @staticmethod
    def standard_icdf(u: Any) -> Any:
        """log(2u) on the left, -log(2 (1 - u)) on the right."""
        return ops.log(ops.minimum(2 * u, 1.0)) - ops.log(ops.minimum(2 * (1 - u), 1.0))


class Logistic(LocationScale):
    """F(z) = sigmoid(z), f = F (1 - F). The standard deviation is pi / sqrt(3) scale."""

    standard_mean, standard_variance, standard_entropy = 0.0, math.pi**2 / 3, 2.0

    @staticmethod
    def standard_log_prob(z: Any) -> Any:
        return ops.log_sigmoid(z) + ops.log_sigmoid(-z)

    @staticmethod
    def standard_cdf(z: Any) -> Any:
        return ops.exp(ops.log_sigmoid(z))  # to full relative precision in the left tail too

    @staticmethod
    def standard_icdf(u: Any) -> Any:
        return ops.log(u) - ops.log1p(-u)


class Gumbel(LocationScale):
    """F(z) = exp(-exp(-z)): the largest of many. `loc` is the mode, the mean is loc + 0.5772 scale.

    Added to logits, Gumbel noise makes their argmax a draw of the Categorical (see `tinygen.distributions.discrete`).
    """

    standard_mean, standard_variance, standard_entropy = EULER, math.pi**2 / 6, EULER + 1

    @staticmethod
    def standard_log_prob(z: Any) -> Any:
        z = ops.where(ops.less(z, -1e30), -1e30, z)  # exp(-z) is infinite long before; -inf would leave inf - inf
        return -z - ops.exp(-z)

    @staticmethod
    def standard_cdf(z: Any) -> Any:
        z = ops.maximum(z, -50.0)  # zero long before; further down the gradient would be 0 times infinity
        return ops.exp(-ops.exp(-z))

    @staticmethod
    def standard_icdf(u: Any) -> Any:
        return -ops.log(-ops.log(u))
