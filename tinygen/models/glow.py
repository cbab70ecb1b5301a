"""Glow: learned mixing between couplings, in place of halves that take turns (Kingma & Dhariwal 2018).

One step of the flow is three layers (table 1):

    actnorm           z = s * x + b                each feature by itself; begins with mean 0 and variance 1
    1x1 convolution   z = x W                      an invertible matrix over the features
    affine coupling   z_a = x_a,  z_b = x_b exp(s(x_a)) + t(x_a)

RealNVP keeps and moves the same coordinates all along. A matrix between couplings lets each of them choose which
directions to move: for an image it mixes channels at each pixel, hence the name; for points in the plane it turns and
shears the plane.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import ops
from tinygen.models.flow import Bijection, Composition, values
from tinygen.models.realnvp import AffineCoupling, alternating, network
from tinygen.nn import Buffer, Parameter, initialise
from tinygen.random import Generator


class ActNorm(Bijection):
    """z = exp(log_s) x + b for each feature of the last axis; log |det| = places sum log_s (table 1).

    A batch, handed to `initialise`, sets s and b so that z has mean 0 and variance 1 over it; from then on they are
    parameters like any others. Unlike batch norm it makes no example depend on the rest of its batch.
    """

    def __init__(self, features: int):
        self.log_s, self.b = Parameter(np.zeros(features, np.float32)), Parameter(np.zeros(features, np.float32))

    def initialise(self, x: Any) -> None:
        x = values(x).reshape(-1, x.shape[-1])
        self.log_s.data = -np.log(x.std(axis=0) + np.float32(1e-6))
        self.b.data = -x.mean(axis=0) * np.exp(self.log_s.data)

    def forward(self, x: Any) -> tuple[Any, Any]:
        return x * ops.exp(self.log_s) + self.b, _everywhere(self.log_s, x)

    def inverse(self, z: Any) -> Any:
        return (z - self.b) * ops.exp(-self.log_s)


class InvertibleLinear(Bijection):
    """z = x W over the last axis, with W = P L (U + diag(s)) (eq. 10); log |det| = places sum log |s| (eq. 11).

    W begins as a random rotation. Its permutation P and the signs of s stay as they are then; L, with ones on its
    diagonal, the strict upper triangle U and log |s| are learned. So W can never become singular, and its determinant
    costs a sum.
    """

    def __init__(self, features: int, *, rng: Generator):
        from scipy.linalg import lu

        p, lower, upper = lu(initialise.orthogonal((features, features), rng))
        s = np.diag(upper)
        self.p, self.sign = Buffer(p.astype(np.float32)), Buffer(np.sign(s).astype(np.float32))
        self.lower = Parameter(np.tril(lower, -1).astype(np.float32))
        self.upper = Parameter(np.triu(upper, 1).astype(np.float32))
        self.log_s = Parameter(np.log(np.abs(s)).astype(np.float32))

    def forward(self, x: Any) -> tuple[Any, Any]:
        return x @ self.weight(), _everywhere(self.log_s, x)

    def inverse(self, z: Any) -> Any:
        return z @ ops.inv(self.weight())

    def weight(self) -> Any:
        """W, (features, features)."""
        identity = np.eye(len(self.log_s), dtype=self.log_s.dtype)
        lower = ops.tril(self.lower, -1) + identity
        upper = ops.triu(self.upper, 1) + identity * (self.sign * ops.exp(self.log_s))
        return self.p @ lower @ upper


class Glow(Composition):
    """Steps of actnorm, mixing and coupling, for vectors (features,). Call `initialise` with a first batch."""

    def __init__(self, features: int, steps: int = 16, width: int = 64, *, rng: Generator):
        layers: list[Bijection] = []
        for _ in range(steps):
            coupling = AffineCoupling(network(features, width, rng), alternating(features, 0))
            layers += [ActNorm(features), InvertibleLinear(features, rng=rng), coupling]
        super().__init__(layers, shape=(features,))


def _everywhere(log_s: Any, x: Any) -> Any:
    """The sum of log_s at every place of x (N, *places, features): one number for all examples."""
    return math.prod(x.shape[1:-1]) * ops.sum(log_s)
