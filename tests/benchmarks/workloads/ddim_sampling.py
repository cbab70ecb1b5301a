"""10: 64 images by 50 steps of DDIM, with the network of workload 3 (Song et al. 2021, eq. 12 with sigma = 0).

    x_0     = (x_t - sqrt(1 - abar_t) eps(x_t, t)) / sqrt(abar_t)
    x_prev  = sqrt(abar_prev) x_0 + sqrt(1 - abar_prev) eps(x_t, t)
"""

import numpy as np
from workload import Sampling, stirred
from workloads import unet

from tinygen import models, no_grad

IMAGES, STEPS = 64, 50
_abar = np.append(1, models.Schedule.linear(1000).abar)
_path = np.linspace(0, 1000, STEPS + 1).astype(int)
TIMES = (_path[1:] - 1).astype(np.float32)  # as the network counts them, from 0
SIGNAL, SPREAD = np.sqrt(_abar[_path]).astype(np.float32), np.sqrt(1 - _abar[_path]).astype(np.float32)


def model(rng):
    return stirred(unet.model(rng), rng)


def noise(rng):
    return (rng.normal((IMAGES, 28, 28, 1)),)


def in_tinygen(net, x):
    with no_grad():
        for i in reversed(range(STEPS)):
            eps = net(x, TIMES[i : i + 1])
            x0 = (x - float(SPREAD[i + 1]) * eps) / float(SIGNAL[i + 1])
            x = float(SIGNAL[i]) * x0 + float(SPREAD[i]) * eps
    return x


def in_torch(p, x):
    net, times = unet.TorchUNet(p), p.torch.from_numpy(TIMES)
    for i in reversed(range(STEPS)):
        eps = net(x, times[i : i + 1])
        x0 = (x - float(SPREAD[i + 1]) * eps) / float(SIGNAL[i + 1])
        x = float(SIGNAL[i]) * x0 + float(SPREAD[i]) * eps
    return x


def in_jax(p, x):
    net = unet.JaxUNet(p)

    def step(x, now):
        t, signal, spread, to_signal, to_spread = now
        eps = net(x, t[None])
        return to_signal * (x - spread * eps) / signal + to_spread * eps, None

    return p.jax.lax.scan(step, x, (TIMES, SIGNAL[1:], SPREAD[1:], SIGNAL[:-1], SPREAD[:-1]), reverse=True)[0]


WORKLOAD = Sampling("sampling: DDIM, 50 steps", model, noise, in_tinygen, in_torch, in_jax, channels_last=True)
