"""The kernel that adds rows to places of a table, against adding one by one."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

import tinygen
from tinygen import ops
from tinygen.dispatch import definitions_only

numbers = st.floats(-1000, 1000, width=32)


@given(st.data())
def test_gradients_of_looked_up_rows_add_up_in_order_to_the_last_bit(data):
    rows, features = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([0, 1, 3, 16, 33]))
    indices = data.draw(arrays(np.int64, st.integers(0, 40), elements=st.integers(-rows, rows - 1)))
    g = data.draw(arrays(np.float32, (indices.size, features), elements=numbers))
    expected = np.zeros((rows, features), np.float32)
    for i, row in zip(indices, g, strict=True):
        expected[i] += row
    table = tinygen.tensor(np.zeros((rows, features), np.float32), requires_grad=True)
    ops.take(table, indices, 0).backward(g)
    np.testing.assert_array_equal(table.grad, expected)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2, -1]))
def test_scatter_add_is_its_definition_along_every_axis_and_in_every_layout(seed, axis):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, 4, 5)).astype(np.float32)
    indices = rng.integers(-3, 3, (2, 6))
    updates = rng.normal(size=np.take(x, indices, axis).shape).astype(np.float32)
    for a, u in ((x, updates), (x.T.copy().T, updates[..., ::-1]), (x, updates[:1, :1, :1])):
        with definitions_only():
            expected = ops.scatter_add(a, indices, u, axis)
        np.testing.assert_array_equal(ops.scatter_add(a, indices, u, axis), expected)


@pytest.mark.parametrize("index", [5, -6, 2**40])
def test_an_index_outside_the_table_never_reaches_the_kernel(index):
    x = np.zeros((5, 2), np.float32)
    with pytest.raises(IndexError, match="out of bounds"):
        ops.scatter_add(x, np.array([0, index]), np.ones((2, 2), np.float32))


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2, -1]), st.sampled_from([np.int64, np.int16, np.uint8]))
def test_taking_and_adding_along_an_axis_are_their_definitions_whatever_integers_say_where(seed, axis, dtype):
    rng = np.random.default_rng(seed)
    x, shape = rng.normal(size=(3, 4, 5)).astype(np.float32), [3, 4, 5]
    shape[axis] = int(rng.integers(0, 7))
    indices = rng.integers(0 if dtype is np.uint8 else -3, 3, shape).astype(dtype)
    updates = rng.normal(size=shape).astype(np.float32)
    for i, u in ((indices, updates), (indices[::-1], updates[::-1]), (indices[:1], updates[:1])):
        calls = lambda i=i, u=u: (ops.take_along_axis(x, i, axis), ops.add_along_axis(u, i, x.shape, axis))
        with definitions_only():
            expected = calls()
        for found, wanted in zip(calls(), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("index", [5, -6, 2**40])
def test_an_index_outside_an_axis_raises_where_one_takes_and_where_one_adds(index):
    indices = np.zeros((3, 2), np.int64)
    indices[-1, -1] = index
    with pytest.raises(IndexError, match="out of bounds"):
        ops.take_along_axis(np.ones((3, 5), np.float32), indices, 1)
    with pytest.raises(IndexError, match="out of bounds"):
        ops.add_along_axis(np.ones((3, 2), np.float32), indices, (3, 5), 1)
