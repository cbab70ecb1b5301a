"""The kernel of matrix products against NumPy's, which is the definition, and whose threads own the cores."""

import hypothesis.strategies as st
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from layouts import misaligned, read_only, scattered

from tinygen import dispatch, ops, tensor
from tinygen.dispatch import definitions_only
from tinygen.errors import ShapeError
from tinygen.kernels.cpu import matmul as kernels
from tinygen.ops import linear

EPS = np.finfo(np.float32).eps


@pytest.fixture(params=[1, 2])
def thread_count(request, monkeypatch):
    """With so many threads; small products go to the kernel, are cut into blocks and shared out too."""
    if request.param > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("this machine or NUMBA_NUM_THREADS allows one thread only")
    for name, value in {"_MATRICES": 1, "_VECTORS": 1, "_OUTER": 1}.items():
        monkeypatch.setattr(linear, name, value)
    monkeypatch.setattr(kernels, "WORTH_SHARING", 0)
    numba.set_num_threads(request.param)
    return request.param


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def turned(x):
    return np.swapaxes(np.ascontiguousarray(np.swapaxes(x, -1, -2)), -1, -2) if x.ndim > 1 else x


layouts = st.sampled_from([np.asarray, turned, scattered, misaligned, read_only])


@st.composite
def products(draw):
    """Vectors, matrices and batches of them that broadcast; sides of 0, 1, few and many."""
    side = st.sampled_from([0, 1, 1, 2, 3, 5, 17, 40, 200])
    m, k, n = draw(side), draw(side), draw(side)
    batch = draw(st.lists(st.integers(0, 3), max_size=2))
    fewer = lambda: [draw(st.sampled_from([side, 1])) for side in batch][draw(st.integers(0, 2)) :]
    seed = draw(st.integers(0, 2**32 - 1))
    a = normal(*draw(st.sampled_from([(k,), (m, k), (*fewer(), m, k)])), seed=seed)
    b = normal(*draw(st.sampled_from([(k,), (k, n), (*fewer(), k, n)])), seed=seed + 1)
    return draw(layouts)(a), draw(layouts)(b)


def bound(a, b):
    """What rounding may do to sums of a.shape[-1] products."""
    return (4 * np.sqrt(a.shape[-1]) + 4) * EPS * np.matmul(np.abs(a), np.abs(b)).astype(np.float64)


@settings(max_examples=150)
@given(products())
def assert_the_kernel_equals_numpy(operands):
    a, b = operands
    exact = np.matmul(a.astype(np.float64), b.astype(np.float64))
    got = ops.matmul(a, b)
    assert got.shape == exact.shape and got.dtype == np.float32
    assert np.all(np.abs(got - exact) <= bound(a, b))


def test_products_equal_numpys_for_any_shape_layout_and_number_of_threads(thread_count):
    assert_the_kernel_equals_numpy()


def test_products_cut_into_many_blocks_equal_numpys(thread_count):
    for m, k, n in [(2000, 40, 30), (30, 2000, 40), (40, 30, 2000), (300, 300, 300), (70, 20_000, 24), (1, 900, 700)]:
        for a in (normal(m, k), turned(normal(m, k))):
            for b in (normal(k, n, seed=1), turned(normal(k, n, seed=1))):
                assert np.all(np.abs(ops.matmul(a, b) - a.astype(np.float64) @ b) <= bound(a, b))


def test_one_thread_and_two_agree_to_rounding_and_a_run_repeats_its_bits():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("this machine or NUMBA_NUM_THREADS allows one thread only")
    wide = normal(40, 300, 200), normal(200, 100)
    for a, b in [(normal(3000, 80), normal(80, 90)), (normal(9000, 60).T, normal(9000, 50)), wide]:
        results = []
        for count in (1, 2):
            numba.set_num_threads(count)
            results.append(ops.matmul(a, b))
            for _ in range(3):
                np.testing.assert_array_equal(ops.matmul(a, b), results[-1])
        np.testing.assert_allclose(*results, rtol=0, atol=1e-5 * np.abs(results[0]).max())


def test_large_products_and_their_gradients_come_to_the_kernel_and_small_ones_do_not(monkeypatch):
    ran, instead = [], dispatch.instead

    def watched(name, *operands):
        kernel = instead(name, *operands)
        return kernel and (lambda *args: (ran.append(tuple(x.shape for x in operands)), kernel(*args))[1])

    monkeypatch.setattr(dispatch, "instead", watched)
    a, b = tensor(normal(128, 64), requires_grad=True), tensor(normal(64, 96), requires_grad=True)
    (a @ b).sum().backward()
    assert ran == [((128, 64), (64, 96)), ((128, 96), (96, 64)), ((64, 128), (128, 96))]
    ran.clear()
    small = tensor(normal(32, 64), requires_grad=True)
    (small @ b).sum().backward()
    ops.matmul(a.numpy().astype(np.float64), b.numpy().astype(np.float64))
    with definitions_only():
        ops.matmul(a.numpy(), b.numpy())
    assert not ran


def test_large_operands_that_do_not_chain_are_refused_as_small_ones_are():
    for shapes in [((800, 900), (800, 900)), ((2, 300, 400), (3, 400, 500)), ((9999,), (9998,)), ((), (9999,))]:
        with pytest.raises(ShapeError):
            ops.matmul(*[normal(*shape) for shape in shapes])
