"""Fused ops: a definition that people read, kernels that the machine runs.

    @fused(inputs=along_axis(real))
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

from collections.abc import Callable, Sequence
from typing import Any

from tinygen import arrays, autograd, dispatch
from tinygen.errors import DtypeError, TinygenError
from tinygen.explain import RAISED, describe, explain, watch
from tinygen.registry import (
    CONSTANT,
    FLOATS,
    REGISTRY,
    Node,
    Op,
    Selection,
    _constant,
    _stamp,
    _whole,
    add_to_registry,
    mode,
    new_node,
)
from tinygen.tensor import Tensor


class Fused(Op):
    """An op whose forward is its definition, and which may have kernels. Made by `fused`.

    Of a call that ran a kernel, the operands and the output are kept for backward and must not be written to before.
    """

    def __init__(self, name: str, definition: Callable, inputs: Callable, constants: tuple[str, ...] = ()):
        super().__init__(name, definition, inputs, constants)
        self.reads = (*self.operands, "out")
        self.gradient = FusedGradient(self)

    def __call__(self, *args: Any, **params: Any) -> Any:
        """The definition's result, or the kernel's if there is one for these operands."""
        args, params = self._bind(args, params)
        args = [a if isinstance(a, Tensor) else self._operand(name, a) for name, a in zip(self.operands, args)]
        values = [arg._array if isinstance(arg, Tensor) else arg for arg in args]
        try:
            if self.constants:
                self._check_constants(values)
            kernel = dispatch.find(self.name, values, params)
            out = self._run(kernel, args, values, params) if kernel else self.forward(*args, **params)
        except (TinygenError, *RAISED) as error:
            raise _told(self.name, error, values) from (None if isinstance(error, TinygenError) else error)
        if type(out) is tuple and any(isinstance(arg, Tensor) for arg in args):  # also those that no Tensor led to
            out = tuple([y if isinstance(y, Tensor) else Tensor(y) for y in out])
        return out

    def _operand(self, name: str, arg: Any) -> Any:
        """Lists become arrays: of integers or booleans for a constant, else as `tinygen.tensor` has it."""
        if name in self.constants:
            return arg if arg is None or arrays.is_array(arg) else _whole(self.name, arg)
        return _constant(self.name, arg) if isinstance(arg, list | tuple) else arg

    def _check_constants(self, values: list) -> None:
        for name, value in zip(self.operands, values, strict=True):
            if name in self.constants and value is not None and value.dtype.kind not in "iub":
                raise DtypeError(f"{name} must be integers or booleans, not {value.dtype}")

    def _run(self, kernel: dispatch.Kernel, args: list, values: list, params: dict) -> Any:
        """Compute by the kernel, and record the call as one node."""
        out, residual = kernel.forward(values, params)
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        if not tensors:
            return out
        several, outs = type(out) is tuple, out if type(out) is tuple else (out,)
        if mode.watching:
            watch(self.name, values, outs)
        results = [Tensor(y) for y in outs]
        if mode.recording and any(arg.node for arg in tensors):
            parents = [arg.node if isinstance(arg, Tensor) else None for arg in args]
            versions = [arg.version if isinstance(arg, Tensor) else CONSTANT for arg in args]
            saved = (tuple(values), out, residual, params, kernel)
            shapes, dtypes = tuple([y.shape for y in outs]), tuple([y.dtype for y in outs])
            shape, dtype = (shapes, dtypes) if several else (shapes[0], dtypes[0])
            node = _record(self, parents, shape, dtype, saved, (*versions, *[y.version for y in results]))
            for i, result in enumerate(results):
                result.node = Selection(node, i) if several else node
        return tuple(results) if several else results[0]

    def pull_back(self, g: Any, saved: tuple, needs: Sequence) -> Sequence:
        values, out, residual, params, kernel = saved
        return kernel.backward(g, values, out, residual, params, needs)

    def pull_back_recorded(self, node: Node, g: Tensor, needs: Sequence) -> list:
        """The backward kernel's results, recorded as one node with g (of each output) and the operands for parents."""
        gs = g if type(g) is tuple else (g,)
        arrived = tuple([x._array for x in gs])
        wanted = [i for i, need in enumerate(needs) if need]
        pulled = self.pull_back(arrived if type(g) is tuple else arrived[0], node.saved, needs)
        grads = [arrays.xp(pulled[i]).asarray(pulled[i]) for i in wanted]  # of 0-d operands they may be NumPy scalars
        values, _, _, params, _ = node.saved
        inner = _record(
            self.gradient,
            [*[x.node for x in gs], *node.parents],
            tuple([x.shape for x in grads]),
            tuple([x.dtype for x in grads]),
            (arrived, values, params, wanted),
            (*node.versions[: len(values)], *[x.version for x in gs]),  # a replay computes the outputs anew
        )
        results: list[Any] = [None] * len(needs)
        for k, i in enumerate(wanted):
            results[i] = Tensor(grads[k])
            results[i].node = Selection(inner, k)
        return results


class FusedGradient:
    """The backward of a fused op, as an op with an output for each gradient: its own derivative is the replay."""

    def __init__(self, op: Fused):
        self.op, self.name = op, f"{op.name}_gradient"
        self.reads = self.operands = (*op.operands, "g")  # in the order of the versions

    def pull_back(self, ws: tuple, saved: tuple, needs: Sequence) -> list:
        results = self._replay([Tensor(w) for w in ws], saved, [None] * len(needs), needs, create_graph=False)
        return [result if result is None else result._array for result in results]

    def pull_back_recorded(self, node: Node, ws: tuple, needs: Sequence) -> list:
        return self._replay(ws, node.saved, node.parents, needs, create_graph=True)

    def _replay(self, ws: Sequence, saved: tuple, histories: list, needs: Sequence, create_graph: bool) -> list:
        """The gradients of <ws, gradients of <g, op(operands)>> by g and by the operands, as `needs` asks."""
        arrived, values, params, wanted = saved
        with autograd._set(recording=True):
            aliases = [_alias(value, node) for value, node in zip((*arrived, *values), histories, strict=True)]
            gs, operands = aliases[: len(arrived)], aliases[len(arrived) :]
            out = self.op.forward(*operands, **params)
            first = autograd.grad(out, [operands[i] for i in wanted], gs, create_graph=True, allow_unused=True)
            pairs = [(f, w) for f, w in zip(first, ws, strict=True) if f is not None and f.requires_grad]
            asked = [alias for alias, need in zip(aliases, needs, strict=True) if need]
            fs, ws = [f for f, _ in pairs], [w for _, w in pairs]
            second = autograd.grad(fs, asked, ws, create_graph=create_graph, allow_unused=True)
        found = iter(map(autograd.zeros_if_none, second, asked))
        return [next(found) if need else None for need in needs]


def fused(*, inputs: Callable, constants: tuple[str, ...] = ()) -> Callable:
    """Register the function below as the definition of a fused op; see the module's docstring.

    `inputs` describes its valid inputs, as for `tinygen.op`; `constants` names operands of integers or booleans, which
    have no gradient.
    """

    return lambda definition: add_to_registry(Fused(definition.__name__, definition, inputs, constants))


def _record(op: Any, parents: list, shape: Any, dtype: Any, saved: tuple, versions: tuple) -> Node:
    node = new_node(op, parents, shape, dtype)
    node.saved, node.versions = saved, versions
    if mode.watching:
        _stamp(node)
    return node


def _alias(value: Any, history: Any) -> Any:
    """The operand again, with its history behind an identity of its own; a leaf where there is no history."""
    if value is None or value.dtype not in FLOATS:
        return value
    if history is None:
        return Tensor(value, requires_grad=True)
    original = Tensor(value)
    original.node = history
    return REGISTRY["identity"](original)


def _told(name: str, error: Exception, values: list) -> TinygenError:
    """An error inside a definition: under the op that the person called, then, if it came from one, the op inside."""
    if not getattr(error, "line", None):
        return explain(name, error, values)
    made = type(error)(f"{name}({', '.join(map(describe, values))}): {error.args[0]}")
    made.line = error.line
    return made
