"""The one pool of threads that kernels share: serial kernels, which hold no lock of Python's while they run, side by
side in the threads of an ordinary executor.

Its threads sleep when there is nothing to do, where those of OpenMP and of BLAS go on spinning for milliseconds on a
core that the next step wants. Sharing out work costs about 40 us, so small work is not worth it. Several Python threads
may share out work at once, and a process that was forked from one with a pool runs everything in its own thread.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba


def threads() -> int:
    """How many threads a kernel may use: NUMBA_NUM_THREADS in the environment, or `numba.set_num_threads`."""
    return numba.get_num_threads()


def share(task: Callable[[int], object], count: int, limit: int) -> None:
    """Runs task(0), ..., task(count - 1) on at most `limit` threads, the caller's among them, and waits for the last.

    Which thread runs which is left to chance, so every task writes to a place of its own.
    """
    numbers = iter(range(count))

    def work() -> None:
        for number in numbers:
            task(number)

    helpers = [_pool().submit(work) for _ in range(min(limit, count) - 1)]
    try:
        work()
    finally:
        for helper in helpers:
            if not helper.cancel():          # what has not begun when all is done need not begin
                helper.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, numba.config.NUMBA_NUM_THREADS - 1), "tinygen")
