"""8: neural spline couplings on points of the plane: each coordinate moved twice, 8 bins, perceptrons of width 128,
batch 512, Adam (Durkan et al. 2019).

A coupling maps one coordinate by a monotone spline, whose pieces are ratios of quadratics, and whose knots a perceptron
reads off the other coordinate. In bin k, with xi = (x - x_k) / w_k and the slope s_k = h_k / w_k, eq. 4 and 5:

    y     = y_k + h_k (s_k xi^2 + d_k xi (1 - xi)) / (s_k + (d_{k+1} + d_k - 2 s_k) xi (1 - xi))
    dy/dx = s_k^2 (d_{k+1} xi^2 + 2 s_k xi (1 - xi) + d_k (1 - xi)^2) / (s_k + (d_{k+1} + d_k - 2 s_k) xi (1 - xi))^2

Outside of [-BOUND, BOUND] it is the identity. In tinygen that is an op, `ops.rational_quadratic`; the peers compute it
by the same formulas.
"""

import math

from workload import Training

from tinygen import nn, ops
from tinygen.nn import initialise

COUPLINGS, BINS, BOUND = 4, 8, 4.0
LEAST = 1e-3  # of a bin's width and height, as a share of all, and of a slope


class Couplings(nn.Module):
    def __init__(self, rng):
        sizes, small = [1, 128, 128, 3 * BINS - 1], initialise.normal(0.01)
        self.nets = [nn.MLP(sizes, ops.relu, rng=rng, last_init=small) for _ in range(COUPLINGS)]


def batch(rng):
    return (rng.normal((512, 2)),)


def in_tinygen(flow, x):
    a, b, log_det = x[:, :1], x[:, 1:], 0.0
    for net in flow.nets:
        said = ops.split(net(a), [BINS, 2 * BINS], axis=-1)
        y, slope = ops.rational_quadratic(b[:, 0], *said, bound=BOUND)
        a, b, log_det = y[:, None], a, log_det + slope[:, None]
    return ops.mean(0.5 * (ops.square(a) + ops.square(b)) - log_det) + math.log(2 * math.pi)


def in_torch(p, x):
    a, b, log_det = x[:, :1], x[:, 1:], 0.0
    for i in range(COUPLINGS):
        said = p.mlp(f"nets.{i}.", 3, a, "relu").split([BINS, BINS, BINS - 1], -1)
        y, slope = spline_in_torch(p.torch, p.f, b, *said)
        a, b, log_det = y, a, log_det + slope
    return (0.5 * (a.square() + b.square()) - log_det).mean() + math.log(2 * math.pi)


def spline_in_torch(torch, f, x, widths, heights, slopes, bound=BOUND):
    """x (..., 1), and for each what a network says of its K widths, K heights and K - 1 inner slopes, which may be any
    numbers -> y (..., 1) and log dy/dx (..., 1)."""

    def knots(logits):
        lengths = 2 * bound * (LEAST + (1 - LEAST * logits.shape[-1]) * f.softmax(logits, -1))
        return f.pad(lengths.cumsum(-1), (1, 0)) - bound, lengths

    inside = x.abs() < bound
    u = x.clamp(-bound, bound)
    (xs, ws), (ys, hs) = knots(widths), knots(heights)
    ds = f.pad(f.softplus(slopes) + LEAST, (1, 1), value=1.0)
    k = (u >= xs[..., 1:-1]).sum(-1, keepdim=True)
    x_k, w, y_k, h, d0 = (a.gather(-1, k) for a in (xs, ws, ys, hs, ds))
    d1 = ds.gather(-1, k + 1)
    s, xi = h / w, (u - x_k) / w
    both = xi * (1 - xi)
    below = s + (d1 + d0 - 2 * s) * both
    y = y_k + h * (s * xi.square() + d0 * both) / below
    slope = 2 * torch.log(s / below) + torch.log(d1 * xi.square() + 2 * s * both + d0 * (1 - xi).square())
    return torch.where(inside, y, x), torch.where(inside, slope, 0.0)


def in_jax(p, x):
    jnp = p.jnp
    a, b, log_det = x[:, :1], x[:, 1:], 0.0
    for i in range(COUPLINGS):
        said = jnp.split(p.mlp(f"nets.{i}.", 3, a, "relu"), [BINS, 2 * BINS], -1)
        y, slope = spline_in_jax(p.jax, jnp, b, *said)
        a, b, log_det = y, a, log_det + slope
    return jnp.mean(0.5 * (jnp.square(a) + jnp.square(b)) - log_det) + math.log(2 * math.pi)


def spline_in_jax(jax, jnp, x, widths, heights, slopes):
    def knots(logits):
        lengths = 2 * BOUND * (LEAST + (1 - LEAST * BINS) * jax.nn.softmax(logits, -1))
        return jnp.pad(jnp.cumsum(lengths, -1), ((0, 0), (1, 0))) - BOUND, lengths

    inside = jnp.abs(x) < BOUND
    u = jnp.clip(x, -BOUND, BOUND)
    (xs, ws), (ys, hs) = knots(widths), knots(heights)
    ds = jnp.pad(jax.nn.softplus(slopes) + LEAST, ((0, 0), (1, 1)), constant_values=1.0)
    k = (u >= xs[:, 1:-1]).sum(-1, keepdims=True)
    x_k, w, y_k, h, d0 = (jnp.take_along_axis(a, k, -1) for a in (xs, ws, ys, hs, ds))
    d1 = jnp.take_along_axis(ds, k + 1, -1)
    s, xi = h / w, (u - x_k) / w
    both = xi * (1 - xi)
    below = s + (d1 + d0 - 2 * s) * both
    y = y_k + h * (s * jnp.square(xi) + d0 * both) / below
    slope = 2 * jnp.log(s / below) + jnp.log(d1 * jnp.square(xi) + 2 * s * both + d0 * jnp.square(1 - xi))
    return jnp.where(inside, y, x), jnp.where(inside, slope, 0.0)


WORKLOAD = Training("neural spline flow", Couplings, batch, in_tinygen, in_torch, in_jax, lr=1e-4)
