"""Workloads in tinygen."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import numpy as np
from workload import Sampling, Training, by_part

from tinygen import optim, runtime
from tinygen.random import Generator


def prepare(work: Training | Sampling, data: list[list[np.ndarray]], threads: int) -> tuple[Callable, Callable]:
    """A function that makes one step and returns its losses (or samples), and one that returns the weights by name."""
    import numba

    numba.set_num_threads(threads)
    runtime.tuned(threads).__enter__()  # as demos run: freed memory is kept
    model, batches = work.model(Generator(0)), cycle(data)
    if isinstance(work, Sampling):
        model.eval()
        return lambda: [work.tinygen(model, *next(batches))], dict
    losses = by_part(work.tinygen)
    parts = {name: getattr(model, name) if name else model for name in losses}
    rule = getattr(optim, work.optimiser)
    optimisers = {name: rule(part.parameters(), lr=work.lr, betas=work.betas) for name, part in parts.items()}
    ema = optim.EMA(model, decay=0.999) if work.ema else None

    def step() -> list:
        batch, values = next(batches), []
        for name, loss in losses.items():
            if name:  # the other parts get no gradients
                for other, part in parts.items():
                    part.requires_grad_(other == name)
            value = loss(model, *batch)
            value.backward()
            optimisers[name].step()
            optimisers[name].zero_grad()
            values.append(value)
        if ema is not None:
            ema.update()
        return values

    return step, model.state_dict


def number(loss) -> float:
    return loss.item()


def samples(x) -> np.ndarray:
    return x.numpy() if hasattr(x, "numpy") else np.asarray(x)
