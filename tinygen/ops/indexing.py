"""Ops that pick elements and put them back: indexing, take, scatter, sorting.

Picking and putting are transposes of each other: the gradient of what `getitem` picked is put back by `put_add`, where
an element that was picked twice gets the sum, and the gradient of what was put is picked. Everything here that moves
floats has one of the two for its derivative. Indices get no gradient. An index outside the array raises; CuPy, which
would have to wait for the GPU to notice, wraps or clips it instead.
"""

from __future__ import annotations

import math

import numpy as np

from tinygen import dispatch
from tinygen.arrays import is_array, xp
from tinygen.domains import along_axis, real
from tinygen.errors import DtypeError, InputError, ShapeError
from tinygen.registry import op
from tinygen.tensor import Tensor

# -- x[index] ----------------------------------------------------------------------------------------------------------


def _index(draw, shape):
    """An index of NumPy's: a mask, or integers, slices, integer arrays, None and Ellipsis together."""
    if draw.integer(0, 4) == 0:
        return draw.integers(shape, 2) > 0
    together = draw.choice([(3,), (2, 1)])
    entries = [_entry(draw, side, together) for side in shape[: draw.integer(0, len(shape))]]
    if draw.boolean():
        entries.insert(draw.integer(0, len(entries)), None)
    if draw.boolean():
        entries.append(Ellipsis)
    return entries[0] if len(entries) == 1 else tuple(entries)


def _entry(draw, side, together):
    kind = draw.choice(["integer", "slice", "backwards", "array", "list", "mask"])
    if kind == "mask":
        return np.arange(side) == draw.integer(0, side - 1)  # one True, which broadcasts with integer arrays
    return {
        "integer": lambda: draw.integer(-side, side - 1),
        "slice": lambda: slice(draw.integer(0, side), None, draw.integer(1, 2)),
        "backwards": lambda: slice(None, None, -1),
        "array": lambda: draw.integers(together, side, -side),
        "list": lambda: [side - 1],
    }[kind]()


def _getitems(draw):
    shape = draw.shape()
    return (draw.array(shape),), {"index": _index(draw, shape)}


@op(inputs=_getitems, residual=True)
def getitem(x, /, index):
    """x[index] with NumPy's basic and advanced indexing: integers, slices, None, Ellipsis, integer arrays (lists,
    Tensors), masks, alone or in a tuple. Basic indices give a view. Index arrays are copied, so that writing to them
    later cannot misdirect the gradient."""
    index = _settled(index, xp(x))
    return x[index], index


getitem.vjp(lambda g, residual, shapes: put_add(g, shapes[0], residual))


def _puts(draw):
    shape = draw.shape()
    index = _index(draw, shape)
    return (draw.array(np.empty(shape)[index].shape),), {"shape": shape, "index": index}


@op(inputs=_puts)
def put_add(x, /, shape, index):
    """Zeros of `shape` with x added at [index]; what is added to the same place twice adds up."""
    if box := _box(index, len(shape)):
        return _boxed(x, shape, box, 0)
    out = xp(x).zeros(shape, x.dtype)
    _add_at(out, _settled(index, xp(x)), x)
    return out


put_add.vjp(lambda g, index: getitem(g, index))


def _box(index, ndim):
    """A slice for each axis if the index picks neighbours in their order; None if it does something else."""
    entries = index if type(index) is tuple else (index,)
    if all(type(entry) is slice and entry.step in (None, 1) for entry in entries):
        return (*entries, *(slice(None),) * (ndim - len(entries)))
    return None


def _boxed(x, shape, box, value):
    """x as the part `box` of an array of `shape` that is `value` around it; a view of x if nothing is around it.

    Each element is written once. Zeros with x copied into them would be written twice, which takes twice as long.
    """
    if x.shape == tuple(shape):
        return x[...]
    out = xp(x).empty(shape, x.dtype)
    out[box] = x
    for axis, part in enumerate(box):
        start, stop, _ = part.indices(shape[axis])
        out[(*box[:axis], slice(0, start))] = value
        out[(*box[:axis], slice(stop, None))] = value
    return out


def _settled(index, lib):
    """`index` without Tensors and lists, its arrays copied to where `lib` has its own."""
    if type(index) is int or type(index) is slice:
        return index
    if isinstance(index, tuple):
        return tuple([_settled(entry, lib) for entry in index])
    if isinstance(index, Tensor):
        index = index._array
    elif isinstance(index, list):
        index = np.array(index, None if index else np.intp)
    return lib.array(index) if is_array(index) else index


def _add_at(out, index, x):
    """out[index] += x, counting every repetition. `out` is contiguous."""
    entries = index if isinstance(index, tuple) else (index,)
    if not any(is_array(entry) and entry.dtype.kind in "iu" for entry in entries):
        out[index] += x  # slices and masks meet no element twice
    elif xp(out) is not np:
        xp(out).add.at(out, index, x)
    else:
        starts, size = _blocks(out.shape, entries)
        rows = x if x.shape == starts.shape + size else np.broadcast_to(x, starts.shape + size)
        rows = rows.reshape(starts.size, math.prod(size))
        if fast := dispatch.instead("add_rows", out, rows):
            fast(out.reshape(-1), rows, starts.reshape(-1))
        else:  # on flat positions, for which add.at has a path many times faster than on rows
            np.add.at(out.reshape(-1), starts.reshape(-1, 1) + np.arange(rows.shape[1]), rows)


def _blocks(shape, entries):
    """What the index picks from an array of `shape` is blocks of neighbours: where each begins in its row-major order,
    and the shape of a block, the axes that the index takes whole."""
    is_mask = lambda entry: np.asarray(entry).dtype == bool
    used = sum(np.ndim(entry) if is_mask(entry) else 1 for entry in entries if entry is not None)
    if any(entry is Ellipsis for entry in entries):
        used = len(shape)
    rows, block = shape[:used], shape[used:]
    starts = _counted(entries, rows)
    if starts is None:
        starts = np.arange(math.prod(rows)).reshape(rows)[entries]
    return math.prod(block) * starts, block


def _counted(entries, shape):
    """The place in row-major order of each element that arrays of integers pick, without an array of all places; None
    for any other index, and for one that points outside."""
    starts = np.intp(0)
    if len(entries) != len(shape):
        return None
    for entry, side in zip(entries, shape):
        if not is_array(entry) or entry.dtype.kind not in "iu" or not _are_inside(entry, side):
            return None
        entry = entry.astype(np.intp, copy=False)
        starts = starts * side + np.where(entry < 0, entry + side, entry)
    return starts


def _are_inside(indices, side):
    """Whether there are any, and all from -side to side - 1."""
    return indices.size and indices.min() >= -side and indices.max() < side


# -- along one axis ----------------------------------------------------------------------------------------------------


def _axis(axis, ndim):
    """`axis` counted from the front."""
    if not isinstance(axis, int | np.integer) or not -ndim <= axis < ndim:
        raise ShapeError(f"axis {axis} is not one of an array of {ndim} dimensions")
    return axis % ndim


def _at(indices, axis, ndim):
    """The index that picks `indices` along `axis` and the other axes whole."""
    return (slice(None),) * _axis(axis, ndim) + (indices,)


def _one_each(indices, axis, shape):
    """The index that picks, along `axis`, other elements at each place of the other axes."""
    axis, ndim = _axis(axis, len(shape)), len(shape)
    places = [np.arange(side).reshape((-1,) + (1,) * (ndim - 1 - i)) for i, side in enumerate(shape)]
    places[axis] = indices
    return tuple(places)


def _takes(draw):
    shape = draw.shape(low=1)
    axis = draw.choice([None, draw.axis(len(shape))])
    side = math.prod(shape) if axis is None else shape[axis]
    return (draw.array(shape), draw.integers(draw.shape(high=2), side, -side)), {"axis": axis}


@op(inputs=_takes, constants=("indices",))
def take(x, indices, /, axis=None):
    """The elements at `indices` along `axis` (None: of x flattened), an axis that becomes the axes of `indices`."""
    return xp(x).take(x, indices, axis)


@take.vjp
def _(g, indices, axis, shapes):
    if axis is None:
        return put_add(g, (math.prod(shapes[0]),), indices).reshape(shapes[0])
    return put_add(g, shapes[0], _at(indices, axis, len(shapes[0])))


def _takes_along(draw):
    shape = draw.shape(low=1)
    axis = draw.axis(len(shape))
    wanted = list(shape)
    wanted[axis] = draw.integer(1, 3)
    return (draw.array(shape), draw.integers(tuple(wanted), shape[axis])), {"axis": axis}


@op(inputs=_takes_along, constants=("indices",))
def take_along_axis(x, indices, /, axis=-1):
    """out[..., i, ...] = x[..., indices[..., i, ...], ...]: along `axis`, other indices at each place of the rest."""
    axis = _axis(axis, x.ndim)
    if (fast := dispatch.instead("take_along_axis", x)) and _fits_along(indices, x.shape, axis):
        if (out := fast(x, indices, axis)) is not None:
            return out
    return xp(x).take_along_axis(x, indices, axis)


take_along_axis.vjp(lambda g, indices, axis, shapes: add_along_axis(g, indices, shapes[0], axis))


def _fits_along(indices, shape, axis):
    """Whether these are integers, some, that have this shape but along `axis`: nothing broadcasts."""
    alike = indices.ndim == len(shape) and indices.shape == (*shape[:axis], indices.shape[axis], *shape[axis + 1 :])
    return alike and indices.size and indices.dtype.kind in "iu"


def _adds_along(draw):
    (x, indices), params = _takes_along(draw)
    return (draw.array(indices.shape), indices), params | {"shape": x.shape}


@op(inputs=_adds_along, constants=("indices",))
def add_along_axis(x, indices, /, shape, axis=-1):
    """Zeros of `shape` with x added where `take_along_axis` would take from: the transpose of it."""
    axis = _axis(axis, len(shape))
    if (fast := dispatch.instead("add_along_axis", x)) and _fits_along(indices, shape, axis):
        if x.shape == indices.shape and (out := fast(x, indices, shape, axis)) is not None:
            return out
    return put_add.forward(x, shape, _one_each(indices, axis, shape))


add_along_axis.vjp(lambda g, indices, axis: take_along_axis(g, indices, axis))


def _scatters(draw):
    shape = draw.shape(low=1)
    axis = draw.axis(len(shape))
    indices = draw.integers(draw.shape(high=2), shape[axis], -shape[axis])
    updates = np.take(np.empty(shape), indices, axis)
    return (draw.array(shape), indices, draw.array(draw.broadcastable(updates.shape))), {"axis": axis}


@op(inputs=_scatters, constants=("indices",))
def scatter_add(x, indices, updates, /, axis=0):
    """A copy of x with `updates` added at `indices` along `axis`: out[indices] += updates, counting repeated indices.

    `updates` has the shape of take(x, indices, axis), or one that broadcasts to it.
    """
    out = x.copy()
    _add_at(out, _settled(_at(indices, axis, x.ndim), xp(x)), updates)
    return out


scatter_add.vjp(lambda g: g, None, lambda g, indices, axis: take(g, indices, axis))


def _labels(draw):
    return (draw.integers(draw.shape(high=2), 3),), {"classes": 3, "dtype": np.float64}


@op(inputs=_labels, constants=("labels",))
def one_hot(labels, /, classes, dtype=np.float32):
    """Labels in [0, classes) of shape (...) as vectors (..., classes) of zeros with a one at the label."""
    lib = xp(labels)
    labels = lib.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise DtypeError("labels must be integers")
    if lib is np and labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(f"labels run from {labels.min()} to {labels.max()}, the {classes} classes from 0")
    return (labels[..., None] == lib.arange(classes)).astype(dtype)


# -- order -------------------------------------------------------------------------------------------------------------


@op(inputs=along_axis(real))
def argsort(x, /, axis=-1):
    """The indices that sort x along `axis`, smallest first; equal elements keep their order."""
    return xp(x).argsort(x, _axis(axis, x.ndim), kind="stable")


@op(inputs=along_axis(distinct=True), residual=True)
def sort(x, /, axis=-1):
    """x sorted along `axis`, smallest first. Equal elements keep their order, and so their own gradients."""
    order = argsort(x, axis)
    return xp(x).take_along_axis(x, order, axis), order


sort.vjp(lambda g, residual, axis: take_along_axis(g, argsort(residual, axis), axis))


def _topks(draw):
    shape = draw.shape(low=1)
    axis = draw.axis(len(shape))
    params = {"k": draw.integer(1, shape[axis]), "axis": axis, "largest": draw.boolean()}
    return (draw.distinct(shape),), params


@op(inputs=_topks)
def topk(x, /, k, axis=-1, largest=True):
    """The k largest (or smallest) elements along `axis`, best first, and their indices; of equals the first wins."""
    axis = _axis(axis, x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError(f"k = {k} of the {x.shape[axis]} elements along axis {axis}")
    if largest:  # sorted backwards, so that equal elements keep their order once turned round
        backwards = argsort(xp(x).flip(x, axis), axis)
        order = x.shape[axis] - 1 - xp(x).flip(backwards, axis)
    else:
        order = argsort(x, axis)
    indices = order[_at(slice(k), axis, x.ndim)]
    return xp(x).take_along_axis(x, indices, axis), indices


@topk.vjp
def _(g, out, axis, shapes):
    return add_along_axis(g[0], out[1], shapes[0], axis)


def _searches(draw):
    edges = np.sort(draw.array((draw.integer(1, 4),)))
    return (edges, draw.array(draw.shape())), {"side": draw.choice(["left", "right"])}


@op(inputs=_searches)
def searchsorted(edges, values, /, side="left"):
    """Where `values` would go into the ascending 1-d `edges`: edges[i - 1] < value <= edges[i], or for
    side="right" edges[i - 1] <= value < edges[i]. Integers, without a gradient."""
    return xp(edges, values).searchsorted(edges, values, side)
