"""How ops call their Numba kernels: what `tinygen.dispatch` lists for NumPy arrays.

Each op has three functions here, with the signatures of `dispatch.Kernel`. They turn an op's view of its arrays (any
shape, any strides, operands left out) into a kernel's (contiguous matrices of float32), and cut large work into pieces
for the threads to share. The pieces depend on the shapes alone, so every number of threads gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

PIECE = 1 << 16  # elements in a piece of work
SHARED = 1 << 18  # elements from which on threads share the work: below, waking them costs more than it saves


def is_float32(x: Any) -> bool:
    return type(x) is np.ndarray and x.dtype == np.float32


def plain(x: np.ndarray) -> np.ndarray:
    """`x`, or a copy unless it is contiguous, aligned and writable: for a read-only array Numba would compile anew."""
    return x if x.flags.carray else x.copy()


def in_pieces(work: Callable[[int, slice], object], count: int, size: int) -> None:
    """work(0, slice(0, a)), work(1, slice(a, 2a)), ... up to `count` items, each of `size` elements."""
    each, pieces = _pieces(count, size)
    task = lambda k: work(k, slice(k * each, min((k + 1) * each, count)))
    if count * size < SHARED:
        for k in range(pieces):
            task(k)
        return
    from tinygen.kernels.cpu.threads import share, threads

    share(task, pieces, threads())


def _pieces(count: int, size: int) -> tuple[int, int]:
    """Items in a piece, and the number of pieces."""
    each = max(1, PIECE // max(size, 1))
    return each, -(-count // each)


def sum_to(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Broadcasting from `shape` to that of x undone."""
    new = x.ndim - len(shape)
    axes = tuple(i for i in range(x.ndim) if i < new or shape[i - new] != x.shape[i])
    return x.sum(axes).reshape(shape) if axes else x


# -- activations -------------------------------------------------------------------------------------------------------


def elementwise(kernel: Callable, *operands: np.ndarray) -> np.ndarray:
    """kernel(*operands, out) on flat arrays of one shape."""
    out = np.empty(operands[0].shape, np.float32)
    flat = [plain(x).reshape(-1) for x in operands] + [out.reshape(-1)]
    in_pieces(lambda _, part: kernel(*[x[part] for x in flat]), out.size, 1)
    return out


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


# -- what runs along rows: softmax, its logarithm, cross-entropy -------------------------------------------------------


def rows_along(x: np.ndarray, axis: int) -> np.ndarray:
    """`x` as a contiguous matrix whose rows run along `axis`."""
    last = plain(np.moveaxis(x, axis, -1))
    return last.reshape(last.size // max(last.shape[-1], 1), last.shape[-1])


def rows_back(rows: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """The inverse of `rows_along` for an array of `shape`."""
    axis %= len(shape)
    moved = shape[:axis] + shape[axis + 1 :] + (shape[axis],)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), -1, axis))


def row_accepts(operands: list, params: dict) -> bool:
    (x,), axis = operands, params["axis"]
    return is_float32(x) and type(axis) is int and -x.ndim <= axis < x.ndim


def by_rows(kernel: Callable, *operands: np.ndarray, axis: int) -> np.ndarray:
    """kernel(*operands, out) on the rows along `axis` of arrays of one shape."""
    rows = [rows_along(x, axis) for x in operands]
    out = np.empty_like(rows[0])
    in_pieces(lambda _, part: kernel(*[x[part] for x in rows], out[part]), *out.shape)
    return rows_back(out, operands[0].shape, axis)


def softmax_forward(operands: list, params: dict) -> tuple[np.ndarray, None]:
    from tinygen.kernels.cpu import softmax

    return by_rows(softmax.softmax_forward, *operands, **params), None


def softmax_backward(g, operands: list, out: np.ndarray, residual: None, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu import softmax

    return (by_rows(softmax.softmax_backward, g, out, **params),)


def log_softmax_forward(operands: list, params: dict) -> tuple[np.ndarray, None]:
    from tinygen.kernels.cpu import log_softmax

    return by_rows(log_softmax.log_softmax_forward, *operands, **params), None


def log_softmax_backward(g, operands: list, out: np.ndarray, residual: None, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu import log_softmax

    return (by_rows(log_softmax.log_softmax_backward, g, out, **params),)


def cross_entropy_accepts(operands: list, params: dict) -> bool:
    logits, labels = operands
    if not (is_float32(logits) and type(labels) is np.ndarray and labels.dtype.kind in "iu"):
        return False
    if not (logits.ndim and labels.shape == logits.shape[:-1]):
        return False
    return not labels.size or bool(0 <= labels.min() and labels.max() < logits.shape[-1])


def cross_entropy_forward(operands: list, params: dict) -> tuple[np.ndarray, tuple]:
    from tinygen.kernels.cpu.cross_entropy import cross_entropy_forward as kernel

    logits, labels = operands
    rows = rows_along(logits, -1)
    labels = labels.reshape(-1).astype(np.int64)  # a copy: one written to later could send backward out of bounds
    loss, row_max, log_sum = (np.empty(labels.shape, np.float32) for _ in range(3))
    kernel(rows, labels, loss, row_max, log_sum)
    return loss.reshape(logits.shape[:-1]), (labels, row_max, log_sum)


def cross_entropy_backward(g, operands: list, out: np.ndarray, residual: tuple, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu.cross_entropy import cross_entropy_backward as kernel

    logits = operands[0]
    rows = rows_along(logits, -1)
    dx = np.empty_like(rows)
    kernel(np.ascontiguousarray(g).reshape(-1), rows, *residual, dx)
    return dx.reshape(logits.shape), None


# -- losses of elements ------------------------------------------------------------------------------------------------


def binary_cross_entropy_accepts(operands: list, params: dict) -> bool:
    x, y = operands
    if not all(is_float32(a) or type(a) is np.float32 for a in operands):
        return False
    return all(a == b or 1 in (a, b) for a, b in zip(x.shape[::-1], y.shape[::-1]))


def _broadcast(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Both in their common shape; one that has it already as it is."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    return [a if a.shape == shape else np.broadcast_to(a, shape) for a in (x, y)]


def binary_cross_entropy_forward(operands: list, params: dict) -> tuple[np.ndarray, None]:
    from tinygen.kernels.cpu import binary_cross_entropy as kernels

    return elementwise(kernels.binary_cross_entropy_forward, *_broadcast(*operands)), None


def binary_cross_entropy_backward(g, operands: list, out, residual: None, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu import binary_cross_entropy as kernels

    x, y = operands
    dx = dy = None
    if needs[0]:
        dx = sum_to(elementwise(kernels.binary_cross_entropy_backward, g, *_broadcast(x, y)), x.shape)
    if needs[1]:
        dy = sum_to(np.asarray(-g * x), y.shape)
    return dx, dy


# -- norms -------------------------------------------------------------------------------------------------------------


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
        y, mean, scale = np.empty_like(images), *np.empty((2, n, features), np.float32)
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
        dx, da, db = np.empty_like(images), *np.empty((2, n, features), np.float32)

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
    out, mean, scale = np.empty_like(rows), *np.empty((2, len(rows)), np.float32)
    eps = float(params["eps"])

    def work(_, i):
        kernels.layer_norm_forward(rows[i], gain, bias, eps, centre, out[i], mean[i], scale[i])

    in_pieces(work, len(rows), rows.shape[1])
    return out.reshape(x.shape), (mean, scale)


def layer_norm_backward(g, operands: list, out, residual: tuple, params: dict, needs, centre: bool = True) -> tuple:
    from tinygen.kernels.cpu import layer_norm as kernels

    x, rows, gain, _ = _rows_gain_bias(*operands)
    g, (mean, scale) = plain(g).reshape(rows.shape), residual
    _, pieces = _pieces(*rows.shape)
    dx, dgain, dbias = np.empty_like(rows), *np.empty((2, pieces, rows.shape[1]), np.float32)

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


# -- attention ---------------------------------------------------------------------------------------------------------


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

    q, k, v, *how, which = _attention_arguments(operands, params)
    y, row_max, log_sum = np.zeros((*q.shape[:2], v.shape[2]), np.float32), *np.empty((2, *q.shape[:2]), np.float32)

    def work(_, i):
        kernels.attention_forward(q[i], k[i], v[i], *how, which[i], y[i], row_max[i], log_sum[i])

    if q.shape[1] * k.shape[1]:  # else there is nothing to attend to: zeros
        one_blas_thread()
        in_pieces(work, len(q), q.shape[1] * k.shape[1])
    return y.reshape(_batch(operands) + y.shape[1:]), (row_max, log_sum)


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
