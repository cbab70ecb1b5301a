"""Residual perceptrons: each block adds a correction to what it was given, and may be told the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygen import ops
from tinygen.nn import initialise
from tinygen.nn.embedding import sinusoidal
from tinygen.nn.linear import MLP, Linear
from tinygen.nn.module import Module
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
        inner = self.first(self.activation(h))
        if self.condition is not None:
            inner = inner + self.condition(c)
        return h + self.second(self.activation(inner))


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
        self.time, self.activation = time, activation
        self.embed = MLP([time, width, width], activation, rng=rng) if time else None
        self.first = Linear(inputs, width, rng=rng)
        condition = width if time else 0
        self.blocks = [ResidualBlock(width, condition, activation, rng=rng) for _ in range(blocks)]
        self.last = Linear(width, outputs, rng=rng, weight_init=initialise.zeros)

    def forward(self, x: Any, t: Any = None) -> Tensor:
        c = self.activation(self.embed(sinusoidal(t, self.time))) if self.embed is not None else None
        h = self.first(x)
        for block in self.blocks:
            h = block(h, c)
        return self.last(self.activation(h))
