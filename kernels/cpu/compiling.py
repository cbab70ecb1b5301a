"""How a Python loop becomes a kernel: compiled when first called, for the dtypes it is called with, and kept on disk.

A call that finds no compiled version, in memory or on disk, takes a second instead of microseconds; one line through
`logging` says so. Nothing is wrapped around the compiled function, so later calls cost what Numba's own cost.
"""

import logging
from collections.abc import Callable, Set
from pathlib import Path

import numba
from numba.core import event

_log = logging.getLogger("tinygen.kernels")
_kernels: dict[Callable, str] = {}                                   # what `kernel` has made, and how long it is kept


def kernel(function: Callable | None = None, *, fastmath: Set[str] = frozenset()) -> Callable:
    """Decorator: compiles `function` for the types of its first call, without the GIL, serially.

    Division by zero gives inf or NaN as in NumPy rather than an exception. A product and the sum it goes into may
    become one instruction ("contract"), which rounds once where two would round twice. `fastmath` names further
    liberties that the compiler may take with floating point; the kernel says why its results bear them.
    """
    if function is None:
        return lambda function: kernel(function, fastmath=fastmath)
    dispatcher = numba.njit(nogil=True, error_model="numpy", fastmath={"contract", *fastmath})(function)
    _kernels[dispatcher] = _keep_on_disk(dispatcher)
    return dispatcher


def _keep_on_disk(dispatcher) -> str:
    try:
        dispatcher.enable_caching()
    except RuntimeError:                      # neither __pycache__ nor the user's own cache folder can be written to
        return "again in each run, unless NUMBA_CACHE_DIR names a folder that can be written to"
    # Numba looks only at the file of the function itself. A kernel that calls another, edited, would go on running the
    # old one; so its stamp covers every file that it draws code from.
    index = getattr(dispatcher._cache, "_cache_file", None)
    if index is not None:
        index._source_stamp = sorted(_sources(dispatcher.py_func))
    return "once; kept on disk"


def _sources(function) -> set[tuple[str, int, int]]:
    """Name, modification time and size of each file with code of `function` or of a kernel that it calls, and of this
    file, which says how they are compiled."""
    sources = {_stamp(Path(function.__code__.co_filename)), _stamp(Path(__file__))}
    for name in function.__code__.co_names:
        called = function.__globals__.get(name)
        if called is not None and getattr(called, "py_func", function) is not function:
            sources |= _sources(called.py_func)
    return sources


def _stamp(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return file.name, status.st_mtime_ns, status.st_size


class _Announcer(event.Listener):
    """Says which kernel is being compiled; the parts compiled on its behalf are not worth a line each."""

    depth = 0

    def on_start(self, compilation) -> None:
        dispatcher = compilation.data["dispatcher"]
        if self.depth == 0 and dispatcher in _kernels:
            name, lasting = dispatcher.py_func.__name__, _kernels[dispatcher]
            _log.warning("tinygen: compiling %s for this machine (%s)", name, lasting)
        self.depth += 1

    def on_end(self, compilation) -> None:
        self.depth -= 1


event.register("numba:compile", _Announcer())
