"""Mixtures of Gaussians: toy densities whose log-density, score and entropy are known at every time of a diffusion.

Densities are computed in float64; samples come as float32, ready for a network. Log-densities and entropies are nats.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from tinygen.errors import InputError
from tinygen.random import Generator

__all__ = [
    "GaussianMixture",
    "eight_gaussians",
    "eight_unequal_gaussians",
    "grid",
    "ring",
    "twenty_five_gaussians",
]


class GaussianMixture:
    """A mixture of K isotropic Gaussians in d dimensions.

    p(x) = sum_k w_k N(x; mu_k, s_k^2 I)

    means:    mu, shape (K, d)
    std:      s, the standard deviation per axis: a number, or K of them
    weights:  w, K numbers that sum to one; equal unless given

    The family is closed under scaling and adding Gaussian noise (`diffused`), so that the exact density and score are
    known at every time of a diffusion process. Raises InputError for shapes that do not match, a deviation that is
    not positive, weights that do not sum to one, and anything that is not finite.
    """

    def __init__(self, means: ArrayLike, std: ArrayLike, weights: ArrayLike | None = None):
        self.means = np.array(means, np.float64)
        if self.means.ndim != 2 or 0 in self.means.shape or not np.isfinite(self.means).all():
            raise InputError(f"GaussianMixture: means must be finite and of shape (K, d), not {self.means.shape}.")
        modes = len(self.means)
        self.std = _one_per_mode(std, modes, "std")
        self.weights = _one_per_mode(1 / modes if weights is None else weights, modes, "weights")
        if not np.all(self.std > 0):
            raise InputError(f"GaussianMixture: std must be positive, not {std}.")
        if np.any(self.weights < 0) or abs(self.weights.sum() - 1) > 1e-6:
            total = self.weights.sum()
            raise InputError(f"GaussianMixture: weights must be none negative and sum to one, not {total:g}.")

    @property
    def modes(self) -> int:
        """K, the number of components."""
        return self.means.shape[0]

    @property
    def dimensions(self) -> int:
        """d, the number of axes."""
        return self.means.shape[1]

    def sample(
        self, n: int, rng: Generator, return_labels: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """n points, float32 (n, d); with `return_labels` also the component that each came from, int64 (n,)."""
        labels = rng.choice(self.modes, n, self.weights)
        noise = rng.normal((n, self.dimensions), np.float64)
        points = (self.means[labels] + self.std[labels, None] * noise).astype(np.float32)
        return (points, labels) if return_labels else points

    def log_prob(self, x: ArrayLike) -> np.ndarray:
        """log p(x) in nats; x of shape (..., d) gives (...). Does not underflow far from the data."""
        return _logsumexp(self._log_joint(self._points(x)))

    def score(self, x: ArrayLike) -> np.ndarray:
        """grad log p(x), shape (..., d): each component pulls towards its mean, in proportion to its responsibility.

        grad log p(x) = sum_k r_k(x) (mu_k - x) / s_k^2,    r_k(x) = w_k N(x; mu_k, s_k^2 I) / p(x)
        """
        x = self._points(x)
        joint = self._log_joint(x)
        precise = np.exp(joint - _logsumexp(joint)[..., None]) / self.std**2  # r_k / s_k^2, shape (..., K)
        return precise @ self.means - precise.sum(-1, keepdims=True) * x

    def diffused(self, a: float, sigma: float) -> GaussianMixture:
        """The exact density of a x + sigma eps with x from this mixture and eps ~ N(0, I).

        Of a diffusion process with q(x_t | x_0) = N(a_t x_0, sigma_t^2 I) that is the marginal p_t.
        """
        return GaussianMixture(a * self.means, np.sqrt((a * self.std) ** 2 + sigma**2), self.weights)

    def entropy(self) -> float:
        """-E[log p(x)] in nats, by the trapezoidal rule about each mode; one or two dimensions.

        H = -sum_k w_k int N(x; mu_k, s_k^2 I) log p(x) dx

        The grids span 9 deviations either way, beyond which a Gaussian holds 1e-19, in steps of an eighth of one: for
        functions as smooth as these the rule converges exponentially. Accurate to 1e-9 while the deviations stay within
        a factor of three of each other; a component far narrower than its neighbour needs finer steps than these.
        """
        if self.dimensions > 2:
            raise InputError(f"entropy: integrates on a grid in 1 or 2 dimensions, not in {self.dimensions}.")
        z = np.arange(-9, 9.0625, 0.125)
        density = np.exp(-(z**2) / 2)
        grid = np.stack(np.meshgrid(*[z] * self.dimensions), axis=-1).reshape(-1, self.dimensions)
        weights = density if self.dimensions == 1 else np.outer(density, density).ravel()
        weights /= weights.sum()
        per_mode = [weights @ self.log_prob(mean + std * grid) for mean, std in zip(self.means, self.std, strict=True)]
        return -float(self.weights @ per_mode)

    def _log_joint(self, x: np.ndarray) -> np.ndarray:
        """log w_k + log N(x; mu_k, s_k^2 I), shape (..., K)."""
        squared = sum((x[..., None, i] - self.means[:, i]) ** 2 for i in range(self.dimensions))
        return self._log_scale - squared / (2 * self.std**2)

    @cached_property
    def _log_scale(self) -> np.ndarray:
        with np.errstate(divide="ignore"):  # a weight of zero has the logarithm -inf, and so no part in any sum
            return np.log(self.weights) - self.dimensions * np.log(self.std * np.sqrt(2 * np.pi))

    def _points(self, x: ArrayLike) -> np.ndarray:
        x = np.asarray(x, np.float64)
        if x.ndim == 0 or x.shape[-1] != self.dimensions:
            raise InputError(f"GaussianMixture: points must have shape (..., {self.dimensions}), not {x.shape}.")
        return x


def ring(modes: int, radius: float, std: float) -> GaussianMixture:
    """Equal Gaussians evenly spaced on a circle about the origin, the first of them on the positive x axis."""
    angles = 2 * np.pi * np.arange(modes) / modes
    return GaussianMixture(radius * np.stack([np.cos(angles), np.sin(angles)], axis=1), std)


def eight_gaussians() -> GaussianMixture:
    """Eight Gaussians on a circle of radius 4 / sqrt(2), standard deviation 0.5 / sqrt(2); entropy 2.832 nats."""
    return ring(8, radius=4 / np.sqrt(2), std=0.5 / np.sqrt(2))


def grid(side: int, spacing: float, std: float) -> GaussianMixture:
    """Equal Gaussians on a square grid of side x side about the origin."""
    steps = spacing * (np.arange(side) - (side - 1) / 2)
    return GaussianMixture(np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2), std)


def twenty_five_gaussians() -> GaussianMixture:
    """The 25 narrow modes on which GANs are shown to lose some (Lin et al. 2018, "PacGAN"): means at -4, -2, 0, 2, 4
    along either axis, standard deviation 0.05; entropy log 25 + log(2 pi e 0.05^2) = 0.065 nats.
    """
    return grid(5, spacing=2, std=0.05)


def eight_unequal_gaussians() -> GaussianMixture:
    """Eight modes of unequal weight (0.25 to 0.04) and width (0.25 to 0.6), in no order; entropy 3.021 nats."""
    means = [[-3, -2.5], [-0.5, -3], [2.8, -2.4], [-3, 0.8], [0.2, 0], [3, 0.9], [-1.5, 3], [1.8, 3.2]]
    std = [0.5, 0.35, 0.6, 0.3, 0.45, 0.25, 0.4, 0.3]
    return GaussianMixture(means, std, [0.08, 0.15, 0.2, 0.1, 0.25, 0.06, 0.12, 0.04])


def _one_per_mode(value: ArrayLike, modes: int, name: str) -> np.ndarray:
    array = np.asarray(value, np.float64)
    if array.shape not in [(), (modes,)] or not np.isfinite(array).all():
        raise InputError(f"GaussianMixture: {name} must be one finite number or {modes}, not {value}.")
    return np.broadcast_to(array, (modes,)).copy()


def _logsumexp(a: np.ndarray) -> np.ndarray:
    """log sum_k exp(a_k) over the last axis, shifted by the maximum so that it neither overflows nor underflows."""
    top = a.max(-1, keepdims=True)
    top[np.isneginf(top)] = 0  # infinitely far from every mode
    with np.errstate(divide="ignore"):
        return top[..., 0] + np.log(np.exp(a - top).sum(-1))
