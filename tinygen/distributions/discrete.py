"""Distributions over a few outcomes, given by logits: unnormalised log-probabilities, as networks produce them.

Nothing here computes the logarithm of a probability: a probability that underflows still has a finite logarithm.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import arrays, ops
from tinygen.autograd import stop_gradient
from tinygen.distributions.distribution import Distribution, as_tuple, finite, plain, possible
from tinygen.distributions.location_scale import Gumbel
from tinygen.errors import DtypeError, ShapeError
from tinygen.random import Generator, Shape
from tinygen.tensor import Tensor


class Bernoulli(Distribution):
    """P(x = 1) = sigmoid(l), P(x = 0) = sigmoid(-l).

    logits: l = log P(1) / P(0), finite numbers, an array or a Tensor
    event:  how many of the last axes are one event

    Draws are floats, 0 and 1. For x in between, such as grey levels, `log_prob` is the negative cross-entropy
    x log P(1) + (1 - x) log P(0), which is no log-likelihood.
    """

    def __init__(self, logits: Any, event: int = 0):
        super().__init__(event)
        (self.logits,) = self._parameters(logits)
        self._require("logits", self.logits, finite, "finite")
        self.shape = self.logits.shape

    @property
    def probs(self) -> Any:
        """P(x = 1)."""
        return ops.sigmoid(self.logits)

    def sample(self, rng: Generator, shape: Shape = ()) -> Any:
        u = rng.uniform((*as_tuple(shape), *self.shape), dtype=np.float64)
        ones = arrays.to_device(u, self.device) < ops.sigmoid(plain(self.logits).astype(np.float64))
        return plain(ones.astype(self.dtype))

    def _log_prob(self, x: Any) -> Any:
        return -ops.binary_cross_entropy_with_logits(self.logits, x)

    def _entropy(self) -> Any:
        return ops.softplus(self.logits) - self.logits * self.probs

    def _mean(self) -> Any:
        return self.probs

    def _variance(self) -> Any:
        return self.probs * ops.sigmoid(-self.logits)


class Categorical(Distribution):
    """P(k) = exp(l_k) / sum_j exp(l_j) for labels k = 0, ..., K - 1.

    logits: l, shape (..., K); -inf for a label that cannot occur
    event:  how many of the last axes of labels are one event

    Draws are integers of shape (...), by the Gumbel-max trick: argmax_k (l_k + g_k) with Gumbel noise g has exactly
    these probabilities (Maddison et al. 2014, "A* sampling"; `GumbelSoftmax` makes it differentiable).
    """

    def __init__(self, logits: Any, event: int = 0):
        super().__init__(event)
        (self.logits,) = self._parameters(logits)
        if not self.logits.ndim or not self.logits.shape[-1]:
            raise ShapeError(f"Categorical: logits must have shape (..., K), not {self.logits.shape}.")
        self._require("logits", self.logits, possible, "numbers or -inf, not all -inf")
        self.shape = self.logits.shape[:-1]

    @property
    def log_probs(self) -> Any:
        """log P(k) of all labels, shape (..., K)."""
        return ops.log_softmax(self.logits, -1)

    @property
    def probs(self) -> Any:
        """P(k) of all labels, shape (..., K)."""
        return ops.softmax(self.logits, -1)

    def sample(self, rng: Generator, shape: Shape = ()) -> Any:
        noise = Gumbel.standard_sample(rng, (*as_tuple(shape), *self.logits.shape))
        return plain((plain(self.logits) + arrays.to_device(noise, self.device)).argmax(-1))

    def _log_prob(self, labels: Any) -> Any:
        shape = self._fitting(labels.shape, self.shape)
        labels = arrays.xp(labels).broadcast_to(labels, shape)
        same = shape == self.shape
        logits = self.logits if same else ops.broadcast_to(self.logits, (*shape, self.logits.shape[-1]))
        return -ops.cross_entropy(logits, labels)

    def _entropy(self) -> Any:
        return ops.sum(expected_terms(self.log_probs, -self.log_probs), -1)

    def _points(self, x: Any) -> Any:
        labels = plain(x) if isinstance(x, Tensor) or arrays.is_array(x) else np.asarray(x)
        if labels.dtype.kind not in "iu":
            raise DtypeError(f"Categorical: labels must be integers, not {labels.dtype}.")
        return labels


def expected_terms(log_p: Any, values: Any) -> Any:
    """p_k v_k, where an outcome of probability zero counts nothing, also if v_k is infinite."""
    p = ops.exp(log_p)
    return p * ops.where(ops.equal(stop_gradient(p), 0), 0.0, values)
