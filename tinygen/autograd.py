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
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from tinygen import arrays
from tinygen.errors import DtypeError, GraphError, MutationError, NonFiniteError, ShapeError
from tinygen.registry import REGISTRY, Node, Selection, WatchedNode, _finite, checksum, mode
from tinygen.tensor import Leaf, Tensor

ndarray = np.ndarray
_seq = attrgetter("seq")

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
    array, which nothing else can see, raise MutationError.
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
    if output.node is None:
        raise GraphError("backward: this Tensor has no history; no operand that led to it requires a gradient.")
    seed = _seed(output, gradient, "backward")
    for leaf, g in _walk([output.node], [seed._array], None, retain_graph, False).items():
        # Copied, because vjps may hand on their argument, and a person may change .grad in place.
        leaf.grad = arrays.xp(g).array(g) if leaf.grad is None else leaf.grad + g


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
        if not isinstance(x, Tensor) or x.node is None:
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
    grads = tuple(g if g is None or isinstance(g, Tensor) else Tensor(g) for g in grads)
    return grads if several else grads[0]


def _walk(roots: list, seeds: list, targets: set | None, retain: bool, create_graph: bool) -> dict:
    """Propagate `seeds` from `roots`; the gradients that arrive at `targets` (None: at all leaves), by node."""
    order = _reachable(roots)
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
        if kind is Node and type(g) is ndarray and node.saved is not None:  # _pull in the common case, without the call
            seq = node.seq
            for version in node.versions:
                if version.tick > seq:
                    raise MutationError(_mutated(node))
            pulled = node.op.pull_back(g, node.saved, needs)
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
        raise GraphError(
            f"{node.op.name}: this part of the graph was released by an earlier backward. Pass retain_graph=True to "
            "the first one, or compute the output again."
        )
    for version in node.versions:
        if version.tick > seq:
            raise MutationError(_mutated(node))
    if type(node) is WatchedNode and [checksum(value) for value in saved] != node.checksums:
        raise MutationError(f"{_mutated(node)} It was recorded at {node.line}.")
    if type(g) is list:  # several outputs
        g = tuple(_or_zeros(gi, node, i, create_graph) for i, gi in enumerate(g))
    pulled = node.op.pull_back_recorded(node, g, needs) if create_graph else node.op.pull_back(g, saved, needs)
    if len(pulled) != len(needs):
        pulled = _spread(node, pulled, needs)
    if type(node) is WatchedNode:
        for i, (need, gradient) in enumerate(zip(needs, pulled)):
            if need is not None and not _finite(getattr(gradient, "_array", gradient)):
                where = f"{node.op.name} recorded at {node.line}"
                raise NonFiniteError(f"{where}: the gradient of operand {i} holds a NaN or an infinity.")
    return pulled


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
    """The nodes whose gradient some target needs: the targets and everything computed from them."""
    useful = set()
    for node in reversed(order):
        if node in targets or any(parent in useful for parent in node.parents):
            useful.add(node)
    return useful


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
    g = g if isinstance(g, Tensor) else Tensor(arrays.xp(y._array).asarray(g, None if arrays.is_array(g) else y.dtype))
    if g.shape != y.shape:
        raise ShapeError(f"{name}: the given gradient has shape {tuple(g.shape)}, the output {tuple(y.shape)}.")
    if g.dtype != y.dtype:
        raise DtypeError(f"{name}: the given gradient is {g.dtype}, the output {y.dtype}.")
    return g


def _listed(x: Any) -> list:
    return list(x) if isinstance(x, list | tuple) else [x]


# -- built on grad ---------------------------------------------------------------------------------------------------


def vjp(function: Callable, *inputs: Any) -> tuple[Any, Callable]:
    """`function(*inputs)` and the map from a cotangent of its output to the tuple of gradients of the inputs."""
    xs = [_leaf(x) for x in inputs]
    with _set(recording=True):
        y = function(*xs)
    pull = lambda g: grad(y, xs, _like(g, y), retain_graph=True, allow_unused=True)
    return _detached(y), lambda g: tuple(_zeros_if_none(r, x) for r, x in zip(pull(g), xs, strict=True))


def jvp(function: Callable, inputs: Sequence, tangents: Sequence) -> tuple[Any, Any]:
    """`function(*inputs)` and its derivative along `tangents`.

    The vjp is linear in its cotangent u, with the Jacobian's transpose as matrix; differentiating <vjp(u), tangent>
    by u transposes it back. Two reverse passes, and no second rule for any op.
    """
    xs = [_leaf(x) for x in inputs]
    with _set(recording=True):
        y = function(*xs)
        if y.node is None:
            return y, Tensor(np.zeros_like(y._array))
        u = Tensor(arrays.xp(y._array).zeros_like(y._array), requires_grad=True)
        pulled = grad(y, xs, u, create_graph=True, allow_unused=True)
        pairs = [(p, _like(t, p)) for p, t in zip(pulled, tangents, strict=True) if p is not None]
        out = grad([p for p, _ in pairs], u, [t for _, t in pairs], allow_unused=True)
    return _detached(y), _zeros_if_none(out, u)


def hvp(function: Callable, inputs: Sequence, vectors: Sequence) -> tuple[Tensor, ...]:
    """The Hessian of a scalar `function(*inputs)` times `vectors`, one product per input."""
    xs = [_leaf(x) for x in inputs]
    with _set(recording=True):
        first = grad(function(*xs), xs, create_graph=True, allow_unused=True)
        pairs = [(g, _like(v, g)) for g, v in zip(first, vectors, strict=True) if g is not None and g.node]
        if not pairs:
            return tuple(Tensor(np.zeros_like(x._array)) for x in xs)
        second = grad([g for g, _ in pairs], xs, [v for _, v in pairs], allow_unused=True)
    return tuple(_zeros_if_none(s, x) for s, x in zip(second, xs, strict=True))


def jacobian(function: Callable, x: Any) -> Tensor:
    """d function(x) / d x, of shape function(x).shape + x.shape: one backward pass per output element."""
    y, pull = vjp(function, x)
    xp = arrays.xp(y._array)
    rows = [pull(row.reshape(y.shape))[0]._array for row in xp.eye(y.size, dtype=y.dtype)]
    x_shape = np.shape(x) if not isinstance(x, Tensor) else x.shape
    return Tensor(xp.stack(rows).reshape(y.shape + x_shape) if rows else xp.zeros(y.shape + x_shape, y.dtype))


def _leaf(x: Any) -> Tensor:
    from tinygen.tensor import tensor

    return tensor(x, requires_grad=True)


def _like(g: Any, y: Tensor) -> Tensor:
    return g if isinstance(g, Tensor) else Tensor(arrays.xp(y._array).asarray(g, y.dtype).reshape(y.shape))


def _detached(y: Any) -> Any:
    return tuple(map(_detached, y)) if isinstance(y, tuple) else y.detach()


def _zeros_if_none(g: Tensor | None, x: Tensor) -> Tensor:
    return Tensor(arrays.xp(x._array).zeros_like(x._array)) if g is None else g


# -- looking at the graph --------------------------------------------------------------------------------------------


def graphviz(y: Tensor) -> str:
    """The graph behind `y` as DOT text: leaves are boxes, ops are ellipses, with the shape of what they hold."""
    if y.node is None:
        raise GraphError("graphviz: this Tensor has no history.")
    order = _reachable([y.node])
    names = {node: f"n{i}" for i, node in enumerate(reversed(order))}
    lines = []
    for node in reversed(order):
        what = {Leaf: "leaf", Selection: "output"}.get(type(node)) or node.op.name
        shape = "box" if type(node) is Leaf else "ellipse"
        lines.append(f'  {names[node]} [label="{what}\\n{node.shape}", shape={shape}];')
        lines += [f"  {names[parent]} -> {names[node]};" for parent in node.parents if parent is not None]
    return "digraph {\n" + "\n".join(lines) + "\n}\n"
