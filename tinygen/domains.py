"""Describing an op's valid inputs, so that its gradient can be checked on examples nobody had to write.

A description is a function of a `draw`, which hands out sizes, choices and arrays, and returns the operands and the
parameters of one call:

    def matrices(draw):
        n, k, m = draw.sizes(3)
        return (draw.array((n, k)), draw.array((k, m))), {}

The tests pass a `draw` that hypothesis steers (and shrinks); `python -m tinygen.gradcheck` passes one that draws at
random, so that neither tinygen nor a reader's own op needs hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class Domain(NamedTuple):
    """The numbers an operand may hold: an interval, without what lies closer than `gap` to zero."""

    low: float
    high: float
    gap: float = 0.0

    def fill(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        x = rng.uniform(self.low, self.high, shape)
        return np.where(np.abs(x) < self.gap, x + np.where(x < 0, -self.gap, self.gap), x)


real = Domain(-3.0, 3.0)
nonzero = Domain(-3.0, 3.0, gap=0.3)
positive = Domain(0.3, 4.0)
unit = Domain(-0.9, 0.9)
probability = Domain(0.05, 0.95)
above_one = Domain(1.2, 4.0)


class Draw(Protocol):
    """What a description can ask for."""

    def integer(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""

    def choice(self, options: Sequence) -> Any:
        """One of the options."""

    def array(self, shape: tuple[int, ...], domain: Domain = real) -> np.ndarray:
        """A float64 array of that shape with numbers from the domain."""

    def integers(self, shape: tuple[int, ...], high: int, low: int = 0) -> np.ndarray:
        """An int64 array with low <= numbers < high."""

    def distinct(self, shape: tuple[int, ...]) -> np.ndarray:
        """Like `array`, with all numbers at least 0.05 apart, for ops that sort or pick."""


class DrawTools:
    """What follows from the five methods of `Draw`; implementations inherit it."""

    def boolean(self) -> bool:
        return self.choice([False, True])

    def sizes(self, n: int, high: int = 4) -> list[int]:
        """`n` side lengths from 1 to `high`."""
        return [self.integer(1, high) for _ in range(n)]

    def shape(self, low: int = 0, high: int = 3, side: int = 4) -> tuple[int, ...]:
        """A shape of `low` to `high` dimensions."""
        return tuple(self.sizes(self.integer(low, high), side))

    def axis(self, ndim: int) -> int:
        """An axis of an array of `ndim` dimensions, counted from the front or from the back."""
        return self.integer(-ndim, ndim - 1)

    def axes(self, ndim: int) -> None | int | tuple[int, ...]:
        """None, one axis or several, as reductions take them."""
        if ndim == 0 or self.integer(0, 2) == 0:
            return None
        first = self.axis(ndim)
        rest = [a for a in range(ndim) if a != first % ndim and self.boolean()]
        return (first, *rest) if rest else first

    def broadcastable(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts with `shape`: some leading axes dropped, some sides 1."""
        kept = shape[self.integer(0, len(shape)) :]
        return tuple(1 if self.boolean() else side for side in kept)


class RandomDraw(DrawTools):
    """A draw from a NumPy generator."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high, endpoint=True))

    def choice(self, options: Sequence) -> Any:
        return options[self.integer(0, len(options) - 1)]

    def array(self, shape: tuple[int, ...], domain: Domain = real) -> np.ndarray:
        return domain.fill(tuple(shape), self.rng)

    def integers(self, shape: tuple[int, ...], high: int, low: int = 0) -> np.ndarray:
        return self.rng.integers(low, high, shape)

    def distinct(self, shape: tuple[int, ...]) -> np.ndarray:
        n = int(np.prod(shape, dtype=int))
        steps = self.rng.uniform(0.05, 0.3, n).cumsum()
        return self.rng.permutation(steps - steps.mean() if n else steps).reshape(shape)


def arrays(*domains: Domain) -> Callable:
    """Operands of any shape, one for each domain, that broadcast with one another."""

    def describe(draw):
        shape = draw.shape()
        shapes = [shape] + [draw.broadcastable(shape) for _ in domains[1:]]
        if len(domains) > 1 and draw.boolean():
            shapes[0], shapes[1] = shapes[1], shapes[0]
        return tuple(draw.array(s, d) for s, d in zip(shapes, domains, strict=True)), {}

    describe.operands = len(domains)  # marks an elementwise op, which takes arrays of every shape, empty ones too
    return describe


def reductions(domain: Domain = real, distinct: bool = False) -> Callable:
    """One operand with `axis` and `keepdims`."""

    def describe(draw):
        shape = draw.shape()
        x = draw.distinct(shape) if distinct else draw.array(shape, domain)
        return (x,), {"axis": draw.axes(len(shape)), "keepdims": draw.boolean()}

    return describe


def along_axis(domain: Domain = real, distinct: bool = False) -> Callable:
    """One operand of at least one dimension with one `axis`."""

    def describe(draw):
        shape = draw.shape(low=1)
        x = draw.distinct(shape) if distinct else draw.array(shape, domain)
        return (x,), {"axis": draw.axis(len(shape))}

    return describe
