"""Fused ops: a definition that people read, kernels that the machine runs.

    @fused(inputs=rows)
    def softmax(x, /, axis=-1):
        e = exp(x - stop_gradient(max(x, axis, keepdims=True)))
        return e / sum(e, axis, keepdims=True)

The definition is a few lines of primitive ops and is all there needs to be: without a kernel, in float64 or with
kernels switched off, calling the op runs those lines, and they are what is recorded.

With a kernel (see `tinygen.dispatch`) the call is one node, and backward runs the backward kernel. A kernel cannot be
differentiated. So under `create_graph=True` that backward is itself recorded as one node, and only if somebody
differentiates *that* is the definition replayed: run again, differentiated once to get the gradient, and once more to
get the gradient of the gradient. The replay works on aliases of the operands, each with an identity of its own:
operands that share history (attention of x with itself) must not receive one another's contribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygen import arrays, autograd, dispatch
from tinygen.registry import FLOATS, REGISTRY, Node, Op, Selection, WatchedNode, caller, checksum, mode, watch
from tinygen.tensor import Tensor, tick


class Fused(Op):
    """An op whose forward is its definition, and which may have kernels."""

    def __init__(self, name: str, definition: Callable, inputs: Callable, constants: tuple[str, ...] = ()):
        super().__init__(name, definition, inputs, constants)
        self.reads = (*self.operands, "out")
        self.gradient = FusedGradient(self)

    def __call__(self, *args: Any, **params: Any) -> Any:
        args, params = self._bind(args, params)
        values = [arg._array if isinstance(arg, Tensor) else arg for arg in args]
        kernel = dispatch.find(self.name, values, params)
        if kernel is None:
            return self.forward(*args, **params)
        out, residual = kernel.forward(*values, **params)
        tensors = [arg if isinstance(arg, Tensor) else None for arg in args]
        if not any(tensor is not None for tensor in tensors):
            return out
        result = Tensor(out)
        if mode.watching:
            watch(self.name, values, (out,))
        parents = [tensor.node if tensor is not None else None for tensor in tensors]
        if mode.recording and parents.count(None) < len(parents):
            node = record(self, parents, out.shape, out.dtype)
            node.saved = (tuple(values), out, residual, params, kernel)
            node.versions = (*[tensor.version for tensor in tensors if tensor is not None], result.version)
            stamp(node, node.saved[:2])
            result.node = node
        return result

    def pull_back(self, g: Any, saved: tuple, needs: list[bool]) -> list | tuple:
        values, out, residual, params, kernel = saved
        return kernel.backward(g, values, out, residual, params, needs)

    def pull_back_recorded(self, node: Node, g: Tensor, needs: list[bool]) -> list:
        """The backward kernel's results, recorded as one node with g and the operands for parents."""
        wanted = [i for i, need in enumerate(needs) if need]
        pulled = self.pull_back(g._array, node.saved, needs)
        grads = [pulled[i] for i in wanted]
        values, _, _, params, _ = node.saved
        inner = record(self.gradient, [g.node, *node.parents], [x.shape for x in grads], [x.dtype for x in grads])
        inner.shape, inner.dtype = tuple(inner.shape), tuple(inner.dtype)
        inner.saved, inner.versions = (g._array, values, params, wanted), (g.version, *node.versions)
        stamp(inner, (g._array, values))
        results: list[Any] = [None] * len(needs)
        for k, i in enumerate(wanted):
            results[i] = Tensor(grads[k])
            results[i].node = Selection(inner, k)
        return results


class FusedGradient:
    """The backward of a fused op, as an op: its own derivative is the replay of the definition."""

    def __init__(self, op: Fused):
        self.op, self.name = op, f"{op.name}_gradient"
        self.operands = ("g", *op.operands)
        self.reads = self.operands

    def pull_back(self, gs: tuple, saved: tuple, needs: list[bool]) -> list:
        results = self._replay([Tensor(g) for g in gs], saved, [None] * len(needs), needs, create_graph=False)
        return [result if result is None else result._array for result in results]

    def pull_back_recorded(self, node: Node, gs: tuple, needs: list[bool]) -> list:
        return self._replay(gs, node.saved, node.parents, needs, create_graph=True)

    def _replay(self, gs: Any, saved: tuple, histories: list, needs: list[bool], create_graph: bool) -> list:
        g, values, params, wanted = saved
        with autograd._set(recording=True):
            aliases = [_alias(value, node) for value, node in zip((g, *values), histories, strict=True)]
            g, operands = aliases[0], aliases[1:]
            out = self.op.forward(*operands, **params)
            first = autograd.grad(out, [operands[i] for i in wanted], g, create_graph=True, allow_unused=True)
            pairs = [(f, w) for f, w in zip(first, gs, strict=True) if f is not None and f.node is not None]
            asked = [alias for alias, need in zip(aliases, needs, strict=True) if need]
            fs, ws = [f for f, _ in pairs], [w for _, w in pairs]
            second = iter(autograd.grad(fs, asked, ws, create_graph=create_graph, allow_unused=True))
        return [_or_zeros(next(second), a) if need else None for a, need in zip(aliases, needs, strict=True)]


def fused(*, inputs: Callable, constants: tuple[str, ...] = ()) -> Callable:
    """Register the function below as the definition of a fused op; see the module's docstring."""

    def register(definition: Callable) -> Fused:
        REGISTRY[definition.__name__] = made = Fused(definition.__name__, definition, inputs, constants)
        return made

    return register


def record(op: Any, parents: list, shape: Any, dtype: Any) -> Node:
    node = WatchedNode() if mode.watching else Node()
    node.op, node.parents, node.shape, node.dtype, node.seq = op, parents, shape, dtype, tick()
    return node


def stamp(node: Node, saved: tuple) -> None:
    """Under detect_anomaly: remember where the node was recorded and what it saved."""
    if type(node) is WatchedNode:
        node.line = caller()
        node.checksums = [checksum(value) for value in node.saved]


def _alias(value: Any, node: Any) -> Any:
    """The operand again, with its history behind an identity of its own; a leaf where there is no history."""
    if getattr(value, "dtype", None) not in FLOATS:
        return value
    if node is None:
        return Tensor(value, requires_grad=True)
    original = Tensor(value)
    original.node = node
    return REGISTRY["identity"](original)


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    return Tensor(arrays.xp(like._array).zeros_like(like._array)) if gradient is None else gradient
