"""Ops that work on each element by itself, with NumPy's names and broadcasting.

At kinks the derivative is a choice, stated here and tested: abs'(0) = 0, relu'(0) = 0, leaky_relu'(0) = slope,
elu'(0) = alpha; clip passes the gradient at its bounds; maximum and minimum give half to each of two equal operands.
sqrt'(0) is infinite, and so is the gradient there unless the incoming one is 0, which stays 0.
"""

from __future__ import annotations

import math

import numpy as np

from tinygen.arrays import special, xp
from tinygen.domains import above_one, arrays, nonzero, positive, probability, real, unit
from tinygen.errors import DtypeError
from tinygen.registry import op
from tinygen.tensor import DTYPES, KINDS

# -- arithmetic ------------------------------------------------------------------------------------------------------

add = op("add", forward=np.add, vjp=(lambda g: g, lambda g: g), inputs=arrays(real, real))
subtract = op("subtract", forward=np.subtract, vjp=(lambda g: g, lambda g: -g), inputs=arrays(real, real))
multiply = op("multiply", forward=np.multiply, vjp=(lambda g, b: g * b, lambda g, a: g * a), inputs=arrays(real, real))
divide = op(
    "divide",
    forward=np.true_divide,
    vjp=(lambda g, b: g / b, lambda g, b, out: -g * out / b),
    inputs=arrays(real, nonzero),
)
negative = op("negative", forward=np.negative, vjp=lambda g: -g, inputs=arrays(real))
reciprocal = op("reciprocal", forward=lambda x: 1.0 / x, vjp=lambda g, out: -g * out * out, inputs=arrays(nonzero))
square = op("square", forward=np.square, vjp=lambda g, x: g * (2 * x), inputs=arrays(real))
absolute = op("abs", forward=np.abs, vjp=lambda g, x: g * sign(x), inputs=arrays(real))
abs = absolute  # noqa: A001 (NumPy's name, as `ops.abs`)
sign = op("sign", forward=np.sign, vjp=lambda g: g * 0, inputs=arrays(nonzero))
round = op("round", forward=np.rint, vjp=lambda g: g * 0, inputs=arrays(real))  # noqa: A001
floor = op("floor", forward=np.floor, vjp=lambda g: g * 0, inputs=arrays(real))
ceil = op("ceil", forward=np.ceil, vjp=lambda g: g * 0, inputs=arrays(real))
floor_divide = op("floor_divide", forward=np.floor_divide, vjp=(lambda g: g * 0,) * 2, inputs=arrays(real, nonzero))
remainder = op(
    "remainder",
    forward=np.remainder,
    vjp=(lambda g: g, lambda g, a, b: -g * floor(a / b)),
    inputs=arrays(real, nonzero),
)


@op(inputs=arrays(positive, real))
def power(a, b, /):
    """a to the power b. For a == 0 the derivative by b is 0 (b > 0); by a constant 0 or 1 it is exact everywhere."""
    return xp(a, b).power(a, b)


def _power_vjp_base(g, a, b):
    if isinstance(b, int | float):  # a constant exponent, as in x**2: no 0**-1 at b = 0
        return g * (b * a ** (b - 1)) if b else g * 0
    return g * where(b == 0, 0.0, b * power(a, where(b == 0, 1.0, b - 1)))


def _power_vjp_exponent(g, a, out):
    return g * out * log(where(a == 0, 1.0, a))


power.vjp(_power_vjp_base, _power_vjp_exponent)

# -- exponentials and logarithms ---------------------------------------------------------------------------------------

exp = op("exp", forward=np.exp, vjp=lambda g, out: g * out, inputs=arrays(real))
expm1 = op("expm1", forward=np.expm1, vjp=lambda g, out: g * (out + 1), inputs=arrays(real))
log = op("log", forward=np.log, vjp=lambda g, x: g / x, inputs=arrays(positive))
log1p = op("log1p", forward=np.log1p, vjp=lambda g, x: g / (1 + x), inputs=arrays(positive))
logaddexp = op(
    "logaddexp",
    forward=np.logaddexp,
    vjp=(lambda g, a, b: g * sigmoid(a - _finite(b)), lambda g, a, b: g * sigmoid(b - _finite(a))),
    inputs=arrays(real, real),
)


def _finite(x):
    """x with its infinities made finite, so that two of -inf have the gradient 0 and not NaN."""
    return clip(x, -1e38, 1e38)




@op(inputs=arrays(positive))
def sqrt(x):
    """The square root. An incoming gradient of 0 stays 0 also where the derivative is infinite."""
    return xp(x).sqrt(x)


sqrt.vjp(lambda g, out: g / where(logical_and(g == 0, out == 0), 1.0, 2 * out))  # still linear in g where g is 0

# -- trigonometric and hyperbolic functions ----------------------------------------------------------------------------

sin = op("sin", forward=np.sin, vjp=lambda g, x: g * cos(x), inputs=arrays(real))
cos = op("cos", forward=np.cos, vjp=lambda g, x: -g * sin(x), inputs=arrays(real))
tan = op("tan", forward=np.tan, vjp=lambda g, out: g * (1 + out * out), inputs=arrays(unit))
arcsin = op("arcsin", forward=np.arcsin, vjp=lambda g, x: g / sqrt(1 - x * x), inputs=arrays(unit))
arccos = op("arccos", forward=np.arccos, vjp=lambda g, x: -g / sqrt(1 - x * x), inputs=arrays(unit))
arctan = op("arctan", forward=np.arctan, vjp=lambda g, x: g / (1 + x * x), inputs=arrays(real))
arctan2 = op(
    "arctan2",
    forward=np.arctan2,
    vjp=(lambda g, a, b: g * b / (a * a + b * b), lambda g, a, b: -g * a / (a * a + b * b)),
    inputs=arrays(nonzero, nonzero),
)
sinh = op("sinh", forward=np.sinh, vjp=lambda g, x: g * cosh(x), inputs=arrays(real))
cosh = op("cosh", forward=np.cosh, vjp=lambda g, x: g * sinh(x), inputs=arrays(real))
tanh = op("tanh", forward=np.tanh, vjp=lambda g, out: g * (1 - out * out), inputs=arrays(real))
arcsinh = op("arcsinh", forward=np.arcsinh, vjp=lambda g, x: g / sqrt(x * x + 1), inputs=arrays(real))
arccosh = op("arccosh", forward=np.arccosh, vjp=lambda g, x: g / sqrt(x * x - 1), inputs=arrays(above_one))
arctanh = op("arctanh", forward=np.arctanh, vjp=lambda g, x: g / (1 - x * x), inputs=arrays(unit))

# -- special functions -------------------------------------------------------------------------------------------------

_TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)
_SQRT_2_PI = math.sqrt(2 * math.pi)

erf = op(
    "erf",
    forward=lambda x: special(x).erf(x),
    vjp=lambda g, x: g * (_TWO_OVER_SQRT_PI * exp(-x * x)),
    inputs=arrays(real),
)
ndtr = op(
    "ndtr",
    forward=lambda x: special(x).ndtr(x),
    vjp=lambda g, x: g * (exp(-0.5 * (x * x)) / _SQRT_2_PI),
    inputs=arrays(real),
)
ndtr.__doc__ = "The CDF of the standard normal distribution."
ndtri = op(
    "ndtri",
    forward=lambda x: special(x).ndtri(x),
    vjp=lambda g, out: g * (_SQRT_2_PI * exp(0.5 * (out * out))),
    inputs=arrays(probability),
)
ndtri.__doc__ = "The quantile of the standard normal distribution: the inverse of `ndtr`."
lgamma = op(
    "lgamma", forward=lambda x: special(x).gammaln(x), vjp=lambda g, x: g * digamma(x), inputs=arrays(positive)
)
lgamma.__doc__ = "log |Gamma(x)|."
digamma = op(
    "digamma", forward=lambda x: special(x).digamma(x), vjp=lambda g, x: g * polygamma(x, 1), inputs=arrays(positive)
)
digamma.__doc__ = "The derivative of lgamma."


@op(inputs=lambda draw: ((draw.array(draw.shape(), positive),), {"n": draw.integer(1, 3)}))
def polygamma(x, /, n):
    """The n-th derivative of digamma, n >= 1: (-1)^(n+1) n! zeta(n + 1, x), with the Hurwitz zeta function."""
    return (-1.0) ** (n + 1) * math.factorial(n) * special(x).zeta(_like(n + 1, x), x)


polygamma.vjp(lambda g, x, n: g * polygamma(x, n + 1))


def _like(number, x):
    """The number as an array of x's dtype, for functions that would widen a plain one."""
    return xp(x).asarray(number, getattr(x, "dtype", None))


# -- activations -------------------------------------------------------------------------------------------------------


@op(inputs=arrays(real))
def sigmoid(x):
    """1 / (1 + exp(-x)), written with tanh, which overflows on neither side."""
    return 0.5 * xp(x).tanh(0.5 * x) + 0.5


sigmoid.vjp(lambda g, out: g * (out * (1 - out)))


@op(inputs=arrays(real))
def softplus(x):
    """log(1 + exp(x)), a smooth relu.

    Written as max(x, 0) + log(1 + exp(-|x|)), which cannot overflow: np.logaddexp computes the same, but not on vectors
    of elements at once, which takes 16 times as long.
    """
    return np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))


softplus.vjp(lambda g, x: g * sigmoid(x))


@op(inputs=arrays(real))
def log_sigmoid(x):
    """log(sigmoid(x)) = -softplus(-x), exact also where sigmoid(x) underflows."""
    return np.minimum(x, 0) - np.log1p(np.exp(-abs(x)))


log_sigmoid.vjp(lambda g, x: g * sigmoid(-x))


@op(inputs=arrays(real))
def relu(x):
    """max(x, 0), with derivative 0 at 0."""
    return xp(x).maximum(x, 0)


relu.vjp(lambda g, out: g * (out > 0))


@op(inputs=lambda draw: ((draw.array(draw.shape()),), {"slope": draw.choice([0.01, 0.2])}))
def leaky_relu(x, /, slope=0.01):
    """x where positive, slope x elsewhere, with derivative `slope` at 0."""
    if isinstance(slope, int | float) and 0 < slope <= 1:
        return xp(x).maximum(x, slope * x)  # where() guesses at random signs, and takes 20 times as long
    return xp(x).where(x > 0, x, slope * x)


@leaky_relu.vjp
def _(g, x, slope):
    above = greater(x, 0)
    return g * above + slope * (g * logical_not(above))


@op(inputs=lambda draw: ((draw.array(draw.shape()),), {"alpha": draw.choice([1.0, 1.5])}))
def elu(x, /, alpha=1.0):
    """x where positive, alpha (exp(x) - 1) elsewhere (Clevert et al. 2016), with derivative `alpha` at 0."""
    return xp(x).where(x > 0, x, alpha * xp(x).expm1(xp(x).minimum(x, 0)))


elu.vjp(lambda g, x, alpha: where(x > 0, g, alpha * (g * exp(minimum(x, 0.0)))))


# -- choosing and comparing --------------------------------------------------------------------------------------------

equal = op("equal", forward=np.equal, inputs=arrays(real, real))
not_equal = op("not_equal", forward=np.not_equal, inputs=arrays(real, real))
less = op("less", forward=np.less, inputs=arrays(real, real))
less_equal = op("less_equal", forward=np.less_equal, inputs=arrays(real, real))
greater = op("greater", forward=np.greater, inputs=arrays(real, real))
greater_equal = op("greater_equal", forward=np.greater_equal, inputs=arrays(real, real))
logical_and = op("logical_and", forward=np.logical_and, inputs=arrays(real, real))
logical_or = op("logical_or", forward=np.logical_or, inputs=arrays(real, real))
logical_xor = op("logical_xor", forward=np.logical_xor, inputs=arrays(real, real))
logical_not = op("logical_not", forward=np.logical_not, inputs=arrays(real))


def _bits(n):
    """`n` operands of integers or booleans of one shape."""

    def describe(draw):
        shape, high = draw.shape(), draw.choice([2, 100])
        operands = [draw.integers(shape, high) for _ in range(n)]
        return tuple(x > 0 if high == 2 else x for x in operands), {}

    return describe


bitwise_and = op("bitwise_and", forward=np.bitwise_and, inputs=_bits(2))  # of booleans: logical and, as x & y
bitwise_or = op("bitwise_or", forward=np.bitwise_or, inputs=_bits(2))
bitwise_xor = op("bitwise_xor", forward=np.bitwise_xor, inputs=_bits(2))
invert = op("invert", forward=np.invert, inputs=_bits(1))
isfinite = op("isfinite", forward=np.isfinite, inputs=arrays(real))
isnan = op("isnan", forward=np.isnan, inputs=arrays(real))


def _conditions(draw):
    (a, b), _ = arrays(real, real)(draw)
    return (draw.integers(draw.broadcastable(np.broadcast_shapes(a.shape, b.shape)), 2) > 0, a, b), {}


@op(inputs=_conditions, constants=("condition",))
def where(condition, a, b, /):
    """a where the condition holds, b elsewhere."""
    return xp(condition, a, b).where(condition, a, b)


where.vjp(None, lambda g, condition: where(condition, g, 0.0), lambda g, condition: where(condition, 0.0, g))


maximum = op(
    "maximum",
    forward=np.maximum,
    vjp=(lambda g, a, b: _share(g, a, b), lambda g, a, b: _share(g, b, a)),
    inputs=arrays(real, real),
)
minimum = op(
    "minimum",
    forward=np.minimum,
    vjp=(lambda g, a, b: _share(g, b, a), lambda g, a, b: _share(g, a, b)),
    inputs=arrays(real, real),
)


def _share(g, a, b):
    """The part of the gradient that goes to a if the larger gets it: all or nothing, a half where they are equal."""
    return g * greater(a, b) + (0.5 * g) * equal(a, b)


def _clips(draw):
    x = draw.array(draw.shape())
    bound = lambda: draw.array(draw.broadcastable(x.shape), positive)
    return (x, draw.choice([None, -1.0, -bound()]), draw.choice([None, 1.0, bound()])), {}


@op(inputs=_clips)
def clip(x, low=None, high=None, /):
    """x limited to [low, high], numbers or arrays, either of which may be None. At a bound x gets the gradient."""
    return xp(x).clip(x, low, high)


@clip.vjp
def _(g, x, low, high, needs):
    below = False if low is None else less(x, low)
    above = False if high is None else greater(x, high)
    inside = where(below, 0.0, where(above, 0.0, g)) if needs[0] else None
    return inside, where(below, g, 0.0) if needs[1] else None, where(above, g, 0.0) if needs[2] else None


# -- the same values ---------------------------------------------------------------------------------------------------

identity = op("identity", forward=lambda x: x[...], vjp=lambda g: g, inputs=arrays(real))
copy = op("copy", forward=lambda x: x.copy(), vjp=lambda g: g, inputs=arrays(real))


@op(inputs=lambda draw: ((draw.array(draw.shape()),), {"dtype": np.float64}))
def astype(x, /, dtype):
    """The values in another dtype; the gradient comes back in the old one."""
    if np.dtype(dtype) not in DTYPES:
        raise DtypeError(f"{np.dtype(dtype)} is not supported; use {KINDS}")
    return x.astype(dtype)


astype.vjp(lambda g: g)
