"""Launch of dropout."""

from __future__ import annotations

import math

import numpy as np

from tinygen.launch.pieces import empty, in_pieces


def dropout(x: np.ndarray, rate: float, key: tuple[int, int]) -> np.ndarray:
    """x with the elements dropped that the op's definition drops: those whose uniform number is below the rate."""
    from tinygen.kernels.cpu.dropout import dropout_forward

    out, (seed, counter) = empty(x.shape), (np.uint64(word) for word in key)
    least = np.uint64(math.ceil(float(np.float32(rate)) * 2**24))  # of 24 random bits
    scale = np.float32(1 / (1 - rate) if rate < 1 else 0)
    flat, to = x.reshape(-1), out.reshape(-1)
    run = lambda _, part: dropout_forward(flat[part], part.start // 8, seed, counter, least, scale, to[part])
    in_pieces(run, x.size, 1)
    return out
