"""Convolutional layers: shapes, causality, shifts, and the first weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen import nn
from tinygen.errors import InputError
from tinygen.nn import initialise
from tinygen.random import Generator

RNG = Generator(0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(5, 9))
def test_the_transpose_leads_back_to_the_size_the_convolution_came_from(size, stride, padding, side):
    padding = min(padding, size - 1)
    down = nn.Conv2d(2, 3, size, stride, padding, rng=RNG)
    rest = (side + 2 * padding - size) % stride
    up = nn.ConvTranspose2d(3, 2, size, stride, padding, output_padding=rest, rng=RNG)
    x = RNG.normal((1, side, side, 2))
    y = down(x)
    assert y.shape == (1, *[(side + 2 * padding - size) // stride + 1] * 2, 3) and up(y).shape == x.shape


def test_a_convolution_of_a_shifted_image_is_the_shifted_convolution():
    layer = nn.Conv2d(2, 3, 3, padding=1, rng=RNG)
    x = np.zeros((1, 12, 12, 2), np.float32)
    x[:, 3:7, 3:7] = RNG.normal((1, 4, 4, 2))
    shifted = np.roll(x, (2, 3), axis=(1, 2))
    np.testing.assert_allclose(layer(shifted).numpy(), np.roll(layer(x).numpy(), (2, 3), (1, 2)), atol=1e-6)


def test_padding_on_the_left_alone_makes_a_causal_convolution():
    layer = nn.Conv1d(2, 3, 3, padding=(4, 0), dilation=2, rng=RNG)
    x = RNG.normal((1, 9, 2))
    changed = x.copy()
    changed[:, 5:] += 1
    a, b = layer(x).numpy(), layer(changed).numpy()
    assert a.shape == (1, 9, 3)
    np.testing.assert_array_equal(a[:, :5], b[:, :5])
    assert (a[:, 5:] != b[:, 5:]).all()


@pytest.mark.parametrize("init, groups", [(initialise.lecun_normal, 1), (initialise.lecun_normal, 2)])
def test_lecun_weights_keep_the_variance_of_a_convolution(init, groups):
    layer = nn.Conv2d(32, 32, 3, groups=groups, rng=RNG, weight_init=init)
    assert layer(RNG.normal((16, 12, 12, 32))).numpy().var() == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("size, stride, groups", [(4, 2, 1), (3, 3, 1), (4, 2, 2), (3, 1, 1)])
def test_a_transposed_convolution_doubles_the_variance_whatever_its_stride(size, stride, groups):
    layer = nn.ConvTranspose2d(32, 64, size, stride, groups=groups, rng=RNG)
    inner = layer(RNG.normal((8, 20, 20, 32))).numpy()[:, size:-size, size:-size]
    assert inner.var() == pytest.approx(2, rel=0.15)


def test_a_transposed_convolution_asks_its_initialiser_for_inputs_before_outputs():
    asked = []

    def init(shape, rng):
        asked.append(shape)
        return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)

    layer = nn.ConvTranspose2d(2, 3, 1, rng=RNG, weight_init=init)
    np.testing.assert_array_equal(layer.weight.numpy()[0, 0].T, np.arange(6).reshape(2, 3))
    nn.ConvTranspose2d(4, 6, (2, 3), groups=2, rng=RNG, weight_init=init)
    assert asked == [(1, 1, 2, 3), (2, 3, 2, 6)]


@pytest.mark.parametrize("make", [nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d])
def test_channels_that_do_not_divide_into_groups_are_refused(make):
    for inputs, outputs, groups in ((3, 4, 2), (4, 3, 2), (0, 4, 1), (4, 4, 0)):
        with pytest.raises(InputError, match="groups"):
            make(inputs, outputs, 3, groups=groups, rng=RNG)


@pytest.mark.parametrize("make", [nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d])
def test_a_kernel_without_places_is_refused(make):
    with pytest.raises(InputError, match="size"):
        make(2, 2, 0, rng=RNG)


def test_images_with_other_channels_are_refused_by_name():
    with pytest.raises(InputError, match=r'Conv2d "0"'):
        nn.Sequential(nn.Conv2d(3, 4, 3, rng=RNG))(np.zeros((1, 5, 5, 2), np.float32))
