"""Matrix products and linear algebra: matrices in the last two axes, broadcasting (matmul, einsum) over the rest.

The derivatives of functions of a matrix are collected in Giles (2008), "An extended collection of matrix derivative
results for forward and reverse mode algorithmic differentiation".
"""

from __future__ import annotations

import string
from math import prod
from typing import Any

import numpy as np

from tinygen import dispatch
from tinygen.arrays import xp
from tinygen.domains import nonzero, unit
from tinygen.errors import InputError, ShapeError
from tinygen.explain import explained
from tinygen.ops.elementwise import where
from tinygen.ops.reductions import _kept, broadcast_to
from tinygen.ops.shapes import tril, triu
from tinygen.registry import op

# -- products ----------------------------------------------------------------------------------------------------------

_MATRICES, _VECTORS = 2**19, 9216  # multiplications from which on OpenBLAS uses several threads
_OUTER = 2**13  # numbers of an outer product from which on NumPy, which makes them one by one, is slower than a kernel


def _swap(x):
    """The transpose of each matrix."""
    return x.swapaxes(-1, -2)


def _products(draw):
    n, k, m = draw.sizes(3, high=3)
    batch = draw.shape(high=2, side=3)
    batches = [batch, draw.broadcastable(batch)]
    first, second = draw.choice([batches, batches[::-1]])
    a = draw.array(draw.choice([(k,), (n, k), (*first, n, k)]))
    return (a, draw.array(draw.choice([(k,), (k, m), (*second, k, m)]))), {}


@op(inputs=_products)
def matmul(a, b, /):
    """Matrix products, (..., n, k) @ (..., k, m) -> (..., n, m); the leading axes broadcast.

    As in NumPy a vector (k,) on the left is a row and one on the right is a column, and that axis is missing in the
    result. Raises ShapeError where the matrices do not chain.
    """
    try:
        if np.ndim(b) == 2 < np.ndim(a):  # one matrix for a whole batch: one large product instead of many small ones
            return _product(a.reshape(prod(a.shape[:-1]), a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
        return _product(a, b)
    except ValueError:
        raise ShapeError(_mismatch(np.shape(a), np.shape(b))) from None


def _product(a, b):
    if _many(a, b) and a.shape[-1] == b.shape[-2 if b.ndim > 1 else 0]:
        if fast := dispatch.instead("matmul", a, b):
            return fast(a, b)
    return np.matmul(a, b)


def _many(a, b) -> bool:
    """Whether a kernel had better do this product, since NumPy's BLAS would share it out among threads of its own (see
    kernels/cpu/matmul.py), or since NumPy has none for it."""
    m, n = (a.shape[-2] if np.ndim(a) > 1 else 1), (b.shape[-1] if np.ndim(b) > 1 else 1)
    size = getattr(a, "size", 1) * n
    return size >= (_VECTORS if m == 1 or n == 1 else _OUTER if a.shape[-1] == 1 else _MATRICES)


def _mismatch(a: tuple, b: tuple) -> str:
    if not a or not b:
        return "a matrix product needs at least one axis on both sides; use * to scale"
    inner, place = (b[-2], "the next-to-last") if len(b) > 1 else (b[0], "the only axis")
    if a[-1] != inner:
        return f"the last axis of the first is {a[-1]}, {place} of the second is {inner}"
    return f"the leading axes {a[:-2]} and {b[:-2]} do not broadcast"


def _by_left(g, b):
    """g b^T. A vector on the left has no row in g, one on the right no column; the edge undoes axes of length 1."""
    if b.ndim == 1:
        return g.reshape((*g.shape, 1)) * b
    if g.ndim < b.ndim:
        g = g.reshape((*g.shape[:-1], 1, g.shape[-1]))
    return _times(g, _swap(b))


def _by_right(g, a, shapes):
    """a^T g. For one matrix (or vector) b under a whole batch it is a single product, in which the batch is summed."""
    if a.ndim == 2:
        return _times(_swap(a), g)
    if len(shapes[1]) <= 2:
        rows = prod(a.shape[:-1])
        return _times(_swap(a.reshape((rows, a.shape[-1]))), g.reshape((rows, *shapes[1][1:])))
    if a.ndim == 1:
        return a.reshape((*a.shape, 1)) * g.reshape((*g.shape[:-1], 1, g.shape[-1]))
    return _times(_swap(a), g)


def _times(a, b):
    """a b: small matrices are spared what it takes to call an op."""
    return a @ b if a.ndim == b.ndim == 2 and not _many(a, b) else matmul(a, b)


matmul.vjp(_by_left, _by_right)


@explained
def outer(a: Any, b: Any) -> Any:
    """a_i b_j for vectors (n,) and (m,): (n, m). Other shapes are flattened first, as by NumPy."""
    return a.reshape((-1, 1)) * b.reshape((1, -1))


@explained
def trace(x: Any) -> Any:
    """The sum of the diagonal of each matrix, (..., n, n) -> (...)."""
    return einsum("...ii->...", x)


# -- Einstein summation ------------------------------------------------------------------------------------------------


@explained
def einsum(spec: str, *operands: Any) -> Any:
    """Products of elements of the operands, summed over the letters that the result does not have.

    `einsum("bij,bkj->bik", x, y)`: each operand's axes are named by letters, and those of the result follow the arrow.
    A letter that occurs twice in one operand takes its diagonal, "..." stands for axes that broadcast, and without an
    arrow the result has the letters that occur once, in alphabetical order. All as in NumPy.
    """
    return _einsum(*operands, spec=_explicit(spec, operands))


def _explicit(spec: str, operands: tuple) -> str:
    """The same specification with an arrow, without spaces, and with letters for the axes under "..."."""
    if not isinstance(spec, str):
        raise InputError('first comes the specification, for example "ij,jk->ik"')
    inputs, arrow, result = spec.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(operands):
        raise InputError(f'"{spec}" describes {len(terms)} operands')
    free = [letter for letter in string.ascii_letters if letter not in spec]
    hidden = [np.ndim(x) - len(term) + 3 if "..." in term else 0 for term, x in zip(terms, operands)]
    letters = "".join(free[: max(hidden)])
    terms = [term.replace("...", letters[len(letters) - n :]) for term, n in zip(terms, hidden)]
    for term, x in zip(terms, operands):
        if len(term) != np.ndim(x):
            raise ShapeError(f'"{spec}" has {len(term)} letters for {np.ndim(x)} axes')
    if not arrow:
        joined = "".join(terms)
        result = letters + "".join(sorted(s for s in set(joined) if joined.count(s) == 1 and s not in letters))
    return f"{','.join(terms)}->{result.replace('...', letters)}"


_SPECS = "ij,jk->ik|bij,bkj->bik|ij->ji|ii->i|iij->j|iii->|ij,ij->|i,j,ik->k|ij,k->i|ij,jk,kl->li|ij,ii->ji|ij->"


def _einsums(draw):
    spec = draw.choice(_SPECS.split("|"))
    sides = {letter: draw.integer(1, 3) for letter in "bijkl"}
    terms = spec.split("->")[0].split(",")
    shapes = [[sides[letter] for letter in term] for term in terms]
    if len(terms) > 1 and draw.boolean() and len(set(terms[0])) == len(terms[0]):
        shapes[0][-1] = 1  # broadcasts with the same letter in the other operands
    return tuple(draw.array(tuple(shape)) for shape in shapes), {"spec": spec}


@op("einsum", inputs=_einsums)
def _einsum(*operands, spec):
    return xp(*operands).einsum(spec, *operands, optimize=len(operands) > 1)


@_einsum.vjp
def _(g, operands, spec, shapes, needs):
    """The gradient of each operand is the einsum of g with the other operands, with the operand's letters as result."""
    inputs, result = spec.split("->")
    terms = inputs.split(",")
    sides = {}
    for letter, side in zip("".join(terms), [side for shape in shapes for side in shape]):
        sides[letter] = side if sides.get(letter, 1) == 1 else sides[letter]
    grads = []
    for i, term in enumerate(terms):
        others = [(t, x) for j, (t, x) in enumerate(zip(terms, operands)) if j != i]
        grads.append(_pull_einsum(g, result, term, others, sides) if needs[i] else None)
    return grads


def _pull_einsum(g, result: str, term: str, others: list, sides: dict):
    known = set(result).union(*[t for t, _ in others])
    letters = "".join(dict.fromkeys(term))
    kept = "".join(letter for letter in letters if letter in known)
    pulled = _einsum(g, *[x for _, x in others], spec=f"{','.join([result, *[t for t, _ in others]])}->{kept}")
    full = tuple(sides[letter] for letter in letters)
    if pulled.shape != full:  # along letters that only this operand has, which were summed, the gradient is constant
        lengths = iter(pulled.shape)
        pulled = pulled.reshape(tuple(next(lengths) if letter in known else 1 for letter in letters))
        pulled = broadcast_to(pulled, full)
    return _on_diagonal(pulled, letters, term) if letters != term else pulled


def _on_diagonal(x, letters: str, term: str):
    """x, whose axes are `letters`, on the diagonal of an array of `term`, where letters repeat; zero elsewhere."""
    free = iter(letter for letter in string.ascii_letters if letter not in term)
    fresh = [letter if term.index(letter) == i else next(free) for i, letter in enumerate(term)]
    repeats = [(letter, new) for letter, new in zip(term, fresh) if letter != new]
    array = getattr(x, "_array", x)
    eyes = [xp(array).eye(x.shape[letters.index(letter)], dtype=array.dtype) for letter, _ in repeats]
    return _einsum(x, *eyes, spec=f"{','.join([letters, *[a + b for a, b in repeats]])}->{''.join(fresh)}")


# -- the length of vectors ---------------------------------------------------------------------------------------------


def _norms(draw):
    shape = draw.shape()
    return (draw.array(shape, nonzero),), {"axis": draw.axes(len(shape)), "keepdims": draw.boolean()}


@op(inputs=_norms)
def norm(x, /, axis=None, keepdims=False):
    """The Euclidean length sqrt(sum x²) over `axis` (None: over all elements). The gradient at the zero vector is 0."""
    return xp(x).sqrt(xp(x).sum(x * x, axis, keepdims=keepdims))


@norm.vjp
def _(g, x, out, axis, shapes):
    kept = _kept(shapes[0], axis)
    length = out.reshape(kept)
    return g.reshape(kept) * (x / where(length == 0, 1.0, length))


# -- inverse, linear systems, determinant ------------------------------------------------------------------------------


def _draw_invertible(draw, shape):
    """Square matrices, (..., n, n), whose diagonal outweighs the rest."""
    return draw.array(shape, unit) + draw.choice([-1, 1]) * (shape[-1] + 1) * np.eye(shape[-1])


def _invertible(draw):
    n = draw.integer(1, 3)
    return (_draw_invertible(draw, (*draw.shape(high=2, side=2), n, n)),), {}


def _square(a):
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ShapeError("the matrices must be square, (..., n, n)")
    return a


@op(inputs=_invertible)
def inv(a, /):
    """The inverse of each matrix, (..., n, n). Prefer `solve` to a product with an inverse."""
    return xp(a).linalg.inv(_square(a))


@inv.vjp
def _(g, out):
    """-out^T g out^T."""
    return -matmul(matmul(_swap(out), g), _swap(out))


def _draw_system(draw):
    """Shapes of the matrices and right-hand sides of linear systems, either of which may be shared by all."""
    n, m = draw.sizes(2, high=3)
    batch = draw.shape(high=2, side=2)
    batches = [batch, draw.broadcastable(batch)]
    first, second = draw.choice([batches, batches[::-1]])
    return _draw_invertible(draw, (*first, n, n)), draw.array((*second, n, m))


@op("solve", inputs=lambda draw: (_draw_system(draw), {}))
def _solve(a, b, /):
    return xp(a).linalg.solve(_square(a), b)


@_solve.vjp
def _(g, a, out, needs):
    """With x = a^-1 b:  db = a^-T g  and  da = -db x^T."""
    by_b = _solve(_swap(a), g)
    return -matmul(by_b, _swap(out)) if needs[0] else None, by_b if needs[1] else None


@explained
def solve(a: Any, b: Any) -> Any:
    """x with a x = b, for square matrices (..., n, n) and right-hand sides (n,) or (..., n, m); leading axes broadcast.

    Raises InputError for a singular matrix.
    """
    if b.ndim == 1:
        return _solve(a, b.reshape((-1, 1)))[..., 0]
    return _solve(a, b)


def _triangular(draw):
    return _draw_system(draw), {"lower": draw.boolean(), "transpose": draw.boolean()}


@op("solve_triangular", inputs=_triangular)
def _solve_triangular(a, b, /, lower=True, transpose=False):
    if xp(a) is np:
        from scipy.linalg import solve_triangular
    else:
        from cupyx.scipy.linalg import solve_triangular
    (n, m), batch = b.shape[-2:], np.broadcast_shapes(_square(a).shape[:-2], b.shape[:-2])
    many = lambda x: xp(x).broadcast_to(x, (*batch, *x.shape[-2:])).reshape(prod(batch), *x.shape[-2:])
    out = xp(a).empty((prod(batch), n, m), np.result_type(a, b))
    for x, ai, bi in zip(out, many(a), many(b)):
        x[...] = solve_triangular(ai, bi, trans=int(bool(transpose)), lower=bool(lower), check_finite=False)
    return out.reshape(*batch, n, m)


@_solve_triangular.vjp
def _(g, a, out, lower, transpose, needs):
    by_b = _solve_triangular(a, g, lower, not transpose)
    if not needs[0]:
        return None, by_b
    by_a = -matmul(out, _swap(by_b)) if transpose else -matmul(by_b, _swap(out))
    return (tril if lower else triu)(by_a), by_b if needs[1] else None


@explained
def solve_triangular(a: Any, b: Any, lower: bool = True, transpose: bool = False) -> Any:
    """x with a x = b, or a^T x = b, reading only the lower (or upper) triangle of a; shapes as in `solve`."""
    if b.ndim == 1:
        return _solve_triangular(a, b.reshape((-1, 1)), lower, transpose)[..., 0]
    return _solve_triangular(a, b, lower, transpose)


def _positive_definite(draw):
    (a,), _ = _invertible(draw)
    return (a @ a.swapaxes(-1, -2),), {}


@op(inputs=_positive_definite)
def cholesky(a, /):
    """The lower triangular L with L L^T = (a + a^T) / 2, for each positive definite matrix, (..., n, n).

    Symmetrising makes the derivative that of what was computed, and symmetric. Raises InputError if it does not exist.
    """
    return xp(a).linalg.cholesky(0.5 * (_square(a) + _swap(a)))


@cholesky.vjp
def _(g, out):
    """L^-T P L^-1, symmetrised; P is the lower triangle of L^T g with half its diagonal (Murray 2016)."""
    p = matmul(_swap(out), g)
    half = _solve_triangular(out, 0.5 * (tril(p) + tril(p, -1)), True, True)
    both = _solve_triangular(out, _swap(half), True, True)
    return 0.5 * (both + _swap(both))


@op(inputs=_invertible)
def slogdet(a, /):
    """(sign, log |det a|) of each matrix, (..., n, n) -> two of (...). The derivative exists where a is invertible."""
    return tuple(xp(a).linalg.slogdet(_square(a)))


@slogdet.vjp
def _(g, a):
    """g a^-T: the sign is constant."""
    return g[1].reshape((*g[1].shape, 1, 1)) * _swap(inv(a))
