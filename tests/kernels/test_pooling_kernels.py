"""The kernels of pooling and upsampling against the forwards they stand in for."""

import hypothesis.strategies as st
import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from tinygen import ops
from tinygen.dispatch import definitions_only
from tinygen.errors import ShapeError
from tinygen.kernels.cpu import pooling as kernels

values = st.sampled_from([0.0, 1.0, 1.0, 2.5, -3.0, -np.inf, np.inf, np.nan])  # many are equal


@st.composite
def problems(draw):
    """Images whose numbers repeat, and a window that fits in."""
    size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw(st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = draw(st.sampled_from(["same", "valid", tuple((k // 2, k - 1) for k in size)]))
    n, c = draw(st.integers(0, 3)), draw(st.sampled_from([0, 1, 2, 17]))
    shape = (n, *[k + draw(st.integers(0, 4)) for k in size], c)
    return draw(arrays(np.float32, shape, elements=values)), size, stride, padding


@pytest.mark.parametrize("count", [1, 2])
def test_the_kernel_finds_the_same_maxima_at_the_same_places(count, monkeypatch):
    if count > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("this machine or NUMBA_NUM_THREADS allows one thread only")
    monkeypatch.setattr(kernels, "WORTH_SHARING", 0)

    @given(problems())
    def compare(problem):
        x, *window = problem
        with definitions_only():
            expected = ops.max_pool2d.forward(x, *window)
        reversed_twice = np.ascontiguousarray(x[:, ::-1])[:, ::-1]
        for layout in (x, reversed_twice):
            for got, e in zip(ops.max_pool2d.forward(layout, *window), expected, strict=True):
                assert got.dtype == e.dtype
                np.testing.assert_array_equal(got, e)

    numba.set_num_threads(count)
    compare()


@given(problems(), st.data())
def test_the_gradients_of_both_kinds_of_pooling_are_those_of_the_definition(problem, data):
    x, size, stride, padding = problem
    y, winner = ops.max_pool2d.forward(np.where(np.isfinite(x), x, 0), size, stride, padding)
    g = data.draw(arrays(np.float32, y.shape, elements=values))
    gradients = {
        "max": lambda: ops.max_pool2d_put(g, winner, x.shape, size, stride, padding),
        "average": lambda: ops.avg_pool2d_transpose(g, x.shape, size, stride, padding),
        "average forward": lambda: ops.avg_pool2d(x, size, stride, padding),
    }
    for name, gradient in gradients.items():
        with definitions_only(), np.errstate(invalid="ignore"):
            expected = gradient()
        np.testing.assert_allclose(gradient(), expected, rtol=1e-6, atol=1e-6, err_msg=name)


@given(st.integers(-(2**31), 2**31 - 1), st.sampled_from([np.int32, np.int64, np.uint8]))
def test_numbers_of_places_that_a_window_does_not_have_write_nowhere(number, kind):
    number %= 2**8 if kind is np.uint8 else 2**32
    winner = np.full((2, 2, 3, 5), number, np.int64).astype(kind)
    out = ops.max_pool2d_put(np.ones(winner.shape, np.float32), winner, shape=(2, 4, 6, 5), size=2)
    assert out.sum() == (winner.size if 0 <= winner.flat[0] < 4 else 0)


def test_gradients_of_another_shape_than_the_windows_are_refused():
    y, winner = np.ones((1, 2, 2, 1), np.float32), np.zeros((1, 2, 2, 1), np.int32)
    with pytest.raises(ShapeError, match="take"):
        ops.max_pool2d_put(y, winner, shape=(1, 8, 8, 1), size=2)
    with pytest.raises(ShapeError, match="take"):
        ops.max_pool2d_put(y, winner[:, :1], shape=(1, 4, 4, 1), size=2)
    with pytest.raises(ShapeError, match="take"):
        ops.avg_pool2d_transpose(y, shape=(1, 8, 8, 1), size=2)


images = arrays(np.float32, st.tuples(*[st.integers(0, 3)] * 4), elements=values)


@given(images, st.sampled_from([1, 2, (3, 1), (2, 5)]))
def test_the_gradient_of_nearest_upsampling_is_that_of_the_definition(x, scale):
    y = ops.upsample_nearest(x, scale)
    with definitions_only(), np.errstate(invalid="ignore"):
        expected = ops.upsample_nearest_transpose(y, scale)
    np.testing.assert_allclose(ops.upsample_nearest_transpose(y, scale), expected, rtol=1e-6)
