"""SiLU and GELU, element by element, in one pass: y = x s(x) with s the sigmoid, y = x Phi(x) with Phi the normal CDF.

    silu'(x) = s + x s (1 - s)             gelu'(x) = Phi(x) + x phi(x),    phi(x) = e^(-x^2 / 2) / sqrt(2 pi)

Memory: forward reads x and writes y, 8 bytes an element; backward reads g and x and writes the gradient, 12. Nothing is
kept but x: the sigmoid is cheaper to compute again than to fetch. Operations: SiLU about 20 an element, GELU about 35,
nearly all in one exp and one polynomial, with a division that runs beside them. Measured on one AVX-512 core at
(4096, 1024), of the bandwidth of a plain copy: SiLU 92 % forward and 90 % backward, GELU 62 % and 80 %, where its 33
instructions an element would allow 65 %.
"""

import numpy as np

from .compiling import kernel
from .elementary import HALF, ONE, exp_nonpositive, normal_cdf, sigmoid, sigmoids, silu_slope

float32 = np.float32
INV_SQRT_2_PI = float32(1 / np.sqrt(2 * np.pi))
TANH_RATE, TANH_CUBIC = float32(2 * np.sqrt(2 / np.pi)), float32(0.044715)


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
def gelu_slope(x):
    """gelu'(x)."""
    e = exp_nonpositive(-HALF * (x * x))
    return normal_cdf(x, e) + x * (e * INV_SQRT_2_PI)


@kernel
def gelu_backward(g, x, out):
    """out = g gelu'(x); all (elements,) float32."""
    for i in range(x.size):
        out[i] = g[i] * gelu_slope(x[i])


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
