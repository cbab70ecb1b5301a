"""Were two clouds of points drawn from the same distribution? Kernel MMD, energy distance, and a test by neighbours.

All three need nothing but distances between points, and the clouds may differ in size. MMD and energy distance compare
the distances between the clouds with those within each:

    2 E||.||(x, y) - E||.||(x, x') - E||.||(y, y')                                       energy distance, squared
    E k(x, x') + E k(y, y') - 2 E k(x, y)                                                MMD, squared

which are zero only if the distributions are the same (the energy distance is an MMD, with the kernel -||x - y||:
Sejdinovic et al. 2013). Averages over all pairs within a cloud count each point's distance 0 from itself. With these
pairs the estimate is never negative, so it has a root, which is a distance; it is above zero also for equal
distributions, which the floor of `beside_floor` tells. Without them the estimate is unbiased, and may be negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tinygen.errors import InputError
from tinygen.metrics.neighbours import nearest
from tinygen.metrics.points import as_clouds, as_points, row_blocks
from tinygen.random import Generator


def mmd(x: ArrayLike, y: ArrayLike, bandwidths: ArrayLike | None = None) -> float:
    """Kernel maximum mean discrepancy of two clouds (n, d), (m, d): the root of the biased estimate, between 0 and
    sqrt(2) (Gretton et al. 2012, eq. 5).

    MMD_b^2 = 1/n^2 sum_{i,j} k(x_i, x_j) + 1/m^2 sum_{i,j} k(y_i, y_j) - 2/(nm) sum_{i,j} k(x_i, y_j)

    with the Gaussian kernel k(x, y) = exp(-||x - y||^2 / 2 s^2), averaged over the `bandwidths` s. By default s is the
    median distance between the points of both clouds; figures to be compared need the same s: pass that of the data,
    `median_distance(data)`, or several multiples of it.
    """
    xx, yy, xy, n, m = _kernel_sums(x, y, bandwidths, "mmd")
    return float(np.sqrt(max(0.0, xx / n**2 + yy / m**2 - 2 * xy / (n * m))))  # rounding may go below 0


def unbiased_mmd2(x: ArrayLike, y: ArrayLike, bandwidths: ArrayLike | None = None) -> float:
    """The unbiased estimate of the squared MMD, whose mean is 0 for equal distributions (Gretton et al. 2012, eq. 3).

    MMD_u^2 = 1/(n (n-1)) sum_{i != j} k(x_i, x_j) + 1/(m (m-1)) sum_{i != j} k(y_i, y_j) - 2/(nm) sum_{i,j} k(x_i, y_j)

    Kernel and bandwidths are those of `mmd`. Each cloud needs two points.
    """
    xx, yy, xy, n, m = _kernel_sums(x, y, bandwidths, "unbiased_mmd2")
    if min(n, m) < 2:
        raise InputError(f"unbiased_mmd2: each cloud needs two points at least; these have {n} and {m}.")
    return float((xx - n) / (n * (n - 1)) + (yy - m) / (m * (m - 1)) - 2 * xy / (n * m))  # k(x, x) = 1


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Energy distance of two clouds (n, d), (m, d), in root units of the data (Szekely & Rizzo 2013).

    D^2 = 2/(nm) sum_{i,j} ||x_i - y_j|| - 1/n^2 sum_{i,j} ||x_i - x_j|| - 1/m^2 sum_{i,j} ||y_i - y_j||

    In one dimension D^2 is twice the integrated square of the difference of the CDFs. Nothing needs to be chosen.
    """
    x, y = as_clouds(x, y, "energy_distance")
    xx, yy, xy = (_sum_over_pairs(a, b, np.sqrt) for a, b in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    return float(np.sqrt(max(0.0, 2 * xy / (n * m) - xx / n**2 - yy / m**2)))


def median_distance(x: ArrayLike, most: int = 2000) -> float:
    """The median distance between two points of a cloud (n, d): the usual bandwidth (Gretton et al. 2012, sec. 8).

    Of more than `most` points, so many at equal steps through the cloud are looked at.
    """
    from scipy.spatial.distance import pdist

    x = as_points(x, "median_distance: x")
    if len(x) < 2:
        raise InputError("median_distance: one point has no distance from another; give two at least.")
    median = float(np.median(pdist(x[:: -(-len(x) // most)])))
    if median == 0:
        raise InputError("median_distance: half of the pairs of points or more coincide; choose a bandwidth yourself.")
    return median


def _kernel_sums(x: ArrayLike, y: ArrayLike, bandwidths: ArrayLike | None, name: str) -> tuple:
    """The sums of the kernel over all pairs in x, in y, and between them; the numbers of points."""
    x, y = as_clouds(x, y, name)
    s = np.atleast_1d(median_distance(np.concatenate([x, y])) if bandwidths is None else bandwidths).astype(np.float64)
    if s.ndim != 1 or s.size == 0 or not np.all((s > 0) & (s < np.inf)):
        raise InputError(f"{name}: bandwidths must be a positive number or a list of them, not {bandwidths}.")
    kernel = lambda squared: sum(np.exp(squared / (-2 * b**2)) for b in s) / len(s)
    xx, yy, xy = (_sum_over_pairs(a, b, kernel) for a, b in ((x, x), (y, y), (x, y)))
    return xx, yy, xy, len(x), len(y)


def _sum_over_pairs(x: np.ndarray, y: np.ndarray, f: Callable[[np.ndarray], np.ndarray]) -> float:
    """sum_{i,j} f(||x_i - y_j||^2), a block of rows at a time, so that memory stays bounded."""
    from scipy.spatial.distance import cdist

    return sum(float(f(cdist(x[rows], y, "sqeuclidean")).sum()) for rows in row_blocks(len(x), len(y)))


# -- the test ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoSampleTest:
    """What `nearest_neighbour_test` found.

    accuracy: share of points whose nearest neighbour comes from the same cloud
    chance:   its mean if both clouds come from one distribution, a little under 1/2 for clouds of one size
    p_value:  how likely an accuracy at least so far from `chance` is in that case
    """

    accuracy: float
    chance: float
    p_value: float


def nearest_neighbour_test(x: ArrayLike, y: ArrayLike, rng: Generator, permutations: int = 999) -> TwoSampleTest:
    """Classifier two-sample test (Lopez-Paz & Oquab 2017) with the 1-nearest-neighbour classifier, leaving one out.

    Each point of both clouds (n, d), (m, d) is classified by its nearest neighbour among all others. If the clouds
    cannot be told apart, about half are right; nearly all are if the model is off; and *fewer* than half if it repeats
    its training points, which is measured by giving those as the other cloud (Xu et al. 2018).

    The p-value holds at any size: if the distributions are the same, every assignment of the n + m points to the
    clouds was as likely as the one at hand, so the labels are shuffled `permutations` times and the accuracies counted
    that lie as far from chance. The smallest it can be is 1 / (permutations + 1). Points that coincide are no harm.
    """
    x, y = as_clouds(x, y, "nearest_neighbour_test")
    n, m = len(x), len(y)
    if n + m < 3 or permutations < 1:
        raise InputError("nearest_neighbour_test: give three points at least in all, and one permutation at least.")
    shuffled = rng.permutation(n + m)  # among equally near points the first is taken, which must not favour a cloud
    neighbour = nearest(np.concatenate([x, y])[shuffled])[1][:, 0]
    labels = shuffled < n
    right = lambda labels: int(np.sum(labels == labels[neighbour]))

    chance = (n * (n - 1) + m * (m - 1)) / (n + m - 1)  # of n + m
    off = abs(right(labels) - chance)
    as_far = sum(abs(right(labels[rng.permutation(n + m)]) - chance) >= off - 1e-9 for _ in range(permutations))
    return TwoSampleTest(right(labels) / (n + m), chance / (n + m), (1 + as_far) / (1 + permutations))
