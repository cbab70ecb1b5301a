"""Mixtures: one of K distributions of the same family is chosen, and draws."""

from __future__ import annotations

from typing import Any

from tinygen import arrays, ops
from tinygen.distributions.discrete import Categorical
from tinygen.distributions.distribution import Distribution, as_tuple, plain
from tinygen.errors import InputError, ShapeError
from tinygen.random import Generator, Shape


class Mixture(Distribution):
    """p(x) = sum_k pi_k p_k(x),    pi = softmax(logits)

    logits:     shape (..., K); log pi_k will do
    components: one distribution whose events have the shape (..., K): the last axis that is not part of an event is the
                mixture's. For K Gaussians in d dimensions, MultivariateNormal(loc (K, d), L (K, d, d)) or, with
                independent axes, Normal(loc (K, d), scale (K, d), event=1).
    event:      how many of the last axes of the mixture itself are one event: 2 for an image (H, W) whose pixels have
                a mixture each

    Which component drew is a choice, so there is no rsample, and the entropy has no closed form.
    """

    def __init__(self, logits: Any, components: Distribution, event: int = 0):
        super().__init__(event)
        if not isinstance(components, Distribution):
            raise InputError(f"Mixture: components must be one distribution, not {type(components).__name__}.")
        self.choice, self.components = Categorical(logits), components
        self.dtype, self.device, self.vector = components.dtype, components.device, components.axes
        split = len(components.shape) - components.axes
        own, self._part = components.shape[: max(split, 0)], components.shape[max(split, 0) :]
        self._full = self._fitting(self.choice.logits.shape, own)  # (..., K)
        if not own or self._full[len(self._full) - len(own) :] != own:
            raise ShapeError(
                f"Mixture: the components' shape {components.shape}, less the axes of their events, must end in the K "
                f"of the logits {self.choice.logits.shape} and must not need repeating to fit them."
            )
        self._lead = self._full[: len(self._full) - len(own)]
        self.shape = (*self._full[:-1], *self._part)

    def sample(self, rng: Generator, shape: Shape = ()) -> Any:
        """Draws from all K components, of which one is kept for each."""
        shape = as_tuple(shape)
        logits = ops.broadcast_to(plain(self.choice.logits), self._full)
        labels = Categorical(logits).sample(rng, shape)
        draws = self.components.sample(rng, (*shape, *self._lead))
        labels = labels.reshape((*labels.shape, 1, *(1 for _ in range(self.vector))))
        axis = -1 - self.vector
        return arrays.xp(draws).take_along_axis(draws, labels, axis).squeeze(axis)

    def posterior(self, x: Any) -> Any:
        """p(k | x) = pi_k p_k(x) / p(x): how far each component accounts for each x, shape (..., K)."""
        return ops.softmax(self._log_joint(x), -1)

    def _log_joint(self, x: Any) -> Any:
        """log pi_k + log p_k(x), shape (..., K)."""
        return self.choice.log_probs + self.components.log_prob(self._beside(x))

    def _log_prob(self, x: Any) -> Any:
        return ops.logsumexp(self._log_joint(x), -1)

    def _cdf(self, x: Any) -> Any:
        if self.vector:
            raise self._without("cdf", "its draws are vectors")
        return ops.sum(self.choice.probs * self.components.cdf(self._beside(x)), -1)

    def _beside(self, x: Any) -> Any:
        """x with an axis of length 1 where the components have K."""
        return ops.expand_dims(x, -1 - self.vector)

    def _points(self, x: Any) -> Any:
        return self.components._points(x)

    def _mean(self) -> Any:
        return self._average(self.components.mean)

    def _variance(self) -> Any:
        """The mean of the components' variances plus the variance of their means."""
        centred = self.components.mean - self._beside(self._mean())
        return self._average(self.components.variance + ops.square(centred))

    def _average(self, values: Any) -> Any:
        """sum_k pi_k v_k for values (..., K, *part)."""
        pi = self.choice.probs
        return ops.sum(pi.reshape((*pi.shape, *(1 for _ in range(self.vector)))) * values, -1 - self.vector)
