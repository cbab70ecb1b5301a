"""Attention of one query for each head: what sampling asks for, token after token, of the keys that went by.

    y = softmax(q K^T scale) V,    q (F,), K (S, F), V (S, V)

Memory: K and V once each, from where they lie: they may stand at the front of a larger array, the memory of a cache,
which is not copied. There is nothing for tiles to gain, since every key is read once; operations: 2 (F + V) + 20 a key.
Four rows of V are added to y at a time, so that y is read and written a quarter as often; scores and weights are two
arrays, as a loop that writes what it reads is not vectorised. 256 heads of 64 keys (F = V = 32): 81 us, 50 GB/s.
"""

import numpy as np

from .compiling import kernel
from .elementary import ONE, ZERO
from .rows import dot, exponentials, shift

float32 = np.float32


@kernel
def attend_once(q, k, v, keys, scale, y, row_max, log_sum):
    """q: (B, F), k: (B, C, F), v: (B, C, V), of which the first `keys` >= 1 of C count. Writes y (B, V), and of each
    query the largest score and the logarithm of the sum of e^(score - largest) into row_max and log_sum (B,).
    """
    scores, weights = np.empty(keys, float32), np.empty(keys, float32)
    whole = keys // 4 * 4
    for n in range(q.shape[0]):
        for j in range(keys):
            scores[j] = dot(q[n], k[n, j]) * scale
        row_max[n] = shift(scores)
        l = exponentials(scores, row_max[n], weights)
        log_sum[n] = np.log(l) if l != ZERO else ZERO
        inverse = ONE / l if l != ZERO else ZERO                             # a query that sees only -inf gets zeros
        for b in range(v.shape[2]):
            y[n, b] = ZERO
        for j in range(0, whole, 4):
            w0, w1, w2, w3 = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
            for b in range(v.shape[2]):
                y[n, b] += (w0 * v[n, j, b] + w1 * v[n, j + 1, b]) + (w2 * v[n, j + 2, b] + w3 * v[n, j + 3, b])
        for j in range(whole, keys):
            for b in range(v.shape[2]):
                y[n, b] += weights[j] * v[n, j, b]
        for b in range(v.shape[2]):
            y[n, b] *= inverse
