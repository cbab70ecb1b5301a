"""Launches of what goes over all arrays of a model in one pass: rules of optimisers, moving averages, clipping.

`jobs` is a list with a tuple of arrays for each parameter, such as (theta, g, m, v): all of one shape, contiguous.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

GROUP = 8  # arrays in a call of a kernel, which is compiled for tuples of this length
FLOAT32, ARRAY, NOTHING = np.dtype(np.float32), np.ndarray, np.empty(0, np.float32)
PIECE = 1 << 18  # parameters that a thread takes at a time
WORTH_SHARING = 1 << 22  # numbers read: a core goes over 16 MB in some 200 us, and sharing them out takes 50 to 100


def fits(job: tuple) -> bool:
    """Whether the kernels were written for these arrays. Asked of each array in each step: it should be quick."""
    shape = job[0].shape
    for a in job:
        if type(a) is not ARRAY or (a.dtype is not FLOAT32 and a.dtype != FLOAT32):
            return False
        if a.shape != shape or not a.flags.carray:
            return False
    return True


def in_one_pass(kernel: Callable, jobs: list[tuple], *numbers: float) -> list:
    """kernel(*columns of jobs, begin, end, *numbers) until it has met every parameter; a list of what it returned.

    The pieces depend on the sizes alone, so every number of threads gives the same bits.
    """
    tasks, total = [], 0
    for k in range(0, len(jobs), GROUP):
        group = jobs[k : k + GROUP]
        fill = [NOTHING] * (GROUP - len(group))
        columns = [tuple([a if a.ndim == 1 else a.ravel() for a in column] + fill) for column in zip(*group)]
        size = sum([a.size for a in columns[0]])
        each = math.ceil(size / math.ceil(size / PIECE)) if size else 1
        tasks += [(*columns, begin, min(begin + each, size), *numbers) for begin in range(0, size, each)]
        total += size * len(columns)
    if total < WORTH_SHARING:
        return [kernel(*task) for task in tasks]
    from tinygen.kernels.cpu.threads import share, threads

    results = [None] * len(tasks)

    def run(k: int) -> None:
        results[k] = kernel(*tasks[k])

    share(run, len(tasks), threads())
    return results


def adam_step(jobs: list[tuple], *numbers: float) -> None:
    from tinygen.kernels.cpu.adam import adam_steps

    in_one_pass(adam_steps, jobs, *numbers)


def move_average(jobs: list[tuple], rate: float) -> None:
    from tinygen.kernels.cpu.ema import move_averages

    in_one_pass(move_averages, jobs, rate)


def clip(jobs: list[tuple], max_norm: float) -> Any:
    from tinygen.kernels.cpu.clip import scale_all, sums_of_squares

    norm = math.sqrt(sum(in_one_pass(sums_of_squares, jobs)))
    if not norm <= max_norm:  # also where it is NaN
        in_one_pass(scale_all, jobs, max_norm / norm)
    return np.asarray(norm, np.float32)
