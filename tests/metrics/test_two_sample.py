import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from tinygen.data import eight_gaussians
from tinygen.errors import InputError
from tinygen.metrics import beside_floor, energy_distance, median_distance, mmd, nearest_neighbour_test, unbiased_mmd2
from tinygen.random import Generator

DATA = eight_gaussians()
numbers = st.floats(-10, 10)


def clouds(low, highest_dimension=3):
    cloud = lambda d: st.integers(low, 6).flatmap(lambda n: arrays(np.float64, (n, d), elements=numbers))
    return st.integers(1, highest_dimension).flatmap(lambda d: st.tuples(cloud(d), cloud(d)))


def kernel(a, b, s):
    return np.mean([np.exp(-np.sum((a - b) ** 2) / (2 * t**2)) for t in s])


@given(clouds(2), st.lists(st.floats(0.5, 5), min_size=1, max_size=3))
def test_mmd_is_the_sum_over_pairs_that_its_definition_says(pair, s):
    x, y = pair
    n, m = len(x), len(y)
    between = sum(kernel(a, b, s) for a in x for b in y)
    biased = sum(sum(kernel(a, b, s) for a in c for b in c) / len(c) ** 2 for c in pair) - 2 * between / (n * m)
    apart = lambda c: sum(kernel(a, b, s) for a, b in itertools.permutations(c, 2)) / (len(c) * (len(c) - 1))
    assert mmd(x, y, s) ** 2 == pytest.approx(biased, abs=1e-9)
    assert unbiased_mmd2(x, y, s) == pytest.approx(apart(x) + apart(y) - 2 * between / (n * m), abs=1e-9)


@given(clouds(1, 1))
def test_energy_distance_on_the_line_is_that_of_scipy(pair):
    x, y = pair
    assert energy_distance(x, y) == pytest.approx(stats.energy_distance(x[:, 0], y[:, 0]), abs=1e-6)


@given(clouds(1, 1), st.floats(0, 2 * np.pi))
def test_energy_distance_does_not_see_in_how_many_dimensions_a_line_lies(pair, angle):
    x, y = pair
    direction = np.array([[np.cos(angle), np.sin(angle)]])
    assert energy_distance(x @ direction + 1, y @ direction + 1) == pytest.approx(energy_distance(x, y), abs=1e-6)


@pytest.mark.parametrize("distance", [lambda x, y: mmd(x, y, 2.0), energy_distance])
@given(clouds(1))
def test_a_distance_is_symmetric_and_zero_between_equal_clouds(distance, pair):
    x, y = pair
    assert distance(x, y) == pytest.approx(distance(y, x), abs=1e-6)
    assert distance(x, np.concatenate([x, x])[::-1]) == pytest.approx(0, abs=1e-6)


def test_mmd_of_two_gaussians_is_its_closed_form():
    # E k(a, b) for a - b ~ N(m, v I) is (s^2 / (s^2 + v))^(d/2) exp(-||m||^2 / 2 (s^2 + v))
    rng, s, shift, spread = Generator(0), 1.5, np.array([1.0, -0.5]), 0.5
    x, y = rng.normal((3000, 2)), spread * rng.normal((2000, 2)) + shift
    mean = lambda v, m: s**2 / (s**2 + v) * np.exp(-np.sum(m**2) / (2 * (s**2 + v)))
    exact = mean(2, 0 * shift) + mean(2 * spread**2, 0 * shift) - 2 * mean(1 + spread**2, shift)
    assert unbiased_mmd2(x, y, s) == pytest.approx(exact, rel=0.05)
    assert mmd(x, y, s) == pytest.approx(np.sqrt(exact), rel=0.05)


def test_the_unbiased_estimate_has_mean_zero_between_equal_distributions_and_the_biased_one_does_not():
    rng = Generator(0)
    draws = [(rng.normal((20, 2)), rng.normal((30, 2))) for _ in range(300)]
    unbiased = np.array([unbiased_mmd2(x, y, 1.0) for x, y in draws])
    assert abs(unbiased.mean()) < 3 * unbiased.std() / np.sqrt(300) and unbiased.min() < 0
    assert np.mean([mmd(x, y, 1.0) ** 2 for x, y in draws]) > 10 * abs(unbiased.mean())


@pytest.mark.parametrize("distance", [lambda x, y: mmd(x, y, 2.0), energy_distance])
def test_real_data_lie_at_the_floor_and_shifted_data_above_it(distance):
    real = beside_floor(distance, DATA.sample, DATA.sample, 300, Generator(0))
    assert 0.8 < real.ratio < 1.25
    assert beside_floor(distance, lambda n, rng: DATA.sample(n, rng) + 1, DATA.sample, 300, Generator(0), 3).ratio > 2


def test_the_median_distance_is_that_of_all_pairs_and_of_a_large_cloud_nearly():
    assert median_distance([[0.0], [1.0], [5.0]]) == 4
    x = Generator(0).normal((5000, 2))
    assert median_distance(x) == pytest.approx(np.sqrt(4 * np.log(2)), rel=0.03)  # ||x - x'||^2 / 2 is chi-squared


@pytest.mark.parametrize("n, m", [(3, 3), (2, 4)])
def test_chance_is_the_mean_accuracy_over_all_ways_to_label_the_points(n, m):
    points = Generator(0).normal((n + m, 2))
    results = []
    for order in itertools.combinations(range(n + m), n):
        others = [i for i in range(n + m) if i not in order]
        results.append(nearest_neighbour_test(points[list(order)], points[others], Generator(0), 1))
    assert np.mean([r.accuracy for r in results]) == pytest.approx(results[0].chance)


@pytest.mark.parametrize("points", [lambda rng: rng.normal((40, 2)), lambda rng: rng.integers(3, (40, 1))])
def test_the_p_value_of_equal_distributions_is_as_small_as_a_tenth_in_at_most_a_tenth_of_cases(points):
    # with integers most points coincide; 300 cases have a standard error of .017
    rng = Generator(1)
    p = np.array([nearest_neighbour_test(points(rng), points(rng), rng, 99).p_value for _ in range(300)])
    assert np.mean(p <= 0.1) < 0.1 + 3 * 0.017
    assert np.mean(p <= 0.5) > 0.3


def test_the_test_tells_other_distributions_and_copies_from_the_data():
    rng = Generator(0)
    x = rng.normal((100, 2))
    shifted = nearest_neighbour_test(x, rng.normal((80, 2)) + 2, rng)
    copied = nearest_neighbour_test(x, x, rng)
    assert shifted.accuracy > 0.8 and shifted.p_value == 0.001
    assert copied.accuracy == 0 and copied.p_value == 0.001


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mmd([[0.0]], [[0.0, 1.0]]), "1 dimensions, of the other 2"),
        (lambda: mmd([[0.0]], [[0.0]]), "choose a bandwidth"),
        (lambda: mmd([[0.0]], [[1.0]], []), "positive number or a list"),
        (lambda: mmd([[0.0]], [[1.0]], [1.0, -1.0]), "positive number or a list"),
        (lambda: unbiased_mmd2([[0.0]], [[1.0], [2.0]]), "two points at least"),
        (lambda: energy_distance([[np.nan]], [[1.0]]), "NaN or infinity"),
        (lambda: median_distance([[0.0]]), "give two"),
        (lambda: nearest_neighbour_test([[0.0]], [[1.0]], Generator(0)), "three points"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
