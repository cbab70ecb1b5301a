"""10: 5,000 points by 1,000 steps of the reverse chain, with the network of workload 1 (Ho et al. 2020, algorithm 2).

    x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) eps(x_t, t)) / sqrt(alpha_t) + sigma_t z
"""

import numpy as np
from workload import Sampling
from workloads import toy_diffusion

from tinygen import models, nn, no_grad, ops

STEPS, POINTS = 1000, 5000
_schedule = models.Schedule.linear(STEPS)
ABOUT = (_schedule.beta / np.sqrt(1 - _schedule.abar)).astype(np.float32)  # of the noise in x_t
GROWTH = (1 / np.sqrt(_schedule.alpha)).astype(np.float32)
SIGMA = np.sqrt(_schedule.beta * (1 - np.append(1, _schedule.abar[:-1])) / (1 - _schedule.abar)).astype(np.float32)
WAVES = nn.sinusoidal(np.arange(STEPS), 64)


def noise(rng):
    """x_T, and what is added at each step."""
    return rng.normal((POINTS, 2)), rng.normal((STEPS, POINTS, 2))


def in_tinygen(net, x, z):
    with no_grad():
        for t in reversed(range(STEPS)):
            eps = net(ops.concatenate([x, np.broadcast_to(WAVES[t], (len(x), 64))], axis=-1))
            x = float(GROWTH[t]) * (x - float(ABOUT[t]) * eps) + float(SIGMA[t]) * z[t]
    return x


def in_torch(p, x, z):
    waves = p.torch.from_numpy(WAVES)
    for t in reversed(range(STEPS)):
        eps = p.mlp("", 4, p.torch.cat([x, waves[t].expand(len(x), 64)], -1), "silu")
        x = float(GROWTH[t]) * (x - float(ABOUT[t]) * eps) + float(SIGMA[t]) * z[t]
    return x


def in_jax(p, x, z):
    jnp = p.jnp

    def step(x, now):
        waves, about, growth, sigma, z = now
        eps = p.mlp("", 4, jnp.concatenate([x, jnp.broadcast_to(waves, (len(x), 64))], -1), "silu")
        return growth * (x - about * eps) + sigma * z, None

    return p.jax.lax.scan(step, x, (WAVES, ABOUT, GROWTH, SIGMA, z), reverse=True)[0]


WORKLOAD = Sampling("sampling: DDPM, 1,000 steps", toy_diffusion.model, noise, in_tinygen, in_torch, in_jax)
