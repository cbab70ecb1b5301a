"""Autoregressive flows: each number is scaled and shifted by what the ones before it say.

    MAF    z_i = (x_i - mu_i) exp(-alpha_i),    mu_i, alpha_i = functions of x_1 ... x_{i-1}    Papamakarios et al. 2017
    IAF    z_i = (x_i - mu_i) exp(-alpha_i),    mu_i, alpha_i = functions of z_1 ... z_{i-1}    Kingma et al. 2016

One network with masked weights (MADE, Germain et al. 2015) gives mu and alpha of all i in one pass. From x a MAF has
them at once: its density is fast. To sample it must find x_1 before it can ask for mu_2, and so on, one pass for each
number. An IAF is the same function the other way round: it samples in one pass, and takes as many as there are numbers
for the density of a point that is not its own. A coupling (`realnvp.py`) is the case with two steps either way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import ops
from tinygen.errors import InputError
from tinygen.models.flow import Bijection, Composition, Inverse, per_example
from tinygen.nn import Buffer, Linear, Module, Parameter, initialise
from tinygen.nn.linear import Initialiser
from tinygen.random import Generator


class MaskedLinear(Linear):
    """y = x (M * W) + b, with a mask M (inputs, outputs) of zeros and ones that says which connections there are."""

    def __init__(self, mask: np.ndarray, *, rng: Generator, weight_init: Initialiser = initialise.he_normal):
        super().__init__(*mask.shape, rng=rng, weight_init=weight_init)
        self.mask = Buffer(np.asarray(mask, np.float32))

    def forward(self, x: Any) -> Any:
        return x @ (self.mask * self.weight) + self.bias


class MaskedMLP(Module):
    """A perceptron with the masks of MADE: its outputs for feature i see the features before i, and no others.

    Every unit has a degree: that of feature i is its place in `order`, 1 to D; those of the hidden units run through
    1 ... D - 1. A hidden unit sees units of its degree and below, an output those below its own (Germain et al. 2015,
    eq. 12 and 13). (N, D) -> (N, outputs D): mu of all features, then alpha of all.
    """

    def __init__(self, order: np.ndarray, width: int, outputs: int = 2, *, rng: Generator):
        hidden = 1 + np.arange(width) % max(len(order) - 1, 1)
        self.first = MaskedLinear(order[:, None] <= hidden, rng=rng)
        self.second = MaskedLinear(hidden[:, None] <= hidden, rng=rng)
        last = np.tile(hidden[:, None] < order, outputs)
        self.last = MaskedLinear(last, rng=rng, weight_init=initialise.zeros)

    def forward(self, x: Any) -> Any:
        return self.last(ops.silu(self.second(ops.silu(self.first(x)))))


class MaskedAutoregressive(Bijection):
    """z_i = (x_i - mu_i) exp(-alpha_i), mu and alpha from the x before x_i; log |det| = -sum alpha_i (eq. 2 to 5).

    order: the place of each feature, 1 to D; layers in a row take turns with the reverse of it

    alpha = c tanh(what the network says), with a learned c, as in RealNVP: else one stray point sends exp to infinity.
    """

    def __init__(self, order: np.ndarray, width: int, *, rng: Generator):
        self.order = np.asarray(order)
        if sorted(self.order.tolist()) != list(range(1, len(self.order) + 1)):
            raise InputError(f"MaskedAutoregressive: order must hold each of 1 to D once, not {self.order.tolist()}.")
        self.made = MaskedMLP(self.order, width, rng=rng)
        self.limit = Parameter(np.ones(len(self.order), np.float32))

    def forward(self, x: Any) -> tuple[Any, Any]:
        mu, alpha = self._mu_and_alpha(x)
        return (x - mu) * ops.exp(-alpha), -per_example(alpha)

    def inverse(self, z: Any) -> Any:
        """x_i = z_i exp(alpha_i) + mu_i, in order: pass i of D completes feature i."""
        x = np.zeros(z.shape, z.dtype)
        for _ in self.order:
            mu, alpha = self._mu_and_alpha(x)
            x = z * ops.exp(alpha) + mu
        return x

    def _mu_and_alpha(self, x: Any) -> tuple[Any, Any]:
        mu, alpha = ops.split(self.made(x), 2, axis=-1)
        return mu, self.limit * ops.tanh(alpha)


class MAF(Composition):
    """Masked autoregressive layers for vectors (features,), the order reversed from each to the next."""

    def __init__(self, features: int, layers: int = 16, width: int = 64, *, rng: Generator):
        order = 1 + np.arange(features)
        orders = [order if i % 2 else order[::-1] for i in range(layers)]
        super().__init__([MaskedAutoregressive(order, width, rng=rng) for order in orders], shape=(features,))


class IAF(Composition):
    """A MAF with every layer the other way round: one pass to sample, `features` passes for a density."""

    def __init__(self, features: int, layers: int = 16, width: int = 64, *, rng: Generator):
        maf = MAF(features, layers, width, rng=rng)
        super().__init__([Inverse(layer) for layer in maf.layers], shape=(features,))
