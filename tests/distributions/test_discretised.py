import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

import tinygen
from tinygen import ops
from tinygen.distributions import DiscretisedLogistic, Logistic, Mixture
from tinygen.errors import InputError
from tinygen.random import Generator

LEVELS = np.arange(256.0)
locs, scales = st.floats(-50, 300), st.floats(1e-3, 1e3)


def made(loc, scale, **options):
    return DiscretisedLogistic(np.array(loc, np.float64), np.array(scale, np.float64), **options)


@given(locs, scales)
def test_the_probabilities_of_all_bins_sum_to_one(loc, scale):
    assert np.exp(made(loc, scale).log_prob(LEVELS)).sum() == pytest.approx(1, abs=1e-12)


@given(locs, scales)
def test_a_probability_is_the_difference_of_two_cdfs_and_the_ends_reach_to_infinity(loc, scale):
    edges = np.concatenate([[-np.inf], LEVELS[:-1] + 0.5, [np.inf]])
    expected = np.diff(Logistic(np.array(loc), np.array(scale)).cdf(edges))
    np.testing.assert_allclose(np.exp(made(loc, scale).log_prob(LEVELS)), expected, atol=1e-13)


@pytest.mark.parametrize("scale", [0.01, 0.5, 3.0])
def test_in_float32_the_log_probability_keeps_its_digits_where_the_difference_has_lost_them(scale):
    d = DiscretisedLogistic(20.0, scale)
    assert d.log_prob(0).dtype == np.float32
    x = np.arange(60.0, 255)
    a, b = (x - 0.5 - 20) / scale, (x + 0.5 - 20) / scale
    exact = special.log_expit(-a) + np.log1p(-np.exp(a - b)) - np.log1p(np.exp(-b))
    np.testing.assert_allclose(d.log_prob(x.astype(np.float32)), exact, rtol=3e-6)


@given(st.sampled_from([1e-30, 1e-3, 1.0, 1e30]), st.floats(-1e4, 1e4))
def test_nothing_is_nan_however_narrow_wide_or_far(scale, loc):
    parameters = [tinygen.tensor([v], requires_grad=True) for v in (loc, scale)]
    log_p = DiscretisedLogistic(*parameters).log_prob(LEVELS.astype(np.float32))
    grads = tinygen.grad(ops.sum(ops.where(ops.isfinite(log_p), log_p, 0.0)), parameters)
    assert not np.isnan(log_p.numpy()).any() and not np.isnan([g.numpy() for g in grads]).any()


def test_the_gradient_is_that_of_finite_differences_in_every_bin_and_at_both_ends():
    x = np.array([[0.0], [1], [100], [254], [255]])
    loc, scale = np.array([3.0, 120, 250]), np.array([2.0, 20, 9])
    tinygen.gradcheck(lambda m, s: DiscretisedLogistic(m, s).log_prob(x), loc, scale)
    few = lambda m, s: DiscretisedLogistic(m, s, bins=4)
    tinygen.gradcheck(lambda m, s: (few(m, s).mean, few(m, s).std, few(m, s).entropy()), np.array(1.3), np.array(0.8))


@given(st.floats(0, 255), st.floats(0.1, 100))
def test_moments_entropy_and_cdf_are_the_sums_over_all_bins(loc, scale):
    d = made(loc, scale)
    p = np.exp(d.log_prob(LEVELS))
    assert d.mean == pytest.approx((p * LEVELS).sum())
    assert d.variance == pytest.approx((p * (LEVELS - d.mean) ** 2).sum(), abs=1e-9)
    assert d.entropy() == pytest.approx(special.entr(p).sum(), abs=1e-9)
    np.testing.assert_allclose(d.cdf(LEVELS), p.cumsum(), atol=1e-12)
    np.testing.assert_array_equal(d.cdf(np.array([-np.inf, -1, 255, 300, np.inf])), [0, 0, 1, 1, 1])


def test_samples_come_as_often_as_their_probability_says():
    d = DiscretisedLogistic([1.0, 5.0], 1.5, bins=8)
    x = d.sample(Generator(0), 20_000)
    assert x.dtype == np.float32 and x.shape == (20_000, 2)
    p = np.exp(d.log_prob(np.arange(8)[:, None]))
    for column, expected in zip(x.T, 20_000 * p.T, strict=True):
        assert stats.chisquare(np.bincount(column.astype(int), minlength=8), expected, sum_check=False).pvalue > 0.01


def test_another_grid_only_renames_the_values():
    whole, unit = made(100, 20), made(100 / 127.5 - 1, 20 / 127.5, low=-1, high=1)
    np.testing.assert_allclose(unit.log_prob(LEVELS / 127.5 - 1), whole.log_prob(LEVELS))
    np.testing.assert_allclose(unit.mean, whole.mean / 127.5 - 1)
    np.testing.assert_allclose(unit.sample(Generator(0), 9), whole.sample(Generator(0), 9) / 127.5 - 1, atol=1e-12)
    single = DiscretisedLogistic(0, 1, low=-1, high=1)  # values that float32 cannot hold exactly are found again
    np.testing.assert_allclose(single.log_prob((LEVELS / 127.5 - 1).astype(np.float32)), single.log_prob(single.values))


def test_values_count_as_the_nearest_level_and_none_lie_outside():
    d = made(3, 2, bins=8)
    np.testing.assert_array_equal(d.log_prob(np.array([2.6, 3.4])), d.log_prob(np.array([3, 3])))
    np.testing.assert_array_equal(d.log_prob(np.array([-0.6, 7.6, np.inf])), -np.inf)
    np.testing.assert_array_equal(d.log_prob(np.array([3], np.uint8)), d.log_prob(3))


def test_a_mixture_sums_to_one_and_is_the_average_of_its_parts():
    logits, loc, scale = np.array([0.0, 1.0]), np.array([10.0, 200.0]), np.array([5.0, 30.0])
    mixture = Mixture(logits, DiscretisedLogistic(loc, scale))
    p = np.exp(mixture.log_prob(LEVELS))
    parts = np.exp(DiscretisedLogistic(loc, scale).log_prob(LEVELS[:, None]))
    np.testing.assert_allclose(p, parts @ special.softmax(logits))
    assert p.sum() == pytest.approx(1)
    assert mixture.mean == pytest.approx(p @ LEVELS)
    np.testing.assert_allclose(mixture.cdf(LEVELS), p.cumsum())
    x = np.array([[0.0], [128], [255]])
    tinygen.gradcheck(lambda *a: Mixture(a[0], DiscretisedLogistic(*a[1:])).log_prob(x), logits, loc, scale)


@pytest.mark.parametrize("options", [{"bins": 1}, {"bins": 2.5}, {"low": 1, "high": 1}, {"high": np.inf}])
def test_a_grid_that_makes_no_sense_is_refused(options):
    with pytest.raises(InputError, match="take two or more, low < high"):
        DiscretisedLogistic(0, 1, **options)
