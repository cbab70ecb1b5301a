import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tinygen.data import binarise, bits_per_dimension, dequantise, shrink
from tinygen.errors import InputError
from tinygen.random import Generator

shapes = st.tuples(st.integers(0, 3), *[st.integers(1, 3).map(lambda n: 2 * n)] * 2, st.integers(1, 3))
pixels = hnp.arrays(np.uint8, shapes).map(lambda k: np.float32(k) / np.float32(255))


def test_a_pixel_is_one_as_often_as_its_intensity_says():
    intensity = np.linspace(0, 1, 11, dtype=np.float32)
    ones = binarise(np.tile(intensity, (20_000, 1)), Generator(1)).sum(0)
    assert ones[0] == 0 and ones[-1] == 20_000
    assert all(stats.binomtest(int(k), 20_000, p).pvalue > 0.01 for k, p in zip(ones, intensity, strict=True))


def test_binarised_pixels_are_independent():
    x = binarise(np.full((20_000, 2), 0.3), Generator(0))
    assert stats.chi2_contingency(np.histogram2d(*x.T, bins=2)[0]).pvalue > 0.01


@given(pixels, st.integers(0, 9))
def test_binarising_is_a_function_of_the_images_and_the_seed(x, seed):
    once, again = binarise(x, Generator(seed)), binarise(x, Generator(seed))
    assert once.dtype == np.float32 and set(np.unique(once)) <= {0, 1}
    np.testing.assert_array_equal(once, again)


@given(pixels)
def test_shrinking_is_the_mean_of_squares_to_half_a_level(x):
    by_hand = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    small = shrink(x)
    assert small.shape == by_hand.shape and small.dtype == np.float32
    assert np.all(np.abs(small - by_hand) <= 0.5001 / 255)
    np.testing.assert_allclose(255 * small, np.rint(255 * small), atol=1e-4)


@given(pixels)
def test_dequantised_pixels_stay_in_their_cell(x):
    y = dequantise(x, Generator(0))
    assert y.dtype == np.float32 and np.all(y < 1)
    assert np.all(np.abs(256 * y - 255 * x - 0.5) <= 0.5001)


def test_dequantisation_noise_is_uniform():
    y = dequantise(np.full(20_000, 7 / 255), Generator(0))
    assert stats.kstest(256 * y - 7, "uniform").pvalue > 0.01


def test_a_model_that_knows_each_of_256_levels_as_often_as_the_next_needs_8_bits():
    assert bits_per_dimension(0.0, 784) == pytest.approx(8)


def test_bits_per_dimension_of_a_histogram_density_are_the_entropy_of_the_levels():
    """A density that is constant on cells makes the bound tight: bits = -mean log2 P(level)."""
    levels = Generator(0).choice(256, 5000, np.arange(1, 257) / np.arange(1, 257).sum())
    share = np.bincount(levels, minlength=256) / 5000
    y = dequantise(levels / 255, Generator(1))
    log_density = np.log(256 * share[np.floor(256 * y).astype(int)])
    assert bits_per_dimension(log_density, 1).mean() == pytest.approx(stats.entropy(share, base=2))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: binarise(np.array([1.5]), Generator(0)), "binarise: intensities are probabilities"),
        (lambda: binarise(np.array([np.nan]), Generator(0)), "binarise: intensities are probabilities"),
        (lambda: shrink(np.zeros((1, 27, 28, 1))), r"H and W even, not \(1, 27, 28, 1\)"),
        (lambda: shrink(np.full((2, 2, 1), 0.5)), "shrink: intensities must be the 256 levels"),
        (lambda: dequantise(np.array([0.5]), Generator(0)), "dequantise: intensities must be the 256 levels"),
        (lambda: dequantise(np.array([2.0]), Generator(0)), "dequantise: intensities must be the 256 levels"),
    ],
)
def test_values_that_are_not_intensities_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
