"""Reductions against NumPy, and their conventions at ties, zeros, infinities and empty axes."""

import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
from drawing import HypothesisDraw
from hypothesis import given, settings

import tinygen
from tinygen import ops
from tinygen.errors import InputError
from tinygen.registry import REGISTRY

SAME_AS_NUMPY = (
    "sum mean var std max min prod cumsum cumprod any all argmax argmin count_nonzero broadcast_to".split()
)


def leaf(values, dtype=np.float64):
    return tinygen.tensor(np.asarray(values, dtype), requires_grad=True)


def gradient(function, x):
    y = function(x)
    return tinygen.grad(y, x, np.ones_like(y.numpy())).numpy()


@pytest.mark.parametrize("name", SAME_AS_NUMPY)
@settings(max_examples=20)
@given(data=st.data())
def test_values_and_shapes_are_numpys(name, data):
    (x,), params = REGISTRY[name].inputs(HypothesisDraw(data))
    out = getattr(ops, name)(tinygen.tensor(x), **params)
    np.testing.assert_allclose(out.numpy(), getattr(np, name)(x, **params), rtol=1e-12, strict=True)


@pytest.mark.parametrize("name", "sum mean var std max min prod any all argmax argmin cumsum".split())
def test_methods_of_a_tensor_are_those_of_an_array(name):
    x = np.random.default_rng(0).standard_normal((3, 4))
    for axis in (None, 0, -1):
        np.testing.assert_allclose(getattr(tinygen.tensor(x), name)(axis), getattr(x, name)(axis), rtol=1e-14)


def test_integers_average_to_float32():
    assert ops.mean(tinygen.tensor(np.array([1, 2]))).dtype == np.float32


@pytest.mark.parametrize("extreme", [ops.max, ops.min])
@given(data=st.data())
def test_ties_share_the_gradient_equally(extreme, data):
    x = HypothesisDraw(data).integers((3, 4), 3).astype(float)
    ties = x == extreme(x, axis=1, keepdims=True)
    np.testing.assert_allclose(gradient(lambda x: extreme(x, axis=1), leaf(x)), ties / ties.sum(1, keepdims=True))


def test_std_has_gradient_zero_where_it_is_zero():
    x = leaf([[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]], np.float32)
    g = gradient(lambda x: ops.std(x, axis=1), x)
    np.testing.assert_array_equal(g[0], 0)
    np.testing.assert_allclose(g[1], np.array([-1, 0, 1]) / (3 * np.std([1, 2, 3])), rtol=1e-6)


@given(data=st.data())
def test_prod_and_cumprod_have_exact_gradients_at_zeros(data):
    x = HypothesisDraw(data).integers((5,), 3, low=-2).astype(float)
    without = np.array([[np.prod(np.delete(x[: k + 1], i)) if i <= k else 0 for i in range(5)] for k in range(5)])
    np.testing.assert_array_equal(gradient(ops.prod, leaf(x)), without[-1])
    np.testing.assert_array_equal(tinygen.jacobian(ops.cumprod, x).numpy(), without)


def test_the_second_derivative_of_prod_is_exact_at_zeros():
    hessian = [tinygen.hvp(ops.prod, [np.array([0.0, 0.0, 3.0])], [row])[0].numpy() for row in np.eye(3)]
    np.testing.assert_array_equal(hessian, [[0, 3, 0], [3, 0, 0], [0, 0, 0]])


def test_a_linear_recurrence_sums_discounted_rewards():
    rewards = np.array([1.0, 2.0, 3.0])
    returns = ops.linear_recurrence(np.full(3, 0.5), rewards)
    np.testing.assert_allclose(returns, [1, 2.5, 4.25])


def test_a_linear_recurrence_wants_equal_shapes():
    with pytest.raises(InputError, match="same shape"):
        ops.linear_recurrence(leaf([1.0]), leaf([1.0, 2.0]))


# -- logsumexp ---------------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_logsumexp_is_the_log_of_the_sum_wherever_the_numbers_lie(data):
    (x,), params = REGISTRY["logsumexp"].inputs(HypothesisDraw(data))
    naive = np.log(np.sum(np.exp(x), **params))
    for shift in (0, -1e5, 1e5):
        np.testing.assert_allclose(ops.logsumexp(x + shift, **params), naive + shift, rtol=1e-12, atol=1e-9)


def test_logsumexp_of_infinities_has_a_finite_gradient_and_no_warning():
    inf = np.inf
    x = leaf([[-inf, -inf], [-inf, 1.0], [inf, 1.0], [inf, -inf]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(ops.logsumexp(x, axis=1).numpy(), [-inf, 1, inf, inf])
        np.testing.assert_array_equal(
            gradient(lambda x: ops.logsumexp(x, axis=1), x), [[0, 0], [0, 1], [1, 0], [1, 0]]
        )


def test_logsumexp_of_nothing_is_minus_infinity():
    np.testing.assert_array_equal(ops.logsumexp(np.empty((2, 0)), axis=1), [-np.inf, -np.inf])


# -- nothing and one ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", "sum prod max min mean var std logsumexp cumsum cumprod".split())
def test_a_single_number_is_reduced_like_an_axis_of_length_one(name):
    reduce = getattr(ops, name)
    for x in (leaf(2.0), leaf([2.0])):
        out = reduce(x)
        expected = 0.0 if name in ("var", "std") else 2.0
        assert out.numpy() == expected
        assert gradient(reduce, x) == (0.0 if name in ("var", "std") else 1.0)


def test_sums_and_products_of_nothing_are_zero_and_one():
    x = leaf(np.empty((0, 3)))
    np.testing.assert_array_equal(ops.sum(x, axis=0).numpy(), np.zeros(3))
    np.testing.assert_array_equal(ops.prod(x, axis=0).numpy(), np.ones(3))
    for reduce in (ops.sum, ops.prod, ops.cumsum, ops.cumprod):
        assert gradient(lambda x, reduce=reduce: reduce(x, axis=0), x).shape == (0, 3)


@pytest.mark.parametrize("name", "max min argmax argmin".split())
def test_extremes_of_nothing_are_an_error_but_no_extremes_are_not(name):
    reduce = getattr(ops, name)
    with pytest.raises(InputError, match=rf"{name}\(float64 \(0, 3\)\): .*empty|zero-size"):
        reduce(leaf(np.empty((0, 3))), axis=0)
    assert reduce(leaf(np.empty((0, 3))), axis=1).shape == (0,)


@pytest.mark.parametrize("reduce", [ops.mean, ops.var, ops.std])
def test_moments_of_nothing_are_nan_with_a_warning(reduce):
    with pytest.warns(RuntimeWarning):
        assert np.isnan(reduce(leaf([])).numpy())


def test_a_variance_without_degrees_of_freedom_is_nan_and_so_is_its_gradient():
    x = leaf([1.0])
    with pytest.warns(RuntimeWarning):
        out = ops.var(x, ddof=1)
    assert np.isnan(out.numpy()) and np.isnan(tinygen.grad(out, x).numpy()).all()


def test_an_axis_that_is_not_there_is_an_error():
    with pytest.raises(InputError, match=r"sum\(float64 \(2,\)\): axis 1 is out of bounds"):
        ops.sum(leaf([1.0, 2.0]), axis=1)
