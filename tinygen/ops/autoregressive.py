"""The op of models that compute each value of x from those before it, with a hidden layer that they all share."""

from __future__ import annotations

from tinygen.errors import ShapeError
from tinygen.fused import fused
from tinygen.ops.elementwise import sigmoid
from tinygen.ops.reductions import cumsum, sum  # noqa: A004 (NumPy's name)
from tinygen.ops.shapes import pad


def _walks(draw):
    n, d, h = draw.sizes(3)
    x = draw.array((n, d)) * draw.integers((n, d), 2)  # zeros, which a kernel steps over
    return (x, draw.array((d, h)), draw.array((n, h)), draw.array((d, h))), {}


@fused(inputs=_walks)
def nade(x, w, c, v, /):
    """out_i = sum_k v_ik s(c_k + sum_{j < i} x_j w_jk): D functions of the x before i, with one hidden layer.

    x (N, D), w (D, H), c (N, H), v (D, H) -> (N, D). The conditionals of NADE (Larochelle & Murray 2011), less their
    bias. Written so it takes memory for several times N D H numbers; the kernel keeps hidden layers only.
    """
    if not (x.ndim == w.ndim == c.ndim == v.ndim == 2 and w.shape == v.shape == (x.shape[1], c.shape[1])):
        raise ShapeError("shapes must be (N, D), (D, H), (N, H) and (D, H)")
    if len(x) != len(c):
        raise ShapeError("x and c must have the same number of rows")
    steps = x[:, :-1, None] * w[:-1]
    before = pad(cumsum(steps, 1), ((0, 0), (1, 0), (0, 0)))
    return sum(sigmoid(c[:, None] + before) * v, -1)
