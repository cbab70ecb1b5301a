"""Truths about Gaussian mixtures and EM."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen.data import eight_unequal_gaussians
from tinygen.describe import describe, rebuild
from tinygen.distributions import MultivariateNormal
from tinygen.errors import InputError, ShapeError
from tinygen.metrics import nearest_neighbour_test
from tinygen.models import GMM
from tinygen.random import Generator

DATA = eight_unequal_gaussians()


def fitted(components=3, n=300, seed=0, steps=5, **options):
    rng = Generator(seed)
    x = DATA.sample(n, rng).astype(np.float64)
    model = GMM(components, 2, **options)
    model.initialise(x, rng)
    for _ in range(steps):
        model.em_step(x)
    return model, x


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(0, 1000))
def test_one_component_is_the_gaussian_of_greatest_likelihood(d, seed):
    rng = Generator(seed)
    x = rng.normal((40, d), np.float64) @ rng.normal((d, d), np.float64) + 3
    model = GMM(1, d, floor=1e-12)
    model.initialise(x, rng)
    model.em_step(x)
    np.testing.assert_allclose(model.means.data[0], x.mean(0))
    np.testing.assert_allclose(model.covariances.data[0], np.cov(x.T, bias=True).reshape(d, d), atol=1e-9)


@settings(max_examples=25)
@given(st.integers(1, 6), st.integers(6, 60), st.integers(0, 10_000), st.sampled_from([1e-9, 1e-3, 0.5]))
def test_the_likelihood_never_falls_not_even_on_the_floor(components, n, seed, floor):
    rng = Generator(seed)
    x = np.round(rng.normal((n, 2), np.float64), 1)  # with points that coincide
    model = GMM(components, 2, floor)
    model.initialise(x, rng)
    log_p = [model.em_step(x) for _ in range(30)]
    assert np.all(np.isfinite(log_p)) and np.diff(log_p).min() > -1e-9
    assert np.linalg.eigvalsh(model.covariances.data).min() > floor * (1 - 1e-6)


def test_a_component_that_starves_leaves_no_nan_and_stays_where_it_was():
    model, x = fitted(4)
    model.means.data = np.concatenate([model.means.data[:3], [[1e4, 1e4]]])
    before = model.log_prob(x).mean()
    assert model.em_step(x) == pytest.approx(before) and model.em_step(x) >= before
    assert model.weights.data[3] == 0 and model.means.data[3, 0] == 1e4
    assert np.all(np.isfinite(model.log_prob(x))) and model.weights.data.sum() == pytest.approx(1)
    assert not np.any(model.sample(500, Generator(0), return_labels=True)[1] == 3)


def test_points_that_all_coincide_end_on_the_floor():
    model = GMM(3, 2, floor=0.01)
    x = np.ones((10, 2))
    model.initialise(x, Generator(0))
    log_p = [model.em_step(x) for _ in range(5)]
    assert np.all(np.isfinite(log_p)) and log_p[-1] == pytest.approx(-np.log(2 * np.pi * 0.01))


def test_points_on_a_line_at_any_scale_have_a_finite_likelihood():
    for scale in (1e-6, 1.0, 1e6, 1e12):
        x = scale * np.outer(np.linspace(-1, 1, 30), [0.6, 0.8])
        model = GMM(2, 2, floor=1e-9)
        model.initialise(x, Generator(0))
        assert np.all(np.isfinite([model.em_step(x) for _ in range(10)]))


def test_the_density_integrates_to_one_and_is_the_sum_over_components():
    model, x = fitted()
    grid = np.stack(np.meshgrid(np.linspace(-9, 9, 301), np.linspace(-9, 9, 301)), -1).reshape(-1, 2)
    assert np.exp(model.log_prob(grid)).sum() * 0.06**2 == pytest.approx(1, abs=1e-4)
    parts = [MultivariateNormal(m, np.linalg.cholesky(c)) for m, c in zip(model.means.data, model.covariances.data)]
    density = sum(w * np.exp(part.log_prob(x)) for w, part in zip(model.weights.data, parts))
    np.testing.assert_allclose(model.log_prob(x), np.log(density))


def test_samples_cannot_be_told_from_the_data_that_the_mixture_describes():
    model, rng = GMM(8, 2), Generator(3)
    model.weights.data, model.means.data = DATA.weights, DATA.means
    model.covariances.data = DATA.std[:, None, None] ** 2 * np.eye(2)
    test = nearest_neighbour_test(model.sample(2000, rng), DATA.sample(2000, rng), rng)
    assert test.p_value > 0.01
    x, labels = model.sample(5000, rng, return_labels=True)
    assert x.dtype == np.float32 and np.abs(np.bincount(labels) / 5000 - DATA.weights).max() < 0.02


def test_the_best_of_several_starts_finds_all_eight_and_comes_near_the_entropy():
    rng = Generator(4)
    x, fresh = DATA.sample(2000, rng), DATA.sample(20_000, rng)
    model = GMM(8, 2).fit(x, rng, starts=8)
    assert 0 < np.mean(DATA.log_prob(fresh) - model.log_prob(fresh)) < 0.03
    assert model.log_prob(x).mean() > DATA.log_prob(x).mean()


def test_scaling_and_turning_the_data_scales_and_turns_the_fit():
    x = DATA.sample(400, Generator(5)).astype(np.float64)
    turn = 3 * np.array([[0.6, -0.8], [0.8, 0.6]])
    models = [GMM(4, 2), GMM(4, 2)]
    for model, points in zip(models, (x, x @ turn.T + 1)):
        model.initialise(points, Generator(6))
        for _ in range(10):
            model.em_step(points)
    np.testing.assert_allclose(models[1].means.data, models[0].means.data @ turn.T + 1, rtol=1e-6)
    np.testing.assert_allclose(models[1].covariances.data, turn @ models[0].covariances.data @ turn.T, rtol=1e-6)


def test_bic_prefers_the_number_of_clusters_that_there_are():
    rng = Generator(7)
    x = np.concatenate([rng.normal((150, 2)) + shift for shift in (0, 8, 16)])
    bic = [GMM(k, 2).fit(x, rng, starts=4).bic(x) for k in range(1, 6)]
    assert np.argmin(bic) + 1 == 3
    assert GMM(3, 2).free_parameters == 2 + 6 + 9 and GMM(1, 1).free_parameters == 2


def test_a_mixture_is_made_again_from_its_description_and_its_weights():
    model, x = fitted()
    again = rebuild(json.loads(json.dumps(describe(model))), weights=100)
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(model.log_prob(x), again.log_prob(x))


def test_what_makes_no_sense_is_explained():
    for options in ({"components": 0}, {"dimensions": 0}, {"floor": 0.0}):
        with pytest.raises(InputError, match="at least 1 and the floor"):
            GMM(**{"components": 2, "dimensions": 2, **options})
    with pytest.raises(ShapeError, match=r"\(N, 2\), not \(3, 4\)"):
        GMM(2, 2).log_prob(np.zeros((3, 4)))
    with pytest.raises(InputError, match="NaN"):
        GMM(2, 2).em_step(np.full((3, 2), np.nan))
    with pytest.raises(InputError, match="as many points to start at, not 3"):
        GMM(4, 2).initialise(np.zeros((3, 2)), Generator(0))
