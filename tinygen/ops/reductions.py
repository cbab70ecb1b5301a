"""Ops that reduce or accumulate along axes, with NumPy's `axis` and `keepdims`, and their way back, broadcasting.

Conventions, tested: elements that tie for max or min share the gradient equally. The gradient of std is 0 where the
variance is 0. prod and cumprod are exact at zeros. logsumexp of nothing, or of -inf alone, is -inf with gradient 0.
Reductions of nothing are NumPy's: sum 0, prod 1, mean and var NaN with a warning; max, min, argmax and argmin raise.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from tinygen import dispatch
from tinygen.arrays import xp
from tinygen.autograd import broadcast_axes
from tinygen.domains import along_axis, real, reductions
from tinygen.errors import ShapeError
from tinygen.ops.elementwise import astype, clip, equal, exp, minimum, where
from tinygen.ops.shapes import flip, moveaxis, pad
from tinygen.registry import op


def _axes(axis, ndim):
    """The reduced axes, counted from the front."""
    if axis is None:
        return tuple(range(ndim))
    ndim = ndim or 1  # NumPy lets 0-d arrays have an axis 0
    return tuple(a % ndim for a in (axis if isinstance(axis, tuple | list) else (axis,)))


def _kept(shape, axis):
    """`shape` with the reduced axes kept as 1: what `keepdims=True` gives."""
    axes = _axes(axis, len(shape))
    return tuple(1 if i in axes else side for i, side in enumerate(shape))


def _count(shape, axis):
    """How many elements one result is made of."""
    return math.prod(shape) if axis is None else math.prod(shape[a] for a in _axes(axis, len(shape)))


def _kernel(name, x, axis, keepdims=False, **options):
    """What a kernel makes of a large array, or None if there is none for it: see `tinygen.launch.reductions`."""
    if getattr(x, "size", 0) < _LARGE:
        return None
    fast = dispatch.instead(name, x)
    if fast is None:
        return None
    axes = tuple(range(x.ndim)) if axis is None else normalize_axis_tuple(axis, x.ndim)
    return fast(x, axes, keepdims, **options)


_LARGE = 2**15  # elements: NumPy takes some 6 microseconds for so many, as long as a kernel with its launch

# -- sums and broadcasting ---------------------------------------------------------------------------------------------


@op(inputs=reductions(real))
def sum(x, /, axis=None, keepdims=False):  # noqa: A001 (NumPy's name)
    """The sum over `axis` (None: over all)."""
    found = _kernel("sum", x, axis, keepdims)
    return xp(x).sum(x, axis, keepdims=keepdims) if found is None else found


@sum.vjp
def _(g, axis, shapes):
    return broadcast_to(g.reshape(_kept(shapes[0], axis)), shapes[0])


def _broadcasts(draw):
    shape = draw.shape()
    return (draw.array(draw.broadcastable(shape)),), {"shape": shape}


@op(inputs=_broadcasts)
def broadcast_to(x, /, shape):
    """x repeated along new and along length-1 axes until it has `shape`, without copying."""
    return xp(x).broadcast_to(x, shape)


broadcast_to.vjp(lambda g, shapes: sum_to(g, shapes[0]))


def _unbroadcasts(draw):
    shape = draw.shape()
    return (draw.array(shape),), {"shape": draw.broadcastable(shape)}


@op(inputs=_unbroadcasts)
def sum_to(x, /, shape):
    """x summed over the axes along which `shape` would be broadcast: the transpose of broadcast_to."""
    axes = broadcast_axes(tuple(shape), x.shape)
    if axes is None:
        raise ShapeError(f"an array of shape {tuple(shape)} does not broadcast to {x.shape}")
    if not axes:
        return x[...]
    fast = dispatch.instead("sum", x) if x.size >= _LARGE else None
    found = fast(x, axes) if fast else None
    return (x.sum(axes) if found is None else found).reshape(shape)


sum_to.vjp(lambda g, shapes: broadcast_to(g, shapes[0]))

# -- moments -----------------------------------------------------------------------------------------------------------


@op(inputs=reductions(real))
def mean(x, /, axis=None, keepdims=False):
    """The mean over `axis` (None: over all)."""
    return sum.forward(x, axis, keepdims) / _count(np.shape(x), axis)  # half the time of np.mean on small x


@mean.vjp
def _(g, axis, shapes):
    shape = shapes[0]
    g = g.reshape(_kept(shape, axis)) * (1 / (_count(shape, axis) or 1))
    return broadcast_to(g, shape)


def _moments(draw):
    operands, params = reductions(real)(draw)
    several = _count(operands[0].shape, params["axis"]) > 1
    return operands, {**params, "ddof": draw.integer(0, 1) if several else 0}


def _spread(draw):
    """For std: inputs whose variance is not near zero, where std has its kink."""
    shape = (*draw.shape(high=2), draw.integer(2, 4))
    axis = draw.choice([-1, (-1,), (0, -1) if len(shape) > 1 else None])
    return (draw.distinct(shape),), {"axis": axis, "keepdims": draw.boolean(), "ddof": draw.integer(0, 1)}


@op(inputs=_moments)
def var(x, /, axis=None, keepdims=False, ddof=0):
    """The variance over `axis`: the sum of (x - mean(x))^2 divided by n - ddof."""
    found = _kernel("var", x, axis, keepdims, ddof=ddof)
    return xp(x).var(x, axis, ddof=ddof, keepdims=keepdims) if found is None else found


@var.vjp
def _(g, x, axis, ddof):
    return g.reshape(_kept(x.shape, axis)) * (x - mean(x, axis, keepdims=True)) * (2 / _freedom(x, axis, ddof))


@op(inputs=_spread)
def std(x, /, axis=None, keepdims=False, ddof=0):
    """The standard deviation over `axis`, sqrt(var(x)). Its gradient is 0 where it is 0 itself."""
    return xp(x).std(x, axis, ddof=ddof, keepdims=keepdims)


@std.vjp
def _(g, x, out, axis, ddof):
    kept = _kept(x.shape, axis)
    g, out = g.reshape(kept), out.reshape(kept)
    per_deviation = where(out == 0, 0.0, g / where(out == 0, 1.0, out))
    return per_deviation * (x - mean(x, axis, keepdims=True)) * (1 / _freedom(x, axis, ddof))


def _freedom(x, axis, ddof):
    """n - ddof; NaN if that leaves nothing to divide by, as the variance is NaN or infinite then."""
    n = _count(x.shape, axis) - ddof
    return n if n > 0 else math.nan


# -- extremes ----------------------------------------------------------------------------------------------------------


@op(inputs=reductions(distinct=True))
def max(x, /, axis=None, keepdims=False):  # noqa: A001 (NumPy's name)
    """The largest element over `axis`. Elements that tie share the gradient equally."""
    return xp(x).max(x, axis, keepdims=keepdims)


@op(inputs=reductions(distinct=True))
def min(x, /, axis=None, keepdims=False):  # noqa: A001 (NumPy's name)
    """The smallest element over `axis`. Elements that tie share the gradient equally."""
    return xp(x).min(x, axis, keepdims=keepdims)


def _share(g, x, out, axis):
    """The gradient goes to the elements that equal the extreme, in equal parts."""
    kept = _kept(x.shape, axis)
    ties = astype(equal(x, out.reshape(kept)), g.dtype)
    return ties * (g.reshape(kept) / sum(ties, axis, keepdims=True))


max.vjp(_share)
min.vjp(_share)


def _picks(draw):
    x = draw.array(draw.shape())
    return (x,), {"axis": draw.choice([None, draw.axis(x.ndim)]) if x.ndim else None, "keepdims": draw.boolean()}


@op(inputs=_picks)
def argmax(x, /, axis=None, keepdims=False):
    """The index of the largest element along `axis` (None: in x flattened), the first of equals."""
    return xp(x).argmax(x, axis, keepdims=keepdims)


@op(inputs=_picks)
def argmin(x, /, axis=None, keepdims=False):
    """The index of the smallest element along `axis` (None: in x flattened), the first of equals."""
    return xp(x).argmin(x, axis, keepdims=keepdims)


# -- log of a sum ------------------------------------------------------------------------------------------------------


@op(inputs=reductions(real))
def logsumexp(x, /, axis=None, keepdims=False):
    """log(sum(exp(x))) over `axis`, shifted by the maximum so that it cannot overflow.

    Where all x are -inf it is -inf with gradient 0; where one is +inf it is +inf, and that element has the gradient.
    """
    found = _kernel("logsumexp", x, axis, keepdims)
    if found is not None:
        return found
    lib = xp(x)
    x = x if x.dtype.kind == "f" else x.astype(float)
    some = _count(x.shape, axis) > 0
    shift = lib.max(x, axis, keepdims=True) if some else lib.zeros(_kept(x.shape, axis), x.dtype)
    shift = lib.where(lib.isfinite(shift), shift, 0)
    with np.errstate(divide="ignore", over="ignore"):
        out = lib.log(lib.sum(lib.exp(x - shift), axis, keepdims=True)) + shift
    return out if keepdims else lib.squeeze(out, axis)


@logsumexp.vjp
def _(g, x, out, axis):
    """g softmax(x), as exp(x - out): at most 1, and out kept finite, because -inf - -inf is not a number."""
    kept, largest = _kept(x.shape, axis), float(np.finfo(out.dtype).max)
    out = clip(out.reshape(kept), -largest, largest)
    return g.reshape(kept) * exp(minimum(x - out, 0.0))


# -- products and accumulation -----------------------------------------------------------------------------------------


@op(inputs=reductions(real))
def prod(x, /, axis=None, keepdims=False):
    """The product over `axis`. The gradient is exact at zeros."""
    return xp(x).prod(x, axis, keepdims=keepdims)


@prod.vjp
def _(g, x, axis):
    """An element's derivative is the product of those before it and of those after it; nothing is divided by it."""
    if not x.ndim:
        return g.reshape(())
    axes = _axes(axis, x.ndim)
    back = tuple(range(-len(axes), 0))
    rows = moveaxis(x, axes, back)
    row = rows.reshape((*rows.shape[: x.ndim - len(axes)], _count(x.shape, axis)))
    before = cumprod(_shift(row, -1, 1.0), -1)
    after = flip(cumprod(_shift(flip(row, -1), -1, 1.0), -1), -1)
    others = moveaxis((before * after).reshape(rows.shape), back, axes)
    return g.reshape(_kept(x.shape, axis)) * others


def _shift(x, axis, value, back=False):
    """x moved one place along `axis`, to the front if `back`, `value` moving in."""
    width = [(0, 0)] * x.ndim
    width[axis] = (0, 1) if back else (1, 0)
    kept = slice(1, None) if back else slice(-1)
    return pad(x, width, value)[(slice(None),) * (axis % x.ndim) + (kept,)]


def _accumulations(draw):
    (x,), params = along_axis(real)(draw)
    return (x,), draw.choice([params, params, {"axis": None}])


@op(inputs=_accumulations)
def cumsum(x, /, axis=None):
    """out_i = x_0 + ... + x_i along `axis` (None: of x flattened)."""
    return xp(x).cumsum(x, axis)


@cumsum.vjp
def _(g, axis, shapes):
    return flip(cumsum(flip(g, axis), axis), axis).reshape(shapes[0])


@op(inputs=_accumulations)
def cumprod(x, /, axis=None):
    """out_i = x_0 ... x_i along `axis` (None: of x flattened). The gradient is exact at zeros."""
    return xp(x).cumprod(x, axis)


@cumprod.vjp
def _(g, x, axis):
    """With s_i = g_i + x_{i+1} s_{i+1}, what reaches out_i and all after it, dx_i = x_0 ... x_{i-1} s_i."""
    shape = x.shape
    if axis is None or not shape:
        x, axis = x.reshape((-1,)), 0
    s = _backwards(_shift(x, axis, 0.0, back=True), g, axis)
    return (cumprod(_shift(x, axis, 1.0), axis) * s).reshape(shape)


def _recurrences(draw):
    shape = draw.shape(low=1)
    return (draw.array(shape), draw.array(shape)), {"axis": draw.axis(len(shape))}


@op(inputs=_recurrences)
def linear_recurrence(a, b, /, axis=-1):
    """s_i = a_i s_{i-1} + b_i along `axis`, from s_{-1} = 0: discounted returns, moving averages, linear RNNs."""
    if a.shape != b.shape:
        raise ShapeError("a and b must have the same shape")
    out = b.copy()
    factors, s = xp(a).moveaxis(a, axis, 0), xp(a).moveaxis(out, axis, 0)
    for i in range(1, len(s)):
        s[i] += factors[i] * s[i - 1]
    return out


@linear_recurrence.vjp
def _(g, a, out, axis, needs):
    """b_i reaches s_j through a_{i+1} ... a_j: the same recurrence, run backwards."""
    db = _backwards(_shift(a, axis, 0.0, back=True), g, axis)
    return db * _shift(out, axis, 0.0) if needs[0] else None, db if needs[1] else None


def _backwards(a, b, axis):
    """s_i = a_i s_{i+1} + b_i."""
    return flip(linear_recurrence(flip(a, axis), flip(b, axis), axis), axis)


# -- counting ----------------------------------------------------------------------------------------------------------


@op(inputs=reductions(real))
def any(x, /, axis=None, keepdims=False):  # noqa: A001 (NumPy's name)
    """Whether an element over `axis` is true (not zero)."""
    return xp(x).any(x, axis, keepdims=keepdims)


@op(inputs=reductions(real))
def all(x, /, axis=None, keepdims=False):  # noqa: A001 (NumPy's name)
    """Whether all elements over `axis` are true (not zero)."""
    return xp(x).all(x, axis, keepdims=keepdims)


@op(inputs=reductions(real))
def count_nonzero(x, /, axis=None, keepdims=False):
    """How many elements over `axis` are not zero."""
    return xp(x).sum(x != 0, axis, keepdims=keepdims)
