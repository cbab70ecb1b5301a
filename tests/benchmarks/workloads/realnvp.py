"""8: RealNVP on points of the plane: 16 couplings with perceptrons of width 128, batch 512, Adam.

-log p(x), where each coupling moves and scales one coordinate by what the other says (Dinh et al. 2017, eq. 7).
"""

import math

from workload import Training

from tinygen import nn, ops
from tinygen.nn import initialise

COUPLINGS = 16


class Couplings(nn.Module):
    def __init__(self, rng):
        small = initialise.normal(0.01)
        self.nets = [nn.MLP([1, 128, 128, 2], ops.relu, rng=rng, last_init=small) for _ in range(COUPLINGS)]


def batch(rng):
    return (rng.normal((512, 2)),)


def in_tinygen(flow, x):
    a, b, log_det = x[:, :1], x[:, 1:], 0.0
    for net in flow.nets:
        s, t = ops.split(net(a), 2, axis=-1)
        s = ops.tanh(s)
        a, b, log_det = b * ops.exp(s) + t, a, log_det + s
    return ops.mean(0.5 * (ops.square(a) + ops.square(b)) - log_det) + math.log(2 * math.pi)


def in_torch(p, x):
    torch = p.torch
    a, b, log_det = x[:, :1], x[:, 1:], 0.0
    for i in range(COUPLINGS):
        s, t = p.mlp(f"nets.{i}.", 3, a, "relu").chunk(2, -1)
        s = torch.tanh(s)
        a, b, log_det = b * torch.exp(s) + t, a, log_det + s
    return (0.5 * (a.square() + b.square()) - log_det).mean() + math.log(2 * math.pi)


def in_jax(p, x):
    jnp = p.jnp
    a, b, log_det = x[:, :1], x[:, 1:], 0.0
    for i in range(COUPLINGS):
        s, t = jnp.split(p.mlp(f"nets.{i}.", 3, a, "relu"), 2, -1)
        s = jnp.tanh(s)
        a, b, log_det = b * jnp.exp(s) + t, a, log_det + s
    return jnp.mean(0.5 * (jnp.square(a) + jnp.square(b)) - log_det) + math.log(2 * math.pi)


WORKLOAD = Training("RealNVP", Couplings, batch, in_tinygen, in_torch, in_jax, lr=1e-4)
