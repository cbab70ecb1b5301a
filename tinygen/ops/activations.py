"""Activations that are defined by other ops; the simple ones stand with the elementwise ops."""

from __future__ import annotations

import math

from tinygen.domains import arrays, real
from tinygen.errors import InputError
from tinygen.fused import fused
from tinygen.ops.elementwise import ndtr, relu, sigmoid, tanh
from tinygen.ops.linear import matmul
from tinygen.ops.shapes import split


@fused(inputs=arrays(real))
def silu(x, /):
    """x sigmoid(x), also called swish (Elfwing et al. 2018)."""
    return x * sigmoid(x)


def _gelus(draw):
    return (draw.array(draw.shape()),), {"approximate": draw.choice([None, "tanh"])}


@fused(inputs=_gelus)
def gelu(x, /, approximate=None):
    """x Phi(x), with Phi the CDF of the standard normal distribution (Hendrycks & Gimpel 2016).

    With approximate="tanh" their formula x / 2 (1 + tanh(sqrt(2 / pi) (x + .044715 x^3))), within .0005 of it.
    """
    if approximate is None:
        return x * ndtr(x)
    if approximate == "tanh":
        return 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))
    raise InputError(f'approximate must be None or "tanh", not {approximate!r}')


def _halves(draw):
    *rows, features = draw.shape(low=1, high=3)
    return (draw.array((*rows, 2 * features)),), {}


@fused(inputs=_halves)
def tanh_gate(x, /):
    """tanh(a) sigmoid(b), where a is the first half of the features and b the second: (..., 2 C) -> (..., C).

    a says what, and b how much of it passes (van den Oord et al. 2016, "Conditional image generation", eq. 2).
    """
    a, b = split(x, 2, axis=-1)
    return tanh(a) * sigmoid(b)


_FOLLOWING = {"relu": relu, "silu": silu, "gelu": gelu}


def _layers(draw):
    rows, (inputs, outputs) = draw.shape(low=1), draw.sizes(2)
    bias = draw.choice([None, draw.array((outputs,))])
    x, weight = draw.array((*rows, inputs)), draw.array((inputs, outputs))
    return (x, weight, bias), {"activation": draw.choice([None, "relu", "silu", "gelu"])}


@fused(inputs=_layers)
def affine(x, weight, bias=None, /, activation=None):
    """f(x W + b), a whole layer: (..., inputs), (inputs, outputs), (outputs,) -> (..., outputs).

    f is the identity, or what `activation` names: "relu", "silu" or "gelu".
    """
    if activation is not None and activation not in _FOLLOWING:
        raise InputError(f"activation must be None or one of {', '.join(_FOLLOWING)}, not {activation!r}")
    y = matmul(x, weight)
    y = y if bias is None else y + bias
    return y if activation is None else _FOLLOWING[activation](y)
