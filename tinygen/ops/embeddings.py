"""Looking up rows of a table by integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.errors import DtypeError, InputError, ShapeError
from tinygen.fused import fused
from tinygen.ops.indexing import take


def require_indices(name: str, indices: Any, n: int, things: str) -> None:
    """Raise unless all `indices`, an array or a Tensor, are integers from 0 to n - 1.

    On a GPU the range goes unchecked: to look would be to wait for the device.
    """
    indices = getattr(indices, "_array", indices)
    if indices.dtype.kind not in "iu":
        raise DtypeError(f"{name} must be integers, not {indices.dtype}")
    if isinstance(indices, np.ndarray) and indices.size and not (0 <= indices.min() and indices.max() < n):
        raise InputError(
            f"{name} run from {indices.min()} to {indices.max()}, but there are {n} {things}: 0 to {n - 1}"
        )


def _lookups(draw):
    rows, features = draw.sizes(2)
    return (draw.array((rows, features)), draw.integers(draw.shape(), rows)), {}


@fused(inputs=_lookups, constants=("indices",))
def embedding(weight, indices, /):
    """Rows of a table: weight (rows, features) and integers (...) give (..., features).

    Each use of a row adds to its gradient. Indices run from 0 to rows - 1; any other raises InputError.
    """
    if len(weight.shape) != 2:
        raise ShapeError("the table must have two axes: (rows, features)")
    require_indices("indices", indices, weight.shape[0], "rows")
    return take(weight, indices, 0)
