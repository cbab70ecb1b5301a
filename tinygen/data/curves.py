"""Noisy curves in the plane: moons, swiss roll, rings, spirals, each with its exact log-density.

Most libraries sample these and stop there. Since the noise is Gaussian the density is an integral along the curve,
and since the integrand is smooth a rule with a few hundred nodes has it to the last digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from tinygen.data.mixtures import GaussianMixture
from tinygen.errors import InputError
from tinygen.random import Generator

__all__ = ["NoisyCurves", "moons", "rings", "spirals", "swiss_roll"]

CHUNK = 2**21  # numbers at a time, so that many points with many nodes do not fill the memory


class NoisyCurves:
    """Points on K curves in the plane, each as likely as the next, with Gaussian noise added.

    x = c_k(s) + std eps,   s ~ U[0, 1], eps ~ N(0, I);      p(x) = 1/K sum_k int_0^1 N(x; c_k(s), std^2 I) ds

    curves: K smooth functions that take s, shape (n,), to points (n, 2)
    std:    the standard deviation of the noise per axis

    `mixture` is the density as it is computed, with the integral replaced by a sum over nodes: a GaussianMixture, which
    also has a score, and a density at every time of a diffusion (`mixture.diffused`).
    """

    dimensions = 2

    def __init__(self, curves: Sequence[Callable[[np.ndarray], np.ndarray]], std: float):
        if len(curves) == 0 or not 0 < std < math.inf:
            raise InputError(f"NoisyCurves: needs one curve or more, and a positive std; got {len(curves)} and {std}.")
        self.curves, self.std = list(curves), float(std)

    def sample(
        self, n: int, rng: Generator, return_labels: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """n points, float32 (n, 2); with `return_labels` also the curve that each came from, int64 (n,)."""
        labels = rng.choice(len(self.curves), n)
        s = rng.uniform(n, dtype=np.float64)
        points = np.empty((n, 2))
        for k, curve in enumerate(self.curves):
            points[labels == k] = curve(s[labels == k])
        points = (points + self.std * rng.normal((n, 2), np.float64)).astype(np.float32)
        return (points, labels) if return_labels else points

    def log_prob(self, x: ArrayLike) -> np.ndarray:
        """log p(x) in nats, shape (..., 2) to (...); p is within 1e-9 of the exact one, relatively."""
        x = np.asarray(x, np.float64)
        if x.ndim == 0 or x.shape[-1] != 2:
            raise InputError(f"NoisyCurves: points must have shape (..., 2), not {x.shape}.")
        points = x.reshape(-1, 2)
        pieces = np.array_split(points, max(1, math.ceil(len(points) * self.mixture.modes / CHUNK)))
        return np.concatenate([self.mixture.log_prob(piece) for piece in pieces]).reshape(x.shape[:-1])

    def entropy(self) -> float:
        """-E[log p(x)] in nats, by the trapezoidal rule on a grid with steps of half a deviation.

        For functions as smooth as these the rule is accurate far beyond what its step suggests: here to 1e-6.
        """
        low, high = self.mixture.means.min(0) - 7 * self.std, self.mixture.means.max(0) + 7 * self.std
        x, y = (np.arange(a, b, self.std / 2) for a, b in zip(low, high, strict=True))
        log_p = self.log_prob(np.stack(np.meshgrid(x, y), axis=-1))
        return -float(np.sum(np.exp(log_p) * log_p)) * (self.std / 2) ** 2

    @cached_property
    def mixture(self) -> GaussianMixture:
        """Gauss-Legendre quadrature along each curve: its nodes are means of Gaussians, its weights theirs.

        The rule converges exponentially once its nodes lie closer than the noise is wide. They are furthest apart in
        the middle, pi/2 of their mean distance; three to a deviation make that half a deviation.
        """
        fine = np.linspace(0, 1, 4097)
        means, weights = [], []
        for curve in self.curves:
            speed = np.linalg.norm(np.diff(curve(fine), axis=0), axis=1).max() * 4096
            nodes, shares = np.polynomial.legendre.leggauss(32 + math.ceil(4 * speed / self.std))
            means.append(curve((nodes + 1) / 2))
            weights.append(shares / (shares.sum() * len(self.curves)))
        return GaussianMixture(np.concatenate(means), self.std, np.concatenate(weights))


def moons(std: float = 0.2) -> NoisyCurves:
    """Two half circles of radius 2 that reach into each other; the second is the first, turned by half a turn.
    Entropy 2.394 nats.
    """

    def upper(s: np.ndarray) -> np.ndarray:
        return 2 * _on_circle(np.pi * s) - [1, 0.5]

    return NoisyCurves([upper, lambda s: -upper(s)], std)


def swiss_roll(std: float = 0.2) -> NoisyCurves:
    """One spiral of one and a half turns: radius t / 5 at the angle t, which is uniform on [1.5 pi, 4.5 pi].
    Entropy 2.670 nats.
    """

    def roll(s: np.ndarray) -> np.ndarray:
        t = 1.5 * np.pi * (1 + 2 * s)
        return t[:, None] / 5 * _on_circle(t)

    return NoisyCurves([roll], std)


def rings(radii: Sequence[float] = (0.75, 1.5, 2.25, 3), std: float = 0.1) -> NoisyCurves:
    """Circles about the origin, each as likely as the next, and so the denser the smaller. Entropy 2.845 nats."""
    return NoisyCurves([lambda s, radius=radius: radius * _on_circle(2 * np.pi * s) for radius in radii], std)


def spirals(std: float = 0.1) -> NoisyCurves:
    """Two arms that wind about each other: radius t / 3 at the angle t from pi/2 to 3 pi, and the same turned by half.

    t^2 is uniform, so that points are about equally dense all along. Entropy 2.507 nats.
    """

    def arm(s: np.ndarray) -> np.ndarray:
        t = np.pi * np.sqrt(0.25 + 8.75 * s)
        return t[:, None] / 3 * _on_circle(t)

    return NoisyCurves([arm, lambda s: -arm(s)], std)


def _on_circle(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)
