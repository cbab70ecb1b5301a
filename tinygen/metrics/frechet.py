"""The Frechet distance between Gaussians, which FID takes between two clouds of features."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tinygen.errors import InputError
from tinygen.metrics.points import as_clouds


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Frechet distance between the Gaussians with the means and covariances of two clouds (n, d), (m, d).

    On the features of a classifier this is FID (Heusel et al. 2017, eq. 6), which is called a distance though it is the
    square of one. Finite clouds of one distribution are apart, the more so the fewer points: compare figures at the
    same sizes only, and beside the floor.
    """
    x, y = as_clouds(x, y, "frechet_distance")
    if min(len(x), len(y)) < 2:
        raise InputError(f"frechet_distance: each cloud needs two points for a covariance, not {len(x)} and {len(y)}.")
    covariances = (np.atleast_2d(np.cov(cloud, rowvar=False)) for cloud in (x, y))
    return gaussian_frechet_distance(x.mean(0), y.mean(0), *covariances)


def gaussian_frechet_distance(mean1: ArrayLike, mean2: ArrayLike, cov1: ArrayLike, cov2: ArrayLike) -> float:
    """W2 squared between N(mean1, cov1) and N(mean2, cov2), means (d,), covariances (d, d) (Dowson & Landau 1982).

    d^2 = ||mean1 - mean2||^2 + tr(cov1 + cov2 - 2 (cov1^(1/2) cov2 cov1^(1/2))^(1/2))

    In this form, equal to the trace of (cov1 cov2)^(1/2), every root is that of a symmetric matrix, whose eigenvalues
    are real and not negative but for rounding: covariances without full rank are no special case.
    """
    mean1, mean2, cov1, cov2 = (np.asarray(a, np.float64) for a in (mean1, mean2, cov1, cov2))
    d = len(mean1) if mean1.ndim == 1 else -1
    if mean2.shape != (d,) or cov1.shape != (d, d) or cov2.shape != (d, d):
        shapes = ", ".join(str(a.shape) for a in (mean1, mean2, cov1, cov2))
        raise InputError(f"gaussian_frechet_distance: means must be (d,) and covariances (d, d), not {shapes}.")
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    middle = np.linalg.eigvalsh(root @ cov2 @ root)
    trace = np.trace(cov1) + np.trace(cov2) - 2 * np.sqrt(np.maximum(middle, 0)).sum()
    return float(np.sum(np.square(mean1 - mean2)) + max(0.0, trace))
