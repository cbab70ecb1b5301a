"""Attention: each query takes a weighted mean of the values, with weights that say how well their keys match."""

from __future__ import annotations

from tinygen import arrays
from tinygen.errors import DtypeError, ShapeError
from tinygen.fused import fused
from tinygen.ops.elementwise import logical_and, where
from tinygen.ops.linear import matmul
from tinygen.ops.logits import softmax
from tinygen.ops.shapes import swapaxes

MASKED = -1e30  # the score of a key that may not be attended to; finite, so that detect_anomaly has nothing to report


def _attentions(draw):
    queries, keys, features, width = draw.sizes(4, high=3)
    batch, features = draw.shape(0, 2, 2), max(1, features)
    q, k = draw.array((*batch, queries, features)), draw.array((*draw.broadcastable(batch), keys, features))
    v = draw.array((*draw.broadcastable(batch), keys, width))
    boolean = draw.integers((queries, keys), 2) > 0
    mask = draw.choice([None, boolean, draw.array((*draw.broadcastable(batch), queries, keys))])
    return (q, k, v, mask), {"causal": draw.boolean(), "scale": draw.choice([None, 0.5])}


@fused(inputs=_attentions)
def scaled_dot_product_attention(q, k, v, mask=None, /, causal=False, scale=None):
    """softmax(q k^T scale + mask) v, with scale = 1 / sqrt(F) if None (Vaswani et al. 2017, eq. 1).

    q: (..., T_q, F), k: (..., T_k, F), v: (..., T_k, V) give (..., T_q, V); the leading axes broadcast.
    mask: (..., T_q, T_k), either boolean, True where a query may attend to a key, or float, added to the scores.
    With causal=True a query sees no later key. The last query stands at the last key: query i sees keys up to
    i + T_k - T_q, as when the first queries of a sequence have been answered already. A query that may attend to
    nothing gets zeros, and gives no gradient.
    """
    _check(q, k, v, mask)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = matmul(q * scale, swapaxes(k, -1, -2))
    if mask is not None and mask.dtype != bool:
        scores, mask = scores + mask, None
    if causal:
        mask = _causal(scores) if mask is None else logical_and(mask, _causal(scores))
    if mask is None:
        return matmul(softmax(scores), v)
    weights = softmax(where(mask, scores, MASKED))
    return matmul(where(mask, weights, 0.0), v)  # the softmax of a row of equal scores is not zero


def _causal(scores):
    """Which key (column) comes no later than which query (row), counted from the end of both."""
    queries, keys = scores.shape[-2:]
    return arrays.xp(getattr(scores, "_array", scores)).tri(queries, keys, keys - queries, dtype=bool)


def _check(q, k, v, mask):
    if min(q.ndim, k.ndim, v.ndim) < 2:
        raise ShapeError("q, k and v need at least two axes: positions and features")
    if q.shape[-1] != k.shape[-1]:
        raise ShapeError(f"queries of {q.shape[-1]} features cannot be compared with keys of {k.shape[-1]}")
    if k.shape[-2] != v.shape[-2]:
        raise ShapeError(f"there are {k.shape[-2]} keys but {v.shape[-2]} values")
    if mask is not None and mask.dtype.kind not in "bf":
        raise DtypeError(f"mask must be boolean (True = may attend) or float (added to the scores), not {mask.dtype}")
