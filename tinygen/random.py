"""Explicit randomness: a generator is a seed and a counter, and a draw is a pure function of the two.

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") scrambles a counter with a key; there is no
hidden state that has to be stepped through. Here the seed is Philox's 64-bit key, and draw number c starts at the
256-bit counter c * 2**192, which leaves each draw 2**192 blocks of its own. It follows that

- the whole state is `(seed, counter)`: it saves in two integers, and every draw moves the counter on by one;
- `normal_at(key, shape)` returns the same numbers each time it is called with the same key: this is what an op that
  has to be replayed (dropout, say) uses in place of a generator;
- a forked generator has a seed of its own, so that parent and child draw in any order without disturbing each other.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinygen.errors import InputError

Shape = int | tuple[int, ...]

WORD = 2**64  # seeds and counters are 64-bit words


class Key(NamedTuple):
    """The name of one draw: the seed of a generator and the number of the draw."""

    seed: int
    counter: int


def uniform_at(
    key: tuple[int, int], shape: Shape = (), low: float = 0.0, high: float = 1.0, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """Uniform numbers on [low, high), the same ones for the same key."""
    dtype = _float_dtype(dtype)
    if not (np.isfinite(low) and np.isfinite(high) and dtype.type(low) < dtype.type(high)):
        raise InputError(f"uniform: low={low}, high={high} must be finite, with low < high also in {dtype.name}.")
    u = _stream(key).random(_shape(shape), dtype=dtype)
    if (low, high) == (0, 1):
        return u
    x = dtype.type(low) + dtype.type(high - low) * u
    return np.minimum(x, np.nextafter(dtype.type(high), dtype.type(low)))  # rounding may reach `high` itself


def normal_at(key: tuple[int, int], shape: Shape = (), dtype: DTypeLike = np.float32) -> np.ndarray:
    """Standard normal numbers, the same ones for the same key."""
    dtype = _float_dtype(dtype)
    return _stream(key).standard_normal(_shape(shape), dtype=dtype)


class Generator:
    """A stream of random arrays, set by a seed (an integer of 64 bits) and nothing else.

    Each method is one draw, and a draw is a function of `(seed, counter)` alone: how much an earlier draw asked for, or
    of which kind, does not change what a later one returns. Shapes are an integer or a tuple; results are NumPy arrays.
    """

    def __init__(self, seed: int):
        self._seed = _word(seed, "seed")
        self._counter = 0

    def key(self) -> Key:
        """The key (seed, counter) of the next draw, which is thereby used up."""
        key = Key(self._seed, self._counter)
        self._counter += 1
        return key

    def fork(self) -> Generator:
        """An independent generator, whose seed is 64 bits drawn from this one."""
        return Generator(int(_stream(self.key()).bit_generator.random_raw()))

    def uniform(
        self, shape: Shape = (), low: float = 0.0, high: float = 1.0, dtype: DTypeLike = np.float32
    ) -> np.ndarray:
        """Uniform numbers on [low, high)."""
        return uniform_at(self.key(), shape, low, high, dtype)

    def normal(self, shape: Shape = (), dtype: DTypeLike = np.float32) -> np.ndarray:
        """Normal numbers of mean 0 and variance 1."""
        return normal_at(self.key(), shape, dtype)

    def integers(self, high: int, shape: Shape = ()) -> np.ndarray:
        """Integers (int64) from 0 to high - 1, all equally likely."""
        high = _count(high, "integers: high", least=1)
        return np.asarray(_stream(self.key()).integers(high, size=_shape(shape)))

    def permutation(self, n: int) -> np.ndarray:
        """The integers 0 .. n - 1 (int64) in random order."""
        return _stream(self.key()).permutation(_count(n, "permutation: n", least=0))

    def choice(self, n: int, shape: Shape = (), p: ArrayLike | None = None) -> np.ndarray:
        """Integers (int64) from 0 to n - 1 with replacement, i with probability p[i]; all equally likely without p."""
        if p is None:
            return self.integers(n, shape)
        n = _count(n, "choice: n", least=1)
        p = np.asarray(p, np.float64)
        if p.shape != (n,) or not np.all(p >= 0) or not abs(p.sum() - 1) < 1e-5:
            raise InputError(
                f"choice: p has shape {p.shape} and sums to {p.sum():.6g}; it must be {n} probabilities, none "
                "negative, that sum to one."
            )
        cdf = np.cumsum(p)
        cdf /= cdf[-1]
        return np.searchsorted(cdf, _stream(self.key()).random(_shape(shape)), side="right")

    def state_dict(self) -> dict[str, int]:
        """The whole state, {"seed": int, "counter": int}; each fits np.uint64, so an .npz holds it without pickle."""
        return {"seed": self._seed, "counter": self._counter}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Go on, bit for bit, where the generator of `state` stood. Takes integers, or the 0-d arrays of an .npz."""
        if set(state) != {"seed", "counter"}:
            raise InputError(f'Generator state must hold "seed" and "counter", not {sorted(state)}.')
        seed, counter = _word(state["seed"], "seed"), _word(state["counter"], "counter")
        self._seed, self._counter = seed, counter

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, counter={self._counter})"


def _stream(key: tuple[int, int]) -> np.random.Generator:
    """NumPy's distributions, positioned at the start of the draw that `key` names."""
    seed, counter = key
    words = np.array([0, 0, 0, counter], np.uint64)  # least significant first
    return np.random.Generator(np.random.Philox(key=seed, counter=words))


def _word(value: ArrayLike, name: str) -> int:
    word = _count(value, name, least=0)
    if word >= WORD:
        raise InputError(f"{name} must lie below 2**64, not {word}.")
    return word


def _count(value: ArrayLike, name: str, least: int) -> int:
    """`value` as a Python int: an integer scalar or a 0-d integer array, but neither a bool nor a float."""
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} must be an integer, not {value!r}.")
    if count < least:
        raise InputError(f"{name} must be at least {least}, not {count}.")
    return count


def _shape(shape: Shape) -> tuple[int, ...]:
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    return tuple(_count(size, f"each size in shape {shape!r}", least=0) for size in sizes)


def _float_dtype(dtype: DTypeLike) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise InputError(f"random numbers are float32 or float64, not {dtype.name}; convert the result instead.")
    return dtype
