"""Metrics that ask each point for its nearest neighbours: density and coverage, and whether samples repeat the data.

They work on any vectors: points in the plane, pixels, or the features of `tinygen.metrics.classifier`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tinygen.errors import InputError
from tinygen.metrics.points import as_clouds, as_points, row_blocks


def nearest(x: ArrayLike, y: ArrayLike | None = None, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest points of y (m, d) to each of x (n, d): distances and indices, (n, k) each, the nearest first.

    Without y they are sought in x, where no point is a neighbour of itself. Exact; time n m d, memory bounded.
    """
    from scipy.spatial.distance import cdist

    within = y is None
    x, y = as_clouds(x, x if within else y, "nearest")
    if not 1 <= k <= len(y) - within:
        raise InputError(f"nearest: k = {k} neighbours cannot be found among {len(y) - within} other points.")
    distances, indices = np.empty((len(x), k)), np.empty((len(x), k), np.int64)
    for rows in row_blocks(len(x), len(y)):
        d = cdist(x[rows], y)
        if within:
            d[np.arange(len(d)), np.arange(len(x))[rows]] = np.inf
        indices[rows] = np.argsort(d, axis=1, kind="stable")[:, :k] if k > 1 else d.argmin(1)[:, None]
        distances[rows] = np.take_along_axis(d, indices[rows], axis=1)
    return distances, indices


@dataclass(frozen=True)
class DensityCoverage:
    """What `density_coverage` found: `density` is the fidelity of the samples, `coverage` their diversity."""

    density: float
    coverage: float


def density_coverage(samples: ArrayLike, real: ArrayLike, k: int = 5) -> DensityCoverage:
    """Density and coverage of samples (m, d) over real points (n, d) (Naeem et al. 2020, sec. 3).

    Around each real point x_i lies the ball B_i that reaches to its k-th neighbour among the real points. With y_j the
    samples,

        density  = 1/(k m) sum_j sum_i 1[y_j in B_i]        how many balls hold a sample, over k
        coverage = 1/n sum_i 1[some y_j in B_i]             share of the balls that hold a sample

    For equal distributions the mean of the density is 1 (it can exceed 1), and of the coverage
    `expected_coverage(n, m, k)`: .97 for k = 5 and n = m. Both depend on the sizes; compare figures at the same ones.
    """
    from scipy.spatial.distance import cdist

    samples, real = as_clouds(samples, real, "density_coverage")
    radii = nearest(real, k=k)[0][:, -1]
    memberships, covered = 0, np.zeros(len(real), bool)
    for rows in row_blocks(len(samples), len(real)):
        inside = cdist(samples[rows], real) <= radii
        memberships += int(inside.sum())
        covered |= inside.any(axis=0)
    return DensityCoverage(memberships / (k * len(samples)), float(covered.mean()))


def expected_coverage(n: int, m: int, k: int = 5) -> float:
    """The mean coverage of n real points by m samples of the same distribution, whatever it is (Naeem et al.
    2020, sec. 3).

    A ball stays empty if, among the n - 1 other real points and the m samples around x_i, the nearest k are all real:
    1 - (n-1) ... (n-k) / ((n+m-1) ... (n+m-k)).
    """
    i = np.arange(1, k + 1)
    return float(1 - np.prod((n - i) / (n + m - i)))


@dataclass(frozen=True)
class Memorisation:
    """What `memorisation` found.

    ratio:  median distance of a sample to the nearest training point, over that of a held-out point: 1 for real data,
            near 0 for copies, and above 1 for samples further from the data than real ones are
    copies: share of the samples that lie nearer to a training point than all but 1 % of the held-out points do: .01
            for real data
    index:  (m,) the nearest training point of each sample, to be shown beside it
    """

    ratio: float
    copies: float
    index: np.ndarray


def memorisation(samples: ArrayLike, train: ArrayLike, held_out: ArrayLike) -> Memorisation:
    """Do samples (m, d) repeat the training points (n, d)? Their distances to them, beside those of held-out points.

    Nearness alone proves nothing: among many training points even fresh data have near neighbours. So the yardstick is
    how near points come that the model has never seen (Meehan et al. 2020 test for the same with ranks).
    """
    samples, train = as_clouds(samples, train, "memorisation")
    held_out, _ = as_clouds(as_points(held_out, "memorisation: held_out"), train, "memorisation")
    near, index = (found[:, 0] for found in nearest(samples, train))
    fresh = nearest(held_out, train)[0][:, 0]
    if np.median(fresh) == 0:
        raise InputError("memorisation: half of the held-out points are training points too; hold others out.")
    copies = np.mean(near < np.quantile(fresh, 0.01))
    return Memorisation(float(np.median(near) / np.median(fresh)), float(copies), index)
