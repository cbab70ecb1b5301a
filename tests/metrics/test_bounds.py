import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import multivariate_normal

import tinygen
from tinygen.errors import InputError
from tinygen.metrics import active_units, elbo, importance_weighted_bound
from tinygen.random import Generator


class LinearGaussian:
    """z ~ N(0, I), x = W z + sigma eps: the posterior and log p(x) are known."""

    def __init__(self, d=3, latents=2, n=40, sigma=0.5):
        rng = Generator(0)
        self.w, self.sigma = rng.normal((d, latents), np.float64), sigma
        self.cov = self.w @ self.w.T + sigma**2 * np.eye(d)
        self.x = rng.normal((n, latents), np.float64) @ self.w.T + sigma * rng.normal((n, d), np.float64)
        self.log_p = multivariate_normal(np.zeros(d), self.cov).logpdf(self.x)
        self.spread = np.linalg.inv(np.eye(latents) + self.w.T @ self.w / sigma**2)
        self.mean = self.x @ self.w @ self.spread / sigma**2

    def log_weights(self, rng, widen=1.0, shift=0.0):
        """log p(x, z) - log q(z|x) under the posterior, its covariance widened and its mean shifted."""
        root = np.linalg.cholesky(widen * self.spread)

        def draw(c):
            eps = rng.normal((c, *self.mean.shape), np.float64)
            z = self.mean + shift + eps @ root.T
            log_q = -np.sum(eps**2, -1) / 2 - np.log(np.diag(root)).sum()  # the factors 2 pi of q and p(z) cancel
            log_prior = -np.sum(z**2, -1) / 2
            noise = (self.x - z @ self.w.T) / self.sigma
            log_x = -np.sum(noise**2 + np.log(2 * np.pi * self.sigma**2), -1) / 2
            return log_prior + log_x - log_q

        return draw


MODEL = LinearGaussian()


@pytest.mark.parametrize("k, chunk", [(1, 1), (7, 3), (100, 1000)])
def test_under_the_exact_posterior_every_bound_is_the_marginal_likelihood(k, chunk):
    bound = importance_weighted_bound(MODEL.log_weights(Generator(0)), k, chunk)
    np.testing.assert_allclose(bound.per_example, MODEL.log_p, atol=1e-10)
    np.testing.assert_allclose(bound.effective_samples, k)
    assert bound.value == pytest.approx(MODEL.log_p.mean()) and bound.elbo == pytest.approx(bound.value)
    assert bound.error == pytest.approx(MODEL.log_p.std(ddof=1) / np.sqrt(40))


def test_under_another_posterior_the_bound_rises_to_the_marginal_likelihood():
    bounds = [importance_weighted_bound(MODEL.log_weights(Generator(0), 1.5, 0.3), k) for k in (1, 10, 100, 5000)]
    values = [bound.value for bound in bounds]
    assert values == sorted(values) and values[0] < MODEL.log_p.mean() - 0.3
    assert values[-1] == pytest.approx(MODEL.log_p.mean(), abs=0.02)


def test_the_elbo_falls_short_by_the_divergence_of_the_posteriors():
    # KL of N(m + c, v S) from N(m, S) in L dimensions: (L (v - 1 - log v) + c S^-1 c) / 2
    widen, shift = 1.5, 0.3
    gap = (2 * (widen - 1 - np.log(widen)) + shift**2 * np.linalg.inv(MODEL.spread).sum()) / 2
    found = elbo(MODEL.log_weights(Generator(0), widen, shift), k=4000, chunk=500)
    assert found == pytest.approx(MODEL.log_p.mean() - gap, abs=0.02)


@given(arrays(np.float64, (12, 3), elements=st.floats(-50, 50)), st.integers(1, 15), st.floats(-1e5, 1e5))
def test_no_chunk_and_no_scale_changes_the_bound(log_w, chunk, scale):
    rows = iter(log_w + scale)
    bound = importance_weighted_bound(lambda c: np.stack([next(rows) for _ in range(c)]), 12, chunk)
    np.testing.assert_allclose(bound.per_example - scale, np.log(np.exp(log_w).mean(0)), atol=1e-9)
    assert bound.elbo - scale == pytest.approx(log_w.mean(), abs=1e-9)
    effective = np.exp(log_w).sum(0) ** 2 / np.exp(2 * log_w).sum(0)
    np.testing.assert_allclose(bound.effective_samples, effective, rtol=1e-6)


def test_no_more_than_a_chunk_is_asked_for_at_once_and_k_in_all():
    asked = []
    importance_weighted_bound(lambda c: asked.append(c) or np.zeros((c, 2)), k=1000, chunk=300)
    assert asked == [300, 300, 300, 100]


def test_tensors_are_taken_and_nothing_is_recorded():
    w = tinygen.tensor([0.5, -1.0], requires_grad=True)
    made = []

    def log_weights(c):
        made.append(w * np.ones((c, 2), np.float32))
        return made[-1]

    bound = importance_weighted_bound(log_weights, k=4, chunk=2)
    np.testing.assert_allclose(bound.per_example, [0.5, -1.0])
    assert not any(y.requires_grad for y in made)


def test_a_draw_that_cannot_have_made_the_example_has_weight_zero():
    bound = importance_weighted_bound(lambda c: np.array([[0.0, -np.inf], [-np.inf, -np.inf]]), 2, 2)
    np.testing.assert_array_equal(bound.per_example, [-np.log(2), -np.inf])
    np.testing.assert_array_equal(bound.effective_samples, [1, 0])


def test_active_units_are_those_whose_mean_varies_with_the_data():
    x = Generator(0).normal((5000, 3), np.float64)
    means = x @ np.array([[1.0, 0, 0, 0.05], [0, 0.2, 0, 0], [0, 0, 0, 0]])
    units = active_units(means)
    assert units.count == 2
    np.testing.assert_allclose(units.variances, [1, 0.04, 0, 0.0025], rtol=0.1)
    assert active_units(means, threshold=0.001).count == 3
    np.testing.assert_allclose(active_units([[0.0], [2.0]]).variances, [2])  # divided by n - 1


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: importance_weighted_bound(lambda c: np.zeros((c, 2)), k=0), "at least 1"),
        (lambda: importance_weighted_bound(lambda c: np.zeros(c), 5), r"log_weights\(5\) must return shape \(5, n\)"),
        (lambda: importance_weighted_bound(lambda c: np.zeros((c, c)), 5, 3), r"shape \(2, 3\), not \(2, 2\)"),
        (lambda: importance_weighted_bound(lambda c: np.full((c, 2), [0, np.nan]), 5), "example 1 is NaN"),
        (lambda: importance_weighted_bound(lambda c: np.full((c, 2), [np.inf, 0]), 5), "example 0 is NaN or"),
        (lambda: active_units([[1.0]]), "two examples"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
