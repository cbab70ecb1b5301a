"""Launches of the norms: group norm, alone and with SiLU, layer norm and RMS norm."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinygen.launch.pieces import empty, in_pieces, is_float32, pieces, plain, sum_to


def group_norm_accepts(operands: list, params: dict) -> bool:
    x, *vectors = operands
    if not (is_float32(x) and x.ndim >= 2 and type(params["groups"]) is int and params["groups"] >= 1):
        return False
    n, features = x.shape[0], x.shape[-1]
    shapes = [((features,),), ((features,),), ((n, features), (1, features)), ((n, features), (1, features))]
    fit = all(v is None or (is_float32(v) and v.shape in allowed) for v, allowed in zip(vectors, shapes))
    return fit and features % params["groups"] == 0


def _gains_and_biases(n: int, features: int, gain, bias, scale=None, shift=None) -> list[np.ndarray]:
    """(1 + scale) gain and (1 + scale) bias + shift of each image: two arrays (N, C)."""
    a = np.ones(features, np.float32) if gain is None else gain
    b = np.zeros(features, np.float32) if bias is None else bias
    if scale is not None:
        a, b = (1 + scale) * a, (1 + scale) * b
    b = b if shift is None else b + shift
    return [plain(np.broadcast_to(v, (n, features))) for v in (a, b)]


def _group_norm(silu: bool) -> tuple[Callable, Callable]:
    """The forward and the backward of group_norm, or of group_norm_silu."""

    def forward(operands: list, params: dict) -> tuple[np.ndarray, tuple]:
        from tinygen.kernels.cpu.group_norm import group_norm_forward

        x, *vectors = operands
        n, features = x.shape[0], x.shape[-1]
        images = plain(x).reshape(n, math.prod(x.shape[1:-1]), features)
        a, b = _gains_and_biases(n, features, *vectors)
        y, mean, scale = empty(images.shape), *np.empty((2, n, features), np.float32)
        groups, eps = params["groups"], float(params["eps"])

        def work(_, i):
            group_norm_forward(images[i], a[i], b[i], groups, eps, silu, y[i], mean[i], scale[i])

        in_pieces(work, n, images[:1].size)
        return y.reshape(x.shape), (mean, scale)

    def backward(g, operands: list, out, residual: tuple, params: dict, needs: list) -> tuple:
        from tinygen.kernels.cpu.group_norm import group_norm_backward

        x, *vectors = operands
        n, features = x.shape[0], x.shape[-1]
        images = plain(x).reshape(n, math.prod(x.shape[1:-1]), features)
        g, (mean, scale), groups = plain(g).reshape(images.shape), residual, params["groups"]
        a, b = _gains_and_biases(n, features, *vectors)
        dx, da, db = empty(images.shape), *np.empty((2, n, features), np.float32)

        def work(_, i):
            args = (g[i], images[i], a[i], b[i], groups, silu, mean[i], scale[i], dx[i], da[i], db[i])
            group_norm_backward(*args)

        in_pieces(work, n, images[:1].size)
        return dx.reshape(x.shape), *_vector_gradients(da, db, *vectors)

    return forward, backward


def _vector_gradients(da: np.ndarray, db: np.ndarray, gain, bias, scale=None, shift=None) -> list:
    """From the gradients (N, C) of what `_gains_and_biases` returned, those of its operands."""
    if scale is not None:
        full = da * (1 if gain is None else gain) + (0 if bias is None else db * bias)
        shared_a, shared_b = da * (1 + scale), db * (1 + scale)
    else:
        full, shared_a, shared_b = None, da, db
    found = [(gain, shared_a), (bias, shared_b), (scale, full), (shift, db)]
    return [None if v is None else sum_to(d, v.shape) for v, d in found]


group_norm_forward, _group_norm_backward = _group_norm(silu=False)
group_norm_silu_forward, group_norm_silu_backward = _group_norm(silu=True)


def group_norm_backward(*args) -> tuple:
    return _group_norm_backward(*args)[:3]


def layer_norm_accepts(operands: list, params: dict) -> bool:
    x, *vectors = operands
    if not (is_float32(x) and x.ndim):
        return False
    return all(v is None or (is_float32(v) and v.shape == x.shape[-1:]) for v in vectors)


def layer_norm_forward(operands: list, params: dict, centre: bool = True) -> tuple[np.ndarray, tuple]:
    from tinygen.kernels.cpu import layer_norm as kernels

    x, rows, gain, bias = _rows_gain_bias(*operands)
    out, mean, scale = empty(rows.shape), *np.empty((2, len(rows)), np.float32)
    eps = float(params["eps"])

    def work(_, i):
        kernels.layer_norm_forward(rows[i], gain, bias, eps, centre, out[i], mean[i], scale[i])

    in_pieces(work, len(rows), rows.shape[1])
    return out.reshape(x.shape), (mean, scale)


def layer_norm_backward(g, operands: list, out, residual: tuple, params: dict, needs, centre: bool = True) -> tuple:
    from tinygen.kernels.cpu import layer_norm as kernels

    x, rows, gain, _ = _rows_gain_bias(*operands)
    g, (mean, scale) = plain(g).reshape(rows.shape), residual
    _, number = pieces(*rows.shape)
    dx, dgain, dbias = empty(rows.shape), *np.empty((2, number, rows.shape[1]), np.float32)

    def work(k, i):
        args = (g[i], rows[i], gain, centre, mean[i], scale[i], dx[i], dgain[k], dbias[k])
        kernels.layer_norm_backward(*args)

    in_pieces(work, *rows.shape)
    grads = (dx.reshape(x.shape), dgain.sum(0), dbias.sum(0))
    return tuple(None if v is None else d for v, d in zip(operands, grads))


def _rows_gain_bias(x: np.ndarray, gain=None, bias=None) -> tuple:
    """x, its rows along the last axis, and a gain and a bias for each feature."""
    features = x.shape[-1]
    rows = plain(x).reshape(x.size // max(features, 1), features)
    gain = np.ones(features, np.float32) if gain is None else plain(gain)
    return x, rows, gain, np.zeros(features, np.float32) if bias is None else plain(bias)


def rms_norm_forward(operands: list, params: dict) -> tuple[np.ndarray, tuple]:
    return layer_norm_forward(operands, params, centre=False)


def rms_norm_backward(*args) -> tuple:
    return layer_norm_backward(*args, centre=False)
