"""Functions of one float32 number that many kernels need: exponential, sigmoid, softplus, the normal CDF.

The C library's expf and log1pf handle one number per call. What stands here is plain arithmetic without branches, which
the compiler turns into vector instructions, 8 or 16 numbers at a time, wherever a loop calls it: on an AVX-512 core at
4 GHz, e^x takes 0.11 ns an element. No liberties are taken that would need NaN or infinities to stay away; only a
product and the sum it goes into may be rounded once instead of twice, where the machine has such an instruction.
"""

import numpy as np

from .compiling import kernel

float32 = np.float32
ZERO, HALF, ONE, TWO = float32(0), float32(0.5), float32(1), float32(2)
INFINITY = float32(np.inf)

# -- exponential -------------------------------------------------------------------------------------------------------

LOWEST = float32(-87.3)                                  # e^LOWEST is still a normal float32; below it, the answer is 0
LOG2_E = float32(np.log2(np.e))
LN2_HIGH = float32(355 / 512)                            # nine bits, so that n * LN2_HIGH has no rounding error
LN2_LOW = float32(np.log(2) - 355 / 512)
SHIFTER = float32(1.5 * 2**23 + 127)                     # at this size float32 counts in ones: adding it rounds
C2, C3, C4 = float32(0.49999993), float32(0.1666652), float32(0.0416684)
C5, C6 = float32(0.00836885), float32(0.00138143)


@kernel
def exp_nonpositive(x):
    """e^x for a float32 x <= 0 (rounding above 0 does no harm), within 1 unit in the last place. NaN stays NaN.

    x = n ln 2 + r with |r| <= ln(2) / 2, so e^x = 2^n e^r. For e^r a polynomial with the least relative error, 3e-9, of
    those that begin with 1 + r. Adding SHIFTER rounds x / ln 2 to n and leaves n + 127 in the lowest bits: moved into
    the exponent they are 2^n. Results below 1.2e-38 are 0.
    """
    shifted = x * LOG2_E + SHIFTER
    n = shifted - SHIFTER
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    series = ONE + r * (ONE + r * (C2 + r * (C3 + r * (C4 + r * (C5 + r * C6)))))
    power_of_two = np.int32(float32(shifted).view(np.int32) << 23).view(np.float32)
    return ZERO if x < LOWEST else series * power_of_two


# -- sigmoid and softplus ----------------------------------------------------------------------------------------------

A1, A2 = float32(0.66666416), float32(0.40021534)
A3, A4 = float32(0.28001675), float32(0.28012681)


@kernel
def sigmoid(x):
    """s(x) = 1 / (1 + e^(-x)), of e^(-|x|), which cannot overflow."""
    e = exp_nonpositive(-abs(x))
    return (ONE if x >= ZERO else e) / (ONE + e)


@kernel
def sigmoids(x):
    """s(x) and s(-x) = 1 - s(x), which keeps the digits that the difference would lose."""
    e = exp_nonpositive(-abs(x))
    larger = ONE / (ONE + e)
    smaller = e * larger
    return (larger, smaller) if x >= ZERO else (smaller, larger)


@kernel
def silu_slope(x):
    """The derivative of silu(x) = x s(x): s + x s (1 - s)."""
    s, rest = sigmoids(x)
    return s * (ONE + x * rest)


@kernel
def softplus(x):
    """log(1 + e^x) = max(x, 0) + log(1 + u), u = e^(-|x|) in [0, 1], within 4 units in the last place.

    log(1 + u) = 2 artanh(z) with z = u / (2 + u), at most 1/3. Of artanh(z) / z, a series in z^2, a polynomial of
    degree 4 leaves a relative error of 5e-9.
    """
    u = exp_nonpositive(-abs(x))
    z = u / (TWO + u)
    w = z * z
    return (x if x >= ZERO else ZERO) + z * (TWO + w * (A1 + w * (A2 + w * (A3 + w * A4))))


# -- the normal distribution -------------------------------------------------------------------------------------------

RATE = float32(0.35)
P1, P2, P3 = float32(0.13962141), float32(0.13986176), float32(0.11983367)
P4, P5, P6 = float32(0.10550494), float32(-0.02310280), float32(0.15916420)
P7, P8, P9 = float32(-0.25570575), float32(0.14396767), float32(-0.02914512)


@kernel
def normal_cdf(x, e):
    """Phi(x), given e = e^(-x^2 / 2).

    It comes from its tail, 1 - Phi(|x|) = e p(t) with t = 1 / (1 + 0.35 |x|). The polynomial p of degree 9 was fitted
    to erfcx(|x| / sqrt 2) / 2 for |x| up to 14 by reweighted least squares, which leaves a relative error of at most
    4e-8: less than the rounding of float32.
    """
    t = ONE / (ONE + RATE * abs(x))
    tail = e * t * (P1 + t * (P2 + t * (P3 + t * (P4 + t * (P5 + t * (P6 + t * (P7 + t * (P8 + t * P9))))))))
    return ONE - tail if x >= ZERO else tail
