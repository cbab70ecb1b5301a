"""The kernel of max pooling against the forward it stands in for."""

import hypothesis.strategies as st
import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from tinygen import ops
from tinygen.dispatch import definitions_only
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
    before = numba.get_num_threads()
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

    try:
        numba.set_num_threads(count)
        compare()
    finally:
        numba.set_num_threads(before)
