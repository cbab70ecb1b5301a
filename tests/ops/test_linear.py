"""Products and linear algebra against NumPy, and what their docstrings promise beyond it."""

import hypothesis.strategies as st
import numpy as np
import pytest
from drawing import HypothesisDraw
from hypothesis import given

import tinygen
from tinygen import ops
from tinygen.errors import InputError, ShapeError
from tinygen.registry import REGISTRY

rng = np.random.default_rng(0)



def leaf(*shape):
    return tinygen.tensor(rng.standard_normal(shape), requires_grad=True)


# -- products ----------------------------------------------------------------------------------------------------------

SHAPES = [(3,), (1, 3), (2, 3), (5, 2, 3), (4, 1, 2, 3)]


@pytest.mark.parametrize("left", SHAPES)
@pytest.mark.parametrize("right", [(3,), (3, 1), (3, 2), (5, 3, 2), (4, 5, 3, 2)])
def test_matmul_is_numpys_for_every_pair_of_ranks_and_so_is_its_gradients_shape(left, right):
    a, b = leaf(*left), leaf(*right)
    y = a @ b
    np.testing.assert_allclose(y.numpy(), np.matmul(a.numpy(), b.numpy()), rtol=1e-13, atol=1e-14)
    tinygen.gradcheck(ops.matmul, a, b)


def test_the_gradient_of_a_matrix_shared_by_a_batch_is_one_product_of_two_matrices():
    """Not a batch of products to be summed: what arrives at the edge has the matrix's shape already."""
    a, g, b = rng.standard_normal((64, 5, 3)), rng.standard_normal((64, 5, 2)), rng.standard_normal((3, 2))
    (pulled,) = [f(g, a, (a.shape, b.shape)) for f, _ in ops.matmul.vjps[1:]]
    assert pulled.shape == b.shape
    np.testing.assert_allclose(pulled, np.einsum("ntf,ntg->fg", a, g), rtol=1e-12)


@pytest.mark.parametrize(
    ("left", "right", "rule"),
    [
        ((64, 20), (30, 5), "the last axis of the first is 20, the next-to-last of the second is 30."),
        ((7, 64, 20), (30, 5), "the last axis of the first is 20, the next-to-last of the second is 30."),
        ((20,), (30,), "the last axis of the first is 20, the only axis of the second is 30."),
        ((2, 4, 3), (3, 3, 4), "the leading axes (2,) and (3,) do not broadcast."),
        ((), (3, 4), "a matrix product needs at least one axis on both sides; use * to scale."),
    ],
)
def test_matrices_that_do_not_chain_are_told_apart(left, right, rule):
    a, b = np.zeros(left, np.float32), np.zeros(right, np.float32)
    with pytest.raises(ShapeError) as caught:
        ops.matmul(tinygen.tensor(a), b)
    assert str(caught.value).startswith(f"matmul(float32 {left}, float32 {right}): {rule}")


def test_a_matrix_product_with_a_number_is_explained():
    with pytest.raises(ShapeError, match=r"matmul\(float64 \(3,\), 2\): .* use \* to scale"):
        leaf(3) @ 2


def test_outer_and_trace_are_numpys():
    a, b, c = leaf(3), leaf(2), leaf(2, 3, 3)
    np.testing.assert_array_equal(ops.outer(a, b).numpy(), np.outer(a.numpy(), b.numpy()))
    np.testing.assert_allclose(ops.trace(c).numpy(), np.linalg.trace(c.numpy()), rtol=1e-14)


# -- Einstein summation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("ij,jk", [(2, 3), (3, 4)]),
        ("ba", [(2, 3)]),
        (" i j , j -> i ", [(2, 3), (3,)]),
        ("ii", [(3, 3)]),
        ("...ij,...jk->...ik", [(5, 1, 2, 3), (4, 3, 2)]),
        ("...i,i", [(2, 1, 3), (3,)]),
        ("...,...", [(2, 3), (3,)]),
        ("i...i->...", [(2, 3, 2)]),
        ("bqhd,bkhd->bhqk", [(2, 3, 2, 4), (2, 5, 2, 4)]),
        ("i,j,k->kji", [(2,), (3,), (4,)]),
        ("ij,ij->ij", [(1, 3), (2, 1)]),
        ("iii->i", [(3, 3, 3)]),
        (",i->i", [(), (3,)]),
        ("ij->", [(0, 3)]),
    ],
)
def test_einsum_is_numpys_and_differentiates_twice(spec, shapes):
    operands = [leaf(*shape) for shape in shapes]
    expected = np.einsum(spec, *[x.numpy() for x in operands])
    np.testing.assert_allclose(ops.einsum(spec, *operands).numpy(), expected, rtol=1e-12, atol=1e-14)
    tinygen.gradcheck(lambda *xs: ops.einsum(spec, *xs), *operands)


@pytest.mark.parametrize(
    ("spec", "shapes", "rule"),
    [
        ("ij,jk->ik", [(2, 3)], '"ij,jk->ik" describes 2 operands.'),
        ("ijk->i", [(2, 3)], '"ijk->i" has 3 letters for 2 axes.'),
        ("ij,jk->ik", [(2, 3), (4, 5)], "einsum(float64 (2, 3), float64 (4, 5)): "),
        ("ij->ik", [(2, 3)], "einsum(float64 (2, 3)): "),
    ],
)
def test_an_einsum_that_does_not_fit_says_so(spec, shapes, rule):
    with pytest.raises(InputError) as caught:
        ops.einsum(spec, *[leaf(*shape) for shape in shapes])
    assert rule in str(caught.value)


# -- norm --------------------------------------------------------------------------------------------------------------


def test_the_gradient_of_a_norm_is_zero_at_the_zero_vector_and_everything_stays_finite():
    x = tinygen.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    length = ops.norm(x, axis=1)
    np.testing.assert_allclose(length.numpy(), [5, 0])
    g = tinygen.grad(length.sum(), x, create_graph=True)
    np.testing.assert_allclose(g.numpy(), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    (second,) = tinygen.grad([(g * g).sum()], [x])
    assert np.isfinite(second.numpy()).all()


# -- linear algebra ----------------------------------------------------------------------------------------------------


@given(st.data())
def test_a_matrix_times_its_inverse_is_one_and_times_a_solution_the_right_hand_side(data):
    (a, b), _ = REGISTRY["solve"].inputs(HypothesisDraw(data))
    np.testing.assert_allclose(a @ ops.inv(a), np.broadcast_to(np.eye(a.shape[-1]), a.shape), atol=1e-12)
    np.testing.assert_allclose(a @ ops.solve(a, b), b + np.zeros_like(a @ b), atol=1e-12)


@given(st.data())
def test_a_triangular_solution_reads_one_triangle_only(data):
    (a, b), params = REGISTRY["solve_triangular"].inputs(HypothesisDraw(data))
    keep = np.tril if params["lower"] else np.triu
    spoilt = np.where(keep(np.ones_like(a)) > 0, a, np.nan)
    x = ops.solve_triangular(spoilt, b, **params)
    full = keep(a).swapaxes(-1, -2) if params["transpose"] else keep(a)
    np.testing.assert_allclose(full @ x, b + np.zeros_like(x), atol=1e-12)


@given(st.data())
def test_a_cholesky_factor_is_lower_triangular_and_its_square_is_the_matrix(data):
    (a,), _ = REGISTRY["cholesky"].inputs(HypothesisDraw(data))
    factor = ops.cholesky(a)
    np.testing.assert_array_equal(factor, np.tril(factor))
    np.testing.assert_allclose(factor @ factor.swapaxes(-1, -2), a, rtol=1e-12, atol=1e-12)


def test_cholesky_symmetrises_its_input_and_gives_a_symmetric_gradient():
    a = rng.standard_normal((3, 3)) + 5 * np.eye(3)
    x = tinygen.tensor(a, requires_grad=True)
    factor = ops.cholesky(x)
    np.testing.assert_allclose((factor @ factor.mT).numpy(), (a + a.T) / 2, rtol=1e-12)
    ops.sum(factor * rng.standard_normal((3, 3))).backward()
    np.testing.assert_allclose(x.grad, x.grad.T, rtol=1e-12)


@given(st.data())
def test_sign_and_log_determinant_give_the_determinant(data):
    (a,), _ = REGISTRY["slogdet"].inputs(HypothesisDraw(data))
    sign, log = ops.slogdet(a)
    np.testing.assert_allclose(sign * np.exp(log), np.linalg.det(a), rtol=1e-12)


def test_half_the_log_determinant_is_the_sum_of_the_logarithms_on_the_cholesky_diagonal_with_equal_gradients():
    a = rng.standard_normal((2, 4, 4))
    x = tinygen.tensor(a @ a.swapaxes(-1, -2) + 4 * np.eye(4), requires_grad=True)
    by_factor = 2 * ops.log(ops.einsum("bii->bi", ops.cholesky(x))).sum()
    by_determinant = ops.slogdet(x)[1].sum()
    np.testing.assert_allclose(by_factor.item(), by_determinant.item(), rtol=1e-12)
    np.testing.assert_allclose(*[tinygen.grad(y, x).numpy() for y in (by_factor, by_determinant)], rtol=1e-10)


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("solve", [ops.solve, ops.solve_triangular])
def test_a_right_hand_side_may_be_a_vector(solve, batch):
    a, b = leaf(*batch, 3, 3) + 4 * np.eye(3), leaf(3)
    assert solve(a, b).shape == (*batch, 3)
    np.testing.assert_allclose(solve(a, b).numpy()[..., None], solve(a, b.reshape(3, 1)).numpy(), rtol=1e-14)
    tinygen.gradcheck(solve, a, b)


@pytest.mark.parametrize("name", ["inv", "cholesky", "slogdet"])
def test_a_matrix_that_is_not_square_is_named(name):
    with pytest.raises(ShapeError, match=rf"{name}\(float64 \(2, 3\)\): the matrices must be square"):
        getattr(ops, name)(leaf(2, 3))


@pytest.mark.parametrize(
    "call",
    [
        lambda a: ops.inv(a),
        lambda a: ops.solve(a, np.ones(2)),
        lambda a: ops.solve_triangular(a, np.ones(2)),
        lambda a: ops.cholesky(a),
    ],
)
def test_a_singular_matrix_is_an_explained_error(call):
    with pytest.raises(InputError, match=r"\(float64 \(2, 2\).*(?i:singular|definite)"):
        call(tinygen.tensor(np.zeros((2, 2))))
