"""Launch of what walks along the pixels of an image: NADE's conditionals."""

from __future__ import annotations

import numpy as np

from tinygen.launch.pieces import is_float32, plain


def nade_accepts(operands: list, params: dict) -> bool:
    if not all(is_float32(a) and a.ndim == 2 for a in operands):
        return False
    x, w, c, v = operands
    return w.shape == v.shape == (x.shape[1], c.shape[1]) and len(x) == len(c)


def nade_forward(operands: list, params: dict) -> tuple[np.ndarray, None]:
    from tinygen.kernels.cpu.nade import nade_forward as kernel

    out = np.empty(operands[0].shape, np.float32)
    kernel(*map(plain, operands), out)
    return out, None


def nade_backward(g, operands: list, out: np.ndarray, residual: None, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu.nade import nade_backward as kernel

    x, w, c, v = operands
    dx, dc = np.empty(x.shape, np.float32), np.empty(c.shape, np.float32)
    dw, dv = np.zeros(w.shape, np.float32), np.zeros(v.shape, np.float32)
    kernel(plain(np.asarray(g)), *map(plain, operands), bool(needs[0]), dx, dw, dc, dv)
    return tuple([d if need else None for d, need in zip((dx, dw, dc, dv), needs)])
