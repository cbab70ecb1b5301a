import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.data import GaussianMixture, eight_gaussians
from tinygen.errors import InputError
from tinygen.metrics import mode_coverage, share_of_gaussian_within
from tinygen.random import Generator

DATA = eight_gaussians()


def coverage(x, **options):
    return mode_coverage(x, DATA.means, DATA.std, **options)


def test_true_data_cover_every_mode():
    result = coverage(DATA.sample(20_000, Generator(0)))
    assert (result.found, result.modes) == (8, 8)
    assert result.within == pytest.approx(0.9901, abs=0.003)
    assert result.total_variation < 0.015
    assert result.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("kept", [0, 1, 3, 7])
def test_modes_without_samples_are_not_found(kept):
    x, labels = DATA.sample(8_000, Generator(0), return_labels=True)
    result = coverage(x[labels <= kept])
    assert result.found == kept + 1
    assert result.total_variation == pytest.approx(1 - (kept + 1) / 8, abs=0.02)


def test_a_mode_is_found_from_a_fifth_of_its_fair_share_within_three_sigma():
    def found(near, far):  # of 200 samples, 100 of them fair for the second of two modes
        x = np.concatenate([np.zeros(200 - near - far), np.full(near, 10.0), np.full(far, 14.0)])
        return mode_coverage(x[:, None], [[0.0], [10.0]], 1.0).found

    assert found(near=20, far=0) == 2
    assert found(near=19, far=0) == 1
    assert found(near=19, far=50) == 1
    assert found(near=5, far=0) == 1


def test_samples_between_the_modes_are_not_within():
    x = np.array([[0.0], [3.0], [3.001], [10.0]])
    assert mode_coverage(x, [[0.0], [10.0]], 1.0).within == 0.75


def test_each_mode_is_measured_in_its_own_deviations():
    result = mode_coverage([[4.0]], [[0.0], [6.0]], [2.0, 0.5])
    np.testing.assert_array_equal(result.shares, [1, 0])
    assert result.within == 1


def test_unequal_weights_are_what_total_variation_is_taken_from():
    mixture = GaussianMixture([[-5, 0], [5, 0]], 1, [0.9, 0.1])
    x = mixture.sample(10_000, Generator(0))
    assert mode_coverage(x, mixture.means, 1, mixture.weights).total_variation < 0.01
    assert mode_coverage(x, mixture.means, 1).total_variation == pytest.approx(0.4, abs=0.01)


@given(st.integers(0, 2**32), st.floats(-np.pi, np.pi), st.floats(0.1, 10))
def test_coverage_does_not_change_under_rotation_scaling_and_shuffling(seed, angle, scale):
    rng = Generator(seed)
    x = rng.normal((50, 2), np.float64) * 3
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    a = coverage(x)
    b = mode_coverage(x[rng.permutation(50)] @ turn, DATA.means @ turn, scale * DATA.std)
    assert (a.found, a.within) == (b.found, b.within)
    np.testing.assert_allclose(a.shares, b.shares)
    assert a.total_variation == pytest.approx(b.total_variation)


def test_the_share_of_a_gaussian_within_three_sigma_is_known():
    assert share_of_gaussian_within(3, 2) == pytest.approx(1 - np.exp(-4.5))
    assert share_of_gaussian_within(1, 1) == pytest.approx(0.682689, abs=1e-6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([[0.0, np.inf]], DATA.means, 1), "1 of 1 points hold NaN or infinity"),
        (([[0.0]], DATA.means, 1), "1 dimensions and means 2"),
        (([[0.0, 0.0]], DATA.means, 0), "std must be positive"),
        (([[0.0, 0.0]], DATA.means, [1, 2]), "one number or 8"),
        (([[0.0, 0.0]], DATA.means, 1, [0.5, 0.5]), "8 numbers"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        mode_coverage(*arguments)
