"""Launches of the losses: cross-entropy, and binary cross-entropy with logits."""

from __future__ import annotations

import numpy as np

from tinygen.launch.pieces import elementwise, empty, in_pieces, is_float32, plain, sum_to
from tinygen.launch.rows import rows_along


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
    operands = (rows, labels, loss, row_max, log_sum)
    in_pieces(lambda _, part: kernel(*[x[part] for x in operands]), *rows.shape)
    return loss.reshape(logits.shape[:-1]), (labels, row_max, log_sum)


def cross_entropy_backward(g, operands: list, out: np.ndarray, residual: tuple, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu.cross_entropy import cross_entropy_backward as kernel

    logits = operands[0]
    rows = rows_along(logits, -1)
    dx = empty(rows.shape)
    operands = (plain(g).reshape(-1), rows, *residual)
    in_pieces(lambda _, part: kernel(*[x[part] for x in operands], dx[part]), *rows.shape)
    return dx.reshape(logits.shape), None


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
