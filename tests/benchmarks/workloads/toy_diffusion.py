"""1: the network of a toy diffusion model: MLP 66-128-128-128-2 with SiLU on a batch of 256, Adam."""

from workload import Training

from tinygen import nn, ops


def model(rng):
    return nn.MLP([66, 128, 128, 128, 2], rng=rng)


def batch(rng):
    """Points with their embedded time, and the noise in them."""
    return rng.normal((256, 66)), rng.normal((256, 2))


def in_tinygen(net, x, eps):
    return ops.mean(ops.square(net(x) - eps))


def in_torch(p, x, eps):
    return p.f.mse_loss(p.mlp("", 4, x, "silu"), eps)


def in_jax(p, x, eps):
    return p.jnp.mean(p.jnp.square(p.mlp("", 4, x, "silu") - eps))


WORKLOAD = Training("toy diffusion MLP", model, batch, in_tinygen, in_torch, in_jax)
