"""What the kernels over rows share: sums, the shift that keeps the exponential from overflowing, exponentials with
their sum. A row is meant to fit into the first-level cache, so that the second and third look at it cost no memory
traffic.
"""

import numpy as np

from .compiling import kernel
from .elementary import INFINITY, ZERO, exp_nonpositive


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


@kernel(fastmath={"reassoc"})
def squared_distance(row, mu):
    """sum_j (row_j - mu)^2, in an order that suits the machine."""
    s = ZERO
    for j in range(row.size):
        s += (row[j] - mu) * (row[j] - mu)
    return s


@kernel(fastmath={"reassoc"})
def exponentials(row, m, out):
    """out_j = e^(row_j - m); returns their sum, taken in an order that suits the machine."""
    s = ZERO
    for j in range(row.size):
        e = exp_nonpositive(row[j] - m)
        out[j] = e
        s += e
    return s


@kernel(fastmath={"reassoc"})
def sum_exp(row, m):
    """sum_j e^(row_j - m), in an order that suits the machine."""
    s = ZERO
    for j in range(row.size):
        s += exp_nonpositive(row[j] - m)
    return s
