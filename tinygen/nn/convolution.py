"""Convolutions with a bias: along time, over images, and back up to larger images. Features last.

A convolution is a Linear layer that looks at the same small window everywhere. `padding` with zeros is an integer, one
for each side, "same" (the size stays, at stride 1) or "valid" (none); geometry and shapes: `tinygen.ops.conv2d`.
"""

from __future__ import annotations

import math
from typing import Any

from tinygen import ops
from tinygen.errors import InputError
from tinygen.nn import initialise
from tinygen.nn.linear import Initialiser
from tinygen.nn.module import Module
from tinygen.ops.windows import Pair, pair
from tinygen.random import Generator
from tinygen.tensor import Parameter, Tensor


class Conv1d(Module):
    """Over time: (N, T, inputs) -> (N, I, outputs), with I = (T + 2 padding - dilation (size - 1) - 1) // stride + 1.

    weight: (size, inputs / groups, outputs), N(0, 2 / fan_in), fan_in = size * inputs / groups;
    bias: (outputs,), zeros.
    padding=(dilation * (size - 1), 0) makes it causal: an output sees no later input (van den Oord et al. 2016).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int = 1,
        padding: Any = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        rng: Generator,
        weight_init: Initialiser = initialise.he_normal,
    ):
        _check("Conv1d", inputs, outputs, groups)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        size, _ = pair("size", (size, 1))
        self.weight = Parameter(weight_init((size, inputs // groups, outputs), rng))
        self.bias = Parameter(initialise.zeros((outputs,))) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = ops.conv1d(x, self.weight, self.stride, self.padding, self.dilation, self.groups)
        return y if self.bias is None else y + self.bias


class Conv2d(Module):
    """Over images: (N, H, W, inputs) -> (N, I, J, outputs), I = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1.

    weight: (KH, KW, inputs / groups, outputs), N(0, 2 / fan_in), fan_in = KH * KW * inputs / groups;
    bias: (outputs,), zeros. `size`, `stride` and `dilation` are integers or pairs.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int | Pair,
        stride: int | Pair = 1,
        padding: Any = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        rng: Generator,
        weight_init: Initialiser = initialise.he_normal,
    ):
        _check("Conv2d", inputs, outputs, groups)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.weight = Parameter(weight_init((*pair("size", size), inputs // groups, outputs), rng))
        self.bias = Parameter(initialise.zeros((outputs,))) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = ops.conv2d(x, self.weight, self.stride, self.padding, self.dilation, self.groups)
        return y if self.bias is None else y + self.bias


class ConvTranspose2d(Module):
    """A Conv2d run backwards, which enlarges: (N, I, J, inputs) -> (N, H, W, outputs),
    H = (I - 1) stride + dilation (KH - 1) + 1 - 2 padding + output_padding.

    weight: (KH, KW, outputs / groups, inputs), that of the Conv2d from `outputs` to `inputs` channels whose transpose
    this is. Each output sums over fan_in = KH * KW / stride^2 * inputs / groups numbers, since a stride leaves it only
    every stride-th place of the kernel. By default N(0, 2 / fan_in); an initialiser of one's own is asked for the shape
    (KH, KW, inputs / groups, outputs) and knows nothing of the stride. A size that the stride divides avoids a
    chequered pattern (Odena et al. 2016).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int | Pair,
        stride: int | Pair = 1,
        padding: Any = 0,
        output_padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        rng: Generator,
        weight_init: Initialiser | None = None,
    ):
        _check("ConvTranspose2d", inputs, outputs, groups)
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.dilation, self.groups = dilation, groups
        kh, kw = pair("size", size)
        if weight_init is None:
            gain = math.sqrt(math.prod(pair("stride", stride)))
            weight_init = lambda shape, rng: gain * initialise.he_normal(shape, rng)
        drawn = weight_init((kh, kw, inputs // groups, outputs), rng)
        drawn = drawn.reshape(kh, kw, inputs // groups, groups, outputs // groups).transpose(0, 1, 4, 3, 2)
        self.weight = Parameter(drawn.reshape(kh, kw, outputs // groups, inputs))
        self.bias = Parameter(initialise.zeros((outputs,))) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        how = self.stride, self.padding, self.output_padding, self.dilation, self.groups
        y = ops.conv_transpose2d(x, self.weight, *how)
        return y if self.bias is None else y + self.bias


def _check(name: str, inputs: int, outputs: int, groups: int) -> None:
    if min(inputs, outputs, groups) < 1 or inputs % groups or outputs % groups:
        raise InputError(
            f"{name}: inputs and outputs must be positive and divide into {groups} groups, not {inputs} and {outputs}."
        )
