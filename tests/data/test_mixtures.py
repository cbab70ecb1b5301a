import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from tinygen.data import GaussianMixture, eight_gaussians, grid, ring, twenty_five_gaussians
from tinygen.errors import InputError
from tinygen.random import Generator

finite = st.floats(-3, 3)


@st.composite
def mixtures(draw, dimensions=None):
    modes, d = draw(st.integers(1, 4)), dimensions or draw(st.integers(1, 3))
    means = draw(st.lists(st.lists(finite, min_size=d, max_size=d), min_size=modes, max_size=modes))
    std = draw(st.lists(st.floats(0.4, 1.2), min_size=modes, max_size=modes))
    weights = np.array(draw(st.lists(st.floats(0.1, 1), min_size=modes, max_size=modes)))
    return GaussianMixture(means, std, weights / weights.sum())


@given(mixtures())
def test_the_log_density_is_that_of_scipy(mixture):
    x = np.linspace(-4, 4, mixture.dimensions)
    parts = zip(mixture.weights, mixture.means, mixture.std, strict=True)
    density = sum(w * stats.multivariate_normal(m, s**2).pdf(x) for w, m, s in parts)
    assert mixture.log_prob(x) == pytest.approx(np.log(density))


def test_the_entropy_of_the_eight_gaussians_is_2_832_nats():
    assert eight_gaussians().entropy() == pytest.approx(2.832, abs=5e-4)


@pytest.mark.parametrize("d", [1, 2])
def test_the_entropy_of_one_gaussian_is_its_closed_form(d):
    assert GaussianMixture(np.ones((1, d)), 0.7).entropy() == pytest.approx(d / 2 * np.log(2 * np.pi * np.e * 0.49))


@pytest.mark.parametrize("gap", [0.5, 3, 6, 10, 50])
@pytest.mark.parametrize("std", [[1, 1], [0.7, 2.1]])
def test_the_entropy_equals_adaptive_quadrature_to_1e_9(gap, std):
    mixture = GaussianMixture([[0.0], [gap]], std, [0.3, 0.7])

    def integrand(x):
        log_p = mixture.log_prob([x])
        return -np.exp(log_p) * log_p

    edges = np.linspace(-20, gap + 20, 81)
    exact = sum(integrate.quad(integrand, a, b, epsabs=1e-13)[0] for a, b in zip(edges, edges[1:], strict=False))
    assert mixture.entropy() == pytest.approx(exact, abs=1e-9)


@settings(max_examples=25)
@given(mixtures(dimensions=2))
def test_the_density_integrates_to_one(mixture):
    axis = np.arange(-12, 12.05, 0.1)
    x = np.stack(np.meshgrid(axis, axis), -1)
    assert np.exp(mixture.log_prob(x)).sum() * 0.1**2 == pytest.approx(1, abs=1e-6)


@given(mixtures(), st.data())
def test_the_score_is_the_gradient_of_the_log_density(mixture, data):
    d = mixture.dimensions
    x = np.array(data.draw(st.lists(st.floats(-6, 6), min_size=d, max_size=d)))
    h = 1e-5 * np.eye(d)
    slope = (mixture.log_prob(x + h) - mixture.log_prob(x - h)) / 2e-5
    np.testing.assert_allclose(mixture.score(x), slope, rtol=1e-5, atol=1e-6)


def test_far_from_the_data_the_log_density_and_the_score_neither_underflow_nor_overflow():
    mixture = eight_gaussians()
    x = np.array([1e4, 0])
    assert mixture.log_prob(x) == pytest.approx(-((1e4 - 4 / np.sqrt(2)) ** 2) / 0.25, rel=1e-3)
    np.testing.assert_allclose(mixture.score(x), (mixture.means[0] - x) / 0.125)
    assert mixture.log_prob([np.inf, 0]) == -np.inf


def test_a_component_of_weight_zero_has_no_part():
    mixture, single = GaussianMixture([[0, 0], [1, 1]], 1, [1, 0]), GaussianMixture([[0, 0]], 1)
    x = Generator(0).normal((5, 2))
    np.testing.assert_allclose(mixture.log_prob(x), single.log_prob(x))
    np.testing.assert_allclose(mixture.score(x), single.score(x))


@pytest.mark.parametrize("axis", [0, 1])
def test_samples_follow_the_density(axis):
    mixture = GaussianMixture([[0, 1], [3, -1]], [0.5, 1.5], [0.3, 0.7])

    def cdf(t):
        return stats.norm.cdf((np.expand_dims(t, -1) - mixture.means[:, axis]) / mixture.std) @ mixture.weights

    x, labels = mixture.sample(20_000, Generator(3), return_labels=True)
    assert x.dtype == np.float32 and labels.dtype == np.int64
    assert stats.kstest(x[:, axis], cdf).pvalue > 0.01
    assert stats.binomtest(int(labels.sum()), len(labels), 0.7).pvalue > 0.01
    own = (x - mixture.means[labels]) / mixture.std[labels, None]
    assert stats.kstest(own[:, axis], "norm").pvalue > 0.01


def test_samples_scaled_and_noised_follow_the_diffused_density():
    mixture, rng = eight_gaussians(), Generator(0)
    noised = 0.6 * mixture.sample(20_000, rng) + 0.8 * rng.normal((20_000, 2))
    exact = mixture.diffused(0.6, 0.8).sample(20_000, rng)
    for direction in [(1, 0), (0, 1), (0.6, 0.8)]:
        assert stats.ks_2samp(noised @ direction, exact @ direction).pvalue > 0.01


@given(mixtures(), st.floats(0, 2), st.floats(0.1, 2))
def test_diffusing_twice_is_diffusing_once(mixture, a, sigma):
    twice, once = mixture.diffused(a, sigma).diffused(0.5, 0.7), mixture.diffused(0.5 * a, np.hypot(0.5 * sigma, 0.7))
    x = np.ones(mixture.dimensions)
    assert twice.log_prob(x) == pytest.approx(once.log_prob(x))


def test_98_9_per_cent_of_the_eight_gaussians_lie_within_three_sigma_of_their_own_mean_and_99_0_of_any():
    mixture = eight_gaussians()
    x, labels = mixture.sample(200_000, Generator(0), return_labels=True)
    inside = np.linalg.norm(x[:, None] - mixture.means, axis=-1) <= 3 * mixture.std
    assert inside[np.arange(len(x)), labels].mean() == pytest.approx(1 - np.exp(-4.5), abs=1e-3)
    assert inside.any(1).mean() == pytest.approx(0.9901, abs=1e-3)  # neighbours are 6.1 sigma apart and catch some


def test_a_ring_has_its_means_evenly_spaced_on_the_circle():
    mixture = ring(5, 2.0, 0.1)
    np.testing.assert_allclose(np.linalg.norm(mixture.means, axis=1), 2.0)
    gaps = np.linalg.norm(mixture.means - np.roll(mixture.means, 1, axis=0), axis=1)
    np.testing.assert_allclose(gaps, 4 * np.sin(np.pi / 5))


def test_a_grid_is_centred_and_evenly_spaced():
    for side in (1, 2, 5):
        means = grid(side, 2.0, 0.1).means
        assert len(means) == side**2 and len(np.unique(means, axis=0)) == side**2
        np.testing.assert_array_equal(np.unique(means), np.arange(-(side - 1), side, 2))


def test_far_apart_the_entropy_of_25_equal_gaussians_is_that_of_one_and_of_the_choice():
    exact = np.log(25) + np.log(2 * np.pi * np.e * 0.05**2)
    assert twenty_five_gaussians().entropy() == pytest.approx(exact, abs=1e-9) and round(exact, 3) == 0.065


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([0.0, 1.0], 1), r"means .* \(K, d\), not \(2,\)"),
        (([[np.nan]], 1), "means must be finite"),
        (([[0.0]], 0), "std must be positive"),
        (([[0.0]], [1, 2]), "std must be one finite number or 1"),
        (([[0.0], [1.0]], 1, [0.5, 0.6]), "sum to one, not 1.1"),
        (([[0.0], [1.0]], 1, [1.5, -0.5]), "none negative"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        GaussianMixture(*arguments)


def test_points_of_the_wrong_dimension_are_refused():
    with pytest.raises(InputError, match=r"shape \(\.\.\., 2\), not \(4, 3\)"):
        eight_gaussians().log_prob(np.zeros((4, 3)))
    with pytest.raises(InputError, match="1 or 2 dimensions, not in 3"):
        GaussianMixture(np.zeros((1, 3)), 1).entropy()
