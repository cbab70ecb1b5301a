"""Launch of a layer: matrix product, bias and activation."""

from __future__ import annotations

import math

import numpy as np

from tinygen.launch.pieces import empty, in_pieces, is_float32, pieces, plain

KINDS = {"relu": 1, "silu": 2, "gelu": 3}  # as in kernels/cpu/bias_activation.py


def affine_accepts(operands: list, params: dict) -> bool:
    x, weight, bias = operands
    if not (is_float32(x) and is_float32(weight) and x.ndim >= 2 == weight.ndim and x.shape[-1] == len(weight)):
        return False
    fits = bias is None or (is_float32(bias) and bias.shape == weight.shape[1:])
    return fits and (params["activation"] is None or params["activation"] in KINDS)


def affine_forward(operands: list, params: dict) -> tuple[np.ndarray, np.ndarray | None]:
    """(y, x W + bias), the second only where the slope of the activation is computed from it."""
    from tinygen.ops.linear import matmul

    (x, weight, bias), activation = operands, params["activation"]
    z = matmul.forward(x.reshape(math.prod(x.shape[:-1]), len(weight)), weight)
    y, kept = z, None
    if activation is not None:
        from tinygen.kernels.cpu.bias_activation import bias_activation_forward

        bias = np.zeros(z.shape[1], np.float32) if bias is None else plain(bias)
        y, kept = (z, None) if activation == "relu" else (empty(z.shape), z)
        run = lambda _, part: bias_activation_forward(z[part], bias, KINDS[activation], y[part])
        in_pieces(run, *z.shape)
    elif bias is not None:
        z += bias
    return y.reshape(*x.shape[:-1], z.shape[1]), kept


def affine_backward(g, operands: list, out: np.ndarray, residual, params: dict, needs: list) -> tuple:
    from tinygen.ops.linear import matmul

    x, weight, bias = operands
    rows = (math.prod(x.shape[:-1]), weight.shape[1])
    dz, dbias = g.reshape(rows), None
    if params["activation"] is not None:
        t = out.reshape(rows) if residual is None else residual
        dz, dbias = _through(plain(dz), plain(t), KINDS[params["activation"]])
    elif needs[2]:
        from tinygen.ops.reductions import sum_to

        dbias = sum_to.forward(dz, bias.shape)
    dx = matmul.forward(dz, weight.T).reshape(x.shape) if needs[0] else None
    dweight = matmul.forward(x.reshape(len(dz), len(weight)).T, dz) if needs[1] else None
    return dx, dweight, dbias if needs[2] else None


def _through(g: np.ndarray, t: np.ndarray, kind: int) -> tuple[np.ndarray, np.ndarray]:
    """g f'(t), and its sums over the rows."""
    from tinygen.kernels.cpu.bias_activation import bias_activation_backward

    dz, sums = empty(t.shape), np.empty((pieces(*t.shape)[1], t.shape[1]))
    in_pieces(lambda k, part: bias_activation_backward(g[part], t[part], kind, dz[part], sums[k]), *t.shape)
    return dz, sums.sum(0).astype(np.float32)
