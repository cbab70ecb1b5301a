"""What turns scores into probabilities, and the losses of classification: softmax, its logarithm, cross-entropies.

All are computed relative to the largest score of a row, so that nothing overflows: softmax and cross-entropy do not
change if a constant is added to all scores. That shift is a constant to backward, for the same reason.
"""

from __future__ import annotations

import numpy as np

from tinygen.autograd import stop_gradient
from tinygen.domains import arrays, probability, real
from tinygen.errors import ShapeError
from tinygen.fused import fused
from tinygen.ops.elementwise import exp, log, softplus, where
from tinygen.ops.embeddings import require_indices
from tinygen.ops.indexing import take_along_axis
from tinygen.ops.reductions import max, sum  # noqa: A004 (NumPy's names)
from tinygen.ops.shapes import expand_dims, squeeze


def _shift(x, axis):
    """The largest element along `axis`, or 0 if there is none above -inf, so that `x - shift` is -inf, not NaN."""
    if x.size == 0:
        return 0.0
    largest = max(stop_gradient(x), axis, keepdims=True)
    return where(largest == -np.inf, 0.0, largest)


def _scores(draw):
    x = draw.array(draw.shape())
    return (x,), {"axis": draw.axes(x.ndim)}


@fused(inputs=_scores)
def softmax(x, /, axis=-1):
    """exp(x_i) / sum_j exp(x_j) along `axis`: one axis, several, or None for all.

    Where all scores are -inf (everything is masked), all probabilities are zero, and so is the gradient.
    """
    e = exp(x - _shift(x, axis))
    total = sum(e, axis, keepdims=True)
    return e / where(total == 0, 1.0, total)


@fused(inputs=_scores)
def log_softmax(x, /, axis=-1):
    """x_i - log sum_j exp(x_j) along `axis`. Where all scores are -inf there is no distribution: NaN."""
    shifted = x - _shift(x, axis)
    return shifted - log(sum(exp(shifted), axis, keepdims=True))


def _labelled(draw):
    *rows, classes = draw.shape(low=1)
    return (draw.array((*rows, classes)), draw.integers(tuple(rows), classes)), {}


@fused(inputs=_labelled, constants=("labels",))
def cross_entropy(logits, labels, /):
    """-log softmax(logits)[label], in nats: one loss for each row of logits (..., classes), of the shape of `labels`.

    Labels are integers from 0 to classes - 1; any other raises InputError. A label whose logit is -inf costs inf. Where
    all logits are -inf there is nothing to choose from: NaN.
    """
    if labels.shape != logits.shape[:-1] or not logits.shape:
        raise ShapeError("give one label for each row of the logits: shapes (...) and (..., classes)")
    require_indices("labels", labels, logits.shape[-1], "classes")
    shifted = logits - _shift(logits, -1)
    chosen = squeeze(take_along_axis(shifted, expand_dims(labels, -1), -1), -1)
    return log(sum(exp(shifted), -1)) - chosen


@fused(inputs=arrays(real, probability))
def binary_cross_entropy_with_logits(logits, targets, /):
    """-y log s(x) - (1 - y) log(1 - s(x)) = log(1 + e^x) - x y, in nats, for each element, with s the sigmoid.

    Targets y are probabilities from 0 to 1, given as floats or booleans.
    """
    return softplus(logits) - logits * targets
