"""Truths about flows: they invert, and their log-determinant is that of the Jacobian that the engine computes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen
from tinygen import optim
from tinygen.describe import describe, rebuild
from tinygen.distributions import MultivariateNormal
from tinygen.errors import InputError
from tinygen.models import IAF, MAF, Composition, Glow, RealNVP, SplineFlow
from tinygen.models.flow import Inverse
from tinygen.models.glow import ActNorm, InvertibleLinear
from tinygen.models.maf import MaskedAutoregressive, MaskedMLP
from tinygen.models.realnvp import AffineCoupling
from tinygen.models.spline import SplineCoupling, inverse_rational_quadratic, knots, rational_quadratic
from tinygen.nn import MLP, Conv2d
from tinygen.plotting import grid
from tinygen.random import Generator

FAMILIES = [RealNVP, Glow, MAF, IAF, SplineFlow]
GRID = grid((-3.0, 3.0, -3.0, 3.0), 120)


def shaken(flow, seed=1, scale=0.3, dtype=np.float64):
    """The flow with every parameter moved off its first value: most begin as the identity, where much is true."""
    rng = Generator(seed)
    for p in flow.parameters():
        p.data = p.numpy() + np.float32(scale) * rng.normal(p.shape)
    return flow.to(dtype=dtype)


def small(family, features=3, seed=0, scale=0.3, dtype=np.float64):
    """A flow of few layers; splines are shaken less, as they soon have places too flat to tell points apart."""
    scale = 0.2 * scale if family is SplineFlow else scale
    return shaken(family(features, 3, width=8, rng=Generator(seed)), seed, scale, dtype)


def jacobians(f, x):
    """d f(x)_n / d x_n of each example n, (N, D, D)."""
    return np.stack([tinygen.jacobian(lambda row: f(row[None])[0], row).numpy() for row in x])


# -- every family ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [2, 3, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_inverse_undoes_the_flow_both_ways(family, features):
    flow, x = small(family, features), 2 * Generator(2).normal((50, features), np.float64)
    np.testing.assert_allclose(flow.inverse(flow(x)[0]).numpy(), x, atol=1e-9)
    np.testing.assert_allclose(flow(flow.inverse(x))[0].numpy(), x, atol=1e-9)


@pytest.mark.parametrize("features", [2, 3, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_log_determinant_is_that_of_the_engines_jacobian(family, features):
    flow, x = small(family, features), 2 * Generator(3).normal((6, features), np.float64)
    exact = np.linalg.slogdet(jacobians(lambda x: flow(x)[0], x)).logabsdet
    np.testing.assert_allclose(flow(x)[1].numpy(), exact, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_integrates_to_one(family):
    flow, x = small(family, 2, seed=4, scale=0.1), grid((-10.0, 10.0, -10.0, 10.0), 200).reshape(-1, 2)
    with tinygen.no_grad():
        mass = sum(np.exp(flow.log_prob(part).numpy()).sum() for part in np.array_split(x, 10)) * 0.1**2
    assert mass == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_stays_float32_and_its_round_trips_within_a_hundred_thousandth(family):
    flow, x = small(family, 2, scale=0.05, dtype=np.float32), Generator(1).normal((500, 2))
    z, log_det = flow(x)
    back = flow.inverse(z).numpy()
    assert back.dtype == z.dtype == log_det.dtype == np.float32
    np.testing.assert_allclose(back, x, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flow_begins_by_keeping_areas_and_training_brings_its_loss_to_the_entropy(family):
    rng, data = Generator(0), MultivariateNormal([1.0, -1.0], [[1.0, 0.0], [0.8, 0.6]])
    flow = family(2, 2, width=16, rng=rng)
    x = data.sample(rng, (256,)).astype(np.float32)
    np.testing.assert_allclose(np.abs(np.linalg.det(jacobians(lambda x: flow(x)[0], x[:5]))), 1, atol=1e-4)
    flow.initialise(x)
    optimiser, losses = optim.Adam(flow.parameters(), lr=3e-2, schedule=optim.cosine(120)), []
    for _ in range(120):
        loss = flow.loss(data.sample(rng, (128,)).astype(np.float32))
        loss.backward()
        assert all(p.grad is not None and p.grad.dtype == np.float32 for p in flow.parameters())
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    entropy = np.log(2 * np.pi * np.e * 0.6)
    assert entropy - 0.1 < np.mean(losses[-30:]) < entropy + 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_are_noise_carried_back_and_have_the_density_that_the_flow_says(family):
    flow = small(family, 2, scale=0.1, dtype=np.float32)
    x = flow.sample(4000, Generator(5))
    assert x.shape == (4000, 2) and x.dtype == np.float32
    with tinygen.no_grad():
        z = flow(x)[0].numpy()
        np.testing.assert_allclose(z, Generator(5).normal((4000, 2)), atol=1e-3)
        said = np.exp(flow.log_prob(GRID.reshape(-1, 2).astype(np.float32)).numpy()).reshape(GRID.shape[:2])
    shares = np.histogram2d(*x.T, bins=np.arange(-3, 3.5))[0].T / 4000
    expected = 0.05**2 * said.reshape(6, 20, 6, 20).sum((1, 3))
    assert np.abs(shares - expected).max() < 5 * np.sqrt(0.25 * 0.3 / 4000)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_way_from_noise_to_data_is_the_inverse_layer_by_layer(family):
    flow, z = small(family, 2, dtype=np.float32), Generator(0).normal((10, 2))
    way = list(flow.unfolding(z))
    assert len(way) == len(flow.layers) + 1
    np.testing.assert_array_equal(way[0], z)
    np.testing.assert_array_equal(way[-1], flow.inverse(z).numpy())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flow_is_made_again_from_its_description_and_its_weights(family):
    flow = family(2, 2, width=8, rng=Generator(0))
    again = rebuild(json.loads(json.dumps(describe(flow))), weights=10_000)
    again.load_state_dict(shaken(flow, dtype=np.float32).state_dict())
    np.testing.assert_array_equal(flow.sample(20, Generator(1)), again.sample(20, Generator(1)))


# -- couplings ---------------------------------------------------------------------------------------------------------


def test_a_coupling_keeps_what_the_mask_says_bit_by_bit():
    flow, x = small(RealNVP, 4, dtype=np.float32), Generator(1).normal((20, 4))
    for i, layer in enumerate(flow.layers):
        np.testing.assert_array_equal(layer(x)[0].numpy()[:, (i + 1) % 2 :: 2], x[:, (i + 1) % 2 :: 2])


def test_a_coupling_of_images_takes_a_chessboard_and_a_convolution():
    board = np.indices((4, 4)).sum(0)[..., None] % 2
    net = Conv2d(2, 4, 3, padding=1, rng=Generator(0))
    first, mix, last = AffineCoupling(net, board), InvertibleLinear(2, rng=Generator(1)), AffineCoupling(net, 1 - board)
    flow = shaken(Composition([first, ActNorm(2), mix, last], shape=(4, 4, 2)), scale=0.1)
    x = Generator(2).normal((3, 4, 4, 2), np.float64)
    z, log_det = flow(x)
    np.testing.assert_allclose(flow.inverse(z).numpy(), x, atol=1e-10)
    exact = [np.linalg.slogdet(j.reshape(32, 32)).logabsdet for j in jacobians(lambda x: flow(x)[0], x)]
    np.testing.assert_allclose(log_det.numpy(), exact, atol=1e-10)
    assert flow.log_prob(x).shape == (3,) and flow.to(dtype=np.float32).sample(2, Generator(0)).shape == (2, 4, 4, 2)


# -- Glow --------------------------------------------------------------------------------------------------------------


def test_the_first_batch_sets_every_actnorm_to_mean_0_and_variance_1():
    flow, x = small(Glow, 3, dtype=np.float32), 5 + 3 * Generator(1).normal((400, 3))
    flow.initialise(x)
    with tinygen.no_grad():
        for layer in flow.layers:
            x, _ = layer(x)
            if isinstance(layer, ActNorm):
                values = x.numpy()
                np.testing.assert_allclose(values.mean(0), 0, atol=1e-4)
                np.testing.assert_allclose(values.std(0), 1, atol=1e-4)


def test_a_mixing_matrix_begins_as_a_rotation_and_never_becomes_singular():
    layer = InvertibleLinear(4, rng=Generator(0))
    w = layer.weight().numpy()
    np.testing.assert_allclose(w @ w.T, np.eye(4), atol=1e-6)
    w = shaken(layer, scale=2.0).weight().numpy()
    assert np.linalg.slogdet(w).logabsdet == pytest.approx(layer.log_s.numpy().sum())


# -- autoregressive flows ----------------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(st.permutations(range(1, 6)), st.integers(0, 100))
def test_mu_and_alpha_of_a_feature_depend_on_exactly_the_features_before_it(order, seed):
    order = np.array(order)
    made = shaken(MaskedMLP(order, 16, rng=Generator(seed)), seed)
    j = jacobians(made, Generator(seed).normal((1, 5), np.float64))[0].reshape(2, 5, 5)
    before = order[None, :] < order[:, None]
    assert np.all((np.abs(j) > 0) == before)


def test_an_inverse_autoregressive_flow_is_the_inverse_of_the_autoregressive_one():
    maf, iaf, x = small(MAF), small(IAF), Generator(0).normal((20, 3), np.float64)
    reverse = Composition(maf.layers[::-1], shape=(3,))
    np.testing.assert_allclose(iaf.inverse(x).numpy(), reverse(x)[0].numpy())
    np.testing.assert_allclose(iaf(x)[0].numpy(), reverse.inverse(x).numpy())


def test_one_direction_takes_one_pass_of_the_network_and_the_other_one_for_each_feature():
    layer, passes = MaskedAutoregressive(np.arange(1, 8), 8, rng=Generator(0)), []
    made = layer.made.forward
    layer.made.forward = lambda x: passes.append(1) or made(x)
    x = Generator(0).normal((5, 7))
    for calls, run in {1: layer, 7: layer.inverse}.items():
        passes.clear()
        run(x)
        assert len(passes) == calls
    passes.clear()
    Inverse(layer).inverse(x)
    assert len(passes) == 1


# -- splines -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(2, 24), st.floats(0.1, 4), st.floats(0.5, 10), st.integers(0, 1000))
def test_a_curve_rises_from_corner_to_corner_and_is_the_identity_outside(bins, scale, bound, seed):
    raw = scale * Generator(seed).normal((1, 3 * bins - 1), np.float64)
    x = np.linspace(-1.5 * bound, 1.5 * bound, 601)
    z, log_slope = rational_quadratic(x, np.broadcast_to(raw, (601, 3 * bins - 1)), bound)
    assert np.all(np.diff(z) > 0)
    outside = np.abs(x) >= bound
    np.testing.assert_array_equal(z[outside], x[outside])
    np.testing.assert_array_equal(log_slope[outside], 0)
    back = inverse_rational_quadratic(z, np.broadcast_to(raw, (601, 3 * bins - 1)), bound)
    np.testing.assert_allclose((back - x) * np.exp(log_slope), 0, atol=1e-12 * bound)


@settings(max_examples=20)
@given(st.integers(2, 24), st.floats(0.1, 3), st.integers(0, 1000))
def test_in_float32_too_the_inverse_is_as_good_as_the_numbers_it_is_given(bins, scale, seed):
    rng = Generator(seed)
    raw, x = np.float32(scale) * rng.normal((500, 3 * bins - 1)), rng.uniform((500,), -5, 5)
    z, log_slope = rational_quadratic(x, raw, 5.0)
    back = inverse_rational_quadratic(z, raw, 5.0)
    assert z.dtype == back.dtype == log_slope.dtype == np.float32
    np.testing.assert_allclose((back - x) * np.minimum(np.exp(log_slope), 1), 0, atol=2e-5)


def test_the_slope_of_a_curve_is_the_derivative_also_at_its_knots():
    raw = Generator(3).normal((1, 14), np.float64)
    sizes, corners, slopes = knots(raw, 5.0)
    at = np.append(corners[0, 0], 5.0 - 1e-12)
    z, log_slope = rational_quadratic(at, np.repeat(raw, len(at), axis=0), 5.0)
    np.testing.assert_allclose(np.exp(log_slope), slopes[0], atol=1e-9)
    np.testing.assert_allclose(z, np.append(corners[0, 1], 5.0), atol=1e-9)
    np.testing.assert_allclose(sizes.sum(-1), 10.0)


def test_all_zeros_draw_the_diagonal():
    x = np.linspace(-6, 6, 50)
    z, log_slope = rational_quadratic(x, np.zeros((50, 29)), 5.0)
    np.testing.assert_allclose(z, x, atol=1e-12)
    np.testing.assert_allclose(log_slope, 0, atol=1e-9)


def test_the_gradient_of_a_curve_and_of_its_inverse_is_that_of_finite_differences():
    raw, x = Generator(1).normal((6, 11), np.float64), Generator(2).uniform((6,), -3, 3, np.float64)
    tinygen.gradcheck(lambda x, raw: rational_quadratic(x, raw, 5.0)[0], x, raw)
    tinygen.gradcheck(lambda x, raw: rational_quadratic(x, raw, 5.0)[1], x, raw)
    tinygen.gradcheck(lambda z, raw: inverse_rational_quadratic(z, raw, 5.0), x, raw)


# -- faults ------------------------------------------------------------------------------------------------------------


def test_wrong_settings_are_explained():
    rng = Generator(0)
    with pytest.raises(InputError, match="zeros .moved. and ones .kept."):
        AffineCoupling(MLP([2, 4], rng=rng), np.ones(2))
    with pytest.raises(InputError, match="needs 2 features or more"):
        RealNVP(1, rng=rng)
    with pytest.raises(InputError, match="order must hold each of 1 to D once"):
        MaskedAutoregressive([1, 1], 8, rng=rng)
    with pytest.raises(InputError, match="bins 2 to 500"):
        SplineCoupling(None, 2, bins=1, bound=5.0)
    with pytest.raises(InputError, match="at least one layer"):
        Composition([], shape=(2,))
