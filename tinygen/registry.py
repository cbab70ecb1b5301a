"""What an op is: a forward function, its vector-Jacobian product, and a description of its valid inputs.

    log = op("log", forward=np.log, vjp=lambda g, x: g / x, inputs=arrays(positive))

    @op(inputs=arrays(positive, real))
    def power(a, b, /):
        return a**b

    power.vjp(lambda g, a, b: g * b * a ** (b - 1), lambda g, a, out: g * out * log(a))

**Operands and parameters.** Operands, the arrays that gradients flow to, stand before the slash; without a slash, every
argument that has no default is one. What follows is a parameter: an axis, a shape, a stride.

**A vjp names what it reads.** After the incoming gradient `g` it asks by name for operands, for `out`, for parameters,
for `shapes` (the operands' shapes) or for `residual`; only that is kept alive for backward, and only that must not be
written to. Either one function per operand, as above, or one function that returns a tuple and may ask for `needs`
(which operands want a gradient). It undoes no broadcasting: backward does, for every op alike.

**A vjp is written once** and uses only ops and operators. On arrays they compute and record nothing, so an ordinary
backward pass runs at NumPy's speed; on Tensors they record, so the same source gives derivatives of any order.

**The description of the inputs** is a function of a `draw` (see `tinygen.domains`). It drives the property tests, and
without it an op cannot be registered, so a gradient that nobody checks cannot exist.
"""

from __future__ import annotations

import difflib
import inspect
import threading
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import numpy as np

from tinygen import arrays
from tinygen.errors import DtypeError, GraphError, InputError, TinygenError
from tinygen.explain import RAISED, caller, checksum, explain, located, watch
from tinygen.tensor import DTYPES, Tensor, Version, tensor, tick

REGISTRY: dict[str, Op] = {}

ndarray, new = np.ndarray, object.__new__
FLOATS = FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
CONSTANT = Version()  # the version of what is not a Tensor: never written to, as far as anybody can see
WEAK = frozenset((float, int, bool, type(None)))  # numbers that take the dtype of the arrays they meet
REQUIRED = inspect.Parameter.empty


class Mode(threading.local):
    """What the ops of this thread do besides computing."""

    recording = True
    watching = False  # detect_anomaly


mode = Mode()


class Node:
    """One recorded call of an op. It holds arrays and parent nodes, never Tensors: no cycles, freed by counting."""

    __slots__ = ("dtype", "op", "parents", "saved", "seq", "shape", "versions")


class WatchedNode(Node):
    """A node recorded under `detect_anomaly()`: it also knows its line and the checksums of what it saved."""

    __slots__ = ("checksums", "line")


def new_node(op: Op, parents: list, shape: Any, dtype: Any) -> Node:
    """A node stamped with the time; with several outputs `shape` and `dtype` are tuples. What it saves comes after."""
    node = WatchedNode() if mode.watching else Node()
    node.op, node.parents, node.shape, node.dtype, node.seq = op, parents, shape, dtype, tick()
    return node


class Selection:
    """The i-th output of an op with several outputs, as a node of its own, so that every edge is one node.

    Two selections of the same output are equal: backward makes new ones for outputs that a vjp reads.
    """

    __slots__ = ("dtype", "index", "parents", "seq", "shape")
    op = None

    def __init__(self, node: Node, index: int):
        self.parents, self.index = (node,), index
        self.seq = node.seq + 0.5  # right after the node, before anything that can use the output
        self.shape, self.dtype = node.shape[index], node.dtype[index]

    def __eq__(self, other: object) -> bool:
        return type(other) is Selection and (other.parents[0], other.index) == (self.parents[0], self.index)

    def __hash__(self) -> int:
        return hash((self.parents[0], self.index))


class Op:
    """A differentiable function; see the module's docstring. Made by `op`, kept in `REGISTRY`."""

    def __init__(self, name: str, forward: Callable, inputs: Callable, constants: tuple[str, ...] = (), residual=False):
        """`constants` names operands without a gradient (indices, conditions, labels), which must not be floats.
        With `residual=True` forward returns (out, residual), where the residual must be piecewise constant."""
        self.name, self.forward, self.inputs, self.constants, self.residual = name, forward, inputs, constants, residual
        self.__doc__, self.__name__ = forward.__doc__, name
        self.operands, self.defaults, self.variadic, self.optional = _signature(forward)
        self.arity = -1 if self.variadic else len(self.operands)
        self.plain = not (self.variadic or self.defaults or residual or constants)
        self.single, self.pair, self.joint, self.vjps, self.read_by, self.wants_needs = None, False, None, (), [], False
        self.reads: tuple[str, ...] = ()
        self.derived = False
        self.reads_shapes = False
        self._picks: dict[Any, tuple] = {}

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    # -- the derivative ------------------------------------------------------------------------------------------

    def vjp(self, *functions: Callable | None) -> Op:
        """Declare the vector-Jacobian product: one function for all operands, or one each (None for a constant)."""
        names = [_names(f) for f in functions]
        self.reads = tuple(dict.fromkeys(name for group in names for name in group if name != "needs"))
        known = (*self.operands, "out", *self.defaults, "shapes", "residual")
        for name in self.reads:
            if name not in known:
                raise InputError(f"{self.name}: its vjp reads {name!r}; it can read {', '.join(known)} and needs.")
        pick = lambda group: _picker([self.reads.index(name) for name in group if name != "needs"])
        if len(functions) == 1 and (self.variadic or len(self.operands) - len(self.constants) > 1):
            self.joint, self.wants_needs = functions[0], "needs" in names[0]
        else:
            if any("needs" in group for group in names):
                raise InputError(f"{self.name}: a vjp of one operand is called only when needed; it has no `needs`.")
            self.vjps = tuple((f, pick(group)) for f, group in zip(functions, names, strict=True) if f)
            self.read_by = [group for f, group in zip(functions, names, strict=True) if f]
            self.single = functions[0] if len(self.operands) == 1 else None
            self.pair = len(self.operands) == 2 and not self.constants
        self.derived, self._picks = True, {}
        self.reads_shapes = "shapes" in self.reads
        if not self.variadic:
            self.differentiable = [i for i, name in enumerate(self.operands) if name not in self.constants]
            if not self.joint and len(self.vjps) != len(self.differentiable):
                raise InputError(f"{self.name}: {len(self.vjps)} vjps for {len(self.differentiable)} operands.")
        return self

    def pull_back(self, g: Any, saved: tuple, needs: list[bool]) -> list | tuple:
        """The gradients of the operands given that of the output; None where `needs` is not true: nobody asks."""
        if self.single:  # one operand, or two: most nodes are such, and spared the loop
            return (self.single(g, *saved),)
        if self.pair:
            (f, pick), (h, choose) = self.vjps
            first, second = needs
            return (f(g, *pick(saved)) if first else None), (h(g, *choose(saved)) if second else None)
        if self.joint:
            needs = {"needs": [bool(need) for need in needs]} if self.wants_needs else {}
            pulled = self.joint(g, *saved, **needs)
            if type(pulled) is not tuple and type(pulled) is not list:
                raise GraphError(f"{self.name}: its vjp must return a tuple with one gradient per operand.")
            return pulled
        if self.constants:  # needs runs over all operands, the vjps over the differentiable ones
            grads = [None] * len(needs)
            for i, (f, pick) in zip(self.differentiable, self.vjps, strict=True):
                grads[i] = f(g, *pick(saved)) if needs[i] else None
            return grads
        return [f(g, *pick(saved)) if need else None for (f, pick), need in zip(self.vjps, needs)]

    def pull_back_recorded(self, node: Node, g: Any, needs: list[bool]) -> list | tuple:
        """The same on Tensors, so that the vjp itself is recorded: what was saved gets its history back."""
        return self.pull_back(g, self._with_history(node), needs)

    def _with_history(self, node: Node) -> tuple:
        """Saved arrays as Tensors: an operand's history is the parent's, an output's is the node itself."""
        saved = list(node.saved)
        for j, (name, version) in enumerate(zip(self.reads, node.versions)):
            if saved[j] is None:
                continue
            if self.variadic and name == self.operands[0]:
                saved[j] = tuple(map(_tensor, saved[j], node.parents, node.versions[len(self.reads) :]))
            elif name in self.operands:
                saved[j] = _tensor(saved[j], node.parents[self.operands.index(name)], version)
            elif name == "out" and type(saved[j]) is tuple:  # several outputs, whose versions come last
                nodes = [Selection(node, i) for i in range(len(saved[j]))]
                saved[j] = tuple(map(_tensor, saved[j], nodes, node.versions[-len(nodes) :]))
            elif name == "out":
                saved[j] = _tensor(saved[j], node, version)
        return tuple(saved)

    # -- the call ------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Compute; record if an operand is a Tensor that requires a gradient.

        Without a Tensor among the operands this is the forward function, with NumPy's rules. With one, the result is a
        Tensor: Python and NumPy scalars are weak, and integers take the float dtype of the rest. Lists are taken as
        `tinygen.tensor` takes them: float32.
        """
        if not self.plain or params or len(args) != self.arity:
            args, params = self._bind(args, params)
        values, parents, versions = [], [], []
        dtype, mixed, tensors, converted, tracked, bit = None, False, False, False, 0, 1
        for arg in args:
            kind = type(arg)
            if kind is Tensor or isinstance(arg, Tensor):
                tensors = True
                node, version, arg = arg.node, arg.version, arg._array
                if node is not None:
                    tracked += bit
                if arg.dtype is not dtype:
                    mixed, dtype = mixed or dtype is not None, arg.dtype
            else:
                node, version = None, CONSTANT
                if kind not in WEAK:
                    if kind is not ndarray:
                        converted = converted or not isinstance(arg, np.generic)
                        arg = _constant(self.name, arg)
                    if type(arg) not in WEAK and arg.dtype is not dtype:
                        mixed, dtype = mixed or dtype is not None, arg.dtype
            values.append(arg)
            parents.append(node)
            versions.append(version)
            bit += bit
        if not tensors:
            values = values if converted else args  # NumPy scalars keep their dtype
        elif mixed or self.constants:
            values, dtype = self._unify(values)
        residual = None
        try:
            out = self.forward(*values, **params) if params else self.forward(*values)
        except RAISED as error:
            raise explain(self.name, error, values) from (None if isinstance(error, TinygenError) else error)
        if self.residual:
            out, residual = out
        if not tensors:
            return out
        if type(out) is not ndarray or out.dtype is not dtype:
            if type(out) is tuple:
                return self._several(values, parents, versions, params, dtype, out, residual, tracked)
            out = self._settle(out, dtype)
        result = new(Tensor)
        result._array, result.node = out, None
        result.version = Version() if out.base is None else _version(out, values, versions)
        if mode.watching:
            watch(self.name, values, (out,))
        if tracked and mode.recording:
            dtype = out.dtype
            if dtype is FLOAT32 or dtype is FLOAT64 or dtype in FLOATS:
                result.node = node = Node() if not mode.watching else WatchedNode()  # new_node, without the call
                node.op, node.parents, node.shape, node.dtype, node.seq = self, parents, out.shape, dtype, tick()
                if self.plain:  # _save for the common case, without the call
                    values += (out, None, _shapes(values)) if self.reads_shapes else (out, None)
                    versions += (result.version, CONSTANT)
                    pick_saved, pick_versions = self._picks.get(tracked) or self._plan(tracked)
                    node.saved, node.versions = pick_saved(values), pick_versions(versions)
                else:
                    self._save(node, values, versions, out, result.version, params, residual, tracked)
                if mode.watching:
                    _stamp(node)
        return result

    def _save(self, node, values, versions, out, version, params, residual, tracked) -> None:
        """Keep what the vjp reads, and no more: nothing that only an untracked operand's gradient would need.

        What can be read stands in one list, the pool, in the order of `_plan`; a second list holds the versions.
        """
        shapes = _shapes(values)
        if self.variadic:
            values, tracked = [tuple(values)], None
        picks = self._picks.get(tracked) or self._plan(tracked)
        node.saved = picks[0]([*values, out, None, shapes, *params.values(), residual])
        if self.variadic:  # one entry of the pool stands for all operands, whose versions follow those of what is read
            node.versions = (CONSTANT,) * len(self.reads) + (tuple(versions) if self.operands[0] in self.reads else ())
        else:
            versions += (version, CONSTANT)
            node.versions = picks[1](versions)

    def _plan(self, tracked: int | None) -> tuple[Callable, Callable]:
        """How to pick what to keep from the pool and from the versions, when the operands in the bits of `tracked`
        want a gradient. What nobody needs becomes the None after the output."""
        if not self.derived:
            raise GraphError(f"{self.name} has no derivative; use stop_gradient on its input if none is meant.")
        names = [*self.operands, "out", None, "shapes", *self.defaults, "residual"]
        reads, nothing = set(self.reads), len(self.operands) + 1
        if tracked is not None and not self.joint:
            wanted = [tracked >> i & 1 for i in self.differentiable]
            reads = {name for group, want in zip(self.read_by, wanted) if want for name in group}
        places = [names.index(name) if name in reads else nothing for name in self.reads]
        self._picks[tracked] = picks = _picker(places), _picker([min(place, nothing) for place in places])
        return picks

    def _several(self, values, parents, versions, params, dtype, outs, residual, tracked) -> tuple[Tensor, ...]:
        """Wrap several outputs; integer and boolean ones take no part in the graph."""
        outs = tuple([self._settle(out, dtype) for out in outs])
        results = tuple([Tensor(out) for out in outs])
        for result in results:
            if result._array.base is not None:
                result.version = _version(result._array, values, versions)
        if mode.watching:
            watch(self.name, values, outs)
        floats = [i for i, out in enumerate(outs) if out.dtype in FLOATS]
        if tracked and floats and mode.recording:
            node = new_node(self, parents, tuple([out.shape for out in outs]), tuple([out.dtype for out in outs]))
            self._save(node, values, versions, outs, CONSTANT, params, residual, tracked)
            if "out" in self.reads:
                node.versions += tuple([result.version for result in results])
            if mode.watching:
                _stamp(node)
            for i in floats:
                results[i].node = Selection(node, i)
        return results

    def _bind(self, args: tuple, params: dict) -> tuple[tuple, dict]:
        """Operands, and every parameter by name with its default filled in."""
        n = len(args) if self.variadic else self.arity
        bound = self.defaults.copy()
        if len(args) != n:
            if len(args) - n > len(bound):
                raise located(InputError(f"{self.name}: {len(args)} arguments given; it takes {self._usage()}."))
            bound.update(zip(bound, args[n:]))
            args = args[:n] + (None,) * (n - len(args))
        for name, value in params.items():
            if name not in bound:
                near = difflib.get_close_matches(name, bound, 1)
                hint = f"; did you mean {near[0]}?" if near else "."
                raise located(InputError(f"{self.name}: unknown parameter {name!r}; it takes {self._usage()}{hint}"))
            bound[name] = value
        for name, value in bound.items():
            if value is REQUIRED:
                raise located(InputError(f"{self.name}: {name} missing; it takes {self._usage()}."))
            if isinstance(value, Tensor):
                if value.requires_grad:
                    rule = f"no gradient flows to the parameter {name!r}; pass {name}.detach()"
                    raise located(GraphError(f"{self.name}: {rule}."))
                bound[name] = value._array
            elif isinstance(value, np.generic):
                bound[name] = value.item()  # weak, like every number
        if not self.variadic:
            for name, arg in zip(self.operands, args):
                if arg is None and name not in self.optional:
                    raise located(InputError(f"{self.name}: {name} missing; it takes {self._usage()}."))
        if self.constants:  # lists of indices stay integers, lists of conditions booleans
            listed = lambda arg, name: isinstance(arg, list | tuple) and name in self.constants
            args = tuple([_whole(self.name, a) if listed(a, name) else a for a, name in zip(args, self.operands)])
        return args, bound

    def _settle(self, out: Any, dtype: Any) -> Any:
        """An array always, also 0-d, of the operands' float dtype; float32 where NumPy makes floats of integers."""
        if type(out) is not ndarray:
            if not hasattr(out, "dtype"):
                raise located(InputError(f"{self.name}: its forward returned {type(out).__name__}, not an array."))
            out = np.asarray(out) if isinstance(out, np.generic | ndarray) else out
        if dtype not in FLOATS and out.dtype.kind == "f" and "dtype" not in self.defaults:
            return out.astype(FLOAT32)
        if out.dtype not in DTYPES or (dtype == FLOAT32 and out.dtype == FLOAT64 and "dtype" not in self.defaults):
            rule = f"the result is {out.dtype}, the operands are {dtype}; give numbers as plain Python numbers"
            raise located(DtypeError(f"{self.name}: {rule}."))
        return out

    def _usage(self) -> str:
        return f"({', '.join([*self.operands, *self.defaults])})"

    def _unify(self, values: list) -> tuple[list, Any]:
        """One float dtype for all: integers take it, a second width is an error. Constants must not be floats."""
        free = [name in self.constants for name in self.operands] if not self.variadic else [False] * len(values)
        for name, value, constant in zip(self.operands, values, free, strict=False):
            kind = value.dtype if hasattr(value, "dtype") else type(value).__name__
            if constant and kind != "int" and kind != "bool" and getattr(kind, "kind", "f") not in "iub":
                raise explain(self.name, DtypeError(f"{name} must be integers or booleans, not {kind}"), values)
        dtypes = [v.dtype for v, skip in zip(values, free, strict=True) if not skip and hasattr(v, "dtype")]
        if strange := [d for d in dtypes if d not in DTYPES]:
            rule = f"{strange[0]} is not supported; use float32, float64, integers or booleans"
            raise explain(self.name, DtypeError(rule), values)
        floats = {d for d in dtypes if d in FLOATS}
        if len(floats) > 1:
            rule = "two float widths in one op; convert one, for example with x.astype(np.float32)"
            raise explain(self.name, DtypeError(rule), values)
        dtype = floats.pop() if floats else (dtypes[0] if dtypes else None)
        if dtype in FLOATS:
            widen = lambda v, skip: not skip and hasattr(v, "dtype") and v.dtype.kind in "iu"
            values = [v.astype(dtype) if widen(v, s) else v for v, s in zip(values, free, strict=True)]
        return values, dtype


# -- declaring an op -------------------------------------------------------------------------------------------------


def op(
    name: str | None = None, *, forward: Callable | None = None, vjp: Any = None, inputs: Callable, **options: Any
) -> Any:
    """Register an op: `log = op("log", forward=..., vjp=..., inputs=...)`, or `@op(inputs=...)` over a function whose
    derivative follows as `name.vjp(...)`. `vjp` is one function or a tuple with one per operand; an op whose outputs
    are integers or booleans has none. Options: `constants`, `residual` (see `Op`)."""
    def register(function: Callable) -> Op:
        made = Op(name or function.__name__, function, inputs, **options)
        if vjp is not None:
            made.vjp(*(vjp if isinstance(vjp, tuple) else (vjp,)))
        return add_to_registry(made)

    return register(forward) if forward is not None else register


def add_to_registry(made: Op) -> Op:
    if made.inputs is None:
        raise InputError(f"op {made.name}: describe its valid inputs (inputs=...): its gradient could not be checked.")
    if made.name in REGISTRY:
        raise InputError(f"op {made.name}: there is an op of this name already; choose another.")
    REGISTRY[made.name] = made
    return made


def _signature(function: Callable) -> tuple[tuple[str, ...], dict[str, Any], bool, tuple[str, ...]]:
    """Operand names, parameters with defaults, whether the operands are `*args`, and which of them may be None."""
    if isinstance(function, np.ufunc):
        return (("x",) if function.nin == 1 else ("a", "b")), {}, False, ()
    parameters = list(inspect.signature(function).parameters.values())
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        kinds = {p.kind is p.VAR_POSITIONAL: p for p in parameters}
        return (kinds[True].name,), {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}, True, ()
    slash = any(p.kind is p.POSITIONAL_ONLY for p in parameters)
    operand = lambda p: p.kind is p.POSITIONAL_ONLY if slash else p.default is REQUIRED
    names = tuple(p.name for p in parameters if operand(p))
    optional = tuple(p.name for p in parameters if operand(p) and p.default is None)
    return names, {p.name: p.default for p in parameters if not operand(p)}, False, optional


def _names(function: Callable | None) -> list[str]:
    """What a vjp reads: its arguments after the gradient."""
    return list(inspect.signature(function).parameters)[1:] if function else []


def _picker(places: list[int]) -> Callable[[Any], tuple]:
    """A function that takes a tuple of those places from a sequence."""
    if len(places) > 1:
        return itemgetter(*places)
    return (lambda pool: (pool[places[0]],)) if places else (lambda pool: ())


# -- values ----------------------------------------------------------------------------------------------------------


def _constant(name: str, value: Any) -> Any:
    """An operand of op `name` that is not a Tensor: numbers stay weak, lists become float32 arrays, None stays."""
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return float(value) if value.dtype.kind == "f" else value.item()
    if isinstance(value, np.ndarray):
        return np.asarray(value)  # a matrix or a masked array as what it holds
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if type(value) in WEAK or arrays.is_array(value):
        return value
    try:
        return tensor(value)._array
    except TinygenError as error:
        raise explain(name, type(error)(error.args[0].removeprefix("tensor: ")), [value]) from None


def _whole(name: str, values: Any) -> np.ndarray:
    """A list of indices or conditions as an array; NumPy takes an empty one for floats."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise explain(name, error, [values]) from None
    return array if array.size else array.astype(np.intp)


def _tensor(array: Any, node: Any, version: Version) -> Any:
    """`array` as a Tensor with that history; constants stay what they are."""
    if node is None or array.dtype not in FLOATS:
        return array
    out = Tensor(array)
    out.node, out.version = node, version
    return out


def _shapes(values: list) -> tuple[tuple[int, ...], ...]:
    return tuple([getattr(value, "shape", ()) for value in values])


def _version(out: Any, values: list, versions: list) -> Version:
    """The version of the operand whose memory the output views, or a new one."""
    owner = out.base
    if values[0] is owner or getattr(values[0], "base", None) is owner:  # a view of the first operand: the usual case
        if versions[0] is not CONSTANT:
            versions[0].shared = True
            return versions[0]
    for value, version in zip(values, versions, strict=False):
        if type(value) is type(out) and version is not CONSTANT and arrays.xp(out).may_share_memory(value, out):
            version.shared = True
            return version
    return Version()


def _stamp(node: WatchedNode) -> None:
    """Remember where the node was recorded and what it saved."""
    node.line = caller()
    node.checksums = [checksum(value) for value in node.saved]
