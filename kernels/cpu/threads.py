"""The one pool of threads that kernels share: serial kernels, which hold no lock of Python's while they run, side by
side in the threads of an ordinary executor.

Its threads sleep when there is nothing to do, where those of OpenMP and of BLAS go on spinning for milliseconds on a
core that the next step wants. So no other pool may come to life in between: products that would wake NumPy's BLAS are a
kernel too (matmul.py), and the BLAS that kernels call has one thread. Sharing out work costs about 50 us, 15 until the
other thread begins and the rest until this one knows that it has ended, so small work is not worth it. Several Python
threads may share out work at once, and a process that was forked from one with a pool runs everything in its own.
"""

import contextlib
import ctypes
import functools
import os
import threading
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

    _elsewhere()
    helpers = [_pool().submit(work) for _ in range(min(limit, count) - 1)]
    try:
        work()
    finally:
        for helper in helpers:
            if not helper.cancel():          # what has not begun when all is done need not begin
                helper.result()


# -- the pool ----------------------------------------------------------------------------------------------------------

_members: dict[int, int] = {}                # the system's number of each thread in the pool: the core it is kept off


@functools.cache
def _pool() -> ThreadPoolExecutor:
    join = lambda: _members.setdefault(threading.get_native_id(), -1)
    return ThreadPoolExecutor(max(1, numba.config.NUMBA_NUM_THREADS - 1), "tinygen", initializer=join)


def _elsewhere() -> None:
    """Keeps the pool off the caller's core, where Linux lets its threads be set.

    It likes to wake a thread on the core of the one that wakes it, and moves it to an idle one only 10 ms later: two
    threads then take as long as one.
    """
    cores, current = _cores()
    here = current()
    for member, barred in list(_members.items()):
        if barred != here and len(cores) > 1:
            with contextlib.suppress(OSError):                                          # it has ended: we were forked
                os.sched_setaffinity(member, cores - {here})
            _members[member] = here


@functools.cache
def _cores() -> tuple[set[int], Callable[[], int]]:
    """The cores that this process may use, and what tells the caller's; none where the system does not tell."""
    try:
        return os.sched_getaffinity(0), ctypes.CDLL(None).sched_getcpu
    except (AttributeError, OSError):
        return set(), lambda: -1


def one_blas_thread():
    """Holds the BLAS that Numba's np.dot calls to one thread, also after somebody has set it to more."""
    for library in _blas():
        if library.num_threads != 1:
            library.set_num_threads(1)


@functools.cache
def _blas():
    """SciPy's BLAS, whatever its kind."""
    import scipy.linalg.cython_blas  # noqa: F401  (loads it)
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().select(user_api="blas").lib_controllers
    return [library for library in found if "numpy" not in library.filepath] or found
