"""Normalising layers: what each makes 0 and 1, what depends on what, and the statistics that BatchNorm keeps."""

import numpy as np
import pytest

import tinygen
from tinygen import nn
from tinygen.errors import InputError
from tinygen.random import Generator

RNG = Generator(0)
X = (RNG.normal((4, 5, 6, 8), dtype=np.float64) * 3 + 2).astype(np.float32)


@pytest.mark.parametrize(
    "layer, axes",
    [
        (nn.LayerNorm(8), -1),
        (nn.GroupNorm(1, 8), (1, 2, 3)),
        (nn.GroupNorm(8, 8), (1, 2)),
        (nn.BatchNorm(8), (0, 1, 2)),
    ],
)
def test_mean_and_variance_become_0_and_1_over_the_axes_of_the_layer(layer, axes):
    y = layer(X).numpy()
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(axes), 1, atol=1e-4)


def test_rms_norm_makes_the_mean_square_1_and_keeps_the_direction():
    y = nn.RMSNorm(8)(X).numpy()
    np.testing.assert_allclose((y**2).mean(-1), 1, atol=1e-4)
    np.testing.assert_allclose(y / X, (y / X)[..., :1] * np.ones(8), rtol=1e-5)


def test_only_batch_norm_mixes_examples_and_only_in_training():
    changed = X.copy()
    changed[1:] += RNG.normal(X[1:].shape)
    alike = lambda layer: np.array_equal(np.asarray(layer(X)[0]), np.asarray(layer(changed)[0]))
    assert all(map(alike, (nn.LayerNorm(8), nn.RMSNorm(8), nn.GroupNorm(2, 8), nn.BatchNorm(8).eval())))
    assert not alike(nn.BatchNorm(8))


def test_running_statistics_come_to_those_of_the_data():
    layer = nn.BatchNorm(3, momentum=0.02)
    mean, deviation = np.float32([1, -2, 0]), np.float32([0.5, 1, 3])
    for _ in range(400):
        layer(RNG.normal((16, 3)) * deviation + mean)
    np.testing.assert_allclose(layer.mean.numpy(), mean, atol=0.3)
    np.testing.assert_allclose(layer.var.numpy(), deviation**2, rtol=0.15)
    y = layer.eval()(RNG.normal((5000, 3)) * deviation + mean).numpy()
    np.testing.assert_allclose(y.std(0), 1, atol=0.1)


def test_momentum_is_the_weight_of_the_new_batch_and_the_running_variance_is_unbiased():
    layer = nn.BatchNorm(8, momentum=0.25)
    layer(X)
    rows = X.reshape(-1, 8)
    np.testing.assert_allclose(layer.mean.numpy(), 0.25 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.var.numpy(), 0.75 + 0.25 * rows.var(0, ddof=1), rtol=1e-5)


def test_running_statistics_move_between_forward_and_backward_of_two_batches():
    layer = nn.BatchNorm(8)
    loss = (layer(X) * X).sum() + (layer(X[:2]) * X[:2]).sum()
    loss.backward()  # the first batch's graph does not hold the buffers that the second moved
    assert np.isfinite(layer.gain.grad).all()
    with tinygen.no_grad():
        before = layer.mean.numpy().copy()
        layer(X)
    assert not np.array_equal(before, layer.mean.numpy())


def test_a_batch_of_one_number_has_no_variance():
    with pytest.raises(InputError, match="two numbers"):
        nn.BatchNorm(3)(np.ones((1, 3), np.float32))
    assert nn.BatchNorm(3).eval()(np.ones((1, 3), np.float32)).shape == (1, 3)


@pytest.mark.parametrize(
    "make",
    [lambda: nn.GroupNorm(3, 8), lambda: nn.GroupNorm(0, 8), lambda: nn.LayerNorm(0), lambda: nn.BatchNorm(4, 1e-5, 2)],
)
def test_what_cannot_be_normalised_is_refused(make):
    with pytest.raises(InputError):
        make()
