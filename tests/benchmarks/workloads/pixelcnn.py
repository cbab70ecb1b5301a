"""7: a gated PixelCNN of 8 layers with 64 channels on (32, 28, 28, 1), Adam (van den Oord et al. 2016, fig. 2).

Each layer has two stacks: the vertical one sees all rows above and the row it stands in, the horizontal one what lies
to the left in its own row, and is told by the vertical one what lies above. A kernel that is cut where the future
begins needs no mask: (k + 1) x (2k + 1) for the vertical stack, 1 x (k + 1) for the horizontal one, 1 x k for one that
may not see its own pixel. Both are gated: tanh(a) sigmoid(b), with a and b half of the channels each.
"""

import numpy as np
from workload import Training

from tinygen import nn, ops

WIDTH, LAYERS = 64, 8


class GatedLayer(nn.Module):
    """v, h (N, H, W, C) -> the same of WIDTH channels. The first layer is blind to its own pixel, and adds nothing."""

    def __init__(self, inputs, k, first, rng):
        self.first, down = first, ((k, 0), (k, k))
        self.vertical = nn.Conv2d(inputs, 2 * WIDTH, (k + 1, 2 * k + 1), padding=down, rng=rng)
        self.horizontal = nn.Conv2d(inputs, 2 * WIDTH, (1, k + (not first)), padding=((0, 0), (k, 0)), rng=rng)
        self.told = nn.Linear(2 * WIDTH, 2 * WIDTH, rng=rng)
        self.mixed = nn.Linear(WIDTH, WIDTH, rng=rng)

    def forward(self, v, h):
        v = self.vertical(v)
        above = ops.pad(v[:, :-1], [(0, 0), (1, 0), (0, 0), (0, 0)])
        inner = self.horizontal(h)
        inner = inner[:, :, :-1] if self.first else inner
        inner = self.mixed(ops.tanh_gate(inner + self.told(above)))
        return ops.tanh_gate(v), inner if self.first else h + inner


class PixelCNN(nn.Module):
    """Images (N, H, W, 1) -> log-odds of each pixel, given those before it."""

    def __init__(self, rng):
        self.layers = [GatedLayer(1, 3, True, rng)] + [GatedLayer(WIDTH, 1, False, rng) for _ in range(LAYERS - 1)]
        self.out = nn.MLP([WIDTH, WIDTH, 1], ops.relu, rng=rng)

    def forward(self, x):
        v = h = x
        for layer in self.layers:
            v, h = layer(v, h)
        return self.out(ops.relu(h))


def batch(rng):
    return ((rng.uniform((32, 28, 28, 1)) < 0.2).astype(np.float32),)


def in_tinygen(net, x):
    return ops.mean(ops.binary_cross_entropy_with_logits(net(x), x))


def in_torch(p, x):
    torch, f = p.torch, p.f
    rows, columns = x.shape[2:]

    def gated(x):
        a, b = x.chunk(2, 1)
        return torch.tanh(a) * torch.sigmoid(b)

    v = h = x
    for i in range(LAYERS):
        name, k = f"layers.{i}", 3 if i == 0 else 1
        v = p.conv(f"{name}.vertical", v, padding=(k, k))[:, :, :rows]
        above = p.conv(f"{name}.told", f.pad(v, (0, 0, 1, -1)))
        inner = p.conv(f"{name}.horizontal", h, padding=(0, k))[:, :, :, :columns]
        inner = p.conv(f"{name}.mixed", gated(inner + above))
        v, h = gated(v), inner if i == 0 else h + inner
    logits = p.conv("out.2", f.relu(p.conv("out.0", f.relu(h))))
    return f.binary_cross_entropy_with_logits(logits, x)


def in_jax(p, x):
    jax, jnp = p.jax, p.jnp

    def gated(x):
        a, b = jnp.split(x, 2, -1)
        return jnp.tanh(a) * jax.nn.sigmoid(b)

    v = h = x
    for i in range(LAYERS):
        name, k = f"layers.{i}", 3 if i == 0 else 1
        v = p.conv(f"{name}.vertical", v, padding=((k, 0), (k, k)))
        above = p.linear(f"{name}.told", jnp.pad(v[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0))))
        inner = p.conv(f"{name}.horizontal", h, padding=((0, 0), (k, 0)))
        inner = inner[:, :, :-1] if i == 0 else inner
        inner = p.linear(f"{name}.mixed", gated(inner + above))
        v, h = gated(v), inner if i == 0 else h + inner
    logits = p.mlp("out.", 2, jax.nn.relu(h), "relu")
    return jnp.mean(jax.nn.softplus(logits) - logits * x)


WORKLOAD = Training("gated PixelCNN", PixelCNN, batch, in_tinygen, in_torch, in_jax, lr=3e-4)
