"""Cross-entropy of integer labels under logits, one value per row: loss_i = log sum_k e^(x_ik) - x_i,label(i).

Memory: row by row; forward reads the logits (4 bytes an element; the second look at a row finds it in the cache) and
writes three numbers per row, backward reads them again and writes the gradient (8 bytes an element). The softmax itself
is never stored. Operations: about 20 an element in either pass, nearly all in exp.

The log-sum-exp is handed to the backward pass in two parts, m_i + log s_i: m_i the largest logit of the row and
s_i = sum_k e^(x_ik - m_i). Added up in float32 they would lose the digits of log s_i wherever the logits are large, and
the gradient with them.

Conventions: a label whose logit is -inf costs inf, and its gradient is still softmax - onehot. In a row that is -inf
throughout there is nothing to choose from: the loss is NaN (and m_i + log s_i is -inf). So is that of a row with a NaN
or +inf.
"""

import numpy as np

from .compiling import kernel
from .elementary import ONE, exp_nonpositive
from .rows import shift, sum_exp


@kernel
def cross_entropy_forward(x, labels, loss, row_max, log_sum):
    """x: (rows, classes) float32; labels: (rows,) int64, each at least 0 and below `classes`.

    Writes `loss`, and for the backward pass `row_max` (m) and `log_sum` (log s), all (rows,) float32.
    """
    for i in range(x.shape[0]):
        m = shift(x[i])
        log_s = np.log(sum_exp(x[i], m))
        loss[i] = log_s - (x[i, labels[i]] - m)
        row_max[i] = m
        log_sum[i] = log_s


@kernel
def cross_entropy_backward(g, x, labels, row_max, log_sum, out):
    """out_ij = g_i (softmax(x_i)_j - [j = label_i]): (rows, classes) float32, from g = dL/dloss, (rows,) float32."""
    rows, classes = x.shape
    for i in range(rows):
        for j in range(classes):
            out[i, j] = g[i] * exp_nonpositive((x[i, j] - row_max[i]) - log_sum[i])
        y = labels[i]
        out[i, y] = g[i] * (exp_nonpositive((x[i, y] - row_max[i]) - log_sum[i]) - ONE)
