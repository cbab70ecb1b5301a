"""tinygen: every family of generative model, readable, on a minimal autograd engine written by hand.

    import tinygen
    from tinygen import nn, ops, optim

    x = tinygen.tensor([1.0, 2.0], requires_grad=True)
    ops.sum(ops.exp(x)).backward()
    x.grad

Importing tinygen imports NumPy and nothing else; Numba, SciPy, Matplotlib and CuPy are imported by what needs them.
What rests on the engine (layers, optimisers, models, data, ...) is imported when it is first named.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tinygen.tensor import Parameter, Tensor, tensor  # isort: skip (first: everything else is built on Tensor)
from tinygen import ops, random
from tinygen.autograd import (
    backward,
    detect_anomaly,
    grad,
    graphviz,
    hvp,
    jacobian,
    jvp,
    no_grad,
    stop_gradient,
    vjp,
)
from tinygen.dispatch import definitions_only
from tinygen.finite_differences import gradcheck
from tinygen.registry import op

if TYPE_CHECKING:
    from tinygen import data, distributions, metrics, models, nn, optim
    from tinygen.checkpoint import load

LATER = ("data", "distributions", "metrics", "models", "nn", "optim")

__all__ = [
    "Parameter",
    "Tensor",
    "backward",
    "data",
    "definitions_only",
    "detect_anomaly",
    "distributions",
    "grad",
    "gradcheck",
    "graphviz",
    "hvp",
    "jacobian",
    "jvp",
    "load",
    "metrics",
    "models",
    "nn",
    "no_grad",
    "op",
    "ops",
    "optim",
    "random",
    "stop_gradient",
    "tensor",
    "vjp",
]


def __getattr__(name: str) -> Any:
    if name in LATER:
        return importlib.import_module(f"tinygen.{name}")
    if name == "load":
        return importlib.import_module("tinygen.checkpoint").load
    raise AttributeError(f"module 'tinygen' has no attribute {name!r}")
