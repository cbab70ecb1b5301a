"""What is true of every toy density, from its values on a fine grid."""

from functools import cache

import numpy as np
import pytest
from scipy import stats

from tinygen import data
from tinygen.errors import InputError
from tinygen.random import Generator

ENTROPIES = {
    "eight_gaussians": 2.832,
    "eight_unequal_gaussians": 3.021,
    "moons": 2.394,
    "swiss_roll": 2.670,
    "rings": 2.845,
    "spirals": 2.507,
    "checkerboard": 3.466,
    "pinwheel": 2.321,
}
STEP, SIDE = 0.05, 6.0
every = pytest.mark.parametrize("name", ENTROPIES)


@cache
def on_grid(name):
    """The log-density at the middles of small squares that cover [-6, 6]^2."""
    middles = np.arange(-SIDE + STEP / 2, SIDE, STEP)
    grid = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1)
    log_p = np.full(grid.shape[:2], -np.inf)
    near = np.abs(grid).max(-1) < (6 if "gaussians" in name or name == "pinwheel" else 4.4)  # the rest would be slow
    log_p[near] = getattr(data, name)().log_prob(grid[near])
    return log_p


@every
def test_the_density_integrates_to_one(name):
    assert np.exp(on_grid(name)).sum() * STEP**2 == pytest.approx(1, abs=1e-5)


@every
def test_the_entropy_is_the_integral_of_p_log_p_and_that_of_the_documentation(name):
    log_p = on_grid(name)
    integral = -np.sum(np.exp(log_p) * np.where(np.isfinite(log_p), log_p, 0)) * STEP**2
    entropy = getattr(data, name)().entropy()
    assert entropy == pytest.approx(integral, abs=1e-4) and entropy == pytest.approx(ENTROPIES[name], abs=5e-4)
    assert f"{ENTROPIES[name]:.3f} nats" in getattr(data, name).__doc__


@every
def test_samples_fall_into_squares_as_often_as_the_density_says(name):
    expected = np.exp(on_grid(name)).reshape(24, 10, 24, 10).sum((1, 3)) * STEP**2
    x = getattr(data, name)().sample(20_000, Generator(2))
    assert x.dtype == np.float32 and x.shape == (20_000, 2)
    edges = np.linspace(-SIDE, SIDE, 25)
    counts = np.histogram2d(*x.T.astype(np.float64), bins=[edges, edges])[0]
    often = 20_000 * expected > 5
    share = expected[often].sum()
    assert stats.binomtest(int(counts[often].sum()), 20_000, min(share, 1)).pvalue > 0.01
    assert stats.chisquare(counts[often], counts[often].sum() * expected[often] / share).pvalue > 0.01


@every
def test_the_density_at_its_own_samples_is_finite_and_of_any_leading_shape(name):
    density = getattr(data, name)()
    x = density.sample(1000, Generator(0)).reshape(10, 100, 2)
    assert density.log_prob(x).shape == (10, 100) and np.isfinite(density.log_prob(x)).all()
    assert density.log_prob(x[:0]).shape == (0, 100)
    assert density.log_prob(x[3, 7]) == pytest.approx(density.log_prob(x)[3, 7])


@every
def test_labels_number_the_parts_of_equal_weight(name):
    density = getattr(data, name)()
    x, labels = density.sample(10_000, Generator(2), return_labels=True)
    np.testing.assert_array_equal(x, density.sample(10_000, Generator(2)))
    parts = len(density.curves) if hasattr(density, "curves") else density.modes
    weights = density.weights if hasattr(density, "weights") else np.full(parts, 1 / parts)
    assert labels.dtype == np.int64 and labels.max() < parts
    if parts > 1:
        assert stats.chisquare(np.bincount(labels, minlength=parts), 10_000 * weights).pvalue > 0.01


@every
def test_points_that_are_not_in_the_plane_are_refused(name):
    for x in (np.zeros((4, 3)), 1.0):
        with pytest.raises(InputError, match=r"points must have shape \(\.\.\., 2\)"):
            getattr(data, name)().log_prob(x)
