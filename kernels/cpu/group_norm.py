"""Group norm with what follows it in a U-Net, a gain and bias for each image and SiLU, in one op (Wu & He 2018, eq. 7).

    h = (x - mu) r,    r = 1 / sqrt(var + eps)              mu, var over all positions and the features of one group
    t = h gain + bias,    y = t,  or  y = silu(t)

Backward, with d = dL/dt = dL/dy silu'(t), and means over a group:

    dL/dgain = sum_p d h,    dL/dbias = sum_p d,    dL/dx = r (d gain - mean(d gain) - h mean(d gain h))

Memory: image by image. An image of 28 x 28 x 48 is 150 kB, so the second look at it finds it in the second-level cache:
forward moves 8 bytes an element, backward 12; written with array operations it is a dozen passes and more. h is
computed again in backward, so that x, mu and r are all that is kept. Operations: 6 an element forward, 12 backward, and
about 20 more in either for SiLU, which is what binds there. All loops run along rows that are folded together (see
`columns`), with mu, r, gain and bias repeated to that length, a few kB in the first-level cache. Mean and variance take
one look at x - pivot, where the pivot is one number of the group: of x itself, mean(x^2) - mu^2 would lose the digits
of a small variance beside a large mean.
"""

import numpy as np

from .columns import BLOCK, add_moments, add_slopes, fold, folded, repeat
from .compiling import kernel
from .elementary import ONE, ZERO, sigmoid, silu_slope

float32 = np.float32


@kernel
def spread(sums, count, groups, out):
    """out_c = (the sum of `sums` over the group of c) / count, in float32. sums: (C,) float64."""
    width = sums.size // groups
    for k in range(groups):
        s = 0.0
        for c in range(k * width, (k + 1) * width):
            s += sums[c]
        for c in range(k * width, (k + 1) * width):
            out[c] = s / count


@kernel
def pivots(x, groups, out):
    """Of each group one number, that of its first feature halfway down x (positions, C), for each feature."""
    positions, C = x.shape
    width = C // groups
    for c in range(C):
        out[c] = x[positions // 2, c - c % width] if positions else ZERO


@kernel
def normalise(x, mu, a, b, out):
    """out = (x - mu) a + b, along rows: mu, a and b (C,), x and out (rows, C)."""
    rows, C = x.shape
    for p in range(rows):
        for c in range(C):
            out[p, c] = (x[p, c] - mu[c]) * a[c] + b[c]


@kernel
def normalise_silu(x, mu, a, b, out):
    """out = silu((x - mu) a + b)."""
    rows, C = x.shape
    for p in range(rows):
        for c in range(C):
            t = (x[p, c] - mu[c]) * a[c] + b[c]
            out[p, c] = t * sigmoid(t)


@kernel
def through_silu(g, x, mu, a, b, d):
    """d = g silu'(t) with t = (x - mu) a + b."""
    rows, C = x.shape
    for p in range(rows):
        for c in range(C):
            d[p, c] = g[p, c] * silu_slope((x[p, c] - mu[c]) * a[c] + b[c])


@kernel
def normed_slope(d, x, mu, r, gain, mean_d, slope):
    """dL/dx of one number: r (d gain - mean_d - (x - mu) slope), where slope is r mean(d gain h)."""
    return r * ((d * gain - mean_d) - (x - mu) * slope)


@kernel
def through_norm(d, x, mu, r, gain, mean_d, slope, dx):
    """dx = dL/dx from d = dL/dt, along rows."""
    rows, C = x.shape
    for p in range(rows):
        for c in range(C):
            dx[p, c] = normed_slope(d[p, c], x[p, c], mu[c], r[c], gain[c], mean_d[c], slope[c])


@kernel
def through_norm_in_place(d, x, mu, r, gain, mean_d, slope):
    """The same where d and dx are one array: handed that twice, the compiler's vectors would have to stay away."""
    rows, C = x.shape
    for p in range(rows):
        for c in range(C):
            d[p, c] = normed_slope(d[p, c], x[p, c], mu[c], r[c], gain[c], mean_d[c], slope[c])


@kernel
def group_norm_forward(x, gain, bias, groups, eps, silu, out, mean, scale):
    """x, out: (N, positions, C), gain, bias: (N, C), all float32; eps: float; silu: bool.

    For the backward pass it writes `mean` (mu) and `scale` (r), (N, C): those of a feature's group.
    """
    N, positions, C = x.shape
    count = max(positions * C / groups, 1.0)                    # an empty image has mean 0
    k = folded(positions, C)
    sums, total, a = np.empty((2, k * C)), np.empty(C), np.empty(C, float32)
    work, vectors = np.empty((2, k * C), float32), np.empty((3, k * C), float32)
    mus, gains, biases = vectors[0], vectors[1], vectors[2]
    for n in range(N):
        image, to = x[n].reshape(positions // k, k * C), out[n].reshape(positions // k, k * C)
        mu, r = mean[n], scale[n]
        pivots(x[n], groups, a)
        repeat(a, mus.reshape(k, C))
        sums[:] = 0
        add_moments(image, mus, work, sums[0], sums[1])
        fold(sums[0].reshape(k, C), total)
        spread(total, count, groups, mu)
        fold(sums[1].reshape(k, C), total)
        spread(total, count, groups, r)
        for c in range(C):
            r[c] = ONE / np.sqrt(max(r[c] - mu[c] * mu[c], ZERO) + float32(eps))
            mu[c] += a[c]
            a[c] = r[c] * gain[n, c]
        repeat(mu, mus.reshape(k, C))
        repeat(a, gains.reshape(k, C))
        repeat(bias[n], biases.reshape(k, C))
        if silu:
            normalise_silu(image, mus, gains, biases, to)
        else:
            normalise(image, mus, gains, biases, to)


@kernel
def group_norm_backward(g, x, gain, bias, groups, silu, mean, scale, dx, dgain, dbias):
    """From g = dL/dy, (N, positions, C), writes dx of that shape, dgain and dbias (N, C): the sums over positions."""
    N, positions, C = x.shape
    count = max(positions * C / groups, 1.0)                    # an empty image has mean 0
    k = folded(positions, C)
    rows, lanes = positions // k, k * C
    sums, total, a = np.empty((2, lanes)), np.empty(C), np.empty(C, float32)
    work, vectors = np.empty((2, lanes), float32), np.empty((5, k, C), float32)
    v = vectors.reshape(5, lanes)
    for n in range(N):
        image, to = x[n].reshape(rows, lanes), dx[n].reshape(rows, lanes)
        mu, r = mean[n], scale[n]
        repeat(mu, vectors[0])
        if silu:
            for c in range(C):
                a[c] = r[c] * gain[n, c]
            repeat(a, vectors[1])
            repeat(bias[n], vectors[2])
        incoming = g[n].reshape(rows, lanes)
        d = to if silu else incoming                            # dx holds dL/dt until it gets its own values
        sums[:] = 0
        for start in range(0, rows, BLOCK):                     # what is added up was computed a moment ago
            part = slice(start, min(start + BLOCK, rows))
            if silu:
                through_silu(incoming[part], image[part], v[0], v[1], v[2], to[part])
            add_slopes(d[part], image[part], v[0], work, sums[0], sums[1])
        fold(sums[0].reshape(k, C), total)
        for c in range(C):
            dbias[n, c] = total[c]
            total[c] *= gain[n, c]
        spread(total, count, groups, a)
        repeat(a, vectors[3])
        fold(sums[1].reshape(k, C), total)
        for c in range(C):
            total[c] *= r[c]
            dgain[n, c] = total[c]
            total[c] *= gain[n, c]
        spread(total, count, groups, a)
        for c in range(C):
            a[c] *= r[c]
        repeat(a, vectors[4])
        repeat(r, vectors[1])
        repeat(gain[n], vectors[2])
        if silu:
            through_norm_in_place(d, image, v[0], v[1], v[2], v[3], v[4])
        else:
            through_norm(d, image, v[0], v[1], v[2], v[3], v[4], to)
