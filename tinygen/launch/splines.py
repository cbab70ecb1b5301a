"""Launch of splines."""

from __future__ import annotations

import numpy as np

from tinygen.launch.pieces import empty, in_pieces, is_float32, plain


def spline_accepts(operands: list, params: dict) -> bool:
    x, widths, heights, slopes = operands
    if not (all(map(is_float32, operands)) and widths.ndim and widths.shape[-1] >= 2 and params["bound"] > 0):
        return False
    k = widths.shape[-1]
    return widths.shape == heights.shape == (*x.shape, k) and slopes.shape == (*x.shape, k - 1)


def _arguments(operands: list, params: dict) -> tuple[list, tuple]:
    from tinygen.ops.splines import LEAST

    x, *tables = operands
    rows = [plain(x).reshape(x.size), *(plain(table).reshape(x.size, table.shape[-1]) for table in tables)]
    return rows, (np.float32(params["bound"]), np.float32(LEAST))


def spline_forward(operands: list, params: dict) -> tuple[tuple, None]:
    from tinygen.kernels.cpu.spline import spline_forward as kernel

    rows, how = _arguments(operands, params)
    outs = [empty(rows[0].shape), empty(rows[0].shape)]
    work = lambda _, i: kernel(*[a[i] for a in rows], *how, *[out[i] for out in outs])
    in_pieces(work, len(rows[0]), 16 * rows[1].shape[1])
    return tuple(out.reshape(operands[0].shape) for out in outs), None


def spline_backward(g: tuple, operands: list, out, residual: None, params: dict, needs: list) -> tuple:
    from tinygen.kernels.cpu.spline import spline_backward as kernel

    rows, how = _arguments(operands, params)
    rows, grads = [plain(a).reshape(a.size) for a in g] + rows, [empty(a.shape) for a in rows]
    work = lambda _, i: kernel(*[a[i] for a in rows], *how, *[d[i] for d in grads])
    in_pieces(work, len(rows[0]), 16 * rows[3].shape[1])
    return tuple(d.reshape(x.shape) for d, x in zip(grads, operands, strict=True))
