"""NADE's conditionals, a row of x at a time: a hidden layer that is brought up to date after each pixel.

    out_i = sum_k v_ik h_k,    h_k = s(a_k),    a_k = c_k + sum_{j < i} x_j w_jk

A step from pixel i to i + 1 adds x_i w_i to a. So all D conditionals of an image cost one walk, O(D H), where a network
for each would cost O(D^2 H). And where x_i is 0, nothing changes: in binary images the sigmoids are evaluated only
behind pixels that are on, about a hundred of 784 in a digit.

Memory: `TILE` images walk together, so that each row of v, read from the second cache, serves all of them. Forward
costs 2 operations for each image, pixel and hidden unit; backward 4, as each pixel adds to dv and to dh. Backward walks
forward first, keeps the h that it meets, and takes them up again on the way back.
"""

import numpy as np

from .compiling import kernel
from .elementary import ONE, ZERO, sigmoid
from .rows import dot

TILE = 8


@kernel
def nade_forward(x, w, c, v, out):
    """x (N, D), w (D, H), c (N, H), v (D, H), out (N, D), all float32."""
    n, pixels = x.shape
    a = np.empty((TILE, w.shape[1]), np.float32)
    h = np.empty_like(a)
    for first in range(0, n, TILE):
        images = min(TILE, n - first)
        for t in range(images):
            for k in range(w.shape[1]):
                a[t, k] = c[first + t, k]
                h[t, k] = sigmoid(a[t, k])
        for i in range(pixels):
            for t in range(images):
                out[first + t, i] = dot(h[t], v[i])
                if x[first + t, i] != ZERO:
                    walk_on(x[first + t, i], w[i], a[t], h[t])


@kernel
def walk_on(x, w, a, h):
    """a += x w, h = s(a): what pixel x adds to the hidden layer."""
    for k in range(a.size):
        a[k] += x * w[k]
        h[k] = sigmoid(a[k])


@kernel
def nade_backward(g, x, w, c, v, by_x, dx, dw, dc, dv):
    """g (N, D) is the gradient of out. dw and dv begin as zeros; dc is written, and dx if `by_x` asks for it."""
    n, pixels = x.shape
    hidden = w.shape[1]
    most = 0
    for m in range(n):
        most = max(most, np.count_nonzero(x[m]))
    met = np.empty((TILE, most + 1, hidden), np.float32)     # the h of each image, one behind each pixel that is on
    at = np.zeros(TILE, np.int64)
    a = np.empty(hidden, np.float32)
    da = np.empty((TILE, hidden), np.float32)
    dh = np.empty_like(da)
    for first in range(0, n, TILE):
        images = min(TILE, n - first)
        for t in range(images):
            at[t] = walk(x[first + t], w, c[first + t], a, met[t])
            da[t] = ZERO
            dh[t] = ZERO
        for i in range(pixels - 1, -1, -1):
            for t in range(images):
                value = x[first + t, i]
                if by_x or value != ZERO:
                    through_sigmoid(met[t, at[t]], dh[t], da[t])
                if by_x:
                    dx[first + t, i] = dot(w[i], da[t])
                if value != ZERO:
                    add(value, da[t], dw[i])
                    at[t] -= 1
                through_product(g[first + t, i], met[t, at[t]], v[i], dh[t], dv[i])
        for t in range(images):
            through_sigmoid(met[t, 0], dh[t], da[t])
            dc[first + t] = da[t]


@kernel
def walk(x, w, c, a, met):
    """Keeps the hidden layer before the first pixel and behind each that is on; how many of these there are."""
    a[:] = c
    for k in range(a.size):
        met[0, k] = sigmoid(a[k])
    steps = 0
    for i in range(x.size):
        if x[i] != ZERO:
            steps += 1
            walk_on(x[i], w[i], a, met[steps])
    return steps


@kernel
def through_sigmoid(h, dh, da):
    """da += dh h (1 - h), after which dh begins anew."""
    for k in range(h.size):
        da[k] += dh[k] * h[k] * (ONE - h[k])
        dh[k] = ZERO


@kernel
def through_product(g, h, v, dh, dv):
    for k in range(h.size):
        dv[k] += g * h[k]
        dh[k] += g * v[k]


@kernel
def add(x, y, total):
    for k in range(y.size):
        total[k] += x * y[k]
