import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import sqrtm

from tinygen.errors import InputError
from tinygen.metrics import frechet_distance, gaussian_frechet_distance
from tinygen.random import Generator

vectors = lambda d: arrays(np.float64, d, elements=st.floats(-3, 3))
gaussians = st.integers(1, 4).flatmap(lambda d: st.tuples(*[vectors(d)] * 2, *[vectors((d, d))] * 2))


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0, 3), st.floats(0, 3))
def test_on_the_line_it_is_the_difference_of_means_and_deviations(a, b, s, t):
    found = gaussian_frechet_distance([a], [b], [[s**2]], [[t**2]])
    assert found == pytest.approx((a - b) ** 2 + (s - t) ** 2, abs=1e-6)


@given(gaussians)
def test_it_is_the_formula_with_the_root_of_the_product(case):
    mean1, mean2, a, b = case
    cov1, cov2 = (c @ c.T + 0.1 * np.eye(len(c)) for c in (a, b))  # the root of a singular product is ill-defined
    exact = np.sum((mean1 - mean2) ** 2) + np.trace(cov1 + cov2 - 2 * np.real(sqrtm(cov1 @ cov2)))
    assert gaussian_frechet_distance(mean1, mean2, cov1, cov2) == pytest.approx(exact, abs=1e-5)


@given(gaussians)
def test_it_is_symmetric_and_zero_for_equal_gaussians(case):
    mean1, mean2, a, b = case
    cov1, cov2 = a @ a.T, b @ b.T
    there = gaussian_frechet_distance(mean1, mean2, cov1, cov2)
    assert there == pytest.approx(gaussian_frechet_distance(mean2, mean1, cov2, cov1), abs=1e-5)
    assert gaussian_frechet_distance(mean1, mean1, cov1, cov1) == pytest.approx(0, abs=1e-5)


def test_covariances_without_full_rank_are_no_special_case():
    line, other = np.outer([1, 1], [1, 1]) / 2, np.outer([1, -1], [1, -1]) / 2
    assert gaussian_frechet_distance([0, 0], [0, 0], line, other) == pytest.approx(2)
    assert gaussian_frechet_distance([0, 0], [0, 0], line, 4 * line) == pytest.approx(1)


@pytest.mark.parametrize("d", [1, 3])
def test_of_two_clouds_it_is_that_of_the_gaussians_they_are_drawn_from(d):
    rng = Generator(0)
    x, y = rng.normal((20_000, d)), 2 * rng.normal((30_000, d)) + 1
    assert frechet_distance(x, y) == pytest.approx(2 * d, rel=0.05)


def test_covariances_are_divided_by_one_less_than_the_number_of_points():
    assert frechet_distance([[0.0], [2.0]], [[1.0], [1.0], [1.0]]) == pytest.approx(2)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: frechet_distance([[0.0]], [[0.0], [1.0]]), "two points"),
        (lambda: frechet_distance(np.zeros((2, 1)), np.zeros((2, 2))), "dimensions"),
        (lambda: gaussian_frechet_distance([0.0], [0.0], [[1.0]], [1.0]), r"\(d, d\), not"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
