"""Scaled dot-product attention, y = softmax(q k^T scale + mask) v, of which no more than a tile of weights ever exists.

The weights of T queries for S keys would be a T x S matrix for each head and sequence, written and read several times.
Here a tile of 64 queries goes through the keys 64 at a time, keeps for each query the largest score m so far and the
sum l of e^(score - m), and rescales both and the output when m grows ("online softmax": Milakov & Gimelshein 2018; in
attention: Dao et al. 2022, algorithm 1). Under a causal mask, tiles of later keys are left out.

Backward computes each tile of weights again, P = e^(score - m - log l), from the m and log l that forward kept:

    dV = P^T g,    dP = g V^T,    dS = P (dP - D),  D = rowsum(g y),    dQ = dS K scale,    dK = dS^T Q scale

Memory: q, k, v and y once each, and two numbers per query; a tile is 16 kB and stays in the first-level cache.
Operations: 4 F per weight forward and 10 F backward in sgemm, and about 25 in exp in either pass: at F = 32 exp and
softmax are a good part of the time. The sgemm is that of SciPy's BLAS, where Numba finds it.
"""

import numpy as np

from .compiling import kernel
from .elementary import INFINITY, ONE, ZERO, exp_nonpositive
from .rows import dot, shift, total

float32 = np.float32
TILE = 64
NO_MASK, ALLOWED, ADDED = 0, 1, 2


@kernel
def mask_tile(s, scale, i, j, reach, kind, allowed, added):
    """Scales the scores s of queries i, ... for keys j, ... and adds the mask; -inf where a query may not attend.

    Query i sees keys up to i + reach. `allowed` or `added`, as `kind` says, is the mask (T, S) of this head.
    """
    rows, columns = s.shape
    for a in range(rows):
        for b in range(columns):
            s[a, b] *= scale
        if kind == ALLOWED:
            for b in range(columns):
                s[a, b] = s[a, b] if allowed[i + a, j + b] else -INFINITY
        elif kind == ADDED:
            for b in range(columns):
                s[a, b] += added[i + a, j + b]
        for b in range(max(0, i + a + reach + 1 - j), columns):
            s[a, b] = -INFINITY


@kernel
def add(source, to):
    """to += source, two matrices."""
    for a in range(to.shape[0]):
        for b in range(to.shape[1]):
            to[a, b] += source[a, b]


@kernel
def absorb(s, m, l, y):
    """A tile of scores into the running softmax: s becomes e^(s - m); m, l (rows,) and y (rows, V) are kept up."""
    rows, columns = s.shape
    for a in range(rows):
        largest = shift(s[a])
        if l[a] > ZERO and m[a] > largest:
            largest = m[a]
        rescale = exp_nonpositive(m[a] - largest) if l[a] > ZERO else ZERO
        for b in range(columns):
            s[a, b] = exp_nonpositive(s[a, b] - largest)
        l[a] = l[a] * rescale + total(s[a])
        m[a] = largest
        for b in range(y.shape[1]):
            y[a, b] *= rescale


@kernel
def attention_forward(q, k, v, scale, causal, kind, allowed, added, which, y, row_max, log_sum):
    """q: (B, T, F), k: (B, S, F), v: (B, S, V), y: (B, T, V), row_max, log_sum: (B, T); float32, none of them empty.

    allowed (bool) or added: (masks, T, S), of which head b has number which[b]; kind: NO_MASK, ALLOWED or ADDED. The
    one that is not used holds a single number.
    """
    T, S, V = q.shape[1], k.shape[1], v.shape[2]
    reach = S - T if causal else S
    scores, product = np.empty(TILE * TILE, float32), np.empty((TILE, V), float32)
    for n in range(q.shape[0]):
        Q, K, values, Y, m, l = q[n], k[n], v[n], y[n], row_max[n], log_sum[n]
        may, plus = allowed[which[n] if kind == ALLOWED else 0], added[which[n] if kind == ADDED else 0]
        for i in range(0, T, TILE):
            end = min(i + TILE, T)
            for a in range(i, end):
                m[a] = l[a] = ZERO
                for b in range(V):
                    Y[a, b] = ZERO
            for j in range(0, min(S, max(0, end + reach)), TILE):
                last = min(j + TILE, S)
                s = scores[: (end - i) * (last - j)].reshape(end - i, last - j)
                np.dot(Q[i:end], K[j:last].T, s)
                mask_tile(s, scale, i, j, reach, kind, may, plus)
                absorb(s, m[i:end], l[i:end], Y[i:end])
                np.dot(s, values[j:last], product[: end - i])
                add(product[: end - i], Y[i:end])
            for a in range(i, end):
                inverse = ONE / l[a] if l[a] != ZERO else ZERO           # a query that may attend to nothing gets zeros
                for b in range(V):
                    Y[a, b] *= inverse
                l[a] = np.log(l[a]) if l[a] != ZERO else ZERO


@kernel
def weights_and_slopes(s, dp, m, log_l, d, alone):
    """s becomes the weights P = e^(s - m - log l), dp the slope dS = P (dP - D) of the scores.

    Where the tile holds all keys (`alone`), D is rowsum(P dP), the same in exact numbers but rounded like dP itself.
    """
    rows, columns = s.shape
    for a in range(rows):
        for b in range(columns):
            s[a, b] = exp_nonpositive((s[a, b] - m[a]) - log_l[a])
        mean = dot(s[a], dp[a]) if alone else d[a]
        for b in range(columns):
            dp[a, b] = s[a, b] * (dp[a, b] - mean)


@kernel
def attention_backward(
    g, q, k, v, scale, causal, kind, allowed, added, which, y, row_max, log_sum, dq, dk, dv, ds, wants_ds
):
    """From g = dL/dy adds to dq, dk, dv, which begin as zeros; and if `wants_ds` to ds (B, T, S), for an added mask."""
    T, S, F, V = q.shape[1], k.shape[1], q.shape[2], v.shape[2]
    reach = S - T if causal else S
    scores, slopes, d = np.empty(TILE * TILE, float32), np.empty(TILE * TILE, float32), np.empty(TILE, float32)
    product, product_v = np.empty((TILE, F), float32), np.empty((TILE, V), float32)
    for n in range(q.shape[0]):
        G, Q, K, values, m, l = g[n], q[n], k[n], v[n], row_max[n], log_sum[n]
        may, plus = allowed[which[n] if kind == ALLOWED else 0], added[which[n] if kind == ADDED else 0]
        for i in range(0, T, TILE):
            end = min(i + TILE, T)
            for a in range(i, end):
                d[a - i] = ZERO
                for b in range(V):
                    d[a - i] += G[a, b] * y[n, a, b]
            keys = min(S, max(0, end + reach))
            for j in range(0, keys, TILE):
                last = min(j + TILE, S)
                s = scores[: (end - i) * (last - j)].reshape(end - i, last - j)
                dp = slopes[: (end - i) * (last - j)].reshape(end - i, last - j)
                np.dot(Q[i:end], K[j:last].T, s)
                mask_tile(s, scale, i, j, reach, kind, may, plus)
                np.dot(G[i:end], values[j:last].T, dp)
                weights_and_slopes(s, dp, m[i:end], l[i:end], d, keys <= TILE)
                np.dot(s.T, G[i:end], product_v[: last - j])
                add(product_v[: last - j], dv[n, j:last])
                if wants_ds:
                    add(dp, ds[n, i:end, j:last])
                for a in range(end - i):
                    for b in range(last - j):
                        dp[a, b] *= scale
                np.dot(dp, K[j:last], product[: end - i])
                add(product[: end - i], dq[n, i:end])
                np.dot(dp.T, Q[i:end], product[: last - j])
                add(product[: last - j], dk[n, j:last])
