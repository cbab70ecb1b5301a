"""Dropout: noise in training that is no part of the model, and yet has to be the same when a run is resumed."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import arrays, ops
from tinygen.errors import InputError
from tinygen.nn.module import Buffer, Module
from tinygen.random import Generator
from tinygen.tensor import Tensor


class HostBuffer(Buffer):
    """A Buffer that stays in the computer's own memory wherever its module goes: Python reads it without waiting."""

    __slots__ = ()

    def __init__(self, values: Any, requires_grad: bool = False):
        super().__init__(arrays.to_numpy(values))


class Dropout(Module):
    """In training each element is zero with probability `rate`, else divided by 1 - rate; in evaluation nothing happens
    (Srivastava et al. 2014, in the form that scales in training). Any shape.

    The layer draws from a generator of its own, forked off `rng` when it is made. Its state is the buffer
    key = (seed, counter), and each call in training counts one on: so it is saved and loaded with the module, and a run
    that is resumed drops what it would have dropped. Evaluation does not count, nor does rate 0.
    """

    def __init__(self, rate: float = 0.5, *, rng: Generator):
        if not 0 <= rate <= 1:
            raise InputError(f"Dropout: rate is a probability from 0 to 1, not {rate}.")
        self.rate = rate
        self.key = HostBuffer(np.array(rng.fork().key(), np.uint64))

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.rate):
            return x
        seed, counter = self.key.tolist()
        self.key.data = np.array([seed, counter + 1], np.uint64)
        return ops.dropout(x, self.rate, (seed, counter))
