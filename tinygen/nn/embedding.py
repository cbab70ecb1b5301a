"""Turning numbers into vectors: time and coordinates by waves, tokens and classes by table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import arrays, ops
from tinygen.errors import InputError
from tinygen.nn import initialise
from tinygen.nn.linear import MLP, Initialiser
from tinygen.nn.module import Buffer, Module
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


class TimeEmbedding(MLP):
    """What a network is told of the time: `sinusoidal` waves through a perceptron. (...,) -> (..., outputs).

    t is an array or Tensor of any number type; the waves are made in its precision, the result has that of the weights.
    """

    def __init__(self, waves: int, outputs: int, activation: Callable = ops.silu, *, rng: Generator):
        if waves < 2 or waves % 2:
            raise InputError(f"TimeEmbedding: waves must be even and at least 2, not {waves}.")
        self.waves = waves
        super().__init__([waves, outputs, outputs], activation, rng=rng)

    def forward(self, t: Any) -> Tensor:
        if t is None:
            raise InputError("TimeEmbedding: no time was given; call the network with x and t, t of shape (N,) or (1,)")
        return super().forward(ops.astype(sinusoidal(t, self.waves), self[0].weight.dtype))


class FourierFeatures(Module):
    """Sines and cosines of random projections: sin(2 pi x B), cos(2 pi x B). (..., inputs) -> (..., width).

    With them a perceptron learns fine detail of functions of few coordinates, such as an image as a function of the
    place (Tancik et al. 2020, eq. 5); the noise level of a diffusion goes in as t[:, None] (Song et al. 2021, app. C).
    `scale`, the standard deviation of the frequencies, in cycles per unit of x, sets how fine. B: (inputs, width/2) is
    drawn from N(0, scale^2) and saved, but not trained. All sines come before all cosines.
    """

    def __init__(self, inputs: int, width: int, scale: float = 1.0, *, rng: Generator):
        if inputs < 1 or width < 2 or width % 2:
            raise InputError(
                f"FourierFeatures: inputs must be at least 1, width even and at least 2, not {inputs} and {width}."
            )
        self.frequencies = Buffer(initialise.normal(scale)((inputs, width // 2), rng))

    def forward(self, x: Any) -> Tensor:
        angles = (2 * math.pi) * (x @ self.frequencies)
        return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)


class Embedding(Module):
    """A table with one trained vector for each of `rows` classes or tokens. (...) integers -> (..., width).

    weight: (rows, width), drawn by `weight_init(shape, rng)`, N(0, 1).
    """

    def __init__(
        self,
        rows: int,
        width: int,
        *,
        rng: Generator,
        weight_init: Initialiser = initialise.standard_normal,
    ):
        if rows < 1 or width < 1:
            raise InputError(f"Embedding: rows and width must be at least 1, not {rows} and {width}.")
        self.weight = Parameter(weight_init((rows, width), rng))

    def forward(self, indices: Any) -> Tensor:
        return ops.embedding(self.weight, indices)
