"""Activations that are defined by other ops; the simple ones stand with the elementwise ops."""

from __future__ import annotations

import math

from tinygen.domains import arrays, real
from tinygen.errors import InputError
from tinygen.fused import fused
from tinygen.ops.elementwise import ndtr, sigmoid, tanh


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
