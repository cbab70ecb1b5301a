"""Spectral and weight normalisation: against the SVD, and as parametrisations that change nothing at first."""

import numpy as np
import pytest

import tinygen
from tinygen import nn, ops
from tinygen.errors import InputError
from tinygen.optim import SGD
from tinygen.random import Generator

RNG = Generator(0)
LAYERS = {
    "Linear": (lambda: nn.Linear(6, 4, rng=RNG), (5, 6), 4),
    "Conv2d": (lambda: nn.Conv2d(3, 4, 3, rng=RNG), (2, 5, 5, 3), 4),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, rng=RNG), (2, 5, 5, 3), 4),
    "Conv1d": (lambda: nn.Conv1d(3, 4, 3, rng=RNG), (2, 5, 3), 4),
}
every_layer = pytest.mark.parametrize("make, shape, outputs", LAYERS.values(), ids=LAYERS.keys())


def matrix(layer, weight):
    """(outputs, the rest), whichever axis counts the outputs."""
    axis = 2 if isinstance(layer, nn.ConvTranspose2d) else -1
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


@every_layer
def test_the_largest_singular_value_of_a_spectrally_normalised_weight_is_one(make, shape, outputs):
    inner = make()
    layer = nn.SpectralNorm(inner, start=100, rng=RNG)
    assert layer.u.shape == (outputs,)
    s = np.linalg.svd(matrix(inner, layer.weight().numpy()), compute_uv=False)
    assert s[0] == pytest.approx(1, abs=1e-5)
    raw = np.linalg.svd(matrix(inner, inner.weight.numpy()), compute_uv=False)
    np.testing.assert_allclose(s, raw / raw[0], rtol=1e-4)


def test_one_power_iteration_a_step_keeps_up_with_a_weight_that_is_trained():
    layer = nn.SpectralNorm(nn.Linear(8, 8, rng=RNG), rng=RNG)
    target = np.diag(np.linspace(0.2, 1.0, 8, dtype=np.float32) ** 2)
    sgd, before = SGD(layer.parameters(), lr=0.2), layer.weight().numpy().copy()
    for _ in range(1000):
        x = RNG.normal((16, 8))
        ops.square(layer(x) - x @ target).mean().backward()
        sgd.step()
        sgd.zero_grad()
    after = layer.weight().numpy()
    assert np.linalg.svd(after, compute_uv=False)[0] == pytest.approx(1, abs=0.01)
    assert np.abs(after - target).max() < 0.1 < np.abs(before - target).max()


def test_a_spectrally_normalised_linear_layer_is_1_lipschitz():
    layer = nn.SpectralNorm(nn.Linear(6, 4, rng=RNG), start=200, rng=RNG).eval()
    a, b = RNG.normal((2, 500, 6))
    moved = np.linalg.norm(layer(a).numpy() - layer(b).numpy(), axis=1)
    assert (moved <= np.linalg.norm(a - b, axis=1) * (1 + 1e-5)).all()


def test_training_iterates_and_evaluation_does_not():
    layer = nn.SpectralNorm(nn.Linear(6, 4, rng=RNG), start=0, rng=RNG)
    x, before = RNG.normal((5, 6)), layer.u.numpy().copy()
    layer.eval()(x)
    np.testing.assert_array_equal(layer.u.numpy(), before)
    layer.train()(x)
    assert not np.array_equal(layer.u.numpy(), before)
    assert np.linalg.norm(layer.u.numpy()) == pytest.approx(1, abs=1e-6)


def test_the_gradient_of_a_converged_spectral_norm_is_that_of_the_svd():
    layer = nn.SpectralNorm(nn.Linear(4, 3, rng=RNG), rng=RNG).to(dtype=np.float64)
    for _ in range(300):
        layer.weight()
    c = RNG.normal((4, 3), dtype=np.float64)
    (layer.eval().weight() * c).sum().backward()
    normalised = lambda w: (w / np.linalg.svd(w, compute_uv=False)[0] * c).sum()
    w, h, expected = layer.layer.weight.numpy().copy(), 1e-6, np.empty((4, 3))
    for i in np.ndindex(4, 3):
        step = np.zeros((4, 3))
        step[i] = h
        expected[i] = (normalised(w + step) - normalised(w - step)) / (2 * h)
    np.testing.assert_allclose(layer.layer.weight.grad, expected, atol=1e-7)


def test_one_layer_may_be_called_twice_before_backward_as_a_critic_is():
    layer = nn.SpectralNorm(nn.Linear(6, 1, rng=RNG), rng=RNG)
    real, fake = RNG.normal((2, 5, 6))
    (layer(fake).mean() - layer(real).mean()).backward()
    assert np.abs(layer.layer.weight.grad).max() > 0


def test_a_gradient_penalty_goes_through_a_spectrally_normalised_layer():
    layer = nn.SpectralNorm(nn.Linear(3, 1, rng=RNG), rng=RNG).to(dtype=np.float64).eval()
    x = tinygen.tensor(RNG.normal((4, 3), dtype=np.float64), requires_grad=True)
    (g,) = tinygen.grad(ops.tanh(layer(x)).sum(), [x], create_graph=True)
    ops.square(g).sum().backward()
    assert np.isfinite(layer.layer.weight.grad).all() and np.abs(layer.layer.weight.grad).max() > 0


def test_a_weight_of_zeros_stays_one():
    layer = nn.SpectralNorm(nn.Linear(3, 2, rng=RNG, weight_init=nn.initialise.zeros), rng=RNG)
    y = layer(np.ones((1, 3), np.float32))
    y.sum().backward()
    assert not y.numpy().any() and np.isfinite(layer.layer.weight.grad).all()


@every_layer
def test_weight_norm_changes_nothing_at_first_and_its_gain_is_the_length(make, shape, outputs):
    inner, x = make(), RNG.normal(shape)
    layer = nn.WeightNorm(inner)
    np.testing.assert_allclose(layer(x).numpy(), inner(x).numpy(), atol=1e-5)
    layer.gain.data = np.arange(1, outputs + 1)
    lengths = np.linalg.norm(matrix(inner, layer.weight().numpy()), axis=1)
    np.testing.assert_allclose(lengths, np.arange(1, outputs + 1), rtol=1e-5)


def test_the_length_of_the_direction_does_not_matter_and_its_gradient_is_orthogonal():
    layer = nn.WeightNorm(nn.Linear(6, 4, rng=RNG)).to(dtype=np.float64)
    x, v = RNG.normal((5, 6), dtype=np.float64), layer.layer.weight
    before = layer(x).numpy()
    v.data = v.numpy() * 7.0
    np.testing.assert_allclose(layer(x).numpy(), before, rtol=1e-12)
    ops.square(layer(x)).sum().backward()
    np.testing.assert_allclose((v.grad * v.numpy()).sum(0), 0, atol=1e-12)


def test_the_wrapped_layer_keeps_its_own_weight_and_the_wrapper_saves_it():
    inner = nn.Linear(3, 2, rng=RNG)
    weight = inner.weight
    layer = nn.WeightNorm(inner)
    layer(np.ones((1, 3), np.float32))
    assert inner.weight is weight and list(layer.state_dict()) == ["layer.weight", "layer.bias", "gain"]


def test_an_error_inside_names_the_wrapper():
    model = nn.Sequential(nn.SpectralNorm(nn.Linear(3, 2, rng=RNG), rng=RNG))
    with pytest.raises(InputError, match=r'SpectralNorm "0"'):
        model(np.ones((1, 4), np.float32))


def test_what_has_no_weight_or_no_direction_is_refused():
    with pytest.raises(InputError, match="no weight"):
        nn.WeightNorm(nn.LayerNorm(3))
    with pytest.raises(InputError, match="no weight"):
        nn.SpectralNorm(nn.MLP([2, 2], rng=RNG), rng=RNG)
    with pytest.raises(InputError, match="no direction"):
        nn.WeightNorm(nn.Linear(3, 2, rng=RNG, weight_init=nn.initialise.zeros))
