"""A planted overrun: `python tests/overrun.py` fails unless Numba's bounds checks are on and see it.

They are on with NUMBA_BOUNDSCHECK=1 in the environment, and only in code compiled while it is: a kernel found in the
cache keeps what it was compiled with, which is why checked runs begin with an empty NUMBA_CACHE_DIR.
"""

import os
import sys
from pathlib import Path

import numpy as np

from tinygen.kernels.cpu.compiling import kernel


@kernel
def element(x, i):
    return x[i]


@kernel
def one_too_far(x):
    """Reads the element behind the last, by an index of each kind that kernels use."""
    return element(x, x.size) + element(x, np.uint64(x.size))


def complaint() -> str:
    """What is wrong with the bounds checks of this process; nothing if they see the overrun."""
    try:
        one_too_far(np.zeros(4, np.float32)[:3])  # of which the fourth can be read without harm
    except IndexError:
        return ""
    return "a kernel that reads one element too far was not stopped: NUMBA_BOUNDSCHECK=1 is missing, or does not work"


def empty_cache() -> bool:
    """Whether no kernel can come from the disk."""
    folder = os.environ.get("NUMBA_CACHE_DIR")
    return bool(folder) and not any(Path(folder).rglob("*.nbc"))


if __name__ == "__main__":
    sys.exit(complaint() or 0)
