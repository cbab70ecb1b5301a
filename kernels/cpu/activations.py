"""SiLU and GELU, element by element, in one pass: y = x s(x) with s the sigmoid, y = x Phi(x) with Phi the normal CDF.

    silu'(x) = s + x s (1 - s)             gelu'(x) = Phi(x) + x phi(x),    phi(x) = e^(-x^2 / 2) / sqrt(2 pi)

Memory: forward reads x and writes y, 8 bytes an element; backward reads g and x and writes the gradient, 12. Nothing is
kept but x: the sigmoid is cheaper to compute again than to fetch. Operations: SiLU about 25 an element, GELU about 45,
nearly all in one exp. Either sigmoid is made of e^(-|x|), which cannot overflow.

Phi comes from its tail, 1 - Phi(|x|) = e^(-x^2 / 2) p(t) with t = 1 / (1 + 0.3 |x|). The polynomial p was fitted to
erfcx(|x| / sqrt 2) / 2 by reweighted least squares, which leaves an error of at most 3e-9 in the tail; what remains is
the rounding of float32, under 2e-7.
"""

import numpy as np

from .compiling import kernel
from .rows import HALF, ONE, ZERO, exp_nonpositive

float32 = np.float32
INV_SQRT_2_PI = float32(1 / np.sqrt(2 * np.pi))
RATE = float32(0.3)
P1, P2, P3, P4 = float32(0.11977399), float32(0.11855232), float32(0.11215289), float32(0.09406992)
P5, P6, P7, P8 = float32(0.00109587), float32(0.15656715), float32(-0.13300612), float32(0.03079398)
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
    tail = e * t * (P1 + t * (P2 + t * (P3 + t * (P4 + t * (P5 + t * (P6 + t * (P7 + t * P8)))))))
    return ONE - tail if x >= ZERO else tail


@kernel
def silu_slope(x):
    """silu'(x)."""
    s = sigmoid(x)
    return s * (ONE + x * (ONE - s))


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
        s = sigmoid(TANH_RATE * (x[i] + TANH_CUBIC * (x[i] * square)))
        slope = TANH_RATE * (ONE + float32(3) * TANH_CUBIC * square)
        out[i] = g[i] * (s * (ONE + x[i] * (ONE - s) * slope))
