"""The multivariate normal distribution, by a triangular factor of its covariance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import arrays, ops
from tinygen.distributions.distribution import Distribution, as_tuple, finite, positive
from tinygen.distributions.location_scale import LOG_SQRT_2_PI
from tinygen.errors import InputError, ShapeError
from tinygen.random import Generator, Shape
from tinygen.tensor import Tensor


class MultivariateNormal(Distribution):
    """x = mu + L z with z ~ N(0, I), so that x ~ N(mu, L L^T); a draw is a vector of d numbers.

    log p(x) = -|L^-1 (x - mu)|^2 / 2 - sum_i log L_ii - d/2 log 2 pi

    loc:        mu, shape (..., d)
    cholesky:   L, shape (..., d, d), of which the lower triangle is read; its diagonal is positive
    covariance: L L^T instead, symmetric and positive definite, shape (..., d, d); give one of the two
    event:      how many axes before the last are one event with it

    L is prepared once, here, so two backward passes through one of these share that part of the graph: the first needs
    `retain_graph=True`. A point further off than the dtype can count in deviations (1e38 in float32) has no log_prob.
    """

    vector = 1

    def __init__(self, loc: Any, cholesky: Any = None, covariance: Any = None, event: int = 0):
        super().__init__(event)
        if (cholesky is None) == (covariance is None):
            raise InputError("MultivariateNormal: give either cholesky or covariance.")
        loc, matrix = self._parameters(loc, covariance if cholesky is None else cholesky)
        d = loc.shape[-1] if loc.ndim else 0
        if not d or matrix.shape[-2:] != (d, d):
            raise ShapeError(
                f"MultivariateNormal: loc {loc.shape} and matrix {matrix.shape} must have the shapes (..., d) and "
                "(..., d, d)."
            )
        self._require("loc", loc, finite, "finite")
        self.cholesky = ops.tril(matrix) if covariance is None else self._factor(matrix)
        self._require("the diagonal of cholesky", ops.diagonal(self.cholesky, 0, -2, -1), positive, "positive")
        self.shape = (*self._fitting(loc.shape[:-1], matrix.shape[:-2]), d)
        self.loc = ops.broadcast_to(loc, self.shape)

    def _factor(self, covariance: Any) -> Any:
        if not isinstance(covariance, Tensor) and arrays.xp(covariance) is np:
            off = np.abs(covariance - covariance.swapaxes(-1, -2)).max()
            if not off <= 1e-4 * np.abs(covariance).max():
                raise InputError(f"MultivariateNormal: covariance must be symmetric; it is off by up to {off:g}.")
        return ops.cholesky(covariance)

    @property
    def covariance(self) -> Any:
        """L L^T, shape (..., d, d)."""
        return self.cholesky @ ops.swapaxes(self.cholesky, -1, -2)

    def rsample(self, rng: Generator, shape: Shape = ()) -> Any:
        z = self._noise(rng.normal((*as_tuple(shape), *self.shape), np.float64))
        return self.loc + ops.squeeze(self.cholesky @ z[..., None], -1)

    def _log_prob(self, x: Any) -> Any:
        z = solve_vectors(self.cholesky, x - self.loc)
        return -0.5 * ops.sum(ops.square(z), -1) - self._log_scale() - LOG_SQRT_2_PI * self.shape[-1]

    def _entropy(self) -> Any:
        return self._log_scale() + (LOG_SQRT_2_PI + 0.5) * self.shape[-1]

    def _log_scale(self) -> Any:
        """log det L: the sum of the logarithms of its diagonal."""
        return ops.sum(ops.log(ops.diagonal(self.cholesky, 0, -2, -1)), -1)

    def _mean(self) -> Any:
        return self.loc

    def _variance(self) -> Any:
        return ops.sum(ops.square(self.cholesky), -1)


def solve_vectors(lower: Any, x: Any) -> Any:
    """L^-1 x for triangular matrices (*batch, d, d) and vectors (..., *batch, d).

    All vectors that share a matrix are solved for together, as the columns of one right-hand side.
    """
    split = x.ndim - (lower.ndim - 1)
    columns = x.reshape((math.prod(x.shape[:split]), *x.shape[split:]))
    solved = ops.solve_triangular(lower, ops.moveaxis(columns, 0, -1))
    return ops.moveaxis(solved, -1, 0).reshape(x.shape)
