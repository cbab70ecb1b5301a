"""The U-Net of diffusion models (Ronneberger et al. 2015; with time and attention: Ho et al. 2020, app. B).

Down: residual blocks, and convolutions that halve height and width, so that a small window comes to see all of the
image. Up: the same way back, where each block is handed what its counterpart on the way down had seen, so that no
detail is lost. Images are (N, H, W, C) of any H and W: sides that do not halve evenly are rounded up on the way down,
and cut back on the way up. 28 goes 28, 14, 7 with three levels; 14 goes 14, 7 with two, and 14, 7, 4 with three.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from tinygen import ops
from tinygen.errors import InputError
from tinygen.nn import initialise
from tinygen.nn.attention import MultiHeadAttention
from tinygen.nn.convolution import Conv2d
from tinygen.nn.embedding import TimeEmbedding
from tinygen.nn.linear import Linear
from tinygen.nn.module import Module
from tinygen.nn.normalisation import GroupNorm, GroupNormSiLU
from tinygen.nn.residual import ConvResidualBlock, require
from tinygen.random import Generator
from tinygen.tensor import Tensor


class ImageAttention(Module):
    """x + Attention(GroupNorm(x)), where every pixel attends to all: (N, H, W, C) -> the same.

    It takes (H W)^2 weights for each head and image, so it stands where images are small; and it knows nothing of where
    a pixel is. Begins as the identity.
    """

    def __init__(self, channels: int, heads: int = 4, groups: int = 8, *, rng: Generator):
        self.norm = GroupNorm(math.gcd(groups, channels), channels)
        self.attention = MultiHeadAttention(channels, heads, rng=rng, output_init=initialise.zeros)

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        return x + self.attention(self.norm(x).reshape((n, h * w, c))).reshape(x.shape)


class Stage(Module):
    """A residual block, and attention after it if `heads`: (N, H, W, inputs), (N, condition) -> (N, H, W, outputs)."""

    def __init__(self, inputs: int, outputs: int, condition: int, heads: int, dropout: float, *, rng: Generator):
        self.residual = ConvResidualBlock(inputs, outputs, condition, dropout=dropout, rng=rng)
        self.attention = ImageAttention(outputs, heads, rng=rng) if heads else None

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        h = self.residual(h, c)
        return h if self.attention is None else self.attention(h)


class UNet(Module):
    """A network of images and time: x (N, H, W, channels), t (N,) or (1,) -> (N, H, W, outputs). For denoisers.

    outputs:     channels of the result; those of x if None
    width, multipliers:  level i has width * multipliers[i] channels, and half the height and width of the level before
    blocks:      residual blocks at each level, on the way down and again on the way up; between the two ways stand two
                 more, with attention between them
    attention:   the levels (0 is the full resolution) that have attention after each block too; with `heads` heads
    condition:   the width of a vector c (N, condition) that the network is told beside the time, a class embedding say
    dropout:     in the residual blocks

    By default it has levels of 24, 48 and 72 channels, and 775,441 parameters.
    t counts steps, 0 to a thousand or so, as `sinusoidal` wants them. The last layer begins as zeros: so does the
    output, a fair guess for noise, scores and velocities, whose mean is zero.
    """

    def __init__(
        self,
        channels: int = 1,
        outputs: int | None = None,
        width: int = 24,
        multipliers: Sequence[int] = (1, 2, 3),
        blocks: int = 1,
        attention: Collection[int] = (),
        heads: int = 4,
        condition: int = 0,
        dropout: float = 0.0,
        *,
        rng: Generator,
    ):
        levels = len(multipliers)
        if blocks < 1 or not levels or not set(attention) <= set(range(levels)):
            raise InputError(
                f"UNet: {levels} multipliers, {blocks} blocks and attention at {tuple(attention)}; at least one of "
                "each of the first two is needed, and attention counts levels from 0."
            )
        told = 4 * width
        widths = [width * m for m in multipliers]
        attentive = [heads if level in attention else 0 for level in range(levels)]
        stage = lambda before, after, level: Stage(before, after, told, attentive[level], dropout, rng=rng)
        self.time = TimeEmbedding(width + width % 2, told, rng=rng)
        self.condition = Linear(condition, told, bias=False, rng=rng) if condition else None
        self.first = Conv2d(channels, width, 3, padding=1, rng=rng)

        self.down, self.halve, at = [], [], width  # `at`: the channels there are at this point
        for level, wide in enumerate(widths):
            self.down.append([stage(at if i == 0 else wide, wide, level) for i in range(blocks)])
            if level < levels - 1:
                self.halve.append(Conv2d(wide, wide, 3, stride=2, padding=1, rng=rng))
            at = wide
        self.middle = [Stage(at, at, told, heads, dropout, rng=rng), Stage(at, at, told, 0, dropout, rng=rng)]
        self.up, self.double = [], []
        for level, wide in reversed(list(enumerate(widths))):
            self.up.append([stage((at if i == 0 else wide) + wide, wide, level) for i in range(blocks)])
            if level:
                self.double.append(Conv2d(wide, wide, 3, padding=1, rng=rng))
            at = wide
        self.norm = GroupNormSiLU(math.gcd(8, at), at)
        self.last = Conv2d(at, outputs or channels, 3, padding=1, rng=rng, weight_init=initialise.zeros)

    def forward(self, x: Tensor, t: Any, c: Tensor | None = None) -> Tensor:
        require(self, "condition", c, self.condition)
        told = self.time(t)
        told = ops.silu(told if c is None else told + self.condition(c))

        h, seen = self.first(x), []
        for level, stages in enumerate(self.down):
            for stage in stages:
                h = stage(h, told)
                seen.append(h)
            if level < len(self.halve):
                h = self.halve[level](h)
        for stage in self.middle:
            h = stage(h, told)
        for level, stages in enumerate(self.up):
            for stage in stages:
                h = stage(ops.concatenate([h, seen.pop()], axis=-1), told)
            if level < len(self.double):
                _, height, width, _ = seen[-1].shape
                h = self.double[level](ops.upsample_nearest(h)[:, :height, :width])
        return self.last(self.norm(h))
