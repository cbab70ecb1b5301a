"""Does a model find every mode of the data, in the right shares, as wide as they are, and nothing in between?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tinygen.errors import InputError
from tinygen.metrics.points import as_points


@dataclass(frozen=True)
class ModeCoverage:
    """What `mode_coverage` found."""

    modes: int  # how many the data have
    found: int  # how many the samples reach
    within: float  # share of samples that lie within the radius of their mode
    total_variation: float  # between the shares of the modes and their true weights
    shares: np.ndarray  # (K,) share of all samples whose nearest mode this is
    reverse_kl: float  # of those shares from the true weights, in nats
    std_ratio: float  # deviation of the samples within their modes, over the true one
    std_ratios: np.ndarray  # (K,) the same for each mode


def mode_coverage(
    x: ArrayLike,
    means: ArrayLike,
    std: ArrayLike,
    weights: ArrayLike | None = None,
    radius: float = 3.0,
    least: float = 0.2,
) -> ModeCoverage:
    """How samples x (n, d) spread over modes at `means` (K, d) with deviation `std` per axis (a number, or K of them).

    Each sample belongs to the mode nearest to it, in deviations of that mode:  k(x) = argmin_k ||x - mu_k|| / s_k.

    - `within`: share of samples with ||x - mu_k(x)|| <= radius s_k(x). Of true data in d dimensions that is at least
      `share_of_gaussian_within(radius, d)`, 98.9 % for 3 deviations in the plane, and a little more where neighbours
      catch each other's outliers (99.0 % for the eight Gaussians).
    - `found`: a mode is found if it has at least `least` times its fair share n w_k of samples within the radius.
    - `reverse_kl`: sum_k share_k log(share_k / w_k), KL(model || data). It counts samples where there should be fewer,
      and stays finite, at most log(1 / min_k w_k), when modes are missed. True data have about (K - 1) / (2 n).
    - `std_ratio`: the spread inside the modes. Of the samples within the radius of mode k, the deviation per axis
      around their own mean, over what a Gaussian of deviation s_k, cut off at the same radius, has there; the root of
      the mean square over all modes, weighted by samples. True data have 1, a model that has collapsed to points 0. A
      mode with fewer than two samples has none: NaN.
    - `total_variation`: 1/2 sum_k |share_k - w_k|, with w equal unless given. Not zero even for true data: near
      sum_k sqrt(w_k (1 - w_k) / (2 pi n)), which is .015 for eight equal modes and n = 5000.
    """
    x, means = as_points(x, "mode_coverage: x"), as_points(means, "mode_coverage: means")
    n, modes = len(x), len(means)
    if means.shape[1] != x.shape[1]:
        raise InputError(f"mode_coverage: samples have {x.shape[1]} dimensions and means {means.shape[1]}.")
    weights = np.full(modes, 1 / modes) if weights is None else np.asarray(weights, np.float64)
    std = np.asarray(std, np.float64)
    if weights.shape != (modes,) or np.any(weights < 0) or not np.isclose(weights.sum(), 1):
        raise InputError(f"mode_coverage: weights must be {modes} numbers, none negative, that sum to one.")
    if std.shape not in [(), (modes,)] or not np.all(std > 0):
        raise InputError(f"mode_coverage: std must be positive, one number or {modes}, not {std}.")

    std = np.broadcast_to(std, (modes,))
    distances = np.linalg.norm(x[:, None] - means, axis=-1) / std
    nearest = distances.argmin(axis=1)
    inside = distances[np.arange(n), nearest] <= radius
    shares = np.bincount(nearest, minlength=modes) / n
    shares_inside = np.bincount(nearest[inside], minlength=modes) / n
    std_ratio, std_ratios = _spread(x[inside] / std[nearest[inside], None], nearest[inside], modes, radius)
    return ModeCoverage(
        modes=modes,
        found=int(np.sum((shares_inside >= least * weights) & (shares_inside > 0))),
        within=float(inside.mean()),
        total_variation=float(np.abs(shares - weights).sum() / 2),
        shares=shares,
        reverse_kl=histogram_kl(shares, weights),
        std_ratio=std_ratio,
        std_ratios=std_ratios,
    )


def histogram_kl(shares: ArrayLike, weights: ArrayLike) -> float:
    """KL(shares || weights) = sum_k share_k log(share_k / w_k) between two histograms (K,), in nats; 0 log 0 = 0.

    Infinite if there are samples where the weight is zero. Both are taken at total one, so counts will do.
    """
    shares, weights = np.asarray(shares, np.float64), np.asarray(weights, np.float64)
    for histogram in (shares, weights):
        if histogram.ndim != 1 or histogram.shape != weights.shape or not np.all(histogram >= 0) or not histogram.sum():
            raise InputError(f"histogram_kl: {histogram} is no histogram of {weights.shape} numbers, none negative.")
    shares, weights = shares / shares.sum(), weights / weights.sum()
    there = shares > 0
    if np.any(weights[there] == 0):
        return float("inf")
    return float(max(0.0, np.sum(shares[there] * np.log(shares[there] / weights[there]))))  # rounding may go below 0


def _spread(z: np.ndarray, mode: np.ndarray, modes: int, radius: float) -> tuple[float, np.ndarray]:
    """Deviation per axis of points z (n, d), in units of the true one, around the mean of those of the same mode; over
    all modes and for each.

    A standard Gaussian within the radius R has E[||z||^2 | ||z|| <= R] = d F_{d+2}(R^2) / F_d(R^2), with F the CDFs of
    chi-squared distributions.
    """
    d = z.shape[1]
    counts = np.bincount(mode, minlength=modes)
    sums = np.stack([np.bincount(mode, z[:, axis], minlength=modes) for axis in range(d)], axis=1)
    own_mean = sums / np.maximum(counts, 1)[:, None]
    squares = np.bincount(mode, np.square(z - own_mean[mode]).sum(axis=1), minlength=modes)
    freedom = np.where(counts > 1, counts - 1, 0)
    true = d * share_of_gaussian_within(radius, d + 2) / share_of_gaussian_within(radius, d)
    with np.errstate(invalid="ignore"):  # 0 / 0: no spread can be told
        return float(np.sqrt(squares.sum() / freedom.sum() / true)), np.sqrt(squares / freedom / true)


def share_of_gaussian_within(radius: float, dimensions: int) -> float:
    """P(||z|| <= radius) for z ~ N(0, I), the chi distribution's CDF; in the plane that is 1 - exp(-radius^2 / 2)."""
    from scipy.special import gammainc

    return float(gammainc(dimensions / 2, radius**2 / 2))
