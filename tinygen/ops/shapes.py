"""Ops that rearrange elements without computing: reshape, transpose, join, split, pad, flip, roll, repeat."""

from __future__ import annotations

from tinygen.registry import op


def _reshapes(draw):
    shape = draw.shape()
    x = draw.array(shape)
    return (x,), {"shape": draw.choice([(x.size,), (1, *shape), shape[::-1], (-1,)])}


@op(inputs=_reshapes)
def reshape(x, /, shape):
    """The elements in row-major order under another shape, of which one side may be -1: whatever fits."""
    return x.reshape(shape)


reshape.vjp(lambda g, shapes: reshape(g, shapes[0]))
