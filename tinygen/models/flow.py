"""Normalising flows: a density by a change of variables.

Take a point x apart into noise z = f(x) by a function that can be inverted. Where f stretches space, the density of x
is higher than that of its z, by the factor by which volumes grow (Rezende & Mohamed 2015; Dinh et al. 2017, eq. 3):

    log p(x) = log p_Z(f(x)) + log |det df/dx|,    p_Z = N(0, I)

So three things are asked of f: to be flexible, to be inverted fast (for sampling: x = f^-1(z)), and to know the
determinant of its Jacobian without computing that of a matrix. A flow gets all three from layers that have them, since
layers compose: f = f_L o ... o f_1, and their log-determinants add up. Every family is one idea for such a layer:
`realnvp.py` couplings, `glow.py` learned mixing between them, `maf.py` one number after the other, `spline.py`
couplings that bend more, `cnf.py` infinitely many thin layers. All are trained by their likelihood, which is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinygen import ops
from tinygen.autograd import no_grad
from tinygen.errors import InputError
from tinygen.nn import Module
from tinygen.random import Generator
from tinygen.tensor import Tensor


class Bijection(Module):
    """A layer of a flow: an invertible function of x (N, *shape) that keeps the shape."""

    def forward(self, x: Any) -> tuple[Any, Any]:
        """z = f(x), (N, *shape), and log |det df/dx| of each example, (N,), or one number that all have in common."""
        raise NotImplementedError(f"{type(self).__name__} has no forward; return z and log |det dz/dx|.")

    def inverse(self, z: Any) -> Any:
        """The x with f(x) = z, (N, *shape)."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse; return the x that forward maps to z.")

    def initialise(self, x: Any) -> None:
        """Sets first values by a batch of what the layer will see; most layers need none."""


class Inverse(Bijection):
    """A layer the other way round: what it computed fast in one direction is now fast in the other."""

    def __init__(self, layer: Bijection):
        self.layer = layer

    def forward(self, x: Any) -> tuple[Any, Any]:
        """z = g^-1(x) for the layer g; log |det dz/dx| = -log |det dg/dz|."""
        z = self.layer.inverse(x)
        return z, -self.layer(z)[1]

    def inverse(self, z: Any) -> Any:
        return self.layer(z)[0]


class Flow(Bijection):
    """An invertible function from data to standard normal noise, as a model: it has a density, and can be sampled.

    shape: of one example, which a subclass sets along with `forward` and `inverse`; (2,) for points in the plane
    """

    shape: tuple[int, ...]

    def log_prob(self, x: Any) -> Any:
        """log p(x) = log N(f(x); 0, I) + log |det df/dx| in nats, (N,)."""
        z, log_det = self(x)
        return log_det + standard_normal(z)

    def loss(self, x: Any) -> Tensor:
        """-log p(x), averaged over examples: what training lowers, down to the entropy of the data."""
        return -ops.mean(self.log_prob(x))

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """n examples x = f^-1(z) with z ~ N(0, I), float32 (n, *shape)."""
        with no_grad():
            return self.inverse(rng.normal((n, *self.shape))).numpy()


class Composition(Flow):
    """f = f_L o ... o f_1: layers one after the other, whose log-determinants add up.

    layers: Bijections, the one next to the data first
    """

    def __init__(self, layers: Sequence[Bijection], shape: tuple[int, ...]):
        self.layers, self.shape = list(layers), tuple(shape)
        if not self.layers or not all(isinstance(layer, Bijection) for layer in self.layers):
            raise InputError("A flow needs at least one layer, each of them a Bijection.")

    def forward(self, x: Any) -> tuple[Any, Any]:
        log_det: Any = 0.0
        for layer in self.layers:
            x, added = layer(x)
            log_det = log_det + added
        return x, log_det

    def inverse(self, z: Any) -> Any:
        for layer in reversed(self.layers):
            z = layer.inverse(z)
        return z

    def initialise(self, x: Any) -> None:
        """Layer by layer: each is set by what the ones before it, now set, make of the batch x."""
        with no_grad():
            for layer in self.layers:
                layer.initialise(x)
                x, _ = layer(x)

    def unfolding(self, z: np.ndarray) -> Iterator[np.ndarray]:
        """The way from noise to data, layer by layer: z, ..., x."""
        yield z
        with no_grad():
            for layer in reversed(self.layers):
                z = layer.inverse(z).numpy()
                yield z


def values(x: Any) -> Any:
    """The numbers in a Tensor, or the array itself: for choices and first values, which have no gradient."""
    return x.data if isinstance(x, Tensor) else x


def standard_normal(z: Any) -> Any:
    """log N(z; 0, I) of each example, (N, *shape) -> (N,)."""
    return per_example(-0.5 * (ops.square(z) + math.log(2 * math.pi)))


def per_example(values: Any) -> Any:
    """The sum over all axes but the first: (N, *shape) -> (N,)."""
    return ops.sum(values, axis=tuple(range(1, values.ndim)))
