"""Errors and alarms of ops, in words: which op, on which operands, what rule was broken, and where it was called.

`explain` turns whatever NumPy raised inside an op into one paragraph; `watch` is what `detect_anomaly` asks of every
result. Nothing here runs unless something is wrong or being watched.
"""

from __future__ import annotations

import functools
import os
import reprlib
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import arrays
from tinygen.errors import DtypeError, InputError, NonFiniteError, TinygenError

PACKAGE = os.path.dirname(__file__) + os.sep
RAISED = (ValueError, TypeError, IndexError, AttributeError, OverflowError, ZeroDivisionError, MemoryError)  # by NumPy


class OpIndexError(TinygenError, IndexError):
    """An index outside its array."""


class OpMemoryError(TinygenError, MemoryError):
    """A result that does not fit in the memory."""


def explain(name: str, error: Exception, values: Any) -> TinygenError:
    """The error of an op, with the op, the operands' shapes, dtypes and devices, the rule broken, and the line."""
    if getattr(error, "line", None):  # an op inside this one has told already
        return error
    kind, rule = type(error), str(error)
    if not isinstance(error, TinygenError):
        kind = next((made for raised, made in EXPLAINED.items() if isinstance(error, raised)), InputError)
    if isinstance(error, AttributeError) and not all(hasattr(value, "shape") for value in values):
        kind, rule = DtypeError, "it takes arrays, not plain numbers or anything else"
    return located(kind(f"{name}({', '.join(map(describe, values))}): {rule.rstrip('.')}."))


EXPLAINED = {ValueError: InputError, TypeError: DtypeError, IndexError: OpIndexError, MemoryError: OpMemoryError}


def located(error: TinygenError) -> TinygenError:
    """The error with the line of the caller."""
    error.line = caller()
    return error


def explained(function: Callable) -> Callable:
    """Decorator for a plain function made of ops: what it raises is explained under its own name, as an op's is."""

    @functools.wraps(function)
    def call(*args: Any, **params: Any) -> Any:
        try:
            return function(*args, **params)
        except RAISED as error:
            raise explain(function.__name__, error, args) from (None if isinstance(error, TinygenError) else error)

    return call


def describe(value: Any) -> str:
    """`float32 (64, 20)`, with the device when it is not the CPU; plain values as they are, shortened if long."""
    if not hasattr(value, "shape"):
        return reprlib.repr(value)
    device = "" if arrays.device_of(value) == "cpu" else " on cuda"
    return f"{value.dtype} {tuple(value.shape)}{device}"


def caller() -> str | None:
    """File and line of the innermost frame outside tinygen."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    if frame is None:
        return None
    folder, file = os.path.split(frame.f_code.co_filename)
    return f"{os.path.join(os.path.basename(folder), file)}:{frame.f_lineno}"


def watch(name: str, values: Any, outs: tuple) -> None:
    """Raise if an output is not finite, and say whether the op made it so or was given it."""
    if all(finite(out) for out in outs):
        return
    given = [i for i, value in enumerate(values) if not finite(value)]
    blame = f"operand {given[0]} already held one" if given else "its operands were finite"
    raise explain(name, NonFiniteError(f"the result holds a NaN or an infinity; {blame}"), values)


def finite(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return dtype is None or dtype.kind != "f" or bool(arrays.xp(value).isfinite(value).all())


def checksum(value: Any) -> int:
    if isinstance(value, tuple):
        return hash(tuple(map(checksum, value)))
    return zlib.crc32(np.ascontiguousarray(arrays.to_numpy(value))) if arrays.is_array(value) else 0
