"""Launches of the activations: SiLU, GELU, and the gate of tanh and sigmoid."""

from __future__ import annotations

import math

import numpy as np

from tinygen.launch.pieces import elementwise, empty, in_pieces, is_float32, plain


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


def gate_accepts(operands: list, params: dict) -> bool:
    (x,) = operands
    return is_float32(x) and x.ndim > 0 and x.shape[-1] % 2 == 0


def gate_forward(operands: list, params: dict) -> tuple[np.ndarray, None]:
    from tinygen.kernels.cpu import gate

    (x,) = operands
    out = empty((*x.shape[:-1], x.shape[-1] // 2))
    wide, narrow = _rows(x), _rows(out)
    in_pieces(lambda _, part: gate.gate_forward(wide[part], narrow[part]), *wide.shape)
    return out, None


def gate_backward(g, operands: list, out, residual: None, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu import gate

    (x,) = operands
    dx, narrow, wide = empty(x.shape), _rows(g), _rows(x)
    rows = dx.reshape(wide.shape)
    in_pieces(lambda _, part: gate.gate_backward(narrow[part], wide[part], rows[part]), *wide.shape)
    return (dx,)


def _rows(x: np.ndarray) -> np.ndarray:
    return plain(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
