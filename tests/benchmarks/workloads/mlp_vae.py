"""2: a variational autoencoder of perceptrons 784-400-20 with ReLU, batch 128, Adam (Kingma & Welling 2014)."""

import numpy as np
from workload import Training

from tinygen import nn, ops


class VAE(nn.Module):
    def __init__(self, rng):
        self.encoder = nn.MLP([784, 400, 40], ops.relu, rng=rng)
        self.decoder = nn.MLP([20, 400, 784], ops.relu, rng=rng)


def batch(rng):
    """Binary images and the noise of the reparameterisation."""
    return (rng.uniform((128, 784)) < 0.2).astype(np.float32), rng.normal((128, 20))


def in_tinygen(model, x, eps):
    mu, log_sigma = ops.split(0.1 * model.encoder(x), 2, axis=-1)
    logits = model.decoder(mu + ops.exp(log_sigma) * eps)
    reconstruction = ops.binary_cross_entropy_with_logits(logits, x).sum()
    kl = 0.5 * (ops.square(mu) + ops.exp(2 * log_sigma) - 1 - 2 * log_sigma).sum()
    return (reconstruction + kl) / 128


def in_torch(p, x, eps):
    torch = p.torch
    mu, log_sigma = (0.1 * p.mlp("encoder.", 2, x, "relu")).chunk(2, -1)
    logits = p.mlp("decoder.", 2, mu + torch.exp(log_sigma) * eps, "relu")
    reconstruction = p.f.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    kl = 0.5 * (mu.square() + torch.exp(2 * log_sigma) - 1 - 2 * log_sigma).sum()
    return (reconstruction + kl) / 128


def in_jax(p, x, eps):
    jnp = p.jnp
    mu, log_sigma = jnp.split(0.1 * p.mlp("encoder.", 2, x, "relu"), 2, -1)
    logits = p.mlp("decoder.", 2, mu + jnp.exp(log_sigma) * eps, "relu")
    reconstruction = (p.jax.nn.softplus(logits) - logits * x).sum()
    kl = 0.5 * (jnp.square(mu) + jnp.exp(2 * log_sigma) - 1 - 2 * log_sigma).sum()
    return (reconstruction + kl) / 128


WORKLOAD = Training("MLP VAE", VAE, batch, in_tinygen, in_torch, in_jax)
