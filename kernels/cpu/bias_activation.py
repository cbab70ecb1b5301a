"""What follows the matrix product in a layer: y = f(z + bias), with f the identity, ReLU, SiLU or GELU, in one pass.

    backward:   dz = g f'(z + bias),    dL/dbias = the sum of dz over the rows

Memory: forward reads z and writes y, and for SiLU and GELU writes z + bias over z, which their slopes are computed
from: 12 bytes an element, and 8 for ReLU, whose slope can be told from y, which overwrites z. Backward reads g and z +
bias (or y) and writes dz, 12 bytes; eight rows of dz are added up while they are in the first-level cache. As ops of
their own, the sum with the bias, the activation and the bias gradient move twice as much. Operations: about 20 an
element for SiLU, 35 for GELU, 2 for ReLU. Rows are folded together (see `columns`).
"""

import numpy as np

from .activations import gelu_slope
from .columns import BLOCK, add_columns, fold, folded, repeat
from .compiling import kernel
from .elementary import HALF, ZERO, exp_nonpositive, normal_cdf, sigmoid, silu_slope

float32 = np.float32
RELU, SILU, GELU = 1, 2, 3


@kernel
def forward_rows(z, bias, kind, y):
    rows, C = z.shape
    for p in range(rows):
        if kind == RELU:
            for c in range(C):
                t = z[p, c] + bias[c]
                z[p, c] = ZERO if t < ZERO else t                               # NaN stays NaN
        elif kind == SILU:
            for c in range(C):
                t = z[p, c] + bias[c]
                z[p, c] = t
                y[p, c] = t * sigmoid(t)
        else:
            for c in range(C):
                t = z[p, c] + bias[c]
                z[p, c] = t
                y[p, c] = t * normal_cdf(t, exp_nonpositive(-HALF * (t * t)))


@kernel
def backward_rows(g, t, kind, dz):
    rows, C = t.shape
    for p in range(rows):
        if kind == RELU:
            for c in range(C):
                dz[p, c] = g[p, c] if t[p, c] > ZERO else ZERO
        elif kind == SILU:
            for c in range(C):
                dz[p, c] = g[p, c] * silu_slope(t[p, c])
        else:
            for c in range(C):
                dz[p, c] = g[p, c] * gelu_slope(t[p, c])


@kernel
def bias_activation_forward(z, bias, kind, y):
    """z, y: (rows, C), bias: (C,), all float32; kind: RELU, SILU or GELU. z becomes z + bias, or for RELU the result,
    and then y is not written to."""
    rows, C = z.shape
    k = folded(rows, C)
    biases, shape = np.empty((k, C), float32), (rows // k, k * C)
    repeat(bias, biases)
    forward_rows(z.reshape(shape), biases.reshape(k * C), kind, y.reshape(shape))


@kernel
def bias_activation_backward(g, t, kind, dz, dbias):
    """From g = dL/dy and t = z + bias (for RELU: y), (rows, C) float32, writes dz, and dbias, (C,) float64."""
    rows, C = t.shape
    k = folded(rows, C)
    sums, shape = np.zeros((k, C)), (rows // k, k * C)
    g, t, dz = g.reshape(shape), t.reshape(shape), dz.reshape(shape)
    for start in range(0, rows // k, BLOCK):
        part = slice(start, min(start + BLOCK, rows // k))
        backward_rows(g[part], t[part], kind, dz[part])
        add_columns(dz[part], sums.reshape(k * C))
    fold(sums, dbias)
