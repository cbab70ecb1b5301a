"""Residual blocks, of vectors and of images: each adds a correction to what it was given, and may be told the time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinygen import ops
from tinygen.errors import InputError
from tinygen.nn import initialise
from tinygen.nn.convolution import Conv2d
from tinygen.nn.dropout import Dropout
from tinygen.nn.embedding import TimeEmbedding
from tinygen.nn.linear import Linear
from tinygen.nn.module import Module
from tinygen.nn.normalisation import GroupNormSiLU
from tinygen.random import Generator
from tinygen.tensor import Tensor


class ResidualBlock(Module):
    """h + W2 act(W1 act(h) + Wc c) with a condition c, such as embedded time. h: (..., width), c: (..., condition).

    The addition lets gradients through unchanged however many blocks there are; the activation comes first, so that
    nothing stands in their way (He et al. 2016, "Identity mappings in deep residual networks", fig. 1b). W2 begins as
    zeros, and so the block as the identity.
    """

    def __init__(self, width: int, condition: int = 0, activation: Callable = ops.silu, *, rng: Generator):
        self.activation = activation
        self.first = Linear(width, width, rng=rng)
        self.condition = Linear(condition, width, bias=False, rng=rng) if condition else None
        self.second = Linear(width, width, rng=rng, weight_init=initialise.zeros)

    def forward(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        require(self, "condition", c, self.condition)
        inner = self.first(self.activation(h))
        if self.condition is not None:
            inner = inner + self.condition(c)
        return h + self.second(self.activation(inner))


class ConvResidualBlock(Module):
    """A residual block of images, told the time: h (N, H, W, inputs), c (N, condition) -> (N, H, W, outputs).

        inner = Conv(silu(GroupNorm(h)))
        inner = Conv(dropout(silu((1 + s) GroupNorm(inner) + b)))        with s, b = Linear(c), each (N, outputs)
        Linear(h) + inner, or h + inner where the channels stay the same

    A condition must come after a norm, or the norm takes part of it away again; so it scales and shifts what was
    normalised ("adaptive group norm": Dhariwal & Nichol 2021, sec. 3.1). c may be (1, condition), for all images alike.
    Convolutions are 3x3 and keep (H, W); norms have gcd(groups, channels) groups. The last convolution begins as zeros,
    and so do s and b.
    """

    def __init__(
        self, inputs: int, outputs: int, condition: int = 0, groups: int = 8, dropout: float = 0.0, *, rng: Generator
    ):
        zeros = initialise.zeros
        self.norm1 = GroupNormSiLU(math.gcd(groups, inputs), inputs)
        self.conv1 = Conv2d(inputs, outputs, 3, padding=1, rng=rng)
        self.condition = Linear(condition, 2 * outputs, rng=rng, weight_init=zeros) if condition else None
        self.norm2 = GroupNormSiLU(math.gcd(groups, outputs), outputs)
        self.dropout = Dropout(dropout, rng=rng) if dropout else None
        self.conv2 = Conv2d(outputs, outputs, 3, padding=1, rng=rng, weight_init=zeros)
        self.skip = Linear(inputs, outputs, rng=rng, weight_init=initialise.lecun_normal) if inputs != outputs else None

    def forward(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        require(self, "condition", c, self.condition)
        s, b = (None, None) if self.condition is None else ops.split(self.condition(c), 2, axis=-1)
        inner = self.norm2(self.conv1(self.norm1(h)), s, b)
        inner = inner if self.dropout is None else self.dropout(inner)
        return (h if self.skip is None else self.skip(h)) + self.conv2(inner)


class ResidualMLP(Module):
    """A network of vectors and time: (..., inputs), (...,) -> (..., outputs). For denoisers and velocities of points.

    Time goes through `sinusoidal` and a small MLP, and every block is told the result; `time=0` leaves it out. The
    last layer begins as zeros: so does the output, a fair guess for noise, scores and velocities, whose mean is zero.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 128,
        blocks: int = 3,
        time: int = 64,
        activation: Callable = ops.silu,
        *,
        rng: Generator,
    ):
        self.activation = activation
        self.embed = TimeEmbedding(time, width, activation, rng=rng) if time else None
        self.first = Linear(inputs, width, rng=rng)
        condition = width if time else 0
        self.blocks = [ResidualBlock(width, condition, activation, rng=rng) for _ in range(blocks)]
        self.last = Linear(width, outputs, rng=rng, weight_init=initialise.zeros)

    def forward(self, x: Any, t: Any = None) -> Tensor:
        require(self, "time", t, self.embed)
        c = self.activation(self.embed(t)) if self.embed is not None else None
        h = self.first(x)
        for block in self.blocks:
            h = block(h, c)
        return self.last(self.activation(h))


def require(module: Module, name: str, given: Any, made_for_it: Any) -> None:
    """Refuse an optional input that is missing, and one that would be passed over in silence."""
    if (given is None) == (made_for_it is None):
        return
    missing, surplus = f"was made for a {name}, but none was given", f"was made without a {name}, but one was given"
    raise InputError(f"{type(module).__name__} {missing if given is None else surplus}")
