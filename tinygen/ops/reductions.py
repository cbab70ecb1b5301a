"""Ops that reduce one or several axes, with NumPy's `axis` and `keepdims`, and their way back, broadcasting."""

from __future__ import annotations

import numpy as np

from tinygen.arrays import xp
from tinygen.domains import real, reductions
from tinygen.registry import op


def _axes(axis, ndim):
    """The reduced axes, counted from the front."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in (axis if isinstance(axis, tuple | list) else (axis,)))


def _kept(shape, axis):
    """`shape` with the reduced axes kept as 1: what `keepdims=True` gives."""
    axes = _axes(axis, len(shape))
    return tuple(1 if i in axes else side for i, side in enumerate(shape))


@op(inputs=reductions(real))
def sum(x, /, axis=None, keepdims=False):  # noqa: A001 (NumPy's name)
    """The sum over `axis` (None: over all)."""
    return xp(x).sum(x, axis, keepdims=keepdims)


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
    extra = x.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(extra + i for i, side in enumerate(shape) if side == 1 != x.shape[extra + i])
    return xp(x).sum(x, axes).reshape(shape) if axes else x[...]


sum_to.vjp(lambda g, shapes: broadcast_to(g, shapes[0]))
