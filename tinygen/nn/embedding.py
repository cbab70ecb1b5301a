"""Turning numbers into vectors: time by waves, tokens and classes by table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import arrays, ops
from tinygen.errors import InputError
from tinygen.nn.module import Module
from tinygen.random import Generator
from tinygen.tensor import Parameter, Tensor


def sinusoidal(t: Any, width: int, longest: float = 10_000.0) -> Any:
    """Sines and cosines of t at width/2 frequencies. (...,) -> (..., width), all sines before all cosines.

        frequency_i = longest^(-i / (width/2)),   i = 0, ..., width/2 - 1

    The frequencies fall geometrically from 1 to about 1/longest radian per unit of t: the first waves tell neighbouring
    integers apart, the last ones early from late. Made for steps or positions t = 0, 1, ..., a thousand or so; multiply
    a time in [0, 1] by 1000 first. Positions: Vaswani et al. 2017, sec. 3.5; steps of a diffusion: Ho et al. 2020,
    app. B. `t` is an array or a Tensor of any number type; integers give float32.
    """
    if width < 2 or width % 2:
        raise InputError(f"sinusoidal: width must be even and at least 2, not {width}: half are sines, half cosines.")
    t = t if isinstance(t, Tensor) or arrays.is_array(t) else np.asarray(t, np.float32)
    dtype = t.dtype if t.dtype.kind == "f" else np.float32
    half = width // 2
    frequencies = np.exp(-math.log(longest) / half * np.arange(half)).astype(dtype)
    frequencies = arrays.to_device(frequencies, arrays.device_of(t.data if isinstance(t, Tensor) else t))
    angles = t.reshape((*t.shape, 1)).astype(dtype) * frequencies
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)


class Embedding(Module):
    """A table with one trained vector for each of `rows` classes or tokens. (...) integers -> (..., width).

    weight: (rows, width), drawn from N(0, 1).
    """

    def __init__(self, rows: int, width: int, *, rng: Generator):
        if rows < 1 or width < 1:
            raise InputError(f"Embedding: rows and width must be at least 1, not {rows} and {width}.")
        self.weight = Parameter(rng.normal((rows, width)))

    def forward(self, indices: Any) -> Tensor:
        return ops.embedding(self.weight, indices)
