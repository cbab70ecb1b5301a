"""Which array library a value belongs to, and moving arrays between devices.

Everything else in tinygen asks here instead of importing CuPy: a program that never touches a GPU never loads it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from tinygen.errors import DeviceError


def is_array(value: Any) -> bool:
    """Whether `value` is an array of NumPy or CuPy (a NumPy scalar is not)."""
    return isinstance(value, np.ndarray) or (not isinstance(value, np.generic) and xp(value) is not np)


def xp(*values: Any) -> ModuleType:
    """The module, `numpy` or `cupy`, whose functions work on `values`; `numpy` for plain numbers."""
    cupy = sys.modules.get("cupy")  # an array of CuPy cannot exist before CuPy was imported
    if cupy is not None and any(isinstance(value, cupy.ndarray) for value in values):
        return cupy
    return np


def special(*values: Any) -> ModuleType:
    """The module of special functions, `scipy.special` or `cupyx.scipy.special`, for `values`."""
    if xp(*values) is np:
        import scipy.special

        return scipy.special
    import cupyx.scipy.special

    return cupyx.scipy.special


def device_of(array: Any) -> str:
    return "cpu" if xp(array) is np else "cuda"


def to_numpy(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.get()


def to_device(array: Any, device: str) -> Any:
    """`array` on "cpu" or "cuda": itself if it is there already."""
    if device not in ("cpu", "cuda"):
        raise DeviceError(f'device "{device}" is unknown; there are "cpu" and "cuda".')
    if device == device_of(array):
        return array
    if device == "cpu":
        return array.get()
    try:
        import cupy
    except ImportError:
        raise DeviceError('device "cuda" needs CuPy: python -m pip install -e ".[cuda]"') from None
    if not cupy.cuda.is_available():
        raise DeviceError('device "cuda": CuPy is installed, but finds no NVIDIA driver or device on this machine.')
    return cupy.asarray(array)
