"""First values of weights: how wide to draw them so that signals neither die out nor blow up from layer to layer.

A sum of n products of unit variance has variance n. A layer sums over its `fan_in` inputs in the forward pass and over
its `fan_out` outputs in the backward pass, so weights are drawn with a variance of about 1 / fan_in, 1 / fan_out or
between the two. Each function takes the shape of the weights, features last, and a generator, and returns float32.

    common_uniform     1 / (3 fan_in)              lecun_normal                    1 / fan_in
    glorot_uniform     2 / (fan_in + fan_out)      glorot_normal                   2 / (fan_in + fan_out)
    he_uniform         2 / fan_in                  he_normal                       2 / fan_in
    normal(deviation)  deviation^2                 standard_normal                 1
    zeros              0                           orthogonal                      1 / max(fan_in, out)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinygen.errors import ShapeError
from tinygen.random import Generator

Shape = tuple[int, ...]


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of weights (..., in, out): how many inputs an output sums over, and the other way round.

    The axes before the last two are the places of a convolution kernel, over each of which is summed as well.
    """
    if len(shape) < 2:
        raise ShapeError(f"fans: weights of shape {tuple(shape)} have no axes (..., in, out); give at least two.")
    places = math.prod(shape[:-2])
    return places * shape[-2], places * shape[-1]


def common_uniform(shape: Shape, rng: Generator) -> np.ndarray:
    """U(-k, k) with k = 1 / sqrt(fan_in): variance 1 / (3 fan_in), a third of `lecun_normal`'s.

    PyTorch's default for linear layers and convolutions; for reproducing what was tuned with it.
    """
    k = 1 / math.sqrt(fans(shape)[0])
    return rng.uniform(shape, -k, k)


def lecun_normal(shape: Shape, rng: Generator) -> np.ndarray:
    """N(0, 1 / fan_in): keeps the variance of a linear layer's signal (LeCun et al. 1998, sec. 4.6)."""
    return _normal(shape, 1 / fans(shape)[0], rng)


def glorot_uniform(shape: Shape, rng: Generator) -> np.ndarray:
    """U(-k, k) with k = sqrt(6 / (fan_in + fan_out)): variance 2 / (fan_in + fan_out), a compromise between signal and
    gradient, for symmetric activations such as tanh (Glorot & Bengio 2010, eq. 16)."""
    k = math.sqrt(6 / sum(fans(shape)))
    return rng.uniform(shape, -k, k)


def glorot_normal(shape: Shape, rng: Generator) -> np.ndarray:
    """N(0, 2 / (fan_in + fan_out)): `glorot_uniform`'s variance."""
    return _normal(shape, 2 / sum(fans(shape)), rng)


def he_uniform(shape: Shape, rng: Generator) -> np.ndarray:
    """U(-k, k) with k = sqrt(6 / fan_in): `he_normal`'s variance."""
    k = math.sqrt(6 / fans(shape)[0])
    return rng.uniform(shape, -k, k)


def he_normal(shape: Shape, rng: Generator) -> np.ndarray:
    """N(0, 2 / fan_in): twice as much, since a relu before the layer halves what it is given (He et al. 2015, eq. 10).

    The default of the layers here, nearly all of which stand beside a relu or one of its smooth relatives.
    """
    return _normal(shape, 2 / fans(shape)[0], rng)


def normal(deviation: float) -> Callable[[Shape, Generator], np.ndarray]:
    """The initialiser N(0, deviation^2), whatever the fans; .02 is that of DCGAN (Radford et al. 2016) and of GPT-2."""
    return lambda shape, rng: _normal(shape, deviation**2, rng)


def standard_normal(shape: Shape, rng: Generator) -> np.ndarray:
    """N(0, 1), whatever the fans: for tables of vectors, whose rows are looked up and not summed."""
    return rng.normal(shape)


def orthogonal(shape: Shape, rng: Generator) -> np.ndarray:
    """A matrix (fan_in, out) whose rows or columns, whichever are fewer, are orthonormal, drawn uniformly among all
    such; a square one keeps every length (Saxe et al. 2014, sec. 3). A convolution's places count as rows."""
    rows, columns = fans(shape)[0], shape[-1]
    a = rng.normal((max(rows, columns), min(rows, columns)), dtype=np.float64)
    q, r = np.linalg.qr(a)
    q *= np.sign(np.diagonal(r))  # QR alone leaves the signs to the algorithm: not uniform (Mezzadri 2007)
    return (q if rows >= columns else q.T).reshape(shape).astype(np.float32)


def zeros(shape: Shape, rng: Generator | None = None) -> np.ndarray:
    """Zeros: for the last layer of a residual branch, so that the block begins as the identity."""
    return np.zeros(shape, np.float32)


def _normal(shape: Shape, variance: float, rng: Generator) -> np.ndarray:
    return np.float32(math.sqrt(variance)) * rng.normal(shape)
