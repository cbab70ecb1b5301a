import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from tinygen.data import NoisyCurves, moons, rings, spirals, swiss_roll
from tinygen.errors import InputError
from tinygen.random import Generator


@pytest.mark.parametrize("curves", [moons, swiss_roll, rings, spirals])
def test_the_density_is_the_integral_along_the_curves(curves):
    density = curves()
    for x in density.sample(3, Generator(0)).astype(np.float64):

        def normal(s, curve, x=x):
            squared = np.sum((x - curve(np.array([s]))[0]) ** 2)
            return np.exp(-squared / (2 * density.std**2)) / (2 * np.pi * density.std**2)

        breaks = np.linspace(0, 1, 41)
        exact = sum(
            integrate.quad(normal, a, b, args=(curve,), epsrel=1e-11)[0]
            for curve in density.curves
            for a, b in zip(breaks, breaks[1:], strict=False)
        ) / len(density.curves)
        assert np.exp(density.log_prob(x)) == pytest.approx(exact, rel=1e-9)


@settings(max_examples=25)
@given(st.floats(0.2, 3), st.floats(0.05, 0.5), st.floats(0, 4))
def test_the_density_of_a_ring_is_the_closed_form_with_a_bessel_function(radius, std, r):
    """p(x) = exp(-(r^2 + R^2) / 2 s^2) I_0(r R / s^2) / (2 pi s^2); `ive` is I_0 times exp(-z)."""
    z = r * radius / std**2
    exact = -((r - radius) ** 2) / (2 * std**2) + np.log(special.ive(0, z) / (2 * np.pi * std**2))
    assert rings([radius], std).log_prob([0.6 * r, 0.8 * r]) == pytest.approx(exact, rel=1e-9, abs=1e-8)


def test_the_mixture_of_the_nodes_has_the_score_of_the_density():
    density, h = moons(), 1e-5 * np.eye(2)
    for x in density.sample(5, Generator(0)).astype(np.float64):
        slope = (density.log_prob(x + h) - density.log_prob(x - h)) / 2e-5
        np.testing.assert_allclose(density.mixture.score(x), slope, rtol=1e-6, atol=1e-6)


def test_many_points_at_once_give_what_each_gives_alone(monkeypatch):
    x = spirals().sample(50, Generator(0))
    whole = spirals().log_prob(x)
    monkeypatch.setattr("tinygen.data.curves.CHUNK", 5000)
    np.testing.assert_array_equal(spirals().log_prob(x), whole)


def test_far_from_the_curves_the_log_density_does_not_underflow():
    assert moons().log_prob([1e4, 0]) == pytest.approx(-(1e8) / (2 * 0.2**2), rel=1e-3)


@pytest.mark.parametrize("curves, std", [([], 1), ([lambda s: s], 0), ([lambda s: s], np.nan)])
def test_no_curve_and_no_noise_are_refused(curves, std):
    with pytest.raises(InputError, match="one curve or more, and a positive std"):
        NoisyCurves(curves, std)
