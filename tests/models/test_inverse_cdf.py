"""Truths about sampling by the inverse CDF."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen import optim
from tinygen.data import GaussianMixture
from tinygen.describe import describe, rebuild
from tinygen.errors import InputError
from tinygen.models import QuantileMap
from tinygen.models.inverse_cdf import bisected, box_muller, normal_quantile, pinball
from tinygen.random import Generator

BY_MPMATH = {  # to 50 digits, by Newton's method on erfc; shown to 25
    0.25: -0.674489750196081743202227,
    0.1: -1.281551565544600435334517,
    0.01: -2.326347874040841093075096,
    1e-5: -4.264890793922824610233749,
    1e-10: -6.361340902404056199100397,
    1e-20: -9.262340089798407579572095,
    1e-50: -14.93333753478848898065821,
    1e-100: -21.27345356096532429417952,
    1e-300: -37.04709629936119923654704,
}


@pytest.mark.parametrize("p, z", BY_MPMATH.items())
def test_the_normal_quantile_has_fifteen_digits_down_to_the_far_tail(p, z):
    assert normal_quantile(p) == pytest.approx(z, rel=1e-15, abs=0)


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_the_normal_quantile_agrees_with_another_algorithm(p):
    from scipy.special import ndtri

    np.testing.assert_allclose(normal_quantile(p), ndtri(p), rtol=1e-14)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_the_normal_quantile_rises_and_is_odd_about_the_median(p):
    z = normal_quantile(np.sort(p))
    assert np.all(z[1:] >= z[:-1] - 1e-15 * np.abs(z[1:].clip(-40, 40)))
    halves = np.rint(np.array(p) * 2**20) / 2**20  # of which 1 - p is exact
    np.testing.assert_array_equal(normal_quantile(1 - halves), -normal_quantile(halves))


def test_the_ends_the_median_and_no_numbers_at_all():
    np.testing.assert_array_equal(normal_quantile([0, 0.5, 1]), [-np.inf, 0, np.inf])
    assert np.isfinite(normal_quantile(5e-324)) and normal_quantile(np.zeros((0, 3))).shape == (0, 3)


def test_the_pieces_of_the_approximation_meet():
    for seam in (0.075, np.exp(-25.0)):
        p = np.nextafter(seam, [0, 1])
        assert abs(np.diff(normal_quantile(p))[0]) < 1e-14 * abs(normal_quantile(seam))


def test_box_muller_makes_independent_normals():
    from scipy.stats import kstest

    z1, z2 = box_muller(*Generator(0).uniform((2, 50_000), dtype=np.float64))
    for z in (z1, z2, (z1 + z2) / np.sqrt(2), (z1 - z2) / np.sqrt(2)):
        assert kstest(z, "norm").pvalue > 0.01
    assert abs(np.corrcoef(z1**2, z2**2)[0, 1]) < 0.02


def test_box_muller_is_finite_over_all_that_a_generator_can_give():
    ends = np.array([0, np.nextafter(1, 0)])
    z = np.array(box_muller(*np.meshgrid(ends, ends)))
    assert np.all(np.isfinite(z)) and np.abs(z).max() < 8.58


@given(st.floats(0.001, 0.999))
def test_bisection_inverts_a_cdf(u):
    cdf = lambda x: x**3  # on [0, 1]
    np.testing.assert_allclose(bisected(cdf, u, 0, 1), u ** (1 / 3), rtol=1e-14)


@given(st.floats(0.01, 0.99), st.integers(0, 1000))
def test_the_quantile_of_the_data_has_the_least_pinball_loss(u, seed):
    x = Generator(seed).normal(201, np.float64)
    loss = lambda q: np.mean(pinball(x - q, u))
    least = min(map(loss, x))  # the loss is piecewise linear: its minimum lies at a data point
    assert loss(np.quantile(x, u, method="inverted_cdf")) == pytest.approx(least)


@given(st.integers(0, 10_000))
def test_the_map_rises_whatever_its_parameters_are(seed):
    model, rng = QuantileMap(5), Generator(seed)
    for p in model.parameters():
        p.data = rng.normal(p.shape)
    z = np.linspace(-4, 4, 200, dtype=np.float32)
    assert np.all(np.diff(model.increasing(z).numpy()) > 0)


def test_the_density_integrates_to_one_and_is_that_of_the_samples():
    model = QuantileMap(8, low=-3, high=5)
    rng = Generator(1)
    for p in model.parameters():
        p.data = p.numpy() + 0.3 * rng.normal(p.shape)
    x, density = model.density(normal_quantile_grid())
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-3)
    samples = model.sample(200_000, rng)
    edges = np.quantile(x, [0.05, 0.3, 0.6, 0.9])
    for low, high in zip(edges, edges[1:]):
        part = (x >= low) & (x <= high)
        share = np.mean((samples >= low) & (samples <= high))
        assert np.trapezoid(density[part], x[part]) == pytest.approx(share, abs=0.01)


def normal_quantile_grid():
    from scipy.special import ndtr

    return ndtr(np.linspace(-6, 6, 4001))


def test_training_learns_two_modes_and_the_gap_between_them():
    data, rng = GaussianMixture([[-2.0], [2.0]], std=0.3), Generator(2)
    model = QuantileMap(16, -3, 3)
    optimiser = optim.Adam(model.parameters(), lr=5e-2, schedule=optim.cosine(600))
    for _ in range(600):
        model.loss(data.sample(128, rng)[:, 0], rng).backward()
        assert all(p.grad is not None and np.all(np.isfinite(p.grad)) for p in model.parameters())
        optimiser.step()
        optimiser.zero_grad()
    x, y = np.sort(model.sample(4000, rng)), np.sort(data.sample(4000, rng)[:, 0])
    assert np.mean(np.abs(x - y)) < 0.1 and np.mean(np.abs(x) < 1) < 0.05


def test_a_map_is_made_again_from_its_description_and_its_weights():
    model = QuantileMap(4, -1, 3)
    again = rebuild(json.loads(json.dumps(describe(model))), weights=100)
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(model.sample(20, Generator(0)), again.sample(20, Generator(0)))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: normal_quantile([0.5, 1.5]), "from 0 to 1"),
        (lambda: normal_quantile(np.nan), "NaN"),
        (lambda: box_muller(1.0, 0.5), "1 itself left out"),
        (lambda: bisected(lambda x: x, 0.5, 0.6, 1), "wider interval"),
        (lambda: QuantileMap(0), "units must be at least 1"),
        (lambda: QuantileMap(3, 2, 1), "low < high"),
    ],
)
def test_what_makes_no_sense_is_explained(call, message):
    with pytest.raises(InputError, match=message):
        call()
