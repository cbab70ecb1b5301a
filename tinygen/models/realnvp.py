"""RealNVP: couplings, in which one half of the numbers says how to scale and shift the other (Dinh et al. 2017).

Half of x passes through unchanged; a network may look at it as hard as it likes, and moves the other half:

    z_a = x_a,    z_b = x_b exp(s(x_a)) + t(x_a)                                                              eq. 4, 5
    x_a = z_a,    x_b = (z_b - t(z_a)) exp(-s(z_a))                                                           eq. 8

The inverse needs the networks s and t as they are, never their inverses. The Jacobian is triangular, with ones and
exp(s) on its diagonal: log |det| = sum s (eq. 6). One coupling leaves half of x alone, so the halves take turns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import ops
from tinygen.errors import InputError
from tinygen.models.flow import Bijection, Composition, per_example
from tinygen.nn import MLP, Buffer, Parameter, initialise
from tinygen.random import Generator


class AffineCoupling(Bijection):
    """z = b x + (1 - b) (x exp(s(b x)) + t(b x)), with a mask b of zeros and ones (eq. 9).

    net:  a Module, called with b x (N, *shape), returns (N, ..., 2 features): s before its limit, and t
    mask: b, of a shape that broadcasts to that of an example: (features,), or (H, W, 1) for a chessboard of pixels

    s = c tanh(s before): bounded, so that no coupling can blow up, by a scale c that is learned (sec. 4.1).
    """

    def __init__(self, net: Callable, mask: np.ndarray):
        mask = np.asarray(mask, np.float32)
        if not np.isin(mask, (0, 1)).all() or mask.min() == mask.max():
            raise InputError("AffineCoupling: the mask must hold zeros (moved) and ones (kept), at least one of each.")
        self.net = net
        self.kept, self.moved = Buffer(mask), Buffer(1 - mask)
        self.limit = Parameter(np.ones(mask.shape[-1], np.float32))

    def forward(self, x: Any) -> tuple[Any, Any]:
        s, t = self._scale_and_shift(x)
        return x * ops.exp(s) + t, per_example(s)

    def inverse(self, z: Any) -> Any:
        s, t = self._scale_and_shift(z)
        return (z - t) * ops.exp(-s)

    def _scale_and_shift(self, x: Any) -> tuple[Any, Any]:
        """s and t, zero where x is kept: with those the formula above is x exp(s) + t everywhere."""
        s, t = ops.split(self.net(self.kept * x), 2, axis=-1)
        return self.moved * (self.limit * ops.tanh(s)), self.moved * t


class RealNVP(Composition):
    """Couplings of vectors (features,), whose networks are MLPs; even features move in one, odd ones in the next."""

    def __init__(self, features: int, couplings: int = 16, width: int = 64, *, rng: Generator):
        layers = [AffineCoupling(network(features, width, rng), alternating(features, i)) for i in range(couplings)]
        super().__init__(layers, shape=(features,))


def network(features: int, width: int, rng: Generator) -> MLP:
    """What tells a coupling s and t: an MLP that says 0 at first, so that the coupling begins as the identity."""
    return MLP([features, width, width, 2 * features], ops.silu, rng=rng, last_init=initialise.zeros)


def alternating(features: int, i: int) -> np.ndarray:
    """The mask of coupling i: 0, 1, 0, 1, ... or 1, 0, 1, 0, ... in turns."""
    if features < 2:
        raise InputError(f"A coupling needs 2 features or more, one to keep and one to move, not {features}.")
    return (np.arange(features) + i) % 2
