"""The joint norm of many gradients, and scaling them all: global-norm clipping (Pascanu et al. 2013, algorithm 1).

    norm = sqrt(sum_i g_i^2),     g = g max_norm / norm   where norm > max_norm

Squares are added up in float64: the sum of a million keeps float32's digits, and none overflows, where in float32 one
gradient of 1e20 would. Memory: 4 bytes a parameter for the norm; 8 more to scale, which most steps of a training that
goes well can leave out.
"""

import numpy as np

from .compiling import kernel


@kernel
def sums_of_squares(grads, begin, end):
    """`sum_of_squares` of numbers begin ... end - 1 of all. A tuple of flat arrays."""
    at, total = 0, 0.0                                              # where array i begins
    for i in range(len(grads)):
        size = grads[i].size
        first, last = max(begin - at, 0), min(end - at, size)
        if first < last:
            total += sum_of_squares(grads[i][first:last])
        at += size
    return total


@kernel(fastmath={"reassoc"})
def sum_of_squares(x):
    """In float64, and in an order that suits the machine, which depends on the size alone; inf and NaN stay what they
    are. x: (numbers,) float32, C-contiguous."""
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


@kernel
def scale_all(grads, begin, end, factor):
    """`scale` for numbers begin ... end - 1 of all. A tuple of flat arrays."""
    at = 0
    for i in range(len(grads)):
        size = grads[i].size
        first, last = max(begin - at, 0), min(end - at, size)
        if first < last:
            scale(grads[i][first:last], factor)
        at += size


@kernel
def scale(x, factor):
    """Multiplies x, (numbers,) float32, by a Python float, in place."""
    f = np.float32(factor)
    for i in range(x.size):
        x[i] *= f
