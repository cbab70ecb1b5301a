import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tinygen.data import GaussianMixture, Pinwheel, pinwheel
from tinygen.data.pinwheel import _turned
from tinygen.errors import InputError
from tinygen.random import Generator

coordinate = st.floats(-4, 4)


@given(coordinate, coordinate)
def test_untwisting_changes_no_area_and_no_distance_from_the_hub(a, b):
    wheel, x = pinwheel(), np.array([a, b])

    def untwisted(x):
        return _turned(x, -wheel._twist(x))

    h = 1e-6 * np.eye(2)
    jacobian = (untwisted(x + h) - untwisted(x - h)) / 2e-6
    assert np.linalg.det(jacobian) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(untwisted(x)) == pytest.approx(np.linalg.norm(x))


@given(coordinate, coordinate)
def test_round_blades_without_a_twist_are_a_ring_of_gaussians(a, b):
    angles = 2 * np.pi * np.arange(3) / 3
    ring = GaussianMixture(1.5 * np.stack([np.cos(angles), np.sin(angles)], 1), 0.4)
    wheel = Pinwheel(blades=3, radius=1.5, long=0.4, wide=0.4, rate=0)
    assert wheel.log_prob([a, b]) == pytest.approx(ring.log_prob([a, b]))
    assert wheel.entropy() == pytest.approx(ring.entropy())


def test_samples_are_those_of_the_usual_recipe_to_the_eye():
    """Either coordinate, against draws whose angle follows the coordinate along the blade in place of the radius."""
    rng = np.random.default_rng(0)
    along, across = 1 + 0.3 * rng.normal(size=20_000), 0.1 * rng.normal(size=20_000)
    angle = 2 * np.pi * rng.integers(5, size=20_000) / 5 + 0.25 * np.exp(along)
    c, s = np.cos(angle), np.sin(angle)
    usual = 2 * np.stack([along * c - across * s, along * s + across * c])
    ours = pinwheel().sample(20_000, Generator(0)).T
    for axis in (0, 1):
        assert stats.ks_2samp(usual[axis], ours[axis]).pvalue > 0.01


def test_far_from_the_hub_the_log_density_is_finite():
    assert np.isfinite(pinwheel().log_prob([1e5, 0])) and pinwheel().log_prob([1e5, 0]) < -1e9


@pytest.mark.parametrize("change", [{"blades": 0}, {"radius": 0}, {"long": -1}, {"wide": 0}, {"rate": np.inf}])
def test_a_wheel_that_cannot_be_is_refused(change):
    with pytest.raises(InputError, match="Pinwheel: blades must be"):
        Pinwheel(**{"blades": 5, "radius": 2, "long": 0.6, "wide": 0.2, "rate": 0.25} | change)
