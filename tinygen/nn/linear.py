"""The affine layer, layers in a row, and the multilayer perceptron made of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from tinygen import ops
from tinygen.errors import InputError
from tinygen.nn import initialise
from tinygen.nn.module import Module
from tinygen.random import Generator
from tinygen.tensor import Parameter, Tensor

Layer = Callable[[Any], Any]
"""A Module, or any function of one Tensor, such as an op."""

Initialiser = Callable[[tuple[int, ...], Generator], Any]
"""(shape, rng) -> first values: a function of `tinygen.nn.initialise`, or one like them."""


class Linear(Module):
    """y = x W + b over the last axis. (..., inputs) -> (..., outputs).

    weight: (inputs, outputs), drawn by `weight_init(shape, rng)`, N(0, 2 / inputs);  bias: (outputs,), zeros.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool = True,
        *,
        rng: Generator,
        weight_init: Initialiser = initialise.he_normal,
    ):
        if inputs < 1 or outputs < 1:
            raise InputError(f"Linear: inputs and outputs must be at least 1, not {inputs} and {outputs}.")
        self.weight = Parameter(weight_init((inputs, outputs), rng))
        self.bias = Parameter(initialise.zeros((outputs,))) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class Sequential(Module):
    """Layers one after the other: Modules, and plain functions such as `ops.silu`."""

    def __init__(self, *layers: Layer):
        self.layers = list(layers)

    def _parts(self) -> Iterable[tuple[str, Any]]:
        """The layers by number, so that names read "decoder.0.weight", and whatever a subclass adds."""
        yield from ((str(i), layer) for i, layer in enumerate(self.layers))
        yield from ((name, value) for name, value in vars(self).items() if name != "layers")

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __getitem__(self, i: int) -> Layer:
        return self.layers[i]


class MLP(Sequential):
    """Linear layers with an activation between each two of them. (..., sizes[0]) -> (..., sizes[-1]).

    A layer and its activation run as one op, `ops.affine`, where there is one for both.

    `last_init` draws the weights of the last layer: `initialise.zeros` if it ends a residual branch.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Layer = ops.silu,
        *,
        rng: Generator,
        last_init: Initialiser = initialise.he_normal,
    ):
        if len(sizes) < 2:
            raise InputError(f"MLP: sizes {list(sizes)} name no layer; give the input size and at least one more.")
        layers: list[Layer] = []
        for inputs, outputs in pairwise(sizes[:-1]):
            layers += [Linear(inputs, outputs, rng=rng), activation]
        super().__init__(*layers, Linear(sizes[-2], sizes[-1], rng=rng, weight_init=last_init))

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self.layers
        for layer, activation in zip(inner[::2], inner[1::2], strict=True):
            name = _FUSED.get(activation) if type(layer) is Linear else None
            x = ops.affine(x, layer.weight, layer.bias, name) if name else activation(layer(x))
        return last(x)


_FUSED = {ops.relu: "relu", ops.silu: "silu", ops.gelu: "gelu"}  # activations that can be one op with the product
