"""Tensor: an array, the node that made it, and NumPy's operators and methods over both.

A Tensor is three things: the array, the node of the graph that computed it (`None` for a constant, a `Leaf` where
gradients end), and a version that says when the memory was last written to. Every operator and method below is one
registered op of `tinygen.ops`; how ops record and how gradients flow back is the subject of `tinygen.autograd`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np

from tinygen import arrays, explain
from tinygen.errors import DtypeError, GraphError, InputError, ShapeError

tick = count(1).__next__
"""One clock for the whole process: nodes are stamped when recorded, memory when written to."""

DTYPES = frozenset(map(np.dtype, "?bBhHiIlLqQfd"))
"""What a Tensor may hold: booleans, integers, float32 and float64, in the machine's byte order."""
Axes = int | tuple[int, ...] | None
KINDS = "float32, float64, integers or booleans"


class Version:
    """When a block of memory was last written to. Tensors that view the same memory share one of these."""

    tick = 0
    shared = False


class Leaf:
    """Where backward ends: holds the accumulated gradient of a Tensor that requires one."""

    __slots__ = ("dtype", "grad", "seq", "shape")
    op = None
    parents = ()

    def __init__(self, array: Any):
        self.seq, self.shape, self.dtype, self.grad = tick(), array.shape, array.dtype, None


class Tensor:
    """An array with a history.

    `Tensor(array)` wraps without copying and is what ops use; `tinygen.tensor(values)` copies and is what people use.
    A Tensor behaves as a NumPy array does; `requires_grad=True` makes it a leaf, whose `.grad` backward fills.

    Memory that backward still needs must not be written to. In-place operators, `x[i] = v`, assignment to `.data` and
    optimisers are noticed, through views too, and backward then raises. Writing into the array itself
    (`x.numpy()[0] = 1`, or into an array that was handed to an op as a constant) is noticed only under
    `tinygen.detect_anomaly()`.
    """

    __slots__ = ("__weakref__", "_array", "node", "version")
    __array_ufunc__ = None  # NumPy on the left of an operator hands over to Tensor instead of swallowing it
    __hash__ = object.__hash__

    def __init__(self, array: Any, requires_grad: bool = False):
        if (type(array) is not np.ndarray and not arrays.is_array(array)) or array.dtype not in DTYPES:
            what = getattr(array, "dtype", type(array).__name__)
            raise DtypeError(f"Tensor: cannot wrap {what}, only arrays of {KINDS}; tinygen.tensor makes one of lists.")
        self._array, self.version, self.node = array, Version(), None
        if requires_grad:
            self.requires_grad = True

    # -- what it is ----------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> np.dtype:
        return self._array.dtype

    @property
    def ndim(self) -> int:
        return self._array.ndim

    @property
    def size(self) -> int:
        return self._array.size

    @property
    def device(self) -> str:
        return arrays.device_of(self._array)

    @property
    def data(self) -> Any:
        """The array itself. Assigning copies the values into it, keeps its shape and dtype, and counts as a write."""
        return self._array

    @data.setter
    def data(self, values: Any) -> None:
        values = values._array if isinstance(values, Tensor) else arrays.xp(self._array).asarray(values)
        if values.dtype.kind not in "biuf" or (self.dtype.kind != "f" and values.dtype.kind == "f"):
            raise DtypeError(f"data: cannot assign {values.dtype} to a Tensor of {self.dtype} without losing values.")
        if values.shape != self.shape:
            raise ShapeError(f"data: cannot assign shape {values.shape} to a Tensor of shape {self.shape}.")
        self._store(..., values, "data")

    def _store(self, index: Any, values: Any, name: str) -> None:
        """Write into the memory, and record that it was written to."""
        try:
            if not self._array.flags.writeable:
                raise InputError("this Tensor is a view that repeats elements and cannot be written to; copy it first")
            self._array[index] = values
        except explain.RAISED as error:
            raise explain.explain(name, error, [self._array, values]) from None
        self.touch()

    def touch(self) -> None:
        """Record that the memory was written to; backward through anything that saved it will raise."""
        self.version.tick = tick()

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if wanted == (self.node is not None):
            return
        if wanted and self.dtype.kind != "f":
            raise DtypeError(
                f"a Tensor of {self.dtype} cannot require a gradient: only floats have derivatives. "
                "Convert it first, for example x.astype(np.float32)."
            )
        if not wanted and not self.is_leaf:
            raise GraphError("requires_grad can be switched off on leaves only; use x.detach() on a computed Tensor.")
        self.node = Leaf(self._array) if wanted else None

    @property
    def is_leaf(self) -> bool:
        return self.node is None or type(self.node) is Leaf

    @property
    def grad(self) -> Any:
        """The accumulated gradient, a plain array (None before the first backward, and for what is not a leaf)."""
        return self.node.grad if type(self.node) is Leaf else None

    @grad.setter
    def grad(self, value: Any) -> None:
        if type(self.node) is not Leaf:
            raise GraphError("only a leaf that requires a gradient has a .grad to assign.")
        if value is not None and (not arrays.is_array(value) or value.shape != self.shape or value.dtype != self.dtype):
            raise ShapeError(
                f"grad: expected None or a plain array of shape {self.shape} and dtype {self.dtype}, got "
                f"{type(value).__name__} of shape {getattr(value, 'shape', None)}, {getattr(value, 'dtype', None)}."
            )
        self.node.grad = value

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add d(self)/d(leaf) to every leaf's `.grad`; see `tinygen.autograd.backward`."""
        autograd.backward(self, gradient, retain_graph)

    def zero_grad(self) -> None:
        """Forget the accumulated gradient."""
        self.grad = None

    # -- conversions ---------------------------------------------------------------------------------------------

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: the Tensor's own memory on the CPU, a copy from any other device."""
        return arrays.to_numpy(self._array)

    def item(self) -> Any:
        return self._array.item()

    def tolist(self) -> Any:
        return self._array.tolist()

    def detach(self) -> Tensor:
        """The same memory without the history."""
        out = Tensor(self._array)
        out.version = self.version
        return out

    def to(self, device: str) -> Tensor:
        """This Tensor on a device: itself if it is there already."""
        if device == self.device:
            return self
        return Tensor(arrays.to_device(self._array, device), self.requires_grad)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return np.array(array, dtype, copy=copy) if dtype is not None or copy else array

    def __deepcopy__(self, memo: dict) -> Tensor:
        if not self.is_leaf:
            raise GraphError("deepcopy: a computed Tensor would take its whole graph along; use x.detach() first.")
        out = type(self)(self._array.copy(), self.requires_grad)
        memo[id(self)] = out
        return out

    __float__ = lambda self: float(self._array)
    __int__ = lambda self: int(self._array)
    __bool__ = lambda self: bool(self._array)
    __index__ = lambda self: self._array.__index__()
    __format__ = lambda self, spec: format(self._array.item() if self.ndim == 0 else self._array, spec)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a 0-d Tensor has no length.")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((self._array == (value._array if isinstance(value, Tensor) else value)).any())

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(", threshold=100, precision=4)
        default = self.dtype in (np.float32, np.int64, np.bool_)
        parts = [text, "" if default else f"dtype={self.dtype}"]
        parts.append("" if self.device == "cpu" else f"device={self.device}")
        if self.node is not None:
            op = self.node.op or (self.node.parents and self.node.parents[0].op)  # several outputs: the node behind
            parts.append("requires_grad=True" if self.is_leaf else f"op={op.name}")
        return f"{type(self).__name__.lower()}({', '.join(p for p in parts if p)})"

    # -- operators -----------------------------------------------------------------------------------------------

    def __add__(self, other):
        return ops.add(self, other)

    def __radd__(self, other):
        return ops.add(other, self)

    def __sub__(self, other):
        return ops.subtract(self, other)

    def __rsub__(self, other):
        return ops.subtract(other, self)

    def __mul__(self, other):
        return ops.multiply(self, other)

    def __rmul__(self, other):
        return ops.multiply(other, self)

    def __truediv__(self, other):
        return ops.divide(self, other)

    def __rtruediv__(self, other):
        return ops.divide(other, self)

    def __floordiv__(self, other):
        return ops.floor_divide(self, other)

    def __mod__(self, other):
        return ops.remainder(self, other)

    def __rfloordiv__(self, other):
        return ops.floor_divide(other, self)

    def __rmod__(self, other):
        return ops.remainder(other, self)

    def __pow__(self, other):
        return ops.power(self, other)

    def __rpow__(self, other):
        return ops.power(other, self)

    def __matmul__(self, other):
        return ops.matmul(self, other)

    def __rmatmul__(self, other):
        return ops.matmul(other, self)

    def __neg__(self):
        return ops.negative(self)

    def __pos__(self):
        return ops.copy(self)

    def __abs__(self):
        return ops.abs(self)

    def __invert__(self):
        return ops.invert(self)

    def __eq__(self, other):
        return ops.equal(self, other)

    def __ne__(self, other):
        return ops.not_equal(self, other)

    def __lt__(self, other):
        return ops.less(self, other)

    def __le__(self, other):
        return ops.less_equal(self, other)

    def __gt__(self, other):
        return ops.greater(self, other)

    def __ge__(self, other):
        return ops.greater_equal(self, other)

    def __and__(self, other):
        return ops.bitwise_and(self, other)

    def __rand__(self, other):
        return ops.bitwise_and(other, self)

    def __or__(self, other):
        return ops.bitwise_or(self, other)

    def __ror__(self, other):
        return ops.bitwise_or(other, self)

    def __xor__(self, other):
        return ops.bitwise_xor(self, other)

    def __rxor__(self, other):
        return ops.bitwise_xor(other, self)

    def __getitem__(self, index):
        return ops.getitem(self, index)

    # -- writing in place ----------------------------------------------------------------------------------------

    def _write(self, result: Tensor, name: str) -> Tensor:
        """Make this Tensor hold `result`: same memory, new values, and the history of the result."""
        if result.shape != self.shape:
            raise ShapeError(f"{name}: the result of shape {result.shape} does not fit in place into {self.shape}.")
        if result.dtype != self.dtype:
            raise DtypeError(f"{name}: the result of {result.dtype} does not fit in place into {self.dtype}.")
        if result.node is not None:  # recorded: this Tensor's history goes on with the result's
            if type(self.node) is Leaf:
                raise GraphError(
                    f"{name}: a leaf that requires a gradient cannot be changed in place while recording. "
                    "Write x = x + y, or update parameters inside `with tinygen.no_grad():`."
                )
            if self.version.shared:
                raise GraphError(
                    f"{name}: this Tensor shares its memory with a view, whose history would go wrong. "
                    "Write x = x + y, which makes a new Tensor."
                )
        self._store(..., result._array, name)
        if result.node is not None:
            self.node = result.node
        return self

    def __iadd__(self, other):
        return self._write(ops.add(self, other), "+=")

    def __isub__(self, other):
        return self._write(ops.subtract(self, other), "-=")

    def __imul__(self, other):
        return self._write(ops.multiply(self, other), "*=")

    def __itruediv__(self, other):
        return self._write(ops.divide(self, other), "/=")

    def __setitem__(self, index, value):
        tracked = self.requires_grad or (isinstance(value, Tensor) and value.requires_grad)
        if tracked and autograd.mode.recording:
            raise GraphError(
                "x[index] = value cannot be recorded. Build a new Tensor with where, concatenate or scatter_add, "
                "or write inside `with tinygen.no_grad():`."
            )
        unwrap = lambda v: v._array if isinstance(v, Tensor) else v
        index = tuple(map(unwrap, index)) if isinstance(index, tuple) else unwrap(index)
        self._store(index, unwrap(value), "x[index] = value")

    # -- methods, each an op of the same name ----------------------------------------------------------------------

    @property
    def T(self) -> Tensor:  # noqa: N802 (NumPy's name)
        return ops.transpose(self)

    @property
    def mT(self) -> Tensor:  # noqa: N802 (NumPy's name)
        return ops.swapaxes(self, -1, -2)

    def astype(self, dtype: Any) -> Tensor:
        return ops.astype(self, dtype)

    def copy(self) -> Tensor:
        return ops.copy(self)

    def reshape(self, *shape: Any) -> Tensor:
        return ops.reshape(self, shape[0] if len(shape) == 1 else shape)

    def ravel(self) -> Tensor:
        return ops.reshape(self, (-1,))

    def flatten(self) -> Tensor:
        return ops.reshape(self, (-1,))

    def transpose(self, *axes: Any) -> Tensor:
        return ops.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        return ops.swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Axes = None) -> Tensor:
        return ops.squeeze(self, axis)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
        return ops.diagonal(self, offset, axis1, axis2)

    def take(self, indices: Any, axis: int | None = None) -> Tensor:
        return ops.take(self, indices, axis)

    def repeat(self, repeats: Any, axis: int | None = None) -> Tensor:
        return ops.repeat(self, repeats, axis)

    def sum(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return ops.sum(self, axis, keepdims)

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return ops.mean(self, axis, keepdims)

    def var(self, axis: Axes = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        return ops.var(self, axis, keepdims, ddof)

    def std(self, axis: Axes = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        return ops.std(self, axis, keepdims, ddof)

    def prod(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return ops.prod(self, axis, keepdims)

    def max(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return ops.max(self, axis, keepdims)

    def min(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return ops.min(self, axis, keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return ops.argmax(self, axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return ops.argmin(self, axis, keepdims)

    def cumsum(self, axis: int | None = None) -> Tensor:
        return ops.cumsum(self, axis)

    def cumprod(self, axis: int | None = None) -> Tensor:
        return ops.cumprod(self, axis)

    def clip(self, low: Any = None, high: Any = None) -> Tensor:
        return ops.clip(self, low, high)

    def round(self) -> Tensor:
        return ops.round(self)

    def any(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return ops.any(self, axis, keepdims)

    def all(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return ops.all(self, axis, keepdims)


class Parameter(Tensor):
    """A Tensor that training changes: `Module.parameters()` finds it and optimisers update it in place."""

    __slots__ = ()

    def __init__(self, values: Any, requires_grad: bool = True):
        super().__init__(tensor(values)._array, requires_grad)


def tensor(values: Any, dtype: Any = None, requires_grad: bool = False, device: str | None = None) -> Tensor:
    """A new Tensor holding a copy of `values`: an array, a Tensor, a number or nested lists of numbers.

    Lists and Python numbers become float32 (integers too: ask for `dtype=int` to index with them); arrays keep their
    dtype. float32, float64, integers and booleans are supported.
    """
    if isinstance(values, Tensor):
        values = values._array
    if isinstance(values, list | tuple) and any(isinstance(v, Tensor) and v.requires_grad for v in values):
        raise GraphError("tensor: a list of Tensors would lose their gradients; use ops.stack or ops.concatenate.")
    plain = not arrays.is_array(values) and not isinstance(values, np.generic)
    try:
        array = arrays.xp(values).array(values)
        if plain and array.dtype.kind in "iuf":
            array = array.astype(np.float32)
        if dtype is not None and array.dtype.kind in "iubf":
            array = array.astype(dtype)
    except (ValueError, TypeError) as error:
        hint = "Give an array, a number or nested lists of numbers."
        raise DtypeError(f"tensor: {str(error).rstrip('.')}. {hint}") from None
    if array.dtype not in DTYPES:
        raise DtypeError(f"tensor: {array.dtype} is not supported; use {KINDS}.")
    array = arrays.to_device(array, device) if device else array
    return Tensor(array, requires_grad)


# Ops are built on Tensor and Tensor's operators call ops, so these come after the class.
from tinygen import autograd, ops  # noqa: E402
