"""The pinwheel: five Gaussian blades, twisted. The simplest exact change of variables that bends anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tinygen.errors import InputError
from tinygen.random import Generator

__all__ = ["Pinwheel", "pinwheel"]


class Pinwheel:
    """Gaussian blades about a hub, every point then turned by an angle that grows with its distance from the hub.

    u ~ 1/K sum_k N(R_k (radius, 0), R_k diag(long^2, wide^2) R_k^T),   R_k = R(2 pi k / K)
    x = R(phi(|u|)) u,   phi(r) = rate exp(r / radius)

    R(a) turns by the angle a, which leaves |x| = |u|; so the way back is known, u = R(-phi(|x|)) x. Each circle about
    the hub is only turned in itself, and no area changes: |det du/dx| = 1, p(x) is the density of the blades at u, and
    the entropy is theirs.

    The usual recipe (Johnson et al. 2016, "Composing graphical models with neural networks") takes the angle from the
    coordinate along the blade in place of |u|. That is the same to the eye, as blades are narrow, but it folds the
    plane where they are not, and leaves no such formula.

    blades: K;    radius, long, wide: of a blade, how far out its middle is, and its deviations along and across
    """

    dimensions = 2

    def __init__(self, blades: int, radius: float, long: float, wide: float, rate: float):
        if blades < 1 or not (np.isfinite([radius, long, wide, rate]).all() and min(radius, long, wide) > 0):
            raise InputError("Pinwheel: blades must be at least 1, radius, long and wide positive, all finite.")
        self.modes, self.radius, self.long, self.wide, self.rate = blades, radius, long, wide, rate

    def sample(
        self, n: int, rng: Generator, return_labels: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """n points, float32 (n, 2); with `return_labels` also the blade that each came from, int64 (n,)."""
        labels = rng.choice(self.modes, n)
        lying = [self.radius, 0] + rng.normal((n, 2), np.float64) * [self.long, self.wide]
        u = _turned(lying, 2 * np.pi * labels / self.modes)
        points = _turned(u, self._twist(u)).astype(np.float32)
        return (points, labels) if return_labels else points

    def log_prob(self, x: ArrayLike) -> np.ndarray:
        """log p(x) in nats; x of shape (..., 2) gives (...)."""
        x = np.asarray(x, np.float64)
        if x.ndim == 0 or x.shape[-1] != 2:
            raise InputError(f"Pinwheel: points must have shape (..., 2), not {x.shape}.")
        return self._log_blades(_turned(x, -self._twist(x)))

    def entropy(self) -> float:
        """-E[log p(x)] in nats: that of the blades before they are twisted, by the trapezoidal rule about one of them.

        All blades are alike, and so -E[log p] over one is -E[log p] over all. The grid spans 9 deviations either way in
        steps of an eighth of one.
        """
        z = np.arange(-9, 9.0625, 0.125)
        weights = np.outer(np.exp(-(z**2) / 2), np.exp(-(z**2) / 2))
        blade = np.stack(np.meshgrid(self.radius + self.long * z, self.wide * z, indexing="ij"), axis=-1)
        return -float(np.sum(weights * self._log_blades(blade)) / weights.sum())

    def _twist(self, x: np.ndarray) -> np.ndarray:
        """phi(|x|), an angle. Where exp would leave float64, far beyond any data, it grows no further."""
        return self.rate * np.exp(np.minimum(np.linalg.norm(x, axis=-1) / self.radius, 700))

    def _log_blades(self, u: np.ndarray) -> np.ndarray:
        """The log-density before the twist; u is turned so that each blade in turn lies on the first axis."""
        joint = []
        for k in range(self.modes):
            along, across = np.moveaxis(_turned(u, np.float64(-2 * np.pi * k / self.modes)), -1, 0)
            joint.append(-(((along - self.radius) / self.long) ** 2 + (across / self.wide) ** 2) / 2)
        return np.logaddexp.reduce(joint) - np.log(2 * np.pi * self.long * self.wide * self.modes)


def pinwheel() -> Pinwheel:
    """Five blades on [-4, 4]^2, the usual ones (0.3 long, 0.1 wide, at radius 1, all doubled); entropy 2.321 nats."""
    return Pinwheel(blades=5, radius=2, long=0.6, wide=0.2, rate=0.25)


def _turned(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """x (..., 2) turned counter-clockwise by `angle` (...)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * x[..., 0] - s * x[..., 1], s * x[..., 0] + c * x[..., 1]], axis=-1)
