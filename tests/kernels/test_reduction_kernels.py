"""Reductions and dropout by kernel, against NumPy in float64 and against their definitions."""

import hypothesis.strategies as st
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.special import logsumexp

from tinygen import ops
from tinygen.dispatch import definitions_only
from tinygen.launch import dropout, reductions

EPS = np.finfo(np.float32).eps
sides = st.lists(st.one_of(st.integers(1, 5), st.integers(6, 70)), min_size=1, max_size=3)


@st.composite
def cases(draw):
    """An array that may have a large mean, and neighbouring axes of it."""
    shape = draw(sides)
    first = draw(st.integers(0, len(shape) - 1))
    axes = tuple(range(first, draw(st.integers(first, len(shape) - 1)) + 1))
    x = np.random.default_rng(draw(st.integers(0, 2**32))).normal(draw(st.sampled_from([0, 30])), 1, shape)
    return x.astype(np.float32), axes


@settings(max_examples=150, deadline=None)
@given(cases(), st.booleans())
def test_sums_variances_and_log_sum_exps_are_those_of_float64(case, keepdims):
    x, axes = case
    exact = x.astype(np.float64)
    size = np.abs(exact).sum(axes, keepdims=keepdims)
    assert np.all(np.abs(reductions.sum(x, axes, keepdims) - exact.sum(axes, keepdims=keepdims)) <= 4 * EPS * size)
    spread = reductions.var(x, axes, keepdims, ddof=0)
    np.testing.assert_allclose(spread, exact.var(axes, keepdims=keepdims), rtol=1e-5, atol=1e-9 * np.max(exact) ** 2)
    logs = reductions.logsumexp(x, axes, keepdims)
    if axes[-1] == x.ndim - 1:
        np.testing.assert_allclose(logs, logsumexp(exact, axes, keepdims=keepdims), rtol=4 * EPS, atol=8 * EPS)
    elif x.shape[axes[-1] + 1 :] != (1,) * (x.ndim - 1 - axes[-1]):
        assert logs is None


@pytest.mark.parametrize("shape, axes", [((300, 400), 0), ((300, 400), -1), ((40, 20, 300), 1), ((50, 3, 700), (0, 1))])
def test_a_large_array_is_reduced_by_kernel_and_equals_the_definition(shape, axes):
    x = np.random.default_rng(0).normal(3, 1, shape).astype(np.float32)
    for f in (ops.sum, ops.mean, ops.var, ops.logsumexp):
        with definitions_only():
            expected = f(x.astype(np.float64), axes)
        assert f(x, axes).dtype == np.float32
        np.testing.assert_allclose(f(x, axes), expected, rtol=2e-6)
    with pytest.raises(Exception, match="axis 3 is out of bounds"):
        ops.sum(x, 3 if x.ndim < 4 else 9)


def test_a_log_sum_exp_of_infinities_and_nan_is_what_the_definition_says():
    rows = np.zeros((9, 2048), np.float32)
    rows[0] = -np.inf
    rows[1, 5] = np.inf
    rows[2, 5], rows[2, 9] = np.inf, -np.nan
    rows[3, 7] = np.nan
    rows[4] = 1e30
    with definitions_only(), np.errstate(invalid="ignore"):
        expected = ops.logsumexp(rows, -1)
    np.testing.assert_allclose(ops.logsumexp(rows, -1), expected, rtol=2 * EPS)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 50), max_size=3), st.floats(0, 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)
)
def test_dropout_drops_the_same_elements_by_kernel_and_by_definition(shape, rate, seed, counter):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with definitions_only():
        expected = ops.dropout(x, rate, (seed, counter))
    np.testing.assert_array_equal(dropout.dropout(np.array(x), rate, (seed, counter)), expected)
    np.testing.assert_array_equal(ops.dropout(x, rate, (seed, counter)), expected)


def test_dropout_that_threads_share_is_the_same_stream():
    x = np.ones((700, 411), np.float32)
    with definitions_only():
        expected = ops.dropout(x, 0.3, (2**63 + 1, 5))
    np.testing.assert_array_equal(ops.dropout(x, 0.3, (2**63 + 1, 5)), expected)


large = lambda *shape: np.random.default_rng(0).normal(1, 1, shape).astype(np.float32)
SHARED = {
    "sum over the first axis": lambda: ops.sum(large(5000, 70), 0),
    "sum over all": lambda: ops.sum(large(5000, 70)),
    "variance over the middle": lambda: ops.var(large(50, 300, 40), 1),
    "batch norm": lambda: ops.batch_norm(large(70, 9, 9, 64))[0],
    "dropout": lambda: ops.dropout(large(5000, 70), 0.2, (1, 2)),
}


@pytest.mark.parametrize("f", SHARED.values(), ids=SHARED.keys())
def test_one_thread_and_two_give_the_same_bits(f):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("this machine, or NUMBA_NUM_THREADS, has one thread only")
    found = []
    for count in (1, 2):
        numba.set_num_threads(count)
        found.append(f())
    np.testing.assert_array_equal(*found)
