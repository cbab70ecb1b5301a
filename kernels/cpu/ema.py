"""The moving average of parameters: average = average + rate (theta - average), in one pass.

Memory: two arrays read and one written, 12 bytes a parameter; as array operations three passes and a temporary array.
"""

import numpy as np

from .compiling import kernel


@kernel
def move_average(average, theta, rate):
    """Updates `average` in place. Both arrays: (parameters,) float32, C-contiguous; rate: a Python float."""
    r = np.float32(rate)
    for i in range(average.size):
        average[i] += r * (theta[i] - average[i])
