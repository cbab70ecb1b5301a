"""Truths about variational autoencoders, shown where the likelihood that they bound can be computed."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen import ops, optim
from tinygen.describe import describe, rebuild
from tinygen.distributions import MultivariateNormal, Normal
from tinygen.errors import InputError, ShapeError
from tinygen.metrics import importance_weighted_bound
from tinygen.models import VAE
from tinygen.nn import MLP, Sequential
from tinygen.random import Generator

# -- a linear-Gaussian model, whose likelihood and posterior are normal ------------------------------------------------

W = np.array([[1.0, 1.0, 0.5], [1.0, -1.0, 0.0]])  # orthogonal rows: the posterior's covariance is diagonal
B = np.array([0.3, -0.2, 1.0])
NOISE = 0.7
PRECISION = 1 + np.sum(W**2, axis=1) / NOISE**2
MARGINAL = MultivariateNormal(B, np.linalg.cholesky(W.T @ W + NOISE**2 * np.eye(3)))


class LinearGaussian(VAE):
    """p(x|z) = N(z W + b, noise^2 I), with an encoder that is off the true posterior by as much as is asked for."""

    def __init__(self, shift=0.0, stretch=0.0, **options):
        posterior = lambda x: (x - B) @ W.T / NOISE**2 / PRECISION
        log_std = -0.5 * np.log(PRECISION) + stretch
        encoder = lambda x: np.concatenate([posterior(x) + shift, np.broadcast_to(log_std, (len(x), 2))], axis=1)
        super().__init__(encoder, lambda z: z @ W + B, latent=2, **options)

    def decode(self, z):
        return Normal(self.decoder(z), NOISE, event=1)


X = MARGINAL.sample(Generator(0), (4,))


def test_with_the_true_posterior_every_draw_weighs_the_likelihood_and_the_bound_is_tight():
    log_w = LinearGaussian().log_weights(X, 50, Generator(1))
    np.testing.assert_allclose(log_w, np.broadcast_to(MARGINAL.log_prob(X), (50, 4)), rtol=1e-10)


@settings(max_examples=10)
@given(st.floats(-1, 1), st.floats(-1, 0.5), st.integers(0, 100))
def test_the_elbo_falls_short_by_the_divergence_from_the_true_posterior(shift, stretch, seed):
    model, draws = LinearGaussian(shift, stretch), 4000
    log_w = model.log_weights(X, draws, Generator(seed))
    variance = np.exp(2 * stretch)  # of q relative to the posterior's
    gap = np.sum(0.5 * (variance - 1) - stretch + 0.5 * shift**2 * PRECISION)
    error = log_w.std(0) / np.sqrt(draws) + 1e-9
    np.testing.assert_array_less(np.abs(log_w.mean(0) + gap - MARGINAL.log_prob(X)), 5 * error)


def test_reconstruction_less_divergence_is_the_mean_log_weight():
    model, draws = LinearGaussian(0.3, 0.2), 20_000
    many = np.repeat(X[:1], draws, axis=0)
    reconstruction, divergence = model.elbo(many, Generator(2))
    log_w = model.log_weights(X[:1], draws, Generator(3))[:, 0]
    error = np.hypot(reconstruction.std(), log_w.std()) / np.sqrt(draws)
    assert abs((reconstruction - divergence).mean() - log_w.mean()) < 5 * error


def test_the_divergence_in_closed_form_is_that_of_sampling():
    model, draws = LinearGaussian(0.5, -0.3), 50_000
    _, divergence = model.elbo(X, Generator(4))
    q = model.encode(X)
    z = q.sample(Generator(5), (draws,))
    sampled = q.log_prob(z) - model.prior.log_prob(z)
    np.testing.assert_array_less(np.abs(sampled.mean(0) - divergence), 5 * sampled.std(0) / np.sqrt(draws))


# -- three pixels and one latent, whose likelihood is an integral over a line ------------------------------------------

PATTERNS = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], np.float64)
LINE = np.linspace(-8, 8, 2001)[:, None]


def tiny(seed=0, dtype=np.float64, **options):
    rng = Generator(seed)
    model = VAE(MLP([3, 5, 2], rng=rng), MLP([1, 5, 3], rng=rng), latent=1, **options)
    model.encoder[-1].weight.data *= 0.2  # q stays so near the prior that no draw outweighs all others
    return model.to(dtype=dtype)


def likelihoods(model):
    """p(x) of all eight images: the integral of p(z) p(x|z), by the trapezoidal rule."""
    joint = [model.decode(LINE).log_prob(x).numpy() + model.prior.log_prob(LINE) for x in PATTERNS]
    return np.exp(joint).sum(axis=1) * (LINE[1, 0] - LINE[0, 0])


@pytest.mark.parametrize("seed", range(3))
def test_the_likelihood_sums_to_one_over_all_images(seed):
    assert likelihoods(tiny(seed)).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_rises_with_k_from_the_elbo_to_the_log_likelihood(seed):
    model, rng, exact = tiny(seed), Generator(seed), np.log(likelihoods(tiny(seed)))
    log_w = model.log_weights(PATTERNS, 2**16, rng).numpy()
    bounds = {}
    for k in (1, 4, 16, 256):
        each = np.logaddexp.reduce(log_w.reshape(-1, k, 8), axis=1) - np.log(k)
        bounds[k] = each.mean(0)
        assert np.all(bounds[k] < exact + 4 * each.std(0) / np.sqrt(len(each)))
    assert bounds[1].mean() < bounds[4].mean() < bounds[16].mean() < bounds[256].mean()
    np.testing.assert_allclose(np.logaddexp.reduce(log_w, axis=0) - np.log(len(log_w)), exact, atol=0.02)
    bound = importance_weighted_bound(lambda c: model.log_weights(PATTERNS, c, rng), k=2000)
    np.testing.assert_allclose(bound.per_example, exact, atol=0.1)


def test_samples_come_as_often_as_the_likelihood_says():
    model, n = tiny(1, np.float32), 40_000
    counts = np.bincount(model.sample(n, Generator(0)).astype(int) @ [4, 2, 1], minlength=8)
    expected = n * likelihoods(tiny(1))
    assert np.sum((counts - expected) ** 2 / expected) < 24.3  # chi-squared, 7 degrees of freedom, p = 0.001


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"beta": 3.0}, {"k": 4}])
def test_the_gradient_through_the_draw_is_that_of_finite_differences(options):
    model, h = tiny(2, **options), 1e-5
    model.loss(PATTERNS, Generator(7)).backward()
    for p in model.parameters():
        direction, start = Generator(8).normal(p.shape, np.float64), p.numpy().copy()
        losses = []
        for sign in (1, -1):
            p.data = start + sign * h * direction
            losses.append(model.loss(PATTERNS, Generator(7)).item())
        p.data = start
        assert np.sum(p.grad * direction) == pytest.approx((losses[0] - losses[1]) / (2 * h), rel=1e-5, abs=1e-9)


def test_beta_weighs_the_divergence_and_k_tightens_the_bound():
    reconstruction, divergence = tiny().elbo(PATTERNS, Generator(1))
    for beta in (0.0, 1.0, 4.0):
        loss = tiny(beta=beta).loss(PATTERNS, Generator(1)).item()
        assert loss == pytest.approx(np.mean(beta * divergence.numpy() - reconstruction.numpy()))
    bound = tiny().bound(PATTERNS, 5, Generator(1))
    assert tiny(k=5).loss(PATTERNS, Generator(1)).item() == pytest.approx(-bound.numpy().mean())


def test_training_brings_the_elbo_near_the_entropy_of_what_there_is_to_learn():
    rng = Generator(3)
    images = (rng.uniform((2, 4, 4, 1)) < 0.5).astype(np.float32)  # two images, equally likely: log 2 nats
    flat, square = lambda x: x.reshape(-1, 16), lambda y: y.reshape(-1, 4, 4, 1)
    model = VAE(Sequential(flat, MLP([16, 32, 2], rng=rng)), Sequential(MLP([1, 32, 16], rng=rng), square), latent=1)
    optimiser, losses = optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(300):
        loss = model.loss(images[rng.integers(2, 64)], rng)
        loss.backward()
        assert all(p.grad is not None and p.grad.dtype == np.float32 for p in model.parameters())
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert np.log(2) < np.mean(losses[-50:]) < 3 * np.log(2)  # pixel by pixel it takes 12 log 2
    found = model.sample(200, rng)
    assert found.shape == (200, 4, 4, 1) and found.dtype == np.float32
    assert np.mean([(x == images).all(axis=(1, 2, 3)).any() for x in found]) > 0.5  # by chance, 2 of 65,536


# -- shapes, files, faults ---------------------------------------------------------------------------------------------


def test_shapes_are_those_of_the_encoder_and_the_decoder():
    model, rng = tiny(), Generator(0)
    assert model.encode(PATTERNS).shape == (8, 1)
    assert model.decode(np.zeros((6, 4, 1))).shape == (6, 4, 3)
    assert model.log_weights(PATTERNS, 5, rng).shape == (5, 8)
    assert [part.shape for part in model.elbo(PATTERNS, rng)] == [(8,), (8,)]
    assert model.bound(PATTERNS, 5, rng).shape == (8,)
    means = model.means(np.zeros((2, 4, 1)))
    assert means.shape == (2, 4, 3) and means.min() > 0 and means.max() < 1
    samples = tiny(dtype=np.float32).sample(50, rng)
    assert samples.shape == (50, 3) and samples.dtype == np.float32 and set(np.unique(samples)) == {0, 1}


def test_a_model_is_made_again_from_its_description_and_its_weights():
    rng = Generator(0)
    model = VAE(MLP([3, 5, 4], ops.tanh, rng=rng), MLP([2, 5, 3], ops.tanh, rng=rng), latent=2, beta=2.0)
    again = rebuild(json.loads(json.dumps(describe(model))), weights=1000)
    again.load_state_dict(model.state_dict())
    assert again.beta == 2.0
    np.testing.assert_array_equal(model.sample(20, Generator(1)), again.sample(20, Generator(1)))


@pytest.mark.parametrize("options", [{"latent": 0}, {"k": 0}, {"beta": -1.0}, {"beta": float("nan")}])
def test_impossible_settings_are_explained(options):
    with pytest.raises(InputError, match="latent and k must be at least 1 and beta at least 0"):
        VAE(None, None, **{"latent": 1, **options})


def test_beta_and_k_exclude_each_other():
    with pytest.raises(InputError, match="beta = 2.0 weighs the KL, but the bound of k = 5 draws has none"):
        tiny(beta=2.0, k=5)


def test_an_encoder_of_the_wrong_width_is_told_what_is_needed():
    model = VAE(MLP([3, 3], rng=Generator(0)), MLP([2, 3], rng=Generator(0)), latent=2)
    with pytest.raises(ShapeError, match=r"shape \(8, 3\); each needs 4 numbers"):
        model.loss(PATTERNS.astype(np.float32), Generator(0))
