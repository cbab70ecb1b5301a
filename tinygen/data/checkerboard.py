"""The checkerboard: a density with hard edges, which smooth models can only approach."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tinygen.errors import InputError
from tinygen.random import Generator

__all__ = ["Checkerboard", "checkerboard"]


class Checkerboard:
    """Uniform on every other one of the squares of side 2 that make up [-4, 4)^2; the density is 1/32 there.

    A square holds its lower and left edge. One has density if the numbers of its column and row add up to something
    even, counted from the lower left.
    """

    dimensions, modes = 2, 8

    def sample(
        self, n: int, rng: Generator, return_labels: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """n points, float32 (n, 2); with `return_labels` also the square that each lies in, int64 (n,) from 0 to 7."""
        labels = rng.choice(8, n)
        row = labels // 2
        column = 2 * (labels % 2) + row % 2
        corner = np.stack([2 * column - 4, 2 * row - 4], axis=-1).astype(np.float32)
        points = corner + 2 * rng.uniform((n, 2))
        points = np.minimum(points, np.nextafter(corner + 2, corner))  # rounding may reach the next square
        return (points, labels) if return_labels else points

    def log_prob(self, x: ArrayLike) -> np.ndarray:
        """-log 32 on the squares and -inf elsewhere; x of shape (..., 2) gives (...)."""
        x = np.asarray(x, np.float64)
        if x.ndim == 0 or x.shape[-1] != 2:
            raise InputError(f"Checkerboard: points must have shape (..., 2), not {x.shape}.")
        inside = np.all((x >= -4) & (x < 4), axis=-1)
        cell = np.floor(np.where(inside[..., None], x, 0) / 2)
        filled = inside & (cell.sum(-1) % 2 == 0)
        return np.where(filled, -np.log(32), -np.inf)

    def entropy(self) -> float:
        """log 32 = 3.466 nats."""
        return float(np.log(32))


def checkerboard() -> Checkerboard:
    """Eight squares of side 2 on [-4, 4)^2; entropy log 32 = 3.466 nats."""
    return Checkerboard()
