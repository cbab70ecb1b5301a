"""Layer norm and RMS norm over the rows of a matrix (Ba et al. 2016; Zhang & Sennrich 2019).

    h = (x - mu) r,    r = 1 / sqrt(mean((x - mu)^2) + eps),    y = h gain + bias         RMS norm: mu = 0

Backward, with means over a row:   dL/dx = r (g gain - mean(g gain) - h mean(g gain h)),  the first mean 0 for RMS norm
                                   dL/dgain = sum over rows of g h,    dL/dbias = sum over rows of g

Backward takes mean(g gain) away before it multiplies by h, whose mean is zero only up to rounding.

Memory: a row is read three times in either pass, and all but the first time from the cache: 8 bytes an
element forward, 12 backward. Operations: 8 forward, 15 backward. The sums over rows grow in float32 for 16 rows at a
time, and these sums in float64.
"""

import numpy as np

from .compiling import kernel
from .elementary import ZERO
from .rows import dot, squared_distance, total

float32 = np.float32
BLOCK = 16                                                                      # rows


@kernel(fastmath={"reassoc"})
def sum_with_distance(g, gain, mean_d, x, mu):
    """sum_j (g_j gain_j - mean_d) (x_j - mu), in an order that suits the machine."""
    s = ZERO
    for j in range(x.size):
        s += (g[j] * gain[j] - mean_d) * (x[j] - mu)
    return s


@kernel
def layer_norm_forward(x, gain, bias, eps, centre, out, mean, scale):
    """x, out: (rows, C), gain, bias: (C,), all float32; eps: float; centre: bool, False for RMS norm.

    For the backward pass it writes `mean` (mu) and `scale` (r), (rows,).
    """
    rows, features = x.shape
    for i in range(rows):
        mu = total(x[i]) / float32(features) if centre else ZERO
        r = float32(1) / np.sqrt(squared_distance(x[i], mu) / float32(features) + float32(eps))
        for j in range(features):
            out[i, j] = (x[i, j] - mu) * r * gain[j] + bias[j]
        mean[i], scale[i] = mu, r


@kernel
def layer_norm_backward(g, x, gain, centre, mean, scale, dx, dgain, dbias):
    """From g = dL/dy, (rows, C), writes dx of that shape, and dgain and dbias, (C,) float32."""
    rows, features = x.shape
    gain_sum, bias_sum = np.zeros(features), np.zeros(features)
    gain_block, bias_block = np.zeros(features, float32), np.zeros(features, float32)
    for start in range(0, rows, BLOCK):
        for i in range(start, min(start + BLOCK, rows)):
            mu, r = mean[i], scale[i]
            mean_d = dot(g[i], gain) / float32(features) if centre else ZERO
            mean_dh = sum_with_distance(g[i], gain, mean_d, x[i], mu) * r / float32(features)
            for j in range(features):
                h = (x[i, j] - mu) * r
                dx[i, j] = r * ((g[i, j] * gain[j] - mean_d) - h * mean_dh)
                gain_block[j] += g[i, j] * h
                bias_block[j] += g[i, j]
        for j in range(features):
            gain_sum[j] += gain_block[j]
            bias_sum[j] += bias_block[j]
            gain_block[j] = bias_block[j] = ZERO
    for j in range(features):
        dgain[j], dbias[j] = gain_sum[j], bias_sum[j]
