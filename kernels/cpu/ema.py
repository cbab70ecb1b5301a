"""The moving average of parameters: average = average + rate (theta - average), in one pass over many arrays.

Memory: two arrays read and one written, 12 bytes a parameter; as array operations three passes and a temporary array.
"""

import numpy as np

from .compiling import kernel


@kernel
def move_averages(averages, thetas, begin, end, rate):
    """`move_average` for parameters begin ... end - 1 of all. Tuples of flat arrays, whose i-th are of one size."""
    at = 0                                                          # where array i begins
    for i in range(len(averages)):
        size = averages[i].size
        first, last = max(begin - at, 0), min(end - at, size)
        if first < last:
            move_average(averages[i][first:last], thetas[i][first:last], rate)
        at += size


@kernel
def move_average(average, theta, rate):
    """Updates `average` in place. Both arrays: (parameters,) float32, C-contiguous; rate: a Python float."""
    r = np.float32(rate)
    for i in range(average.size):
        average[i] += r * (theta[i] - average[i])
