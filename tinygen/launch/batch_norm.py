"""Launches of batch norm, in training and in evaluation."""

from __future__ import annotations

import math

import numpy as np

from tinygen.launch.pieces import empty, in_pieces, is_float32, pieces, plain


def batch_norm_accepts(operands: list, params: dict) -> bool:
    x, *vectors = operands
    if not (is_float32(x) and x.ndim):
        return False
    return all(v is None or (is_float32(v) and v.shape == x.shape[-1:]) for v in vectors)


def batch_norm_forward(operands: list, params: dict) -> tuple[tuple, tuple]:
    """((y, mean, var), (mean, r))."""
    from tinygen.kernels.cpu.batch_norm import moments

    x, gain, bias = operands
    rows = _rows(x)
    n, pivot = len(rows), rows[len(rows) // 2].copy() if len(rows) else np.zeros(rows.shape[1], np.float32)
    first, second = _added(moments, [rows], pivot) / max(n, 1)
    var = np.maximum(second - first * first, 0)
    r = (1 / np.sqrt(var + params["eps"])).astype(np.float32)
    mean = (pivot + first).astype(np.float32)
    y = _affine(x, rows, mean, r, gain, bias)
    statistics = (mean, var.astype(np.float32)) if n else np.full((2, mean.size), np.nan, np.float32)
    return (y, *statistics), (mean, r)


def batch_norm_backward(g: tuple, operands: list, out, residual: tuple, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu.batch_norm import slopes, through_norm_rows

    x, gain, bias = operands
    (g, by_mean, by_var), (mean, r) = g, residual
    rows, g = _rows(x), _rows(g)
    n, a = max(len(rows), 1), np.ones_like(mean) if gain is None else gain
    by_bias, products = _added(slopes, [g, rows], mean)
    by_gain = products * r
    mean_d, slope = by_bias * a / n - by_mean / (n * r), by_gain * a * r / n - by_var * 2 / (n * r)
    dx, vectors = empty(rows.shape), np.stack([mean, r, a, mean_d, slope], dtype=np.float32, casting="same_kind")
    in_pieces(lambda _, part: through_norm_rows(g[part], rows[part], vectors, dx[part]), *rows.shape)
    return dx.reshape(x.shape), *_if_given((gain, by_gain), (bias, by_bias))


def inference_forward(operands: list, params: dict) -> tuple[np.ndarray, np.ndarray]:
    x, mean, var, gain, bias = operands
    r = (1 / np.sqrt(var + np.float32(params["eps"]))).astype(np.float32)
    return _affine(x, _rows(x), mean, r, gain, bias), r


def inference_backward(g, operands: list, out, residual: np.ndarray, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu.batch_norm import slopes

    x, mean, var, gain, bias = operands
    r, rows = residual, _rows(g)
    dx = _affine(x, rows, np.zeros_like(mean), r, gain, None) if needs[0] else None
    if not any(needs[1:]):
        return dx, None, None, None, None
    by_bias, products = _added(slopes, [rows, _rows(x)], plain(mean))
    a = r if gain is None else r * gain
    by_gain, by_mean, by_var = products * r, -by_bias * a, products * a * r * r / -2
    return dx, *_if_given((mean, by_mean), (var, by_var), (gain, by_gain), (bias, by_bias))


def _rows(x: np.ndarray) -> np.ndarray:
    return plain(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _added(kernel, matrices: list, vector: np.ndarray) -> np.ndarray:
    """What `kernel` adds up over the rows of the matrices: (2, C) float64."""
    shape = matrices[0].shape
    _, number = pieces(*shape)
    sums = np.empty((number, 2, shape[1]))
    in_pieces(lambda k, part: kernel(*[x[part] for x in matrices], vector, sums[k]), *shape)
    return sums.sum(0)


def _affine(x, rows, mean, r, gain, bias) -> np.ndarray:
    """(rows - mean) r gain + bias, in the shape of x."""
    from tinygen.kernels.cpu.batch_norm import normalise_rows

    out, zeros = empty(rows.shape), np.zeros_like(r)
    vectors = np.stack([mean, r if gain is None else r * gain, zeros if bias is None else bias])
    in_pieces(lambda _, part: normalise_rows(rows[part], vectors, out[part]), *rows.shape)
    return out.reshape(x.shape)


def _if_given(*pairs: tuple) -> list:
    """The gradients of those operands that are there."""
    return [None if operand is None else np.asarray(d, np.float32) for operand, d in pairs]
