"""Convolutions against their definition, written as loops, and against torch where it is installed."""

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


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch, with which this test compares, is not installed")


def torchs_images(images):
    """(N, H, W, C) as torch has it."""
    return images.permute(0, 3, 1, 2).contiguous()


def torchs_kernel(kernel):
    """(KH, KW, C, D) as torch has it; contiguous, because its gradient by the kernel refuses anything else."""
    return kernel.permute(3, 2, 0, 1).contiguous()


def by_definition(x, w, stride, pads, dilation, groups):
    """The sum in the docstring of tinygen.ops.convolution, one output pixel and group at a time."""
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    spans = [d * (k - 1) + 1 for k, d in zip(w.shape, dilation)]
    steps = [(n - s) // t + 1 for n, s, t in zip(x.shape[1:3], spans, stride)]
    c, d = w.shape[2], w.shape[3] // groups
    y = np.zeros((len(x), *steps, w.shape[3]))
    for i, j in np.ndindex(*steps):
        top, left = i * stride[0], j * stride[1]
        seen = x[:, top : top + spans[0] : dilation[0], left : left + spans[1] : dilation[1]]
        for k in range(groups):
            part = np.tensordot(seen[..., k * c : (k + 1) * c], w[..., k * d : (k + 1) * d], 3)
            y[:, i, j, k * d : (k + 1) * d] = part
    return y


@st.composite
def problems(draw, symmetric=False):
    """Images, kernel, stride, pads, dilation and groups that fit together."""
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))
    groups, c, d, n = (draw(st.integers(1, 3)) for _ in range(4))
    size, stride, dilation, more = pair(1, 4), pair(1, 3), pair(1, 3), pair(0, 5)
    pads = tuple((p, p) for p in pair(0, 3)) if symmetric else (pair(0, 3), pair(0, 3))
    image = [max(1, s * (k - 1) + 1 - sum(p)) + m for s, k, p, m in zip(dilation, size, pads, more)]
    values = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x, w = values.standard_normal((n, *image, c * groups)), values.standard_normal((*size, c, d * groups))
    return x, w, {"stride": stride, "padding": pads, "dilation": dilation, "groups": groups}


@given(problems())
def test_conv2d_is_its_definition(problem):
    x, w, params = problem
    y = ops.conv2d(x, w, **params)
    pads = params.pop("padding")
    np.testing.assert_allclose(y, by_definition(x, w, pads=pads, **params), rtol=1e-10, atol=1e-10)


@given(problems(symmetric=True))
def test_conv2d_and_both_its_gradients_are_torchs(torch, problem):
    x, w, params = problem
    leaves = [tinygen.tensor(a, requires_grad=True) for a in (x, w)]
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, w)]
    y = ops.conv2d(*leaves, **params)
    ops.sum(ops.sin(y)).backward()
    images, kernel = torchs_images(theirs[0]), torchs_kernel(theirs[1])
    out = torch.nn.functional.conv2d(images, kernel, **params | {"padding": [p for p, _ in params["padding"]]})
    out.sin().sum().backward()
    np.testing.assert_allclose(y.numpy(), out.permute(0, 2, 3, 1).detach().numpy(), rtol=1e-10, atol=1e-10)
    for mine, other in zip(leaves, theirs):
        np.testing.assert_allclose(mine.grad, other.grad.numpy(), rtol=1e-10, atol=1e-10)


@given(problems(symmetric=True), st.data())
def test_conv_transpose2d_is_torchs(torch, problem, data):
    x, w, params = problem
    y = rng.standard_normal((*x.shape[:3], w.shape[3]))
    more = tuple(data.draw(st.integers(0, s - 1)) for s in params["stride"])
    spans = [d * (k - 1) + 1 for k, d in zip(w.shape, params["dilation"])]
    sides = [(i - 1) * t + s - sum(p) for i, t, s, p in zip(y.shape[1:], params["stride"], spans, params["padding"])]
    if min(sides) < 1:  # torch refuses sides that output_padding alone makes positive
        return
    out = torch.nn.functional.conv_transpose2d(
        torchs_images(torch.tensor(y)),
        torchs_kernel(torch.tensor(w)),
        output_padding=more,
        **params | {"padding": [p for p, _ in params["padding"]]},
    )
    mine = ops.conv_transpose2d(y, w, output_padding=more, **params)
    np.testing.assert_allclose(mine, out.permute(0, 2, 3, 1).numpy(), rtol=1e-10, atol=1e-10)


@given(st.data())
def test_the_three_convolutions_are_transposes_of_one_another(data):
    """<y, conv2d(x, w)> = <x, conv_transpose2d(y, w)> = <w, conv2d_weight_gradient(x, y)>."""
    (y, w), params = REGISTRY["conv_transpose2d"].inputs(HypothesisDraw(data))
    shared = {name: value for name, value in params.items() if name != "output_padding"}
    back = ops.conv_transpose2d(y, w, **params)
    x = rng.standard_normal(back.shape)
    product = np.sum(y * ops.conv2d(x, w, **shared))
    assert np.sum(x * back) == pytest.approx(product, rel=1e-12, abs=1e-12)
    by_kernel = ops.conv2d_weight_gradient(x, y, w.shape[:2], **shared)
    assert np.sum(w * by_kernel) == pytest.approx(product, rel=1e-12, abs=1e-12)


def test_a_long_batch_is_worked_off_in_pieces_with_the_same_result(monkeypatch):
    x, w = rng.standard_normal((7, 5, 5, 3)), rng.standard_normal((3, 3, 3, 4))
    y = ops.conv2d(x, w, padding=1)
    run = lambda: [y, ops.conv_transpose2d(y, w, padding=1), ops.conv2d_weight_gradient(x, y, 3, padding=1)]
    whole = run()
    monkeypatch.setattr("tinygen.ops.convolution._CHUNK", 2 * 5 * 5 * 9 * 3)  # two images
    for a, b in zip(whole, run(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(ops.conv2d(x, w, padding=1), y, rtol=1e-13, atol=1e-13)


def test_a_1x1_convolution_is_a_matrix_product_over_the_channels():
    x, w = rng.standard_normal((2, 4, 5, 3)), rng.standard_normal((1, 1, 3, 6))
    np.testing.assert_allclose(ops.conv2d(x, w), x @ w[0, 0], rtol=1e-13)


@pytest.mark.parametrize("side", range(1, 8))
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_gives_one_pixel_for_every_stride_begun(side, stride):
    y = ops.conv2d(np.ones((1, side, side, 1)), np.ones((3, 4, 1, 1)), stride=stride, padding="same", dilation=2)
    assert y.shape == (1, -(-side // stride), -(-side // stride), 1)


def test_what_is_odd_of_same_padding_goes_to_the_bottom_and_right():
    x = np.arange(12.0).reshape(1, 3, 4, 1)
    y = ops.conv2d(x, np.ones((2, 2, 1, 1)), padding="same")
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    np.testing.assert_array_equal(y, padded[:, 1:, 1:] + padded[:, 1:, :-1] + padded[:, :-1, 1:] + padded[:, :-1, :-1])


def test_same_and_valid_padding_are_torchs_with_stride_1(torch):
    x, w = rng.standard_normal((2, 7, 6, 2)), rng.standard_normal((5, 3, 2, 5))
    for padding in ("same", "valid"):
        mine = ops.conv2d(x, w, padding=padding)
        images, kernel = torchs_images(torch.tensor(x)), torchs_kernel(torch.tensor(w))
        out = torch.nn.functional.conv2d(images, kernel, padding=padding)
        np.testing.assert_allclose(mine, out.permute(0, 2, 3, 1).numpy(), rtol=1e-10, atol=1e-10)


@given(problems(symmetric=True))
def test_conv1d_is_torchs(torch, problem):
    x, w, params = problem
    x, w, groups = x[:, :, 0], w[:, 0], params["groups"]
    stride, padding, dilation = (params[name][0] for name in ("stride", "padding", "dilation"))
    mine = ops.conv1d(x, w, stride, padding, dilation, groups)
    sequences, kernel = (torch.tensor(a).permute(*axes) for a, axes in [(x, (0, 2, 1)), (w, (2, 1, 0))])
    out = torch.nn.functional.conv1d(sequences, kernel, None, stride, padding[0], dilation, groups)
    np.testing.assert_allclose(mine, out.permute(0, 2, 1).numpy(), rtol=1e-10, atol=1e-10)


def test_a_causal_conv1d_does_not_see_the_future():
    x, w = rng.standard_normal((1, 9, 2)), rng.standard_normal((3, 2, 4))
    before = ops.conv1d(x, w, padding=(4, 0), dilation=2)
    x[:, 5:] += 1
    after = ops.conv1d(x, w, padding=(4, 0), dilation=2)
    assert before.shape == (1, 9, 4)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).all()
    tinygen.gradcheck(lambda x, w: ops.conv1d(x, w, padding=(4, 0), dilation=2), x, w)


def test_an_empty_batch_goes_through_forward_and_backward():
    x, w = (tinygen.tensor(np.ones(shape), requires_grad=True) for shape in [(0, 4, 4, 2), (3, 3, 2, 5)])
    y = ops.conv2d(x, w)
    assert y.shape == (0, 2, 2, 5)
    y.sum().backward()
    assert x.grad.shape == x.shape
    np.testing.assert_array_equal(w.grad, 0)


IMAGES, KERNEL = (2, 8, 8, 4), (3, 3, 4, 6)


@pytest.mark.parametrize(
    ("x", "w", "params", "rule"),
    [
        ((8, 8, 4), KERNEL, {}, "give images (N, H, W, channels) and a kernel (KH, KW, C / groups, D)"),
        ((2, 8, 8, 3), KERNEL, {}, "the images have 3 channels, the kernel and groups=1 ask for 4"),
        (IMAGES, KERNEL, {"groups": 2}, "the images have 4 channels, the kernel and groups=2 ask for 8"),
        (IMAGES, (3, 3, 1, 6), {"groups": 4}, "the kernel's D = 6 channels cannot be divided into 4 groups"),
        (IMAGES, (3, 9, 4, 6), {}, "the window is 9 wide (dilation included), the padded image only 8"),
        (IMAGES, KERNEL, {"dilation": (4, 1)}, "the window is 9 high (dilation included), the padded image only 8"),
        (IMAGES, KERNEL, {"stride": 0}, "stride must be an integer >= 1 or a pair of them, not 0"),
        (IMAGES, KERNEL, {"padding": -1}, "padding must be an integer >= 0 or a pair of them, not -1"),
        (IMAGES, KERNEL, {"padding": "full"}, "padding must be \"same\", \"valid\" or integers, not 'full'"),
        (IMAGES, KERNEL, {"groups": 0}, "groups must be an integer >= 1, not 0"),
    ],
)
def test_what_does_not_fit_is_explained(x, w, params, rule):
    with pytest.raises(InputError) as caught:
        ops.conv2d(np.zeros(x, np.float32), np.zeros(w, np.float32), **params)
    assert str(caught.value).startswith(f"conv2d(float32 {x}, float32 {w}): {rule}.")


@pytest.mark.parametrize(
    ("params", "rule"),
    [
        ({"output_padding": 1}, r"output_padding 1 must be less than the stride \(1, 1\)"),
        ({"padding": 5}, r"nothing is left of the result, whose \(H, W\) would be \(0, 0\)"),
        ({"padding": "same"}, 'padding="same" leaves the size that comes out open'),
    ],
)
def test_a_transposed_convolution_without_a_size_is_explained(params, rule):
    with pytest.raises(InputError, match=rule):
        ops.conv_transpose2d(np.zeros((2, 8, 8, 6)), np.zeros((3, 3, 4, 6)), **params)


def test_a_conv1d_of_images_is_explained():
    with pytest.raises(ShapeError, match=r"conv1d\(float64 \(2, 8, 8, 4\), .*give \(N, T, C\)"):
        ops.conv1d(np.zeros(IMAGES), np.zeros((3, 4, 6)))
