"""Distances between two clouds of points, and the floor that two clouds of the same data keep from each other.

W2, the 2-Wasserstein distance, is what it costs to move one cloud onto the other when moving a point costs the square
of the way: between finite clouds of n points each, the best of the n! ways to pair them up. Everything here is the
distance, in the units of the data, not its square.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tinygen.errors import InputError
from tinygen.metrics.points import as_pair
from tinygen.random import Generator

Sampler = Callable[[int, Generator], np.ndarray]


def wasserstein2(x: ArrayLike, y: ArrayLike) -> float:
    """Exact W2 between two clouds (n, d), by optimal assignment. Time grows as n^3: 0.06 s for n = 1000.

    W2(x, y) = min over permutations pi of  (1/n sum_i ||x_i - y_pi(i)||^2)^(1/2)
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    x, y = as_pair(x, y, "wasserstein2")
    cost = cdist(x, y, "sqeuclidean")
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def sliced_wasserstein2(
    x: ArrayLike, y: ArrayLike, rng: Generator | None = None, directions: int | ArrayLike = 128
) -> float:
    """Sliced W2 between two clouds (n, d): W2 of their shadows on lines, paired up by sorting (Bonneel et al. 2015).

    SW2(x, y) = (1/L sum_l 1/n sum_i (sort(x theta_l)_i - sort(y theta_l)_i)^2)^(1/2),  theta_l on the unit sphere

    directions: L, so many drawn uniformly with `rng`, or an array (L, d) of them (taken at unit length). Of a shift
    by m in d dimensions this sees ||m|| / sqrt(d), where W2 is ||m||. Time grows as n log n.
    """
    x, y = as_pair(x, y, "sliced_wasserstein2")
    squared = 0.0
    thetas = _unit_directions(directions, x.shape[1], rng)
    for theta in thetas:  # one at a time stays in the processor's cache: three times faster than all at once
        gaps = np.sort(x @ theta) - np.sort(y @ theta)
        squared += gaps @ gaps / len(x)
    return float(np.sqrt(squared / len(thetas)))


def random_directions(count: int, dimensions: int, rng: Generator) -> np.ndarray:
    """Unit vectors (count, dimensions), float64, uniform on the sphere: normal vectors at unit length."""
    return _normalised(rng.normal((count, dimensions), np.float64))


@dataclass(frozen=True)
class Comparison:
    """A model's distance from the data beside the floor, each a mean over pairs with its standard error."""

    value: float
    value_error: float
    floor: float
    floor_error: float

    @property
    def ratio(self) -> float:
        """How many times the floor: 1 is as good as real data."""
        return self.value / self.floor

    def __str__(self) -> str:
        model, real = f"{self.value:.4g} +- {self.value_error:.1g}", f"{self.floor:.4g} +- {self.floor_error:.1g}"
        return f"{model} (data against data: {real}; ratio {self.ratio:.3g})"


def beside_floor(
    distance: Callable[[np.ndarray, np.ndarray], float],
    model: Sampler,
    real: Sampler,
    n: int,
    rng: Generator,
    pairs: int = 20,
) -> Comparison:
    """A distance of a model from the data, and of the data from themselves, at n points, averaged over fresh draws.

    Two finite clouds of the *same* distribution are some distance apart; a figure means nothing without that floor at
    the same n, and one pair is noise. Each round draws two clouds of data and one of the model, and measures two of
    them against the same third, so that luck with that one cancels in the ratio.

    distance:     takes two clouds (n, d), e.g. `wasserstein2`
    model, real:  samplers (n, rng) -> (n, d)
    """
    if pairs < 2:
        raise InputError(f"beside_floor: pairs must be at least 2 for a standard error, not {pairs}.")
    rounds = np.empty((pairs, 2))
    for row in rounds:
        data = real(n, rng)
        row[:] = distance(model(n, rng), data), distance(real(n, rng), data)
    (value, floor), (value_error, floor_error) = rounds.mean(0), rounds.std(0, ddof=1) / np.sqrt(pairs)
    return Comparison(float(value), float(value_error), float(floor), float(floor_error))


def _unit_directions(directions: int | ArrayLike, dimensions: int, rng: Generator | None) -> np.ndarray:
    if np.ndim(directions) == 0:
        if rng is None or directions < 1:
            raise InputError(
                f"sliced_wasserstein2: drawing {directions} directions takes at least one, and a generator: pass rng, "
                "or the directions as an array (L, d)."
            )
        return random_directions(directions, dimensions, rng)
    theta = np.asarray(directions, np.float64)
    if theta.ndim != 2 or len(theta) == 0 or theta.shape[1] != dimensions or not np.isfinite(theta).all():
        raise InputError(f"sliced_wasserstein2: directions must be finite, (L, {dimensions}), not {theta.shape}.")
    return _normalised(theta)


def _normalised(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(length > 0):
        raise InputError("sliced_wasserstein2: a direction of length zero points nowhere.")
    return vectors / length
