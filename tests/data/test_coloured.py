import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from scipy import stats

from tinygen.data import coloured_digits, diagonal_support, digits, partial_support, uniform_support
from tinygen.data.coloured import COLOURS, PALETTE
from tinygen.errors import InputError
from tinygen.random import Generator

HELD_OUT = digits().held_out


@given(hnp.arrays(bool, (10, 10)).filter(np.any))
def test_digits_are_seen_in_the_colours_of_the_support_and_left_out_without_any(support):
    coloured = coloured_digits(*HELD_OUT, support, Generator(0))
    assert support[coloured.digit, coloured.colour].all()
    np.testing.assert_array_equal(np.bincount(coloured.digit, minlength=10), 100 * support.any(1))


@pytest.mark.parametrize("support", [uniform_support(), diagonal_support(3), partial_support(4, Generator(1))])
def test_all_pairs_of_the_support_are_equally_likely(support):
    images, labels = np.zeros((20_000, 2, 2, 1)), np.arange(20_000) % 10
    _, digit, colour = coloured_digits(images, labels, support, Generator(0))
    counts = np.zeros((10, 10))
    np.add.at(counts, (digit, colour), 1)
    assert stats.chisquare(counts[support]).pvalue > 0.01


def test_an_image_is_its_intensities_times_its_colour():
    images, digit, colour = coloured_digits(*HELD_OUT, uniform_support(), Generator(0))
    assert images.shape == (1000, 28, 28, 3) and images.dtype == np.float32
    assert digit.dtype == colour.dtype == np.int64
    np.testing.assert_array_equal(digit, HELD_OUT.labels)
    expected = HELD_OUT.images * (PALETTE[colour] / 255)[:, None, None]
    np.testing.assert_allclose(images, expected, atol=1e-6)


def test_the_supports_hold_the_pairs_that_they_promise():
    assert uniform_support().all()
    np.testing.assert_array_equal(diagonal_support(1), np.eye(10))
    assert diagonal_support()[9, 0] and diagonal_support()[9, 9] and not diagonal_support()[9, 1]
    one, two = (partial_support(3, Generator(seed)) for seed in (0, 1))
    assert np.all(one.sum(0) == 7) and np.all(one.sum(1) == 7) and np.any(one != two)


SEEN_WITHOUT = {  # Machado et al. 2009: what the three linear RGB values become without one kind of cone
    "none": np.eye(3),
    "long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def cielab(rgb):
    xyz = np.array([[0.41246, 0.35758, 0.18044], [0.21267, 0.71515, 0.07217], [0.01933, 0.11919, 0.95030]])
    t = np.clip(rgb, 0, 1) @ xyz.T / xyz.sum(1)
    x, y, z = np.moveaxis(np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


@pytest.mark.parametrize("cones", SEEN_WITHOUT)
def test_the_colours_are_told_apart_without_one_kind_of_cones_and_stand_out_on_black(cones):
    c = PALETTE / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    lab = cielab(linear @ np.array(SEEN_WITHOUT[cones]).T)
    distance = np.linalg.norm(lab[:, None] - lab, axis=-1)
    assert distance[~np.eye(10, dtype=bool)].min() > 31 and cielab(linear)[:, 0].min() > 41
    assert len(COLOURS) == len(set(COLOURS)) == 10


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: coloured_digits(*HELD_OUT, np.ones((10, 10)), Generator(0)), "boolean, .* not float64"),
        (lambda: coloured_digits(*HELD_OUT, np.zeros((10, 10), bool), Generator(0)), "with 0"),
        (lambda: coloured_digits(*HELD_OUT, np.ones((10, 9), bool), Generator(0)), r"\(10, 9\)"),
        (lambda: coloured_digits(HELD_OUT.images[..., 0], HELD_OUT.labels, uniform_support(), Generator(0)), "H, W, 1"),
        (lambda: coloured_digits(HELD_OUT.images, HELD_OUT.labels[1:], uniform_support(), Generator(0)), "labels"),
        (lambda: coloured_digits(HELD_OUT.images, HELD_OUT.labels + 1, uniform_support(), Generator(0)), "0 to 9"),
        (lambda: diagonal_support(0), "width must be 1 to 10"),
        (lambda: partial_support(10, Generator(0)), "held_out must be 0 to 9"),
    ],
)
def test_supports_and_digits_that_do_not_fit_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
