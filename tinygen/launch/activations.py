"""Launches of the activations: SiLU and GELU."""

from __future__ import annotations

import numpy as np

from tinygen.launch.pieces import elementwise, is_float32


def activation_accepts(operands: list, params: dict) -> bool:
    return is_float32(operands[0]) and params.get("approximate") in (None, "tanh")


def silu_forward(operands: list, params: dict) -> tuple[np.ndarray, None]:
    from tinygen.kernels.cpu import activations

    return elementwise(activations.silu_forward, *operands), None


def silu_backward(g, operands: list, out, residual: None, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu import activations

    return (elementwise(activations.silu_backward, g, *operands),)


def gelu_forward(operands: list, params: dict) -> tuple[np.ndarray, None]:
    from tinygen.kernels.cpu import activations as kernels

    return elementwise(kernels.gelu_tanh_forward if params["approximate"] else kernels.gelu_forward, *operands), None


def gelu_backward(g, operands: list, out, residual: None, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu import activations as kernels

    return (elementwise(kernels.gelu_tanh_backward if params["approximate"] else kernels.gelu_backward, g, *operands),)
