"""Ops that rearrange elements without computing: reshape, transpose, join, split, pad, flip, roll, repeat, triangles.

Each derivative is the inverse rearrangement; where an element was repeated it is the sum over its copies, and where
one was left out it is zero. Reshapes (where memory allows), transposes, flips, splits and diagonals are views.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np

from tinygen.arrays import xp
from tinygen.errors import InputError, ShapeError
from tinygen.explain import explained
from tinygen.ops.indexing import _at, _axis, _boxed, put_add
from tinygen.registry import op

# -- another shape -----------------------------------------------------------------------------------------------------


def _reshapes(draw):
    shape = draw.shape()
    x = draw.array(shape)
    return (x,), {"shape": draw.choice([(x.size,), (1, *shape), shape[::-1], (-1,)])}


@op(inputs=_reshapes)
def reshape(x, /, shape):
    """The elements in row-major order under another shape, of which one side may be -1: whatever fits."""
    return x.reshape(shape)


reshape.vjp(lambda g, shapes: g.reshape(shapes[0]))


@explained
def ravel(x: Any) -> Any:
    """x as one row, in row-major order."""
    return reshape(x, (-1,))


def _squeezes(draw):
    shape = draw.choice([(1,), (1, 3), (3, 1, 1), (1, 2, 1)])
    ones = [i for i, side in enumerate(shape) if side == 1]
    return (draw.array(shape),), {"axis": draw.choice([None, ones[-1], ones[0] - len(shape), tuple(ones)])}


@op(inputs=_squeezes)
def squeeze(x, /, axis=None):
    """x without those of its axes that have length 1: all of them, or `axis`."""
    return x.squeeze(axis)


squeeze.vjp(lambda g, shapes: g.reshape(shapes[0]))


def _expansions(draw):
    shape = draw.shape()
    return (draw.array(shape),), {"axis": draw.choice([0, -1, (0, -1), len(shape)])}


@op(inputs=_expansions)
def expand_dims(x, /, axis):
    """x with new axes of length 1, which will be `axis` of the result."""
    return xp(x).expand_dims(x, axis)


expand_dims.vjp(lambda g, shapes: g.reshape(shapes[0]))

# -- another order of axes ---------------------------------------------------------------------------------------------


def _transposes(draw):
    shape = draw.shape()
    order = tuple(np.argsort(draw.distinct((len(shape),))).tolist())
    return (draw.array(shape),), {"axes": draw.choice([None, order, tuple(a - len(shape) for a in order)])}


@op(inputs=_transposes)
def transpose(x, /, axes=None):
    """The axes in another order: axis i of the result is axes[i] of x (None: in reverse)."""
    return x.transpose(axes)


@transpose.vjp
def _(g, axes):
    return transpose(g, axes if axes is None else tuple(np.argsort([a % g.ndim for a in np.atleast_1d(axes)]).tolist()))


def _moves(draw):
    x = draw.array(draw.shape(low=2))
    moves = [(0, -1), (-1, 0), (0, 1), ((0, 1), (1, 0)), ((0, 1), (-1, -2)), ((-1, 0), (0, 1))]
    return (x,), dict(zip(("source", "destination"), draw.choice(moves), strict=True))


@op(inputs=_moves)
def moveaxis(x, /, source, destination):
    """The axes `source` moved to `destination`, the others in their old order."""
    return xp(x).moveaxis(x, source, destination)


moveaxis.vjp(lambda g, source, destination: moveaxis(g, destination, source))


def _swaps(draw):
    x = draw.array(draw.shape(low=1))
    return (x,), {"axis1": draw.axis(x.ndim), "axis2": draw.axis(x.ndim)}


@op(inputs=_swaps)
def swapaxes(x, /, axis1, axis2):
    """The two axes exchanged."""
    return x.swapaxes(axis1, axis2)


swapaxes.vjp(lambda g, axis1, axis2: swapaxes(g, axis1, axis2))


def _flips(draw):
    x = draw.array(draw.shape())
    return (x,), {"axis": draw.axes(x.ndim)}


@op(inputs=_flips)
def flip(x, /, axis=None):
    """The elements in reverse order along `axis` (None: along all)."""
    return xp(x).flip(x, axis)


flip.vjp(lambda g, axis: flip(g, axis))


def _rolls(draw):
    x = draw.array(draw.shape(low=1))
    several = {"shift": (draw.integer(-3, 3), 1), "axis": (0, -1)}
    return (x,), draw.choice([several, {"shift": draw.integer(-5, 5), "axis": draw.choice([None, draw.axis(x.ndim)])}])


@op(inputs=_rolls)
def roll(x, /, shift, axis=None):
    """The elements moved `shift` places along `axis` (None: of x flattened); what leaves one end enters the other."""
    return xp(x).roll(x, shift, axis)


@roll.vjp
def _(g, shift, axis):
    return roll(g, tuple(-s for s in shift) if isinstance(shift, tuple | list) else -shift, axis)


# -- joining and splitting ---------------------------------------------------------------------------------------------


@explained
def concatenate(arrays: Iterable[Any], axis: int = 0) -> Any:
    """The arrays of a list (or the rows of one array) one after the other along an axis they have.

    Their other sides must be equal. Arrays and Tensors may be mixed.
    """
    return _concatenate(*arrays, axis=axis)


@explained
def stack(arrays: Iterable[Any], axis: int = 0) -> Any:
    """The arrays of a list, all of one shape, side by side along a new axis, which is `axis` of the result."""
    return _stack(*arrays, axis=axis)


def _concatenations(draw):
    shape = list(draw.shape(low=1))
    axis = draw.axis(len(shape))
    lengths = draw.sizes(draw.integer(1, 3), high=3)
    sides = lambda length: tuple(length if i == axis % len(shape) else side for i, side in enumerate(shape))
    return tuple(draw.array(sides(length)) for length in lengths), {"axis": axis}


@op("concatenate", inputs=_concatenations)
def _concatenate(*arrays, axis=0):
    _axis(axis, np.ndim(arrays[0]) if arrays else 1)
    return xp(*arrays).concatenate(arrays, axis)


@_concatenate.vjp
def _(g, axis, shapes):
    return split(g, list(accumulate(shape[axis] for shape in shapes[:-1])), axis)  # views: they cost nothing


def _stacks(draw):
    shape = draw.shape(high=2)
    return tuple(draw.array(shape) for _ in range(draw.integer(1, 3))), {"axis": draw.axis(len(shape) + 1)}


@op("stack", inputs=_stacks)
def _stack(*arrays, axis=0):
    return xp(*arrays).stack(arrays, axis)


@_stack.vjp
def _(g, axis, shapes):
    return [piece.reshape(shapes[0]) for piece in split(g, len(shapes), axis)]


def _splits(draw):
    shape = list(draw.shape(low=1))
    axis = draw.axis(len(shape))
    shape[axis] = 4
    return (draw.array(tuple(shape)),), {"indices_or_sections": draw.choice([1, 2, [1, 3], [2], (0, -1)]), "axis": axis}


@op(inputs=_splits)
def split(x, /, indices_or_sections, axis=0):
    """x cut along `axis` into a tuple of that many equal pieces, or before each of those indices, which must ascend."""
    axis = _axis(axis, x.ndim)
    n = x.shape[axis]
    if isinstance(indices_or_sections, int | np.integer):
        if indices_or_sections < 1 or n % indices_or_sections:
            raise ShapeError(f"axis {axis} of length {n} does not divide into {indices_or_sections} equal pieces")
        edges = range(0, n + 1, n // indices_or_sections) if n else [0] * (indices_or_sections + 1)
    else:
        edges = [0, *(slice(i).indices(n)[1] for i in indices_or_sections), n]  # negative ones count from the end
        if sorted(edges) != edges:
            raise ShapeError(f"the indices {list(indices_or_sections)} do not ascend")
    return tuple([x[_at(slice(start, end), axis, x.ndim)] for start, end in pairwise(edges)])


split.vjp(lambda g, axis: concatenate(g, axis))

# -- more elements -----------------------------------------------------------------------------------------------------


def _pads(draw):
    x = draw.array(draw.shape())
    pairs = [(draw.integer(0, 2), draw.integer(0, 2)) for _ in x.shape]
    return (x,), {"pad_width": draw.choice([1, (0, 2), pairs or 0]), "value": draw.choice([0, 1.5])}


@op(inputs=_pads)
def pad(x, /, pad_width, value=0):
    """x with `value` around it. `pad_width` is a number, (before, after), or one such pair for each axis."""
    sides = [s + before + after for s, (before, after) in zip(x.shape, _widths(pad_width, x.ndim), strict=True)]
    return _boxed(x, sides, _inner(pad_width, x.shape), value)


pad.vjp(lambda g, pad_width, shapes: g[_inner(pad_width, shapes[0])])


def _widths(pad_width, ndim):
    """(before, after) for each axis."""
    widths = np.broadcast_to(np.asarray(pad_width, int), (ndim, 2)).tolist() if ndim else []
    if any(width < 0 for pair in widths for width in pair):
        raise ShapeError(f"pad_width {pad_width} is negative; x[1:-1] takes elements away")
    return widths


def _inner(pad_width, shape):
    """The index of what was there before padding."""
    return tuple(slice(b, b + side) for (b, _), side in zip(_widths(pad_width, len(shape)), shape, strict=True))


def _repeats(draw):
    shape = draw.shape()
    axis = draw.choice([None, draw.axis(len(shape))]) if shape else None
    n = math.prod(shape) if axis is None else shape[axis]
    return (draw.array(shape),), {"repeats": draw.choice([0, 2, 3, draw.integers((n,), 3)]), "axis": axis}


@op(inputs=_repeats)
def repeat(x, /, repeats, axis=None):
    """Each element along `axis` (None: of x flattened) `repeats` times in a row: one number, or one per element."""
    return xp(x).repeat(x, repeats, axis)


@repeat.vjp
def _(g, repeats, axis, shapes):
    shape = shapes[0] if axis is not None else (math.prod(shapes[0]),)
    axis = _axis(axis or 0, len(shape))
    if isinstance(repeats, int | np.integer):
        copies = (*shape[: axis + 1], int(repeats), *shape[axis + 1 :])
        return g.reshape(copies).sum(axis + 1).reshape(shapes[0])
    source = np.repeat(np.arange(shape[axis]), repeats)
    return put_add(g, shape, _at(source, axis, len(shape))).reshape(shapes[0])


def _tiles(draw):
    return (draw.array(draw.shape(high=2)),), {"reps": draw.choice([2, 0, (), (2, 1), (1, 3), (2, 1, 2)])}


@op(inputs=_tiles)
def tile(x, /, reps):
    """x laid out reps[i] times along axis i; the shorter of `reps` and x.shape gets ones in front."""
    return xp(x).tile(x, reps)


@tile.vjp
def _(g, reps, shapes):
    reps = tuple(reps) if isinstance(reps, tuple | list) else (reps,)
    ndim = max(len(reps), len(shapes[0]))
    reps, shape = (1,) * (ndim - len(reps)) + reps, (1,) * (ndim - len(shapes[0])) + shapes[0]
    copies = tuple(chain(*zip(reps, shape, strict=True)))  # (reps_0, side_0, reps_1, side_1, ...)
    return g.reshape(copies).sum(tuple(range(0, 2 * ndim, 2))).reshape(shapes[0])


@explained
def meshgrid(*axes: Any, indexing: str = "xy") -> tuple[Any, ...]:
    """The coordinates of the grid that 1-d `axes` span: one array for each, of shape (len(axes[0]), ...).

    With NumPy's default, indexing="xy", the first two axes of the results are exchanged.
    """
    from tinygen.ops.reductions import broadcast_to

    if indexing not in ("xy", "ij"):
        raise InputError(f'indexing must be "xy" or "ij", not {indexing!r}')
    n = len(axes)
    shape = tuple(len(axis) for axis in axes)
    grids = [broadcast_to(reshape(a, (-1,) + (1,) * (n - 1 - i)), shape) for i, a in enumerate(axes)]
    return tuple(swapaxes(grid, 0, 1) if indexing == "xy" and n > 1 else grid for grid in grids)


# -- diagonals and triangles -------------------------------------------------------------------------------------------


def _diagonals(draw):
    x = draw.array(draw.shape(low=2))
    axis1, axis2 = draw.choice([(0, 1), (1, 0), (-1, 0), (-2, -1)])
    return (x,), {"offset": draw.integer(-2, 2), "axis1": axis1, "axis2": axis2}


@op(inputs=_diagonals)
def diagonal(x, /, offset=0, axis1=0, axis2=1):
    """x[..., i, i + offset, ...] over the axes `axis1` and `axis2`, which leave their place to i as the last axis."""
    return x.diagonal(offset, axis1, axis2)


@diagonal.vjp
def _(g, offset, axis1, axis2, shapes):
    first, second = shapes[0][axis1], shapes[0][axis2]
    rest = tuple(side for i, side in enumerate(shapes[0]) if i not in (axis1 % len(shapes[0]), axis2 % len(shapes[0])))
    i = np.arange(g.shape[-1])
    index = (Ellipsis, i + max(-offset, 0), i + max(offset, 0))
    return moveaxis(put_add(g, (*rest, first, second), index), (-2, -1), (axis1, axis2))


def _matrices(draw):
    return (draw.array(draw.shape(low=2)),), {"k": draw.integer(-2, 2)}


@op(inputs=_matrices)
def tril(x, /, k=0):
    """The lower triangles of the matrices in the last two axes, up to the k-th diagonal; zero above."""
    return xp(x).tril(_matrix(x), k)


@op(inputs=_matrices)
def triu(x, /, k=0):
    """The upper triangles of the matrices in the last two axes, from the k-th diagonal; zero below."""
    return xp(x).triu(_matrix(x), k)


tril.vjp(lambda g, k: tril(g, k))
triu.vjp(lambda g, k: triu(g, k))


def _matrix(x):
    if x.ndim < 2:
        raise ShapeError("a triangle needs at least two axes")
    return x
