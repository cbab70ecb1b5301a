"""Minibatches without end, in an order that a seed sets and a checkpoint takes up again."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygen.errors import InputError
from tinygen.random import Generator

__all__ = ["Batches"]


class Batches:
    """Goes through arrays in random order, again and again, `size` examples at a time.

        batches = Batches(images, labels, size=128, rng=run.rng)
        x, y = next(batches)

    arrays:    one or more with the examples along their first axis, in step with each other; a batch is one array where
               one was given, and a tuple otherwise
    size:      examples in a batch
    rng:       forked once, so that the order does not depend on what else draws from it afterwards
    drop_last: whether the examples of an epoch that do not fill a batch are left out (each epoch other ones), or make a
               smaller batch. Where there are fewer examples than `size`, they are the batch in either case.

    In each epoch every example comes once. The order of an epoch is a function of a seed and a counter, so the state is
    these two numbers and the position: give the object to `tinygen.training.train` in `state`, and a run that is taken
    up in the middle of an epoch sees the examples that it would have seen. Raises InputError for arrays of different or
    no length, and for a state of another number of examples or another size of batch.
    """

    def __init__(self, *arrays: Any, size: int, rng: Generator, drop_last: bool = True):
        lengths = {len(array) if np.ndim(array) else 0 for array in arrays}
        if len(lengths) != 1 or 0 in lengths:
            shapes = ", ".join(str(np.shape(array)) for array in arrays) or "none"
            raise InputError(f"Batches: arrays must have one length along their first axis, and not 0; got {shapes}.")
        self.arrays, self.examples, self.drop_last = arrays, lengths.pop(), drop_last
        self.size = _whole(size, "size", least=1)
        self._rng = rng.fork()
        self._begin_epoch()

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Any:
        if self._position >= self._end:
            self._begin_epoch()
        chosen = self._order[self._position : self._position + self.size]
        self._position += len(chosen)
        batch = tuple(array[chosen] for array in self.arrays)
        return batch if len(batch) > 1 else batch[0]

    @property
    def per_epoch(self) -> int:
        """The number of batches in an epoch."""
        return -(-self._end // self.size)

    def state_dict(self) -> dict[str, int]:
        """Seed and counter of this epoch's order, the position in it, and the two numbers that have to agree."""
        return {**self._epoch, "position": self._position, "examples": self.examples, "size": self.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on, bit for bit, with the batch that would have come next. Takes integers, or 0-d arrays of them."""
        if set(state) != set(self.state_dict()):
            raise InputError(f"Batches: the state must hold {sorted(self.state_dict())}, not {sorted(state)}.")
        position, examples, size = (_whole(state[name], name) for name in ("position", "examples", "size"))
        if (examples, size) != (self.examples, self.size):
            raise InputError(
                f"Batches: the state is that of batches of {size} from {examples:,} examples, not of {self.size} from "
                f"{self.examples:,}. Go on with the data and the size that training began with."
            )
        if position > examples:
            raise InputError(f"Batches: the state has position {position}, which is not among {examples:,} examples.")
        self._rng.load_state_dict({name: state[name] for name in ("seed", "counter")})
        self._begin_epoch()
        self._position = position

    def _begin_epoch(self) -> None:
        self._epoch = self._rng.state_dict()
        self._order = self._rng.permutation(self.examples)
        self._position = 0

    @property
    def _end(self) -> int:
        """Where in the order an epoch ends."""
        whole = self.examples - self.examples % self.size
        return whole if self.drop_last and whole else self.examples


def _whole(value: Any, name: str, least: int = 0) -> int:
    """`value` as a Python int: an integer, or a 0-d array of one."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise InputError(f"Batches: {name} must be an integer, not {value!r}.") from error
    if number < least:
        raise InputError(f"Batches: {name} must be at least {least}, not {number}.")
    return number
