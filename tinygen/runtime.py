"""Settings of the process that let training run at full speed: one pool of threads, and memory that is kept."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

GIB = 2**30
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # glibc's names for what mallopt sets


@contextlib.contextmanager
def tuned(blas_threads: int | None = 1) -> Iterator[None]:
    """Within this context NumPy's BLAS uses `blas_threads` (None: as many as it likes), and freed memory is kept.

    Large products of float32 are not its business: the kernels share them out among threads of their own, one for each
    core (NUMBA_NUM_THREADS, `numba.set_num_threads`). What is left to it are small products, which never get a second
    thread, float64, and decompositions. A BLAS thread, once it was needed, goes on spinning for 0.1 s on a core that
    the kernels' threads want; so one is enough.
    """
    from threadpoolctl import threadpool_limits

    keep_freed_memory()
    with threadpool_limits(blas_threads, user_api="blas"):
        yield


def keep_freed_memory() -> None:
    """Ask the C library (glibc; elsewhere this does nothing) not to hand freed memory back to the system.

    By default a step's arrays are given back when the step ends, and the next one begins by faulting every page in
    again: on two cores 2.1 ms a step of `demos/ddpm_8gaussians`, against 1.5 when they are kept.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, GIB)
        mallopt(TOP_PAD, GIB // 16)
        mallopt(MMAP_THRESHOLD, GIB // 32)  # the largest value that glibc takes
