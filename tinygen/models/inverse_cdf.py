"""Sampling by the inverse CDF: a uniform number in, a number of any distribution out.

Let F be the CDF of the density that is wanted and Q = F^-1 its quantile function. If u is uniform on (0, 1), then
x = Q(u) has the density, for P(Q(u) <= x) = P(u <= F(x)) = F(x). One increasing map carries all the randomness there
is from the one distribution to the other, which is what every deep generative model does in more dimensions. Three ways
to come by the map:

    normal_quantile  where mathematicians have worked it out: a ratio of polynomials, right to sixteen digits
    bisected         where F can be computed but not solved: halve an interval until it holds nothing but the answer
    QuantileMap      where there are only samples: a small increasing network, learned

Beside them stands Box and Muller's trick, which needs no quantile function at all: two uniforms make two normals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygen import ops
from tinygen.autograd import grad, no_grad
from tinygen.errors import InputError
from tinygen.nn import Module
from tinygen.random import Generator
from tinygen.tensor import Parameter, Tensor, tensor

__all__ = ["QuantileMap", "bisected", "box_muller", "normal_quantile", "pinball"]

# Wichura 1988, "Algorithm AS 241: The percentage points of the normal distribution", Applied Statistics 37(3), routine
# PPND16. Numerator and denominator of each of three ranges, from the highest power to the constant.
CENTRE = np.array([
    [2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0],
    [5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0],
])  # fmt: skip
SHOULDER = np.array([
    [7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0],
    [1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0],
])  # fmt: skip
TAIL = np.array([
    [2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0],
    [2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0],
])  # fmt: skip


def normal_quantile(p: ArrayLike) -> np.ndarray:
    """The z with Phi(z) = p, Phi being the CDF of N(0, 1): float64 of the shape of p, to a relative error of 1e-15.

    With q = p - 1/2 and r = (-log min(p, 1 - p))^(1/2), it is a ratio of polynomials of degree 7 in one variable:

        |q| <= 0.425:  z = q P(s) / Q(s),         s = 0.425^2 - q^2
        r <= 5:        z = +-P(s) / Q(s),         s = r - 1.6
        beyond, to the smallest p there is:       s = r - 5

    The root of a logarithm is what straightens the tails: Phi(-z) falls like exp(-z^2 / 2). 0 and 1 give -inf and inf.
    Small p keep all their digits, and p near 1 only those of 1 - p: of the upper tail take -normal_quantile(1 - p),
    with 1 - p computed where it is small. Raises InputError for what is no probability.
    """
    p = np.asarray(p, np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise InputError("normal_quantile: p must be probabilities, from 0 to 1; NaN and what lies outside are none.")
    q = p - 0.5
    with np.errstate(divide="ignore"):  # log 0 = -inf is right: the quantile of 0 is -inf
        r = np.sqrt(-np.log(np.where(q < 0, p, 1 - p)))
    centre, inner = np.abs(q) <= 0.425, np.minimum(r, 5)
    z = np.where(centre, q * _ratio(CENTRE, 0.180625 - q * q), np.copysign(_ratio(SHOULDER, inner - 1.6), q))
    outer = np.isfinite(r) & (r > 5)
    z = np.where(outer, np.copysign(_ratio(TAIL, np.where(outer, r, 5) - 5), q), z)
    return np.where(np.isposinf(r), np.copysign(np.inf, q), z)


def _ratio(polynomials: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Two polynomials at s, by Horner's rule, the first over the second."""
    above, below = (np.full_like(s, c) for c in polynomials[:, 0])
    for a, b in polynomials[:, 1:].T:
        above, below = above * s + a, below * s + b
    return above / below


def box_muller(u1: ArrayLike, u2: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two independent standard normals from two independent uniforms on [0, 1) (Box & Muller 1958).

        z1 = (-2 log(1 - u1))^(1/2) cos 2 pi u2,    z2 = (-2 log(1 - u1))^(1/2) sin 2 pi u2

    The plane's normal density exp(-r^2 / 2) / (2 pi) is round, and the square of its radius has an exponential
    distribution, whose quantile function is a logarithm: the inverse CDF again, only in polar coordinates. 1 - u1 is as
    uniform as u1 and never 0. Since it is at least 2^-53, no |z| above 8.572 ever comes out.
    """
    u1, u2 = np.asarray(u1, np.float64), np.asarray(u2, np.float64)
    if not (np.all((u1 >= 0) & (u1 < 1)) and np.all((u2 >= 0) & (u2 < 1))):
        raise InputError("box_muller: u1 and u2 must be uniform numbers from 0 to 1, 1 itself left out.")
    radius, angle = np.sqrt(-2 * np.log1p(-u1)), 2 * np.pi * u2
    return radius * np.cos(angle), radius * np.sin(angle)


def bisected(cdf: Callable[[np.ndarray], np.ndarray], u: ArrayLike, low: float, high: float) -> np.ndarray:
    """Q(u) for a continuous CDF that can only be evaluated, by halving [low, high] 60 times; the shape of u, float64.

    Each step costs one evaluation and gives one bit, whatever F looks like. Raises InputError where the answer does not
    lie between low and high.
    """
    u = np.asarray(u, np.float64)
    below, above = np.full(u.shape, float(low)), np.full(u.shape, float(high))
    if not np.all((cdf(below) <= u) & (u <= cdf(above))):
        raise InputError(f"bisected: some quantiles do not lie in [{low:g}, {high:g}]; take a wider interval.")
    for _ in range(60):
        middle = (below + above) / 2
        right = cdf(middle) < u
        below, above = np.where(right, middle, below), np.where(right, above, middle)
    return (below + above) / 2


class QuantileMap(Module):
    """A quantile function learned from samples: x = Q(u) = f(Phi^-1(u)), with f an increasing network of one layer.

        f(z) = shift + e^scale z + sum_j e^(a_j) tanh(e^(b_j) (z - c_j))

    A sum of increasing functions increases, so that f has an inverse whatever the parameters are (Sill 1998, "Monotonic
    networks"). Where f is steep, few u lead and few x lie: a gap between two modes. Far out f is a straight line, and
    the tails are those of a normal distribution; other tails want another start than Phi^-1.

    units: how many steps f can climb
    low, high: where the data lie, roughly; the untrained map is spread over it
    """

    def __init__(self, units: int = 32, low: float = -1.0, high: float = 1.0):
        if units < 1 or not (np.isfinite([low, high]).all() and low < high):
            raise InputError(f"QuantileMap: units must be at least 1 and low < high, not {units}, {low} and {high}.")
        half = (high - low) / 2
        self.shift = Parameter(np.array((low + high) / 2, np.float32))
        self.scale = Parameter(np.array(np.log(half / 4), np.float32))
        self.a = Parameter(np.full(units, np.log(half / (2 * units)), np.float32))  # together they climb half the way
        self.b = Parameter(np.full(units, np.log(units / 5), np.float32))  # as steep as they are close
        self.c = Parameter(np.linspace(-2.5, 2.5, units, dtype=np.float32))

    def forward(self, u: ArrayLike) -> Tensor:
        """Q(u), float32 of the shape of u, for u between 0 and 1."""
        return self.increasing(normal_quantile(u).astype(np.float32))

    def increasing(self, z: Any) -> Tensor:
        """f(z), of the shape of z."""
        steps = ops.tanh(ops.exp(self.b) * (z[..., None] - self.c))
        return self.shift + ops.exp(self.scale) * z + ops.sum(ops.exp(self.a) * steps, axis=-1)

    def loss(self, x: ArrayLike, rng: Generator) -> Tensor:
        """The mean pinball loss of samples x (n,) at n levels u, one in each n-th of (0, 1).

        Over all levels that is half the continuous ranked probability score (Gneiting & Raftery 2007), of
        which the true Q alone has the least. Every x is compared with every level, (n, n) numbers. To sort x and match
        Q(u) to it would be a biased estimate of the Wasserstein distance, least for a Q too narrow.
        """
        x = np.asarray(x, np.float32)
        u = (np.arange(len(x)) + rng.uniform(len(x), dtype=np.float64)) / len(x)
        return ops.mean(pinball(x[:, None] - self(u), u.astype(np.float32)))

    def density(self, u: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """x = Q(u) and p(x) there, both of the shape of u: p(x) = N(z; 0, 1) / f'(z) with z = Phi^-1(u).

        The change of variables in one dimension. The slope is taken by the engine, as the gradient of sum_i f(z_i).
        """
        z = tensor(normal_quantile(u).astype(np.float32), requires_grad=True)
        x = self.increasing(z)
        slope = grad(ops.sum(x), z).numpy()
        return x.numpy(), np.exp(-(z.numpy() ** 2) / 2) / np.sqrt(2 * np.pi) / slope

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """n numbers Q(u) with u uniform, float32 (n,)."""
        u = rng.uniform(n, dtype=np.float64)
        with no_grad():
            return self(np.maximum(u, 2.0**-54)).numpy()  # 0 itself may be drawn, and has no finite quantile


def pinball(residual: Any, u: Any) -> Any:
    """The loss of which the u-quantile is the least: u r where r >= 0, (u - 1) r below (Koenker & Bassett 1978).

    residual r = x - q. Its mean over x has the slope F(q) - u: too many below pull q down, too few push it up.
    """
    return ops.maximum(u * residual, (u - 1) * residual)
