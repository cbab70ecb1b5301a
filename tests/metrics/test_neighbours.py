import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial import cKDTree

from tinygen.errors import InputError
from tinygen.metrics import density_coverage, expected_coverage, memorisation, nearest
from tinygen.random import Generator

clouds = st.tuples(*[st.integers(3, 7).flatmap(lambda n: arrays(np.float64, (n, 2), elements=st.floats(-9, 9)))] * 2)


@pytest.mark.parametrize("k", [1, 3])
def test_the_nearest_points_are_those_that_a_tree_finds(k):
    x, y = Generator(0).normal((2500, 3)), Generator(1).normal((2000, 3))  # more than one block of rows
    distances, indices = nearest(x, y, k)
    there, who = cKDTree(y).query(x, [*range(1, k + 1)])
    np.testing.assert_allclose(distances, there, rtol=1e-6)
    np.testing.assert_array_equal(indices, who)


def test_no_point_is_a_neighbour_of_itself_but_of_its_copy():
    distances, indices = nearest([[0.0], [2.0], [0.0], [9.0]])
    np.testing.assert_array_equal(indices, [[2], [0], [0], [1]])
    np.testing.assert_array_equal(distances, [[0], [2], [0], [7]])
    x = Generator(0).normal((2500, 3))
    np.testing.assert_array_equal(nearest(x, k=2)[1], cKDTree(x).query(x, 3)[1][:, 1:])


@given(clouds, st.integers(1, 2))
def test_density_and_coverage_count_what_their_definition_says(pair, k):
    samples, real = pair
    apart = lambda a, b: np.sqrt(np.sum((a - b) ** 2))
    radii = [sorted(apart(x, other) for j, other in enumerate(real) if j != i)[k - 1] for i, x in enumerate(real)]
    inside = np.array([[apart(x, y) <= r for x, r in zip(real, radii)] for y in samples])
    result = density_coverage(samples, real, k)
    assert result.density == pytest.approx(inside.sum() / (k * len(samples)))
    assert result.coverage == pytest.approx(inside.any(axis=0).mean())


@pytest.mark.parametrize("n, m, d", [(60, 60, 2), (40, 80, 5)])
def test_real_data_have_density_one_and_the_expected_coverage(n, m, d):
    rng = Generator(0)
    draws = np.array([_both(density_coverage(rng.normal((m, d)), rng.normal((n, d)))) for _ in range(150)])
    error = draws.std(0) / np.sqrt(150)
    assert np.all(np.abs(draws.mean(0) - [1, expected_coverage(n, m)]) < 3 * error)


def test_one_sample_is_as_likely_to_be_the_nearest_as_one_other_real_point():
    assert expected_coverage(n=2, m=1, k=1) == pytest.approx(1 / 2)
    assert expected_coverage(n=3, m=1, k=1) == pytest.approx(1 / 3)
    assert expected_coverage(n=3, m=1, k=2) == pytest.approx(2 / 3)


def test_outliers_lower_the_density_and_missing_modes_the_coverage():
    rng = Generator(0)
    real = rng.normal((400, 2)) + 20 * rng.integers(2, (400, 1))
    lost = density_coverage(rng.normal((400, 2)), real)
    astray = density_coverage(np.concatenate([real[:200], 100 + rng.normal((200, 2))]), real)
    assert lost.density > 0.9 and 0.4 < lost.coverage < 0.6
    assert 0.4 < astray.density < 0.75 and astray.coverage > 0.9


def test_fresh_data_do_not_count_as_copies_and_copies_do():
    rng = Generator(0)
    train, held_out, fresh = (rng.normal((n, 3)) for n in (500, 1000, 1000))
    result = memorisation(fresh, train, held_out)
    assert result.ratio == pytest.approx(1, abs=0.1) and result.copies == pytest.approx(0.01, abs=0.01)
    half = memorisation(np.concatenate([train, fresh[:500]]), train, held_out)
    assert half.copies == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(half.index[:500], np.arange(500))
    assert memorisation(train, train, held_out).ratio == 0
    assert memorisation(3 * fresh, train, held_out).ratio > 2


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: nearest([[0.0]], k=1), "among 0 other points"),
        (lambda: nearest([[0.0]], [[1.0]], k=2), "k = 2 neighbours cannot be found among 1"),
        (lambda: density_coverage([[0.0]], [[0.0]] * 5), "k = 5"),
        (lambda: memorisation([[0.0]], [[1.0]], [[1.0, 2.0]]), "dimensions"),
        (lambda: memorisation([[0.0]], [[1.0]], [[1.0]]), "hold others out"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def _both(result):
    return result.density, result.coverage
