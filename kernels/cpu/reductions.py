"""Sums, variances and log-sum-exps: over the rows of a matrix here, down its columns in `columns`.

Memory: a row is read once, 4 bytes an element; where a second look is needed (variance: the mean first; log-sum-exp:
the largest first) the row is in the cache if it fits there. Operations: 1 an element for a sum, 3 for a variance, 19
for a log-sum-exp. Many partial sums grow side by side, which also keeps the rounding of long sums small; a row of more
than CHUNK numbers is added up in chunks, and these in float64.
"""

import numpy as np

from .batch_norm import moments
from .columns import sum_columns
from .compiling import kernel
from .elementary import INFINITY
from .rows import shift, squared_distance, sum_exp, total

float32 = np.float32
CHUNK = 4096


@kernel
def long_total(row):
    """The sum of a row, in float64."""
    s = 0.0
    for start in range(0, row.size, CHUNK):
        s += total(row[start : min(start + CHUNK, row.size)])
    return s


@kernel
def sum_rows(x, out):
    """out_i = sum_j x_ij. x: (rows, columns), out: (rows,), float32."""
    for i in range(x.shape[0]):
        out[i] = long_total(x[i])


@kernel
def var_rows(x, freedom, out):
    """out_i = sum_j (x_ij - mean_i)^2 / freedom."""
    rows, columns = x.shape
    for i in range(rows):
        mu, s = float32(long_total(x[i]) / columns), 0.0
        for start in range(0, columns, CHUNK):
            s += squared_distance(x[i, start : min(start + CHUNK, columns)], mu)
        out[i] = s / freedom


@kernel
def logsumexp_rows(x, out):
    """out_i = log sum_j e^(x_ij): -inf where all x are -inf, inf where one is inf."""
    for i in range(x.shape[0]):
        m = shift(x[i])
        if m == INFINITY:
            out[i] = m
            for value in x[i]:
                out[i] = value if value != value else out[i]                   # NaN beside it: NaN
        else:
            out[i] = np.log(sum_exp(x[i], m)) + m


@kernel
def sum_middle(x, out):
    """out_ac = sum_b x_abc. x: (A, B, C) float32, out: (A, C) float64."""
    for a in range(x.shape[0]):
        sum_columns(x[a], out[a])


@kernel
def moments_middle(x, out):
    """out_a = sum_b (x_abc - x_ahc) and sum_b (x_abc - x_ahc)^2, with h the middle of b. out: (A, 2, C) float64."""
    for a in range(x.shape[0]):
        moments(x[a], x[a, x.shape[1] // 2], out[a])
