"""Neural spline flows: couplings that bend where an affine one can only scale and shift (Durkan et al. 2019).

Half of x passes through unchanged; each number of the other half goes through a monotone curve from [-B, B] to itself,
which a network of the first half draws. The curve has K pieces, quotients of two quadratics that meet with equal
slopes at knots (x^(k), y^(k)). On piece k, with

    xi = (x - x^(k)) / w,    w = x^(k+1) - x^(k),    h = y^(k+1) - y^(k),    s = h / w,    d^(k), d^(k+1) the slopes,

    z     = y^(k) + h (s xi^2 + d^(k) xi (1 - xi)) / q,     q = s + (d^(k+1) + d^(k) - 2 s) xi (1 - xi)           eq. 4
    dz/dx = s^2 (d^(k+1) xi^2 + 2 s xi (1 - xi) + d^(k) (1 - xi)^2) / q^2                                         eq. 5

It rises wherever the slopes are positive, and solving it for x is solving a quadratic equation. Outside [-B, B] it is
the identity, and it joins that smoothly: the slope at both ends is 1. One such curve can have as many steep and flat
places as it has pieces; that is what a density with gaps needs. The way there is an op, `ops.rational_quadratic`; the
way back stands here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinygen import ops
from tinygen.errors import InputError
from tinygen.models.flow import Bijection, Composition, per_example, values
from tinygen.nn import MLP, initialise
from tinygen.ops.splines import LEAST, pieces
from tinygen.random import Generator

UNIT_SLOPE = math.log(math.expm1(1 - LEAST))  # softplus of this, plus LEAST, is 1


class Piece(NamedTuple):
    """For each number the piece of its curve that it falls on: its lower left corner, its size, and the slopes."""

    x: Any
    y: Any
    w: Any
    h: Any
    left: Any
    right: Any


def rational_quadratic(x: Any, raw: Any, bound: float) -> tuple[Any, Any]:
    """z and log dz/dx for each x (...), on the curves that `raw` (..., 3 K - 1) describes (see `knots`)."""
    k = (raw.shape[-1] + 1) // 3
    widths, heights, slopes = ops.split(raw, [k, 2 * k], axis=-1)
    return ops.rational_quadratic(x, widths, heights, slopes + UNIT_SLOPE, bound=bound)


def inverse_rational_quadratic(z: Any, raw: Any, bound: float) -> Any:
    """The x whose curve leads to z: the root in [0, 1] of a xi^2 + b xi + c = 0, with a, b and c of eq. 6 to 8.

    That root is 2 c / (-b - r) = (r - b) / (2 a) with r = sqrt(b^2 - 4 a c). Where b is negative the first form would
    subtract numbers that may be nearly equal, where it is not the second; and a can be 0 only there.

    The way there may run on a kernel, whose knots are rounded otherwise than those here. One step of Newton's method on
    that way itself, x - (z(x) - z) / (dz/dx), makes the two agree as far as float32 can.
    """
    inside, z_ = np.abs(values(z)) < bound, ops.clip(z, -bound, bound)
    p = _piece(z_, raw, bound)
    s, y = p.h / p.w, z_ - p.y
    bend = y * (p.right + p.left - 2 * s)
    a, b, c = p.h * (s - p.left) + bend, p.h * p.left - bend, -s * y
    r = ops.sqrt(ops.maximum(b * b - 4 * a * c, 0.0))
    falls = values(b) < 0
    xi = ops.where(falls, r - b, 2 * c) / ops.where(falls, 2 * a, -b - r)
    x = ops.where(inside, p.x + ops.clip(xi, 0, 1) * p.w, z)
    there, log_slope = rational_quadratic(x, raw, bound)
    return x - (there - z) * ops.exp(-log_slope)


def knots(raw: Any, bound: float) -> tuple[Any, Any, Any]:
    """Unconstrained numbers (..., 3 K - 1) as the sizes of K pieces (..., 2, K), width and height, their lower left
    corners (..., 2, K), and the slopes at all K + 1 knots (..., K + 1). All zeros give the identity.

    Widths and heights are shares of 2B, by a softmax; the slopes between pieces go through a softplus.
    """
    k = (raw.shape[-1] + 1) // 3
    corners, sizes = pieces(ops.reshape(raw[..., : 2 * k], (*raw.shape[:-1], 2, k)), bound)
    inner = LEAST + ops.softplus(raw[..., 2 * k :] + UNIT_SLOPE)
    ends = np.ones((*raw.shape[:-1], 1), raw.dtype)
    return sizes, corners, ops.concatenate([ends, inner, ends], axis=-1)


def _piece(z: Any, raw: Any, bound: float) -> Piece:
    """The piece of its curve on which each z falls."""
    sizes, corners, slopes = knots(raw, bound)
    number = np.sum(values(z)[..., None] >= values(corners)[..., 1, 1:], axis=-1)
    here = ops.one_hot(number, sizes.shape[-1], dtype=raw.dtype)
    at = lambda table: ops.sum(table * here, axis=-1)  # picks one, quicker than an index
    return Piece(
        x=at(corners[..., 0, :]),
        y=at(corners[..., 1, :]),
        w=at(sizes[..., 0, :]),
        h=at(sizes[..., 1, :]),
        left=at(slopes[..., :-1]),
        right=at(slopes[..., 1:]),
    )


class SplineCoupling(Bijection):
    """z_a = x_a, and z_b = the curves that net(x_a) draws, of x_b; log |det| = the sum of their log-slopes (sec. 3.1).

    net:      a Module: x_a (N, ..., features // 2) -> (N, ..., (features - features // 2) (3 K - 1))
    features: of x; the first half of them is kept, or the second half, if `swap`
    bound:    B: data should lie in [-B, B]
    """

    def __init__(self, net: Callable, features: int, bins: int, bound: float, swap: bool = False):
        if features < 2 or not 2 <= bins <= 500 or not bound > 0:
            raise InputError(
                f"SplineCoupling: features must be at least 2, bins 2 to 500 and bound positive, not {features}, "
                f"{bins} and {bound}."
            )
        self.net, self.bins, self.bound, self.swap = net, bins, bound, swap
        self.first = features // 2

    def forward(self, x: Any) -> tuple[Any, Any]:
        kept, moved = self._halves(x)
        z, log_slope = rational_quadratic(moved, self._curves(kept, moved), self.bound)
        return self._whole(kept, z), per_example(log_slope)

    def inverse(self, z: Any) -> Any:
        kept, moved = self._halves(z)
        return self._whole(kept, inverse_rational_quadratic(moved, self._curves(kept, moved), self.bound))

    def _curves(self, kept: Any, moved: Any) -> Any:
        return ops.reshape(self.net(kept), (*moved.shape, 3 * self.bins - 1))

    def _halves(self, x: Any) -> tuple[Any, Any]:
        halves = x[..., : self.first], x[..., self.first :]
        return halves[::-1] if self.swap else halves

    def _whole(self, kept: Any, moved: Any) -> Any:
        return ops.concatenate([moved, kept] if self.swap else [kept, moved], axis=-1)


class SplineFlow(Composition):
    """Spline couplings of vectors (features,), whose networks are MLPs; the halves take turns."""

    def __init__(
        self,
        features: int,
        couplings: int = 4,
        width: int = 64,
        bins: int = 16,
        bound: float = 5.0,
        *,
        rng: Generator,
    ):
        layers = []
        for i in range(couplings):
            kept = features // 2 if i % 2 == 0 else features - features // 2
            sizes = [kept, width, width, (features - kept) * (3 * bins - 1)]
            net = MLP(sizes, ops.silu, rng=rng, last_init=initialise.zeros)
            layers.append(SplineCoupling(net, features, bins, bound, swap=i % 2 == 1))
        super().__init__(layers, shape=(features,))
