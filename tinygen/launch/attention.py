"""Launch of attention."""

from __future__ import annotations

import math

import numpy as np

from tinygen.launch.pieces import in_pieces, is_float32, plain, sum_to

CHEAP = 8  # numbers of keys and values that one query reads in the time that others compute one in


def attention_accepts(operands: list, params: dict) -> bool:
    q, k, v, mask = operands
    if not all(is_float32(x) and x.ndim >= 2 for x in (q, k, v)) or not q.shape[-1]:
        return False
    if mask is not None and not (is_float32(mask) or (type(mask) is np.ndarray and mask.dtype == bool)):
        return False
    scores = (q.shape[-2], k.shape[-2])
    return (
        q.shape[-1] == k.shape[-1]
        and k.shape[-2] == v.shape[-2]
        and (mask is None or all(a in (1, b) for a, b in zip(mask.shape[:-3:-1], scores[::-1])))
        and _batch(operands) is not None
    )


def _batch(operands: list) -> tuple[int, ...] | None:
    """The leading axes of all operands together, or None if they do not broadcast."""
    try:
        return np.broadcast_shapes(*[x.shape[:-2] for x in operands if x is not None])
    except ValueError:
        return None


def _attention_arguments(operands: list, params: dict) -> tuple:
    """q, k, v, scale, causal, kind, allowed, added, which: as the kernels take them."""
    from tinygen.kernels.cpu import attention as kernels

    q, k, v, mask = operands
    batch = _batch(operands)
    heads = lambda x: plain(np.broadcast_to(x, batch + x.shape[-2:]) if x.shape[:-2] != batch else x)
    q, k, v = (heads(x).reshape(math.prod(batch), *x.shape[-2:]) for x in (q, k, v))
    scale = q.shape[-1] ** -0.5 if params["scale"] is None else params["scale"]
    kind, allowed, added = kernels.NO_MASK, np.zeros((1, 1, 1), bool), np.zeros((1, 1, 1), np.float32)
    which = np.zeros(len(q), np.int64)
    if mask is not None:
        full = plain(np.broadcast_to(mask, mask.shape[:-2] + (q.shape[1], k.shape[1])))
        which = np.arange(math.prod(mask.shape[:-2])).reshape(mask.shape[:-2])
        which = np.broadcast_to(which, batch).reshape(-1).astype(np.int64)
        full = full.reshape(math.prod(mask.shape[:-2]), *full.shape[-2:])
        kind = kernels.ALLOWED if mask.dtype == bool else kernels.ADDED
        allowed, added = (full, added) if kind == kernels.ALLOWED else (allowed, full)
    return q, k, v, np.float32(scale), bool(params["causal"]), kind, allowed, added, which


def attention_forward(operands: list, params: dict) -> tuple[np.ndarray, tuple]:
    from tinygen.kernels.cpu import attention as kernels
    from tinygen.kernels.cpu.threads import one_blas_thread

    if _one_query(operands):
        return _attend_once(operands, params)
    q, k, v, *how, which = _attention_arguments(operands, params)
    y, row_max, log_sum = np.zeros((*q.shape[:2], v.shape[2]), np.float32), *np.empty((2, *q.shape[:2]), np.float32)

    def work(_, i):
        kernels.attention_forward(q[i], k[i], v[i], *how, which[i], y[i], row_max[i], log_sum[i])

    if q.shape[1] * k.shape[1]:  # else there is nothing to attend to: zeros
        one_blas_thread()
        in_pieces(work, len(q), q.shape[1] * k.shape[1])
    return y.reshape(_batch(operands) + y.shape[1:]), (row_max, log_sum)


def _one_query(operands: list) -> bool:
    """One query for each head, which sees every key: a causal mask hides none from the last query."""
    q, k, v, mask = operands
    return mask is None and q.shape[-2] == 1 and q.shape[:-2] == k.shape[:-2] == v.shape[:-2] and k.size * v.size > 0


def _attend_once(operands: list, params: dict) -> tuple[np.ndarray, tuple]:
    from tinygen.kernels.cpu.attention_one_query import attend_once

    q, k, v, _ = operands
    heads, keys = math.prod(q.shape[:-2]), k.shape[-2]
    scale = np.float32(q.shape[-1] ** -0.5 if params["scale"] is None else params["scale"])
    flat, (k, v) = plain(q).reshape(heads, q.shape[-1]), (_roomy(x).reshape(heads, -1, x.shape[-1]) for x in (k, v))
    y, row_max, log_sum = np.empty((heads, v.shape[2]), np.float32), *np.empty((2, heads), np.float32)

    def work(_, i):
        attend_once(flat[i], k[i], v[i], keys, scale, y[i], row_max[i], log_sum[i])

    in_pieces(work, heads, keys * (k.shape[2] + v.shape[2]) // CHEAP)
    shape = (heads, 1)
    return y.reshape(*q.shape[:-1], v.shape[2]), (row_max.reshape(shape), log_sum.reshape(shape))


def _roomy(x: np.ndarray) -> np.ndarray:
    """A contiguous array that begins with the rows of x (..., rows, features) and may have more: x itself, the memory
    of the cache that x is the front of, or a copy."""
    room = x.base
    at_its_front = (
        type(room) is np.ndarray
        and room.flags.carray
        and room.dtype == x.dtype
        and room.ndim == x.ndim
        and room.shape[:-2] == x.shape[:-2]
        and room.shape[-1] == x.shape[-1]
        and room.strides == x.strides
        and room.__array_interface__["data"] == x.__array_interface__["data"]
    )
    return room if at_its_front else plain(x)


def attention_backward(g, operands: list, out: np.ndarray, residual: tuple, params: dict, needs: list) -> list:
    from tinygen.kernels.cpu import attention as kernels
    from tinygen.kernels.cpu.threads import one_blas_thread

    q, k, v, *how, which = _attention_arguments(operands, params)
    g, y = (plain(x).reshape(*q.shape[:2], v.shape[2]) for x in (g, out))
    row_max, log_sum = residual
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    wants_ds = needs[3] is not None and bool(needs[3])
    ds = np.zeros((len(q), q.shape[1], k.shape[1]) if wants_ds else (len(q), 1, 1), np.float32)

    def work(_, i):
        saved = (y[i], row_max[i], log_sum[i])
        grads = (dq[i], dk[i], dv[i], ds[i], wants_ds)
        kernels.attention_backward(g[i], q[i], k[i], v[i], *how, which[i], *saved, *grads)

    if q.shape[1] * k.shape[1]:  # else there is nothing to attend to: zeros
        one_blas_thread()
        in_pieces(work, len(q), q.shape[1] * k.shape[1])
    batch, grads = _batch(operands), [dq, dk, dv, ds if wants_ds else None]
    return [None if d is None else sum_to(d.reshape(batch + d.shape[1:]), x.shape) for x, d in zip(operands, grads)]
