"""SiLU and GELU, element by element, in one pass: y = x s(x) with s the sigmoid, y = x Phi(x) with Phi the normal CDF.

    silu'(x) = s + x s (1 - s)             gelu'(x) = Phi(x) + x phi(x),    phi(x) = e^(-x^2 / 2) / sqrt(2 pi)

Memory: forward reads x and writes y, 8 bytes an element; backward reads g and x and writes the gradient, 12. Nothing is
kept but x: the sigmoid is cheaper to compute again than to fetch. Operations: SiLU about 25 an element, GELU about 45,
nearly all in one exp. Either sigmoid is made of e^(-|x|), which cannot overflow.

Phi comes from its tail, 1 - Phi(|x|) = e^(-x^2 / 2) p(t) with t = 1 / (1 + 0.35 |x|). The polynomial p of
degree 9 was fitted to erfcx(|x| / sqrt 2) / 2 for |x| up to 14 by reweighted least squares, which leaves a relative
error of at most 4e-8: less than the rounding of float32.
"""

import numpy as np

from .compiling import kernel
from .rows import HALF, ONE, ZERO, exp_nonpositive

float32 = np.float32
INV_SQRT_2_PI = float32(1 / np.sqrt(2 * np.pi))
RATE = float32(0.35)
P1, P2, P3 = float32(0.13962141), float32(0.13986176), float32(0.11983367)
P4, P5, P6 = float32(0.10550494), float32(-0.02310280), float32(0.15916420)
P7, P8, P9 = float32(-0.25570575), float32(0.14396767), float32(-0.02914512)
TANH_RATE, TANH_CUBIC = float32(2 * np.sqrt(2 / np.pi)), float32(0.044715)


@kernel
def sigmoid(x):
    """1 / (1 + e^(-x))."""
    e = exp_nonpositive(-abs(x))
    return (ONE if x >= ZERO else e) / (ONE + e)


@kernel
def normal_cdf(x, e):
    """Phi(x), given e = e^(-x^2 / 2)."""
    t = ONE / (ONE + RATE * abs(x))
    tail = e * t * (P1 + t * (P2 + t * (P3 + t * (P4 + t * (P5 + t * (P6 + t * (P7 + t * (P8 + t * P9))))))))
    return ONE - tail if x >= ZERO else tail


@kernel
def sigmoids(x):
    """s(x) and s(-x) = 1 - s(x), which keeps the digits that the difference would lose."""
    e = exp_nonpositive(-abs(x))
    larger = ONE / (ONE + e)
    smaller = e * larger
    return (larger, smaller) if x >= ZERO else (smaller, larger)


@kernel
def silu_slope(x):
    """silu'(x)."""
    s, rest = sigmoids(x)
    return s * (ONE + x * rest)


@kernel
def silu_forward(x, out):
    """x, out: (elements,) float32."""
    for i in range(x.size):
        out[i] = x[i] * sigmoid(x[i])


@kernel
def silu_backward(g, x, out):
    """out = g silu'(x); all (elements,) float32."""
    for i in range(x.size):
        out[i] = g[i] * silu_slope(x[i])


@kernel
def gelu_forward(x, out):
    """x, out: (elements,) float32."""
    for i in range(x.size):
        out[i] = x[i] * normal_cdf(x[i], exp_nonpositive(-HALF * (x[i] * x[i])))


@kernel
def gelu_backward(g, x, out):
    """out = g gelu'(x); all (elements,) float32."""
    for i in range(x.size):
        e = exp_nonpositive(-HALF * (x[i] * x[i]))
        out[i] = g[i] * (normal_cdf(x[i], e) + x[i] * (e * INV_SQRT_2_PI))


@kernel
def gelu_tanh_forward(x, out):
    """x s(2u), u = sqrt(2 / pi) (x + .044715 x^3): (1 + tanh u) / 2 is s(2u). x, out: (elements,) float32."""
    for i in range(x.size):
        out[i] = x[i] * sigmoid(TANH_RATE * (x[i] + TANH_CUBIC * (x[i] * x[i] * x[i])))


@kernel
def gelu_tanh_backward(g, x, out):
    """out = g (s + x s (1 - s) 2u'), s = s(2u); all (elements,) float32."""
    for i in range(x.size):
        square = x[i] * x[i]
        s, rest = sigmoids(TANH_RATE * (x[i] + TANH_CUBIC * (x[i] * square)))
        slope = TANH_RATE * (ONE + float32(3) * TANH_CUBIC * square)
        out[i] = g[i] * (s * (ONE + x[i] * rest * slope))
