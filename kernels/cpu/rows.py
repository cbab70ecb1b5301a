"""What the kernels over rows of logits share: a vectorised exp, the shift that keeps it from overflowing, and sums.

exp costs most in such a row. The C library's expf handles one number per call; the polynomial below is plain arithmetic
that the compiler turns into vector instructions, 8 or 16 numbers at a time.
"""

import numpy as np

from .compiling import kernel

float32 = np.float32
ONE, HALF, ZERO = float32(1), float32(0.5), float32(0)
INFINITY = float32(np.inf)
LOWEST = float32(-87.3)                                  # e^LOWEST is still a normal float32; below it, the answer is 0
LOG2_E = float32(np.log2(np.e))
LN2_HIGH = float32(355 / 512)                            # nine bits, so that n * LN2_HIGH has no rounding error
LN2_LOW = float32(np.log(2) - 355 / 512)
C2, C3, C4, C5, C6, C7 = (float32(1 / c) for c in (2, 6, 24, 120, 720, 5040))                   # 1 / k!


@kernel
def exp_nonpositive(x):
    """e^x for a float32 x <= 0 (rounding above 0 does no harm), within 2 units in the last place. NaN stays NaN.

    x = n ln 2 + r with |r| <= ln(2) / 2, so e^x = 2^n e^r. The Taylor series of e^r up to r^7 leaves a relative
    remainder under 6e-9; 2^n is made by writing n into the exponent bits. Results below 1.2e-38 are 0.
    """
    inside = x if x > LOWEST else LOWEST                 # NaN goes here too: it has no integer part
    n = np.floor(inside * LOG2_E + HALF)
    r = (inside - n * LN2_HIGH) - n * LN2_LOW
    series = ONE + r * (ONE + r * (C2 + r * (C3 + r * (C4 + r * (C5 + r * (C6 + r * C7))))))
    power_of_two = np.int32((np.int32(n) + 127) << 23).view(np.float32)
    if x != x:
        return x
    return ZERO if x < LOWEST else series * power_of_two


@kernel
def in_order(bits):
    """The bits of a float32 as an int32 that sorts like the number does; and back: doing it twice changes nothing.

    Floats store sign and magnitude, so the larger the bits of a negative number, the smaller it is: flip all but the
    sign. A NaN sorts above +inf (or, with its sign bit set, below -inf).
    """
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@kernel
def shift(row):
    """The largest element, or 0 if there is none above -inf, so that `x - shift` is -inf, not NaN, in a masked row.

    A maximum of floats must be taken one by one, for the sake of NaN; of integers, many at a time: 14 times faster.
    """
    bits = row.view(np.int32)
    largest = np.int32(-(2**31))
    for j in range(row.size):
        largest = max(largest, in_order(bits[j]))
    x = np.int32(in_order(largest)).view(np.float32)
    return ZERO if row.size == 0 or x == -INFINITY else x


@kernel(fastmath={"reassoc"})
def total(row):
    """The sum, in an order that suits the machine; reordering leaves inf and NaN what they are."""
    s = ZERO
    for j in range(row.size):
        s += row[j]
    return s


@kernel(fastmath={"reassoc"})
def dot(a, b):
    """sum_j a_j b_j, in an order that suits the machine."""
    s = ZERO
    for j in range(a.size):
        s += a[j] * b[j]
    return s
