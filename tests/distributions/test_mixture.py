import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

import tinygen
from tinygen.data import GaussianMixture, eight_gaussians
from tinygen.distributions import Laplace, Mixture, MultivariateNormal, Normal
from tinygen.errors import InputError, ShapeError
from tinygen.random import Generator

weights = np.array([0.2, 0.5, 0.3])
means, stds = np.array([-2.0, 0.5, 3.0]), np.array([0.5, 1.0, 2.0])
three = Mixture(np.log(weights), Normal(means, stds))


def test_the_density_is_the_weighted_sum_and_integrates_to_one():
    x = np.linspace(-6, 9, 31)
    np.testing.assert_allclose(np.exp(three.log_prob(x)), stats.norm.pdf(x[:, None], means, stds) @ weights)
    assert integrate.quad(lambda x: np.exp(three.log_prob(x)), -20, 30, points=means)[0] == pytest.approx(1)


def test_moments_are_the_integrals_and_the_cdf_that_of_the_density():
    moment = lambda f: integrate.quad(lambda x: np.exp(three.log_prob(x)) * f(x), -20, 30, points=means)[0]
    assert three.mean == pytest.approx(moment(lambda x: x))
    assert three.variance == pytest.approx(moment(lambda x: (x - three.mean) ** 2))
    below = integrate.quad(lambda x: np.exp(three.log_prob(x)), -20, 1, points=means[:2])[0]
    assert three.cdf(np.array(1.0)) == pytest.approx(below)


def test_samples_follow_the_cdf():
    x = three.sample(Generator(0), 20_000)
    assert x.shape == (20_000,) and stats.kstest(x, three.cdf).pvalue > 0.01


@settings(max_examples=25)
@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 4))
def test_a_mixture_of_gaussians_is_the_exact_one_of_the_toy_data(seed, d, modes):
    rng = np.random.default_rng(seed)
    mu, std, w = rng.normal(size=(modes, d)), rng.uniform(0.3, 2, modes), rng.dirichlet(np.ones(modes))
    exact, x = GaussianMixture(mu, std, w), rng.normal(size=(7, d))
    axes = Mixture(np.log(w), Normal(mu, std[:, None], event=1))
    vectors = Mixture(np.log(w), MultivariateNormal(mu, std[:, None, None] * np.eye(d)))
    for mixture in (axes, vectors):
        np.testing.assert_allclose(mixture.log_prob(x), exact.log_prob(x))
        x_tensor = tinygen.tensor(x, requires_grad=True)
        (score,) = tinygen.grad(mixture.log_prob(x_tensor).sum(), [x_tensor])
        np.testing.assert_allclose(score.numpy(), exact.score(x), rtol=1e-6, atol=1e-9)


def test_samples_in_the_plane_are_those_of_the_toy_data():
    exact = eight_gaussians()
    x = Mixture(np.zeros(8), Normal(exact.means, exact.std[:, None], event=1)).sample(Generator(0), 20_000)
    y = exact.sample(20_000, Generator(1))
    assert x.shape == y.shape
    for direction in [(1, 0), (0, 1), (0.6, 0.8)]:
        assert stats.ks_2samp(x @ direction, y @ direction).pvalue > 0.01


def test_the_posterior_is_bayes_rule():
    x = np.linspace(-6, 9, 5)
    joint = weights * stats.norm.pdf(x[:, None], means, stds)
    np.testing.assert_allclose(three.posterior(x), joint / joint.sum(-1, keepdims=True))


def test_the_gradients_are_those_of_finite_differences():
    x = np.array([[0.3], [-4.0]])
    tinygen.gradcheck(lambda l, m, s: Mixture(l, Normal(m, s)).log_prob(x), np.log(weights), means, stds)
    tinygen.gradcheck(lambda l, m, s: Mixture(l, Laplace(m, s)).cdf(x), np.log(weights), means, stds)
    tinygen.gradcheck(lambda l, m, s: Mixture(l, Normal(m, s)).std, np.log(weights), means, stds)


def test_far_out_and_with_a_weight_of_zero_nothing_is_nan():
    logits = tinygen.tensor([0.0, -np.inf], requires_grad=True)
    loc = tinygen.tensor([0.0, 1.0], requires_grad=True)
    mixture = Mixture(logits, Normal(loc, 1))
    log_p = mixture.log_prob([0.0, 1e4, np.inf])
    np.testing.assert_allclose(log_p.numpy(), [-0.5 * np.log(2 * np.pi), -5e7, -np.inf], rtol=1e-6)
    grads = tinygen.grad(mixture.log_prob([0.0, 1e4]).sum(), [logits, loc])
    assert np.isfinite([g.numpy() for g in grads]).all() and grads[1].numpy()[1] == 0


@pytest.mark.parametrize("logits, loc, event", [((3,), (3,), 0), ((4, 3), (3,), 1), ((3,), (5, 4, 3), 2)])
def test_every_pixel_can_have_a_mixture_of_its_own(logits, loc, event):
    rng = Generator(0)
    l, m = rng.normal(logits), rng.normal(loc)
    mixture = Mixture(l, Normal(m, 1), event=event)
    shape = np.broadcast_shapes(logits, loc)[:-1]
    x = mixture.sample(rng, 6)
    assert mixture.shape == shape and x.shape == (6, *shape) and x.dtype == np.float32
    parts = stats.norm.logpdf(x[..., None], m) + special.log_softmax(l, -1)
    axes = tuple(range(-event, 0))
    np.testing.assert_allclose(mixture.log_prob(x), special.logsumexp(parts, -1).sum(axes), rtol=1e-4)
    if loc == (3,) and event:  # components that are shared are drawn from anew in every place
        assert len(np.unique(x)) == x.size


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: Mixture(np.zeros(3), Normal(np.zeros(2), 1)), ShapeError, "do not broadcast"),
        (lambda: Mixture(np.zeros(3), Normal(0, 1)), ShapeError, "must end in the K of the logits"),
        (lambda: Mixture(np.zeros(3), Normal(np.zeros(3), 1, event=1)), ShapeError, "less the axes of their events"),
        (lambda: Mixture(np.zeros((4, 3)), Normal(np.zeros((1, 3)), 1)), ShapeError, "must not need repeating"),
        (lambda: Mixture(np.zeros(2), [Normal(), Normal()]), InputError, "must be one distribution, not list"),
        (lambda: Mixture(np.zeros(1), Normal(np.zeros((1, 2)), 1, event=1)).cdf(np.zeros(2)), InputError, "vectors"),
    ],
)
def test_what_does_not_fit_together_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
