"""3: diffusion of images: `nn.UNet` with its 775,441 parameters on (64, 28, 28, 1), Adam, and a moving average of the
weights (Ho et al. 2020)."""

import math

import numpy as np
from workload import Training

from tinygen import nn, ops


def model(rng):
    return nn.UNet(rng=rng)


def batch(rng):
    """Images, their times, and the noise in them."""
    return rng.normal((64, 28, 28, 1)), rng.integers(1000, 64).astype(np.float32), rng.normal((64, 28, 28, 1))


def in_tinygen(net, x, t, eps):
    return ops.mean(ops.square(net(x, t) - eps))


def in_torch(p, x, t, eps):
    return p.f.mse_loss(TorchUNet(p)(x, t), eps)


def in_jax(p, x, t, eps):
    return p.jnp.mean(p.jnp.square(JaxUNet(p)(x, t) - eps))


class TorchUNet:
    """`nn.UNet` with its default sizes, images (N, C, H, W)."""

    def __init__(self, p):
        self.p, self.torch, self.f = p, p.torch, p.f

    def block(self, name, h, c):
        p, f = self.p, self.f
        inner = p.conv(f"{name}.conv1", f.silu(p.group_norm(f"{name}.norm1", h)), padding=1)
        s, b = p.linear(f"{name}.condition", c)[:, :, None, None].chunk(2, 1)
        inner = p.conv(f"{name}.conv2", f.silu((1 + s) * p.group_norm(f"{name}.norm2", inner) + b), padding=1)
        return (p.conv(f"{name}.skip", h) if f"{name}.skip.weight" in p else h) + inner

    def attend(self, name, x):
        rows = self.p.group_norm(f"{name}.norm", x).flatten(2).mT
        return x + self.p.attention(f"{name}.attention", rows, heads=4).mT.reshape(x.shape)

    def __call__(self, x, t):
        p, f, torch = self.p, self.f, self.torch
        width = p["first.bias"].shape[0]
        rates = torch.exp(-math.log(10_000) / (width // 2) * torch.arange(width // 2))
        waves = torch.cat([torch.sin(t[:, None] * rates), torch.cos(t[:, None] * rates)], 1)
        c = f.silu(p.mlp("time.", 2, waves, "silu"))
        h, seen = p.conv("first", x, padding=1), []
        for level in range(3):
            h = self.block(f"down.{level}.0.residual", h, c)
            seen.append(h)
            h = p.conv(f"halve.{level}", h, stride=2, padding=1) if level < 2 else h
        h = self.attend("middle.0.attention", self.block("middle.0.residual", h, c))
        h = self.block("middle.1.residual", h, c)
        for level in range(3):
            h = self.block(f"up.{level}.0.residual", torch.cat([h, seen.pop()], 1), c)
            h = p.conv(f"double.{level}", f.interpolate(h, scale_factor=2), padding=1) if level < 2 else h
        return p.conv("last", f.silu(p.group_norm("norm", h)), padding=1)


class JaxUNet:
    """`nn.UNet` with its default sizes, images (N, H, W, C)."""

    def __init__(self, p):
        self.p, self.jnp, self.silu = p, p.jnp, p.jax.nn.silu

    def block(self, name, h, c):
        p = self.p
        inner = p.conv(f"{name}.conv1", self.silu(p.group_norm(f"{name}.norm1", h)), padding=1)
        s, b = self.jnp.split(p.linear(f"{name}.condition", c)[:, None, None, :], 2, -1)
        inner = p.conv(f"{name}.conv2", self.silu((1 + s) * p.group_norm(f"{name}.norm2", inner) + b), padding=1)
        return (p.linear(f"{name}.skip", h) if f"{name}.skip.weight" in p else h) + inner

    def attend(self, name, x):
        n, h, w, c = x.shape
        rows = self.p.group_norm(f"{name}.norm", x).reshape(n, h * w, c)
        return x + self.p.attention(f"{name}.attention", rows, heads=4).reshape(x.shape)

    def __call__(self, x, t):
        p, jnp = self.p, self.jnp
        width = p["first.bias"].shape[0]
        rates = jnp.exp(-math.log(10_000) / (width // 2) * jnp.arange(width // 2))
        waves = jnp.concatenate([jnp.sin(t[:, None] * rates), jnp.cos(t[:, None] * rates)], 1)
        c = self.silu(p.mlp("time.", 2, waves, "silu"))
        h, seen = p.conv("first", x, padding=1), []
        for level in range(3):
            h = self.block(f"down.{level}.0.residual", h, c)
            seen.append(h)
            h = p.conv(f"halve.{level}", h, stride=2, padding=1) if level < 2 else h
        h = self.attend("middle.0.attention", self.block("middle.0.residual", h, c))
        h = self.block("middle.1.residual", h, c)
        for level in range(3):
            h = self.block(f"up.{level}.0.residual", jnp.concatenate([h, seen.pop()], -1), c)
            h = p.conv(f"double.{level}", h.repeat(2, 1).repeat(2, 2), padding=1) if level < 2 else h
        return p.conv("last", self.silu(p.group_norm("norm", h)), padding=1)


WORKLOAD = Training("U-Net DDPM", model, batch, in_tinygen, in_torch, in_jax, lr=2e-4, ema=True, channels_last=True)
