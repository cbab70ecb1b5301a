"""Matrix products on the threads of `share`, each of which calls a sgemm that has one thread of its own.

    c[..., i, j] = sum_p a[..., i, p] b[..., p, j]          (..., m, k) (..., k, n) -> (..., m, n)

Why not NumPy's: its BLAS starts threads of its own from about 2^19 multiplications on, and these go on spinning for
some 20 ms after the product, on cores that the next kernel wants. On two cores a U-Net's training step took twice as
long for it. So what is smaller than that stays with NumPy, and what is larger comes here: one pool owns the cores.

Blocking: sgemm copies ("packs") both matrices into its favourite order first, unless there are no more than 10^6
multiplications; then, on AVX-512 machines, it multiplies straight from where they lie, and faster. So a tall product is
cut into blocks of rows, a product summed over a long axis into blocks of terms that are added to c one after the other,
both of about that size; c, and the operand that every block reads, stay in the cache. What is large every way is left
to sgemm whole. Threads take some of the items of a batch, some of the rows, some of the columns, or, where c is small,
some of the terms: then each has a sum of its own, and these are added in order. A transposed matrix is not copied:
sgemm reads either way.

Memory: a and b are read once, c is written once; a product shared by rows reads b once for each thread. Operations:
2 m k n. Measured with one and with two threads, Gflop/s, where sgemm of 1024 x 1024 does 250 on one core:

    (50176, 72) (72, 24)        163, 293        a narrow layer over all pixels: bound by memory
    (72, 50176) (50176, 24)     159, 262        the gradient of its weights; NumPy: 124, 146
    (4096, 128) (128, 512)      248, 440
    256 of (64, 32) (32, 64)    226, 323        NumPy does not share these out: 241, 240
    (256, 128) (128, 128)       226             too little to be shared out; NumPy, its threads spinning: 225, 400
"""

import math

import numpy as np
from numba import types
from numba.np.linalg import _BLAS

from .compiling import kernel
from .threads import one_blas_thread, share, threads

float32 = np.float32
UNPACKED = 10**6                # multiplications up to which OpenBLAS does not pack the matrices first
ROWS, TERMS = 96, 24            # what a block has at least, to be worth more than what packing costs
WORTH_SHARING = 2**24           # multiplications that take 180 us, three times as long as sharing them out
FEW = 2**16                     # numbers in a result that each thread may have for itself

# -- one thread --------------------------------------------------------------------------------------------------------

_sgemm = _BLAS().numba_xxgemm(types.float32)                    # SciPy's, as Numba calls it for np.dot
ZERO_ONE = np.array([0, 1], float32)
ZERO = float32(0)
S, N, T = ord("s"), ord("n"), ord("t")


@kernel
def multiply(a, lda, a_turned, b, ldb, b_turned, c, ldc, m, k, n, add):
    """c = a b, or with add=1 c += a b. Rows of a matrix begin `ld` numbers apart; a turned one lies there transposed.

    The matrices begin where the flat arrays do. BLAS counts along columns, and so computes c^T = b^T a^T.
    """
    first, second = T if b_turned else N, T if a_turned else N
    one, add = ZERO_ONE[1:].ctypes, ZERO_ONE[add:].ctypes
    _sgemm(S, first, second, n, m, k, one, b.ctypes, ldb, a.ctypes, lda, add, c.ctypes, ldc)


@kernel
def multiply_row(a, b, ldb, c, k, n, add):
    """multiply(a, k, False, b, ldb, False, c, n, 1, k, n, add), faster than sgemm does it: b is read as it lies, and
    four rows of it are added to c at a time, so that c is read and written a quarter as often."""
    for j in range(n if add == 0 else 0):
        c[j] = ZERO
    start, whole = c[:n], k // 4 * 4
    for p in range(0, whole, 4):
        a0, a1, a2, a3 = a[p], a[p + 1], a[p + 2], a[p + 3]
        b0, b1, b2, b3 = b[p * ldb :], b[(p + 1) * ldb :], b[(p + 2) * ldb :], b[(p + 3) * ldb :]
        for j in range(n):
            start[j] += (a0 * b0[j] + a1 * b1[j]) + (a2 * b2[j] + a3 * b3[j])
    for p in range(whole, k):
        factor, row = a[p], b[p * ldb : p * ldb + n]
        for j in range(n):
            start[j] += factor * row[j]


@kernel
def multiply_in_blocks(a, lda, a_turned, b, ldb, b_turned, c, ldc, m, k, n, add):
    """The same, in blocks as the head of this file has them."""
    rows, terms = UNPACKED // (k * n), UNPACKED // (m * n)
    if m == 1 < n and lda == k and not (a_turned or b_turned):
        multiply_row(a, b, ldb, c, k, n, add)
    elif n == 1 < m and a_turned and ldb == ldc == 1:
        multiply_row(b, a, lda, c, k, m, add)
    elif m == 1 < n and b_turned and not a_turned:
        multiply(b, ldb, False, a, 1, False, c, 1, n, k, 1, add)
    elif rows >= m or (rows < ROWS and terms < TERMS) or b_turned:         # a turned b is faster packed
        multiply(a, lda, a_turned, b, ldb, b_turned, c, ldc, m, k, n, add)
    elif rows >= ROWS:
        for p in range(0, m, rows):
            part = a[p if a_turned else p * lda :]
            multiply(part, lda, a_turned, b, ldb, b_turned, c[p * ldc :], ldc, min(rows, m - p), k, n, add)
    else:
        for p in range(0, k, terms):
            part = a[p * lda if a_turned else p :]
            multiply(part, lda, a_turned, b[p * ldb :], ldb, b_turned, c, ldc, m, min(terms, k - p), n, 1 if p else add)


@kernel
def multiply_items(a, a_items, a_turned, b, b_items, b_turned, c, m, k, n, begin, end):
    """c[i] = a[a_items[i]] b[b_items[i]] for the items begin ... end - 1 of a batch, all flat."""
    lda, ldb = m if a_turned else k, k if b_turned else n
    for i in range(begin, end):
        x, y, z = a[a_items[i] * m * k :], b[b_items[i] * k * n :], c[i * m * n :]
        multiply_in_blocks(x, lda, a_turned, y, ldb, b_turned, z, n, m, k, n, 0)


# -- launching: float32 arrays in any layout, none of them empty, whose shapes chain -----------------------------------


def matmul(a, b):
    """As np.matmul: vectors on either side, matrices in the last two axes, leading axes that broadcast."""
    if a.ndim == 1 or b.ndim == 1:
        c = matmul(a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
        c = c[..., 0] if b.ndim == 1 else c
        return c if a.ndim > 1 else c[0] if b.ndim == 1 else c[..., 0, :]
    (m, k), n = a.shape[-2:], b.shape[-1]
    one_blas_thread()
    if a.ndim == b.ndim == 2:
        c = np.empty((m, n), float32)
        _one(*_flat(a), *_flat(b), c.reshape(-1), m, k, n)
        return c
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    c = np.empty((*batch, m, n), float32)
    (a, a_turned), a_items, (b, b_turned), b_items = _flat(a), _items(a, batch), _flat(b), _items(b, batch)
    operands = a, a_items, a_turned, b, b_items, b_turned, c.reshape(-1), m, k, n
    ends = _ends(len(a_items), _limit(c.size * k))
    share(lambda t: multiply_items(*operands, ends[t], ends[t + 1]), len(ends) - 1, len(ends) - 1)
    return c


def _one(a, a_turned, b, b_turned, c, m, k, n):
    """One product, shared by rows, columns or terms: all flat."""
    lda, ldb, limit = m if a_turned else k, k if b_turned else n, _limit(m * k * n)
    if limit == 1:
        multiply_in_blocks(a, lda, a_turned, b, ldb, b_turned, c, n, m, k, n, 0)
    elif m * n <= FEW and k > 4 * max(m, n):
        ends, sums = _ends(k, limit), [c, *np.empty((limit - 1, m * n), float32)]

        def terms(t):
            p, q = ends[t], ends[t + 1]
            left, right = a[p * lda if a_turned else p :], b[p if b_turned else p * ldb :]
            multiply_in_blocks(left, lda, a_turned, right, ldb, b_turned, sums[t], n, m, q - p, n, 0)

        share(terms, limit, limit)
        for more in sums[1:]:
            c += more
    elif m >= n:
        ends = _ends(m, limit)

        def rows(t):
            p, q = ends[t], ends[t + 1]
            left, to = a[p if a_turned else p * lda :], c[p * n :]
            multiply_in_blocks(left, lda, a_turned, b, ldb, b_turned, to, n, q - p, k, n, 0)

        share(rows, len(ends) - 1, limit)
    else:
        ends = _ends(n, limit)

        def columns(t):
            p, q = ends[t], ends[t + 1]
            right, to = b[p * ldb if b_turned else p :], c[p:]
            multiply_in_blocks(a, lda, a_turned, right, ldb, b_turned, to, n, m, k, q - p, 0)

        share(columns, len(ends) - 1, limit)


def _flat(x):
    """The numbers of x as they lie in memory, and whether its matrices lie there transposed. A copy if they have gaps,
    or are read-only or misaligned: for such arrays Numba would compile anew."""
    turned = not x.flags.c_contiguous and x.swapaxes(-1, -2).flags.c_contiguous
    lies = x.swapaxes(-1, -2) if turned else x
    return (lies if lies.flags.carray else lies.copy()).reshape(-1), turned


def _items(x, batch):
    """Which matrix of x is meant by each item of a batch."""
    numbers = np.arange(math.prod(x.shape[:-2])).reshape(x.shape[:-2])
    return np.broadcast_to(numbers, batch).reshape(-1)


def _limit(work):
    return threads() if work >= WORTH_SHARING else 1


def _ends(count, parts):
    """0 = first end, ..., last = count: where `parts` parts end, or as many as there are things to share out."""
    parts = min(count, parts)
    return [count * t // parts for t in range(parts + 1)]
