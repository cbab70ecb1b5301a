"""The one shape that metrics of samples take: a finite cloud of points."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from tinygen.errors import InputError


def as_points(x: ArrayLike, name: str) -> np.ndarray:
    """`x` as float64 of shape (n, d), n and d at least 1. Raises InputError when it is not that, or not finite."""
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(f"{name} must be points of shape (n, d), at least one, not an array of shape {x.shape}.")
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise InputError(f"{name}: {bad.sum()} of {len(x)} points hold NaN or infinity, first in row {bad.argmax()}.")
    return x


def as_pair(x: ArrayLike, y: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds of as many points in as many dimensions. Raises InputError when they differ."""
    x, y = as_points(x, f"{name}: x"), as_points(y, f"{name}: y")
    if x.shape != y.shape:
        raise InputError(f"{name}: x has shape {x.shape} and y {y.shape}; draw as many points of each.")
    return x, y


def as_clouds(x: ArrayLike, y: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds in as many dimensions, which may differ in size. Raises InputError when they do not fit together."""
    x, y = as_points(x, f"{name}: x"), as_points(y, f"{name}: y")
    if x.shape[1] != y.shape[1]:
        raise InputError(f"{name}: the points of one cloud have {x.shape[1]} dimensions, of the other {y.shape[1]}.")
    return x, y


def row_blocks(rows: int, columns: int, numbers: int = 2**22) -> Iterator[slice]:
    """Slices of the rows of a (rows, columns) matrix of which each block holds about so many numbers (32 megabytes)."""
    step = max(1, numbers // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
