"""Walking the recorded graph backwards: `backward`, `grad`, and what is built on them.

Reverse-mode differentiation in three sentences. Every recorded call is a node with a time stamp; a node's parents are
older than itself, so visiting nodes from the youngest to the oldest meets each one after everything that used it. At a
node the gradient of its output is complete, and the op's vjp turns it into the gradients of its operands. Each of them
travels along its edge to a parent, where broadcasting is undone, the dtype restored, and contributions added up.

The walk runs on plain arrays. With `create_graph=True` it runs on Tensors, so the very same vjps are recorded, and the
result can be differentiated again.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from tinygen import arrays
from tinygen.errors import DtypeError, GraphError, MutationError, NonFiniteError, ShapeError, TinygenError
from tinygen.explain import RAISED, checksum, finite
from tinygen.registry import REGISTRY, Node, Selection, WatchedNode, mode
from tinygen.tensor import Leaf, Tensor

ndarray = np.ndarray
_seq = attrgetter("seq")
_accumulating = threading.Lock()

# -- modes -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _set(**flags: bool) -> Iterator[None]:
    before = {name: getattr(mode, name) for name in flags}
    mode.__dict__.update(flags)
    try:
        yield
    finally:
        mode.__dict__.update(before)


def no_grad() -> contextlib.AbstractContextManager:
    """Within this context (or decorated function) of this thread nothing is recorded."""
    return _set(recording=False)


def detect_anomaly() -> contextlib.AbstractContextManager:
    """Find where a NaN, an infinity or a silent write came from; slow, for debugging.

    Within this context every op checks its result and every vjp its gradients: the first that is not finite raises
    NonFiniteError and names the op. What backward will need is checksummed, so that writes into single elements of an
    array, which nothing else can see, raise MutationError. Of what was recorded before, only the vjps are checked.
    """
    return _set(watching=True)


def stop_gradient(x: Any) -> Any:
    """The same values, a constant to backward; arrays and numbers pass through."""
    return x.detach() if isinstance(x, Tensor) else x


# -- the walk --------------------------------------------------------------------------------------------------------


def backward(output: Tensor, gradient: Any = None, retain_graph: bool = False) -> None:
    """Add d(output)/d(leaf), weighted by `gradient`, to the `.grad` of every leaf behind `output`.

    `gradient` has the output's shape and may be omitted for a single number. The graph is released on the way unless
    `retain_graph=True`; a second backward through a released graph raises GraphError.
    """
    if getattr(output, "node", None) is None:
        if not isinstance(output, Tensor):
            raise GraphError(f"backward: {type(output).__name__} is not a Tensor; plain arrays have no history.")
        raise GraphError("backward: this Tensor has no history; no operand that led to it requires a gradient.")
    seed = _seed(output, gradient, "backward")
    found = _walk([output.node], [seed._array], None, retain_graph, False)
    with _accumulating:  # two threads may share a leaf
        for leaf, g in found.items():
            leaf.grad = _own(g) if leaf.grad is None else arrays.xp(g).asarray(leaf.grad + g)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> Any:
    """The gradient of the sum of `outputs` (weighted by `grad_outputs`) with respect to `inputs`, leaves or not.

    Returns a Tensor for a Tensor, a tuple for a sequence. With `create_graph=True` the result is recorded and can be
    differentiated again (and `retain_graph` defaults to True). Nothing is added to any `.grad`. An input that no
    output depends on raises GraphError unless `allow_unused=True`, which returns None for it.
    """
    several = not isinstance(inputs, Tensor)
    inputs, outputs = _listed(inputs), _listed(outputs)
    seeds = _listed(grad_outputs) if grad_outputs is not None else [None] * len(outputs)
    if len(seeds) != len(outputs):
        raise ShapeError(f"grad: {len(seeds)} grad_outputs for {len(outputs)} outputs; give one each.")
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor):
            raise GraphError(f"grad: input {i} is {type(x).__name__}, not a Tensor; plain arrays have no gradient.")
        if x.node is None:
            raise GraphError(f"grad: input {i} does not require a gradient; make it with requires_grad=True.")
    seeds = [_seed(y, g, "grad") for y, g in zip(outputs, seeds, strict=True)]
    pairs = [(y.node, g if create_graph else g._array) for y, g in zip(outputs, seeds, strict=True) if y.node]
    targets = {x.node for x in inputs}
    retain_graph = create_graph if retain_graph is None else retain_graph
    with _set(recording=create_graph):
        found = _walk([n for n, _ in pairs], [g for _, g in pairs], targets, retain_graph, create_graph)
    missing = [i for i, x in enumerate(inputs) if x.node not in found]
    if missing and not allow_unused:
        raise GraphError(
            f"grad: no output depends on input {', '.join(map(str, missing))} through differentiable ops. "
            "Pass allow_unused=True to get None there, or check for a detach, a stop_gradient or a copy on the way."
        )
    grads = [found.get(x.node) for x in inputs]
    grads = tuple(g if g is None or isinstance(g, Tensor) else Tensor(_own(g)) for g in grads)
    return grads if several else grads[0]


def _own(g: Any) -> Any:
    """A copy, because vjps may hand on their argument or a view of it, and a person may change a gradient in place. Row
    by row in memory whatever the vjp made, as parameters are and as optimisers' kernels want it."""
    return arrays.xp(g).array(g, order="C")


def _walk(roots: list, seeds: list, targets: set | None, retain: bool, create_graph: bool) -> dict:
    """Propagate `seeds` from `roots`; the gradients that arrive at `targets` (None: at all leaves), by node."""
    order, watching = _reachable(roots), mode.watching
    useful = _leading_to(targets, order) if targets is not None else None
    grads: dict[Any, Any] = {}
    for root, seed in zip(roots, seeds, strict=True):
        grads[root] = grads[root] + seed if root in grads else seed
    found = {}
    for node in order:
        g = grads.pop(node, None)
        if g is None:
            continue
        if type(g) is not ndarray and isinstance(g, np.generic):
            g = np.asarray(g)  # NumPy's arithmetic makes scalars of 0-d arrays
        kind, parents = type(node), node.parents
        if kind is Leaf if targets is None else node in targets:
            found[node] = g
        if kind is Leaf:
            continue
        needs = parents if useful is None else [p if p in useful else None for p in parents]
        if useful is not None and not any(needs):
            continue
        if kind is Selection:
            _put(grads, node, g)
            continue
        if kind is Node and type(g) is ndarray and node.saved is not None and not watching:  # _pull, without the call
            seq = node.seq
            for version in node.versions:
                if version.tick > seq:
                    raise MutationError(_mutated(node))
            try:
                pulled = node.op.pull_back(g, node.saved, needs)
            except RAISED as error:
                raise _failed(node, error) from (None if isinstance(error, TinygenError) else error)
            if len(pulled) != len(needs):
                pulled = _spread(node, pulled, needs)
        else:
            pulled = _pull(node, g, needs, create_graph)
        for parent, gradient in zip(needs, pulled):
            if parent is not None:
                if type(gradient) is not ndarray:
                    gradient = _checked(gradient, node)
                if gradient.dtype is not parent.dtype or gradient.shape != parent.shape:
                    gradient = _fit(gradient, parent, node)
                before = grads.get(parent)
                grads[parent] = gradient if before is None else before + gradient
        if not retain:
            node.saved, node.versions, node.parents = None, (), ()
    return found


def _pull(node: Node, g: Any, needs: Sequence, create_graph: bool) -> Any:
    """The gradients of a node's operands (those whose parent `needs` holds, not None), after checking that what the
    node saved is still there and unchanged."""
    saved, seq = node.saved, node.seq
    if saved is None:
        raise GraphError(_released(node))
    for version in node.versions:
        if version.tick > seq:
            raise MutationError(_mutated(node))
    line = f" recorded at {node.line}" if type(node) is WatchedNode else ""
    if line and [checksum(value) for value in saved] != node.checksums:
        raise MutationError(f"{_mutated(node)} It was recorded at {node.line}.")
    if type(g) is list:  # several outputs
        g = tuple(_or_zeros(gi, node, i, create_graph) for i, gi in enumerate(g))
    try:
        pulled = node.op.pull_back_recorded(node, g, needs) if create_graph else node.op.pull_back(g, saved, needs)
    except RAISED as error:
        raise _failed(node, error) from (None if isinstance(error, TinygenError) else error)
    if len(pulled) != len(needs):
        pulled = _spread(node, pulled, needs)
    if line or mode.watching:
        for i, (need, gradient) in enumerate(zip(needs, pulled)):
            if need is not None and not finite(getattr(gradient, "_array", gradient)):
                raise NonFiniteError(f"{node.op.name}{line}: the gradient of operand {i} holds a NaN or an infinity.")
    return pulled


def _failed(node: Node, error: Exception) -> TinygenError:
    if isinstance(error, TinygenError):
        return error
    return GraphError(f"{node.op.name}: its vjp failed ({type(error).__name__}: {error}).")


def _checked(gradient: Any, node: Node) -> Any:
    """What a vjp returned, as an array or a Tensor: a 0-d result may be a NumPy scalar."""
    if gradient is None:
        raise GraphError(f"{node.op.name}: its vjp returned no gradient for an operand that needs one.")
    return gradient if isinstance(gradient, Tensor) else arrays.xp(gradient).asarray(gradient)


def _fit(gradient: Any, parent: Any, node: Node) -> Any:
    """Broadcasting undone and the dtype restored: what every op may leave to the edge."""
    if gradient.shape != parent.shape:
        if broadcast_axes(parent.shape, gradient.shape) is None:
            raise ShapeError(
                f"{node.op.name}: its vjp returned a gradient of shape {tuple(gradient.shape)} for an operand of "
                f"shape {tuple(parent.shape)}."
            )
        sum_to = REGISTRY["sum_to"]
        if type(gradient) is ndarray:
            gradient = sum_to.forward(gradient, parent.shape)
        else:
            gradient = sum_to(gradient, parent.shape)
    return gradient if gradient.dtype == parent.dtype else REGISTRY["astype"](gradient, parent.dtype)


@functools.lru_cache(maxsize=1024)
def broadcast_axes(small: tuple[int, ...], large: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes of `large` along which an array of shape `small` is repeated to fill it; None where it cannot."""
    extra = len(large) - len(small)
    if extra < 0 or any(s not in (1, n) for s, n in zip(small, large[extra:])):
        return None
    return (*range(extra), *[extra + i for i, s in enumerate(small) if s == 1 != large[extra + i]])


def _put(grads: dict, selection: Selection, g: Any) -> None:
    """Collect the gradient of one of several outputs at the node that has them."""
    node = selection.parents[0]
    slots = grads.setdefault(node, [None] * len(node.shape))
    i = selection.index
    slots[i] = g if slots[i] is None else slots[i] + g


def _or_zeros(g: Any, node: Node, i: int, create_graph: bool) -> Any:
    if g is not None or node.dtype[i].kind != "f":
        return g
    zeros = np.zeros(node.shape[i], node.dtype[i])
    return Tensor(zeros) if create_graph else zeros


def _spread(node: Node, pulled: Sequence, needs: Sequence) -> list:
    """A joint vjp answers for the operands that can have a gradient; put None for the others."""
    places = node.op.differentiable
    if len(pulled) != len(places):
        raise GraphError(f"{node.op.name}: its vjp returned {len(pulled)} gradients for {len(places)} operands.")
    spread = [None] * len(needs)
    for i, gradient in zip(places, pulled, strict=True):
        spread[i] = gradient
    return spread


def _reachable(roots: list) -> list:
    """All nodes behind `roots`, youngest first."""
    seen, stack = set(roots), list(set(roots))
    for node in stack:  # the list grows while it is walked
        for parent in node.parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    stack.sort(key=_seq, reverse=True)
    return stack


def _leading_to(targets: set, order: list) -> set:
    """The nodes whose gradient some target needs: the targets and everything computed from them.

    A released node has forgotten its parents. A target that is older may be behind it: raise.
    """
    useful, oldest = set(), min(map(_seq, targets), default=math.inf)
    for node in reversed(order):
        if not node.parents and type(node) is not Leaf and node.seq > oldest:
            raise GraphError(_released(node))
        if node in targets or any(parent in useful for parent in node.parents):
            useful.add(node)
    return useful


def _released(node: Node) -> str:
    return (
        f"{node.op.name}: this part of the graph was released by an earlier backward. Pass retain_graph=True to the "
        "first one, compute the output again, or detach what needs no gradient this time."
    )


def _mutated(node: Node) -> str:
    names = [n for n in node.op.reads if n in node.op.operands or n == "out"]
    for name, version in zip(names, node.versions, strict=False):
        if version.tick > node.seq:
            names = [name]
            break
    return (
        f"{node.op.name}: {' or '.join(names) or 'a value'}, which its gradient needs, was written to after the op was "
        f"recorded (output shape {node.shape}). Change a copy instead, or write only after backward."
    )


def _seed(y: Any, g: Any, name: str) -> Tensor:
    """The gradient to start from: ones for a single number, else what was given, checked."""
    if not isinstance(y, Tensor):
        raise GraphError(f"{name}: an output is {type(y).__name__}, not a Tensor; plain arrays have no history.")
    if g is None:
        if y.size != 1:
            raise ShapeError(
                f"{name}: the output has shape {tuple(y.shape)}; a gradient needs a single number, such as a loss "
                "after .sum() or .mean(), or the weights of each element."
            )
        return Tensor(arrays.xp(y._array).ones_like(y._array))
    g = g if isinstance(g, Tensor) else _constant_like(g, y, name, None if arrays.is_array(g) else y.dtype)
    if g.shape != y.shape:
        raise ShapeError(f"{name}: the given gradient has shape {tuple(g.shape)}, the output {tuple(y.shape)}.")
    if g.dtype != y.dtype:
        raise DtypeError(f"{name}: the given gradient is {g.dtype}, the output {y.dtype}.")
    return g


def _constant_like(g: Any, y: Tensor, name: str, dtype: Any) -> Tensor:
    try:
        return Tensor(arrays.xp(y._array).asarray(g, dtype))
    except (ValueError, TypeError) as error:
        raise DtypeError(f"{name}: {type(g).__name__} given for {y.dtype} {y.shape}: {error}.") from None


def _listed(x: Any) -> list:
    """Several Tensors as a list; one alone, or an array, as a list of one."""
    return list(x) if isinstance(x, Iterable) and not hasattr(x, "shape") and not isinstance(x, str) else [x]


# -- built on grad ---------------------------------------------------------------------------------------------------


def vjp(function: Callable, *inputs: Any) -> tuple[Any, Callable]:
    """`function(*inputs)` and the map from a cotangent of its output to the tuple of gradients of the inputs.

    If the function returns a tuple, the cotangent is a tuple with one for each output.
    """
    xs = [_leaf(x) for x in inputs]
    y, ys = _evaluate(function, xs, "vjp")

    def pull(cotangent: Any) -> tuple[Tensor, ...]:
        us = _alike(cotangent if isinstance(y, tuple) else [cotangent], ys, "vjp: the cotangent")
        found = grad(ys, xs, us, retain_graph=True, allow_unused=True)
        return tuple(map(zeros_if_none, found, xs))

    return _detached(y), pull


def jvp(function: Callable, inputs: Sequence, tangents: Sequence) -> tuple[Any, Any]:
    """`function(*inputs)` and its derivative along `tangents`, one for each input; a tuple if the output is one.

    The vjp is linear in its cotangent u, with the Jacobian's transpose as matrix; differentiating <vjp(u), tangent>
    by u transposes it back. Two reverse passes, and no second rule for any op.
    """
    xs = [_leaf(x) for x in inputs]
    vs = _alike(tangents, xs, "jvp: the tangent")
    y, ys = _evaluate(function, xs, "jvp")
    us = [Tensor(arrays.xp(out._array).zeros_like(out._array), requires_grad=True) for out in ys]
    pulled = grad(ys, xs, us, create_graph=True, allow_unused=True)
    pairs = [(p, v) for p, v in zip(pulled, vs, strict=True) if p is not None]
    found = grad([p for p, _ in pairs], us, [v for _, v in pairs], allow_unused=True)
    along = tuple(map(zeros_if_none, found, us))
    return _detached(y), along if isinstance(y, tuple) else along[0]


def hvp(function: Callable, inputs: Sequence, vectors: Sequence) -> tuple[Tensor, ...]:
    """The Hessian of a scalar `function(*inputs)` times `vectors`, one product per input."""
    xs = [_leaf(x) for x in inputs]
    vs = _alike(vectors, xs, "hvp: the vector")
    _, ys = _evaluate(function, xs, "hvp")
    first = grad(ys, xs, create_graph=True, allow_unused=True)
    pairs = [(g, v) for g, v in zip(first, vs, strict=True) if g is not None and g.node]
    second = grad([g for g, _ in pairs], xs, [v for _, v in pairs], allow_unused=True)
    return tuple(map(zeros_if_none, second, xs))


def jacobian(function: Callable, x: Any) -> Tensor:
    """d function(x) / d x, of shape function(x).shape + x.shape: one backward pass per output element."""
    y, pull = vjp(function, x)
    if isinstance(y, tuple):
        raise GraphError(f"jacobian: the function returned {len(y)} outputs; it must return one Tensor.")
    xp = arrays.xp(y._array)
    rows = [pull(row.reshape(y.shape))[0]._array for row in xp.eye(y.size, dtype=y.dtype)]
    x_shape = np.shape(x) if not isinstance(x, Tensor) else x.shape
    return Tensor(xp.stack(rows).reshape(y.shape + x_shape) if rows else xp.zeros(y.shape + x_shape, y.dtype))


def _leaf(x: Any) -> Tensor:
    from tinygen.tensor import tensor

    return tensor(x, requires_grad=True)


def _evaluate(function: Callable, xs: list, name: str) -> tuple[Any, list[Tensor]]:
    """What the function returns, recorded, and the same as a list."""
    with _set(recording=True):
        y = function(*xs)
    y = tuple(y) if isinstance(y, list) else y
    ys = list(y) if isinstance(y, tuple) else [y]
    for out in ys:
        if not isinstance(out, Tensor) or out.dtype.kind != "f":
            what = f"a Tensor of {out.dtype}" if isinstance(out, Tensor) else type(out).__name__
            raise GraphError(f"{name}: the function returned {what}; it must return a Tensor of floats, or several.")
    return y, ys


def _alike(given: Sequence, like: list[Tensor], name: str) -> list[Tensor]:
    """What was given as Tensors of the same number, shapes and dtypes as those it stands beside."""
    given = _listed(given)
    if len(given) != len(like):
        raise ShapeError(f"{name}s are {len(given)}, but {len(like)} are needed.")
    given = [g if isinstance(g, Tensor) else _constant_like(g, y, name, y.dtype) for g, y in zip(given, like)]
    for i, (g, y) in enumerate(zip(given, like)):
        if g.shape != y.shape:
            raise ShapeError(f"{name} {i} has shape {g.shape}, not {y.shape}.")
    return given


def _detached(y: Any) -> Any:
    return tuple(map(_detached, y)) if isinstance(y, tuple) else y.detach()


def zeros_if_none(g: Tensor | None, x: Tensor) -> Tensor:
    """The gradient, or zeros like x where nothing depends on x."""
    return Tensor(arrays.xp(x._array).zeros_like(x._array)) if g is None else g


# -- looking at the graph --------------------------------------------------------------------------------------------


def graphviz(y: Tensor) -> str:
    """The graph behind `y` as DOT text: leaves are boxes, ops are ellipses, with the shape of what they hold."""
    if getattr(y, "node", None) is None:
        raise GraphError(f"graphviz: this {type(y).__name__} has no history.")
    order = _reachable([y.node])
    names = {node: f"n{i}" for i, node in enumerate(reversed(order))}
    lines = []
    for node in reversed(order):
        what = {Leaf: "leaf", Selection: "output"}.get(type(node)) or node.op.name
        shape = "box" if type(node) is Leaf else "ellipse"
        lines.append(f'  {names[node]} [label="{what}\\n{node.shape}", shape={shape}];')
        lines += [f"  {names[parent]} -> {names[node]};" for parent in node.parents if parent is not None]
    return "digraph {\n" + "\n".join(lines) + "\n}\n"
