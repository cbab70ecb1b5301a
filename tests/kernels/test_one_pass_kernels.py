"""Activations, norms and losses: accuracy where float32 is narrow, and the same bits on any number of threads."""

import numba
import numpy as np
import pytest
from scipy.special import expit, log_ndtr, ndtr

import tinygen
from tinygen import ops
from tinygen.autograd import grad
from tinygen.launch.pieces import SHARED

EPS = np.finfo(np.float32).eps
LINE = np.linspace(-30, 30, 60_001).astype(np.float32)
X = LINE.astype(np.float64)
CURVES = {
    "silu": (ops.silu, X * expit(X), expit(X) * (1 + X * (1 - expit(X)))),
    "gelu": (ops.gelu, X * ndtr(X), ndtr(X) + X * np.exp(-(X**2) / 2) / np.sqrt(2 * np.pi)),
    "binary cross-entropy": (lambda x: ops.binary_cross_entropy_with_logits(x, 0 * LINE), np.logaddexp(0, X), expit(X)),
}


@pytest.mark.parametrize("f, values, slopes", CURVES.values(), ids=CURVES.keys())
def test_a_curve_and_its_slope_are_those_of_float64(f, values, slopes):
    x = tinygen.tensor(LINE, requires_grad=True)
    y = f(x)
    np.testing.assert_allclose(y.numpy(), values, rtol=4 * EPS, atol=4 * EPS)
    np.testing.assert_allclose(grad(y.sum(), x).numpy(), slopes, rtol=4 * EPS, atol=4 * EPS)


def test_the_tail_of_gelu_keeps_its_digits_where_one_minus_the_cdf_would_lose_them():
    x = np.linspace(-8, -2, 1001).astype(np.float32)
    exact = x * np.exp(log_ndtr(x.astype(np.float64)))
    np.testing.assert_allclose(ops.gelu(x), exact, rtol=6e-6)  # x^2 / 2 is rounded before exp


@pytest.mark.parametrize("f", [ops.silu, ops.gelu])
def test_infinities_and_nan_come_out_as_the_definition_has_them(f):
    x = np.float32([np.inf, np.nan, -np.inf, 1e30, -1e30])
    np.testing.assert_array_equal(f(x)[[0, 1, 3, 4]], np.float32([np.inf, np.nan, 1e30, 0]))


@pytest.mark.parametrize("offset", [0, 100, -1000])
def test_a_small_variance_beside_a_large_mean_keeps_its_digits(offset):
    x = (np.random.default_rng(0).normal(size=(2, 50, 6)) + offset).astype(np.float32)
    exact = x.astype(np.float64)
    groups = exact.reshape(2, 50, 2, 3)
    spread = np.sqrt(groups.var((1, 3), keepdims=True) + 1e-5)
    expected = (groups - groups.mean((1, 3), keepdims=True)) / spread
    error = 1e-4 if offset else 1e-5  # x itself has digits down to offset * EPS
    np.testing.assert_allclose(ops.group_norm(x, groups=2), expected.reshape(x.shape), atol=error)
    rows = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(ops.layer_norm(x), rows, atol=30 * error)


@pytest.mark.parametrize("width", [1, 3, 24])
def test_the_sums_of_a_large_image_do_not_gather_rounding(width):
    x = np.random.default_rng(0).normal(3, 1, size=(1, 200, 200, width)).astype(np.float32)
    y = ops.group_norm(x, groups=1, eps=0.0).astype(np.float64)
    assert abs(y.mean()) < 1e-6 and abs(y.std() - 1) < 1e-6


# -- threads -------------------------------------------------------------------------------------------------------

rng = np.random.default_rng(0)
normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
SIDE = SHARED // 256  # just enough to be shared
LARGE = {
    "silu": (lambda x: ops.silu(x), [normal(SIDE, 257)]),
    "gelu": (lambda x: ops.gelu(x), [normal(SIDE, 257)]),
    "softmax": (lambda x: ops.softmax(x), [normal(SIDE, 257)]),
    "log_softmax": (lambda x: ops.log_softmax(x), [normal(SIDE, 257)]),
    "layer_norm": (lambda *x: ops.layer_norm(*x), [normal(SIDE, 257), normal(257), normal(257)]),
    "group_norm_silu": (
        lambda *x: ops.group_norm_silu(*x, groups=4),
        [normal(SIDE // 16, 5, 7, 128), normal(128), normal(128), normal(SIDE // 16, 128), normal(1, 128)],
    ),
    "attention": (
        lambda *x: ops.scaled_dot_product_attention(*x, causal=True),
        [normal(SIDE // 8, 70, 8), normal(SIDE // 8, 70, 8), normal(SIDE // 8, 70, 8)],
    ),
}


def value_and_gradients(f, operands):
    leaves = [tinygen.tensor(x, requires_grad=True) for x in operands]
    y = f(*leaves)
    return [y.numpy(), *[g.numpy() for g in grad(y, leaves, np.cos(y.numpy()))]]


@pytest.mark.parametrize("f, operands", LARGE.values(), ids=LARGE.keys())
def test_every_number_of_threads_gives_the_same_bits(f, operands):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("this machine, or NUMBA_NUM_THREADS, has one thread only")
    found = []
    for count in (1, 2, 2):
        numba.set_num_threads(count)
        found.append(value_and_gradients(f, operands))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
