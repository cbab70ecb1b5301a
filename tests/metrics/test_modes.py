import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.data import GaussianMixture, eight_gaussians
from tinygen.errors import InputError
from tinygen.metrics import histogram_kl, mode_coverage, share_of_gaussian_within
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
    assert result.reverse_kl < 0.001
    assert result.std_ratio == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(result.std_ratios, 1, atol=0.05)


@pytest.mark.parametrize("kept", [0, 1, 3, 7])
def test_modes_without_samples_are_not_found(kept):
    x, labels = DATA.sample(8_000, Generator(0), return_labels=True)
    result = coverage(x[labels <= kept])
    assert result.found == kept + 1
    assert result.total_variation == pytest.approx(1 - (kept + 1) / 8, abs=0.02)
    assert result.reverse_kl == pytest.approx(np.log(8 / (kept + 1)), abs=0.02)


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


@pytest.mark.parametrize("radius, d", [(3, 2), (1.5, 1), (2, 4)])
@pytest.mark.parametrize("width", [0.0, 0.3, 1.0])
def test_the_spread_within_the_modes_is_measured_whatever_the_radius_and_the_place(radius, d, width):
    rng, means = Generator(0), np.stack([np.zeros(d), np.full(d, 100.0)])
    own = means[rng.integers(2, (20_000,))] + (0.4 if width < 1 else 0)
    std = np.where(own[:, :1] > 50, 2.0, 0.5)
    x = own + (width if width else 0.0) * std * rng.normal((20_000, d), np.float64)
    result = mode_coverage(x, means, [0.5, 2.0], radius=radius)
    if width == 0.3:  # well inside the radius: nothing is cut off, and what true data would lose counts against it
        cut = share_of_gaussian_within(radius, d + 2) / share_of_gaussian_within(radius, d)
        inside = np.linalg.norm(x - own, axis=1) / std[:, 0] < 0.9
        assert inside.mean() > 0.9 and result.std_ratios[1] == pytest.approx(0.3 / np.sqrt(cut), rel=0.05)
    else:
        assert result.std_ratio == pytest.approx(width, abs=0.02)


def test_a_mode_with_fewer_than_two_samples_has_no_spread():
    result = mode_coverage([[0.0], [0.0], [10.0]], [[0.0], [10.0]], 1.0)
    np.testing.assert_array_equal(result.std_ratios, [0, np.nan])
    assert result.std_ratio == 0
    assert np.isnan(mode_coverage([[0.0]], [[0.0]], 1.0).std_ratio)


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=6), st.randoms())
def test_the_divergence_of_histograms_is_zero_only_for_equal_shares(counts, random):
    others = random.sample(counts, len(counts))
    p, q = np.array(counts) / sum(counts), np.array(others) / sum(others)
    assert histogram_kl(counts, others) == pytest.approx(np.sum(p * np.log(p / q)), abs=1e-12)
    assert histogram_kl(counts, p) == pytest.approx(0, abs=1e-12)


def test_an_empty_class_costs_nothing_and_a_class_that_should_be_empty_everything():
    assert histogram_kl([1, 0], [1, 1]) == pytest.approx(np.log(2))
    assert histogram_kl([1, 1], [1, 0]) == np.inf
    with pytest.raises(InputError, match="no histogram"):
        histogram_kl([0, 0], [1, 1])


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
