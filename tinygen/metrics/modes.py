"""Does a model find every mode of the data, in the right shares, and nothing in between?"""

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

    distances = np.linalg.norm(x[:, None] - means, axis=-1) / std
    nearest = distances.argmin(axis=1)
    inside = distances[np.arange(n), nearest] <= radius
    shares = np.bincount(nearest, minlength=modes) / n
    shares_inside = np.bincount(nearest[inside], minlength=modes) / n
    return ModeCoverage(
        modes=modes,
        found=int(np.sum((shares_inside >= least * weights) & (shares_inside > 0))),
        within=float(inside.mean()),
        total_variation=float(np.abs(shares - weights).sum() / 2),
        shares=shares,
    )


def share_of_gaussian_within(radius: float, dimensions: int) -> float:
    """P(||z|| <= radius) for z ~ N(0, I), the chi distribution's CDF; in the plane that is 1 - exp(-radius^2 / 2)."""
    from scipy.special import gammainc

    return float(gammainc(dimensions / 2, radius**2 / 2))
