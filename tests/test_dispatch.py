"""The table of kernels: what it lets through to them, and the switch."""

import os
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes

from tinygen.dispatch import KERNELS, definitions_only, find
from tinygen.launch.rows import rows_along, rows_back

X = np.zeros((2, 3), np.float32)


def test_a_kernel_is_found_for_float32_arrays():
    assert find("softmax", [X], {"axis": -1}) is KERNELS["softmax", "numpy"]
    for labels in (np.array([0, 2]), np.array([0, 2], np.uint8)):
        assert find("cross_entropy", [X, labels], {}) is KERNELS["cross_entropy", "numpy"]


REFUSED = {
    "an op without a kernel": ("exp", [X], {}),
    "float64": ("softmax", [X.astype(np.float64)], {"axis": -1}),
    "another byte order": ("softmax", [X.astype(np.dtype(np.float32).newbyteorder())], {"axis": -1}),
    "integers": ("softmax", [X.astype(int)], {"axis": -1}),
    "a number": ("softmax", [1.0], {"axis": -1}),
    "no axis": ("softmax", [np.float32(1) * np.ones((), np.float32)], {"axis": -1}),
    "an axis outside": ("softmax", [X], {"axis": 2}),
    "several axes": ("softmax", [X], {"axis": (0, 1)}),
    "no labels": ("cross_entropy", [X, None], {}),
    "float labels": ("cross_entropy", [X, np.zeros(2, np.float32)], {}),
    "boolean labels": ("cross_entropy", [X, np.zeros(2, bool)], {}),
    "labels of another shape": ("cross_entropy", [X, np.zeros((2, 1), int)], {}),
    "a label too large": ("cross_entropy", [X, np.array([0, 3])], {}),
    "a label that wraps around": ("cross_entropy", [X, np.array([0, 2**64 - 1], np.uint64)], {}),
    "a negative label": ("cross_entropy", [X, np.array([0, -1])], {}),
    "labels without classes": ("cross_entropy", [X[:, :0], np.array([0, 0])], {}),
    "logits without an axis": ("cross_entropy", [X[0, 0, ...], np.array(0)], {}),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
def test_what_a_kernel_was_not_written_for_is_left_to_the_definition(call):
    assert find(*call) is None


@given(array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5), st.data())
def test_rows_run_along_the_axis_and_are_put_back(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    rows = rows_along(x, axis)
    assert rows.flags.c_contiguous and rows.ndim == 2 and rows.shape[1] == shape[axis]
    if x.size:
        np.testing.assert_array_equal(rows[0], np.moveaxis(x, axis, -1)[(0,) * (x.ndim - 1)])
    np.testing.assert_array_equal(rows_back(rows, shape, axis), x)


def test_definitions_only_nests_and_ends_with_an_error():
    found = lambda: find("softmax", [X], {"axis": -1}) is not None
    assert found()
    with definitions_only():
        with definitions_only():
            assert not found()
        assert not found()
    assert found()
    with pytest.raises(KeyError), definitions_only():
        raise KeyError
    assert found()

    @definitions_only()
    def decorated():
        return found()

    assert not decorated() and found()


def test_a_misspelt_setting_is_refused_rather_than_guessed():
    env = {**os.environ, "TINYGEN_KERNELS": "of"}
    done = subprocess.run([sys.executable, "-c", "import tinygen"], env=env, capture_output=True, text=True)
    assert done.returncode != 0
    assert 'TINYGEN_KERNELS is "of" in the environment; it must be "on" or "off".' in done.stderr
