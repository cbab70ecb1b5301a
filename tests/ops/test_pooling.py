"""Pooling and upsampling against torch where it is installed, and what the docstrings promise."""

import hypothesis.strategies as st
import numpy as np
import pytest
from drawing import HypothesisDraw
from hypothesis import given

import tinygen
from tinygen import ops
from tinygen.errors import DtypeError, ShapeError
from tinygen.registry import REGISTRY

rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch, with which this test compares, is not installed")


@st.composite
def poolings(draw):
    """Images and a window that fits in; torch allows at most half of the window as padding."""
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))
    size, stride, more = pair(1, 4), pair(1, 4), pair(0, 5)
    padding = tuple(draw(st.integers(0, k // 2)) for k in size)
    shape = (draw(st.integers(1, 3)), *[k + m for k, m in zip(size, more)], draw(st.integers(1, 3)))
    x = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).standard_normal(shape)
    return x, {"size": size, "stride": draw(st.sampled_from([stride, None])), "padding": padding}


@pytest.mark.parametrize("name", ["avg_pool2d", "max_pool2d"])
@given(problem=poolings())
def test_pooling_and_its_gradient_are_torchs(torch, name, problem):
    x, params = problem
    leaf, other = tinygen.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = getattr(ops, name)(leaf, **params)
    ops.sum(ops.sin(y)).backward()
    function = getattr(torch.nn.functional, name)
    out = function(other.permute(0, 3, 1, 2), params["size"], params["stride"], params["padding"])
    out.sin().sum().backward()
    np.testing.assert_allclose(y.numpy(), out.permute(0, 2, 3, 1).detach().numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(leaf.grad, other.grad.numpy(), rtol=1e-10, atol=1e-10)


@given(st.data())
def test_average_pooling_is_a_grouped_convolution_with_equal_weights(data):
    (x,), params = REGISTRY["avg_pool2d"].inputs(HypothesisDraw(data))
    size, c = np.broadcast_to(params["size"], 2), x.shape[-1]
    stride = params["size"] if params["stride"] is None else params["stride"]
    w = np.full((*size, 1, c), 1 / np.prod(size))
    expected = ops.conv2d(x, w, stride=stride, padding=params["padding"], groups=c)
    np.testing.assert_allclose(ops.avg_pool2d(x, **params), expected, rtol=1e-12, atol=1e-14)


@given(st.data())
def test_max_pooling_is_the_maximum_of_each_window(data):
    (x,), params = REGISTRY["max_pool2d"].inputs(HypothesisDraw(data))
    params["padding"] = 0
    size = np.broadcast_to(params["size"], 2)
    stride = size if params["stride"] is None else np.broadcast_to(params["stride"], 2)
    windows = np.lib.stride_tricks.sliding_window_view(x, size, (1, 2))[:, :: stride[0], :: stride[1]]
    np.testing.assert_array_equal(ops.max_pool2d(x, **params), windows.max((-2, -1)))


def test_of_equal_maxima_the_first_gets_the_whole_gradient():
    x = tinygen.tensor(np.ones((1, 2, 4, 1)), requires_grad=True)
    ops.max_pool2d(x, 2).sum().backward()
    np.testing.assert_array_equal(x.grad[0, :, :, 0], [[1, 0, 1, 0], [0, 0, 0, 0]])


def test_the_maximum_of_a_window_with_a_nan_is_nan():
    x = np.zeros((1, 2, 4, 1))
    x[0, 0, 0] = np.nan
    np.testing.assert_array_equal(ops.max_pool2d(x, 2)[0, 0, :, 0], [np.nan, 0])


def test_max_pooling_of_integers_is_explained():
    with pytest.raises(DtypeError, match=r"max_pool2d\(int64 \(1, 2, 2, 1\)\): max_pool2d takes floats"):
        ops.max_pool2d(np.zeros((1, 2, 2, 1), int), 2)


@pytest.mark.parametrize("scale", [1, 2, 3, (2, 1), (1, 4)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling_is_torchs(torch, mode, scale):
    x = rng.standard_normal((2, 3, 5, 4))
    corners = None if mode == "nearest" else False
    scales = tuple(map(float, np.broadcast_to(scale, 2)))
    images = torch.tensor(x).permute(0, 3, 1, 2)
    out = torch.nn.functional.interpolate(images, scale_factor=scales, mode=mode, align_corners=corners)
    mine = getattr(ops, f"upsample_{mode}")(x, scale)
    np.testing.assert_allclose(mine, out.permute(0, 2, 3, 1).numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("upsample", [ops.upsample_nearest, ops.upsample_bilinear])
def test_upsampling_keeps_constants_and_float32_and_differentiates(upsample):
    x = tinygen.tensor(np.full((2, 3, 4, 2), 0.7, np.float32), requires_grad=True)
    y = upsample(x, (2, 3))
    assert y.shape == (2, 6, 12, 2) and y.dtype == np.float32
    np.testing.assert_allclose(y.numpy(), 0.7, rtol=1e-6)
    tinygen.gradcheck(lambda x: upsample(x, (2, 3)), rng.standard_normal((2, 3, 4, 2)))


def test_bilinear_upsampling_continues_a_slope_exactly_inside():
    ramp = np.arange(5.0).reshape(1, 1, 5, 1) * np.ones((1, 3, 1, 1))
    row = ops.upsample_bilinear(ramp, 2)[0, 2, :, 0]
    np.testing.assert_allclose(row[1:-1], np.arange(8) * 0.5 + 0.25, rtol=1e-14)
    assert (row[0], row[-1]) == (0, 4)


@pytest.mark.parametrize("pool", [ops.avg_pool2d, ops.max_pool2d])
def test_a_window_that_does_not_fit_is_explained(pool):
    with pytest.raises(ShapeError, match="the window is 5 wide .* the padded image only 4"):
        pool(np.zeros((1, 6, 4, 1)), 5)
    with pytest.raises(ShapeError, match="some windows would see nothing of the image"):
        pool(np.zeros((1, 6, 4, 1)), 2, padding=2)
    with pytest.raises(ShapeError, match=r"give images \(N, H, W, C\)"):
        pool(np.zeros((6, 4, 1)), 2)
    for size in (2**63, 2**31, (2**20, 2)):
        with pytest.raises(ShapeError, match="larger than any image"):
            pool(np.zeros((1, 6, 4, 1), np.float32), size, padding="same")
