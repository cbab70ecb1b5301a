"""Truths about continuous flows: what the trace says of the density is what the Jacobian of the whole way says."""

import itertools
import json

import numpy as np
import pytest
from scipy.linalg import expm

import tinygen
from tinygen import ops, optim
from tinygen.describe import describe, rebuild
from tinygen.distributions import MultivariateNormal
from tinygen.errors import InputError
from tinygen.models import CNF
from tinygen.models.cnf import Velocity, rademacher
from tinygen.nn import Module, Parameter
from tinygen.plotting import grid
from tinygen.random import Generator

A = np.array([[0.4, 1.0, 0.0], [-0.5, 0.1, 0.3], [0.2, 0.0, -0.8]])


class Linear(Module):
    """f(z, t) = 2 t z A, of which everything is known: the way from 0 to 1 is expm(A)."""

    def __init__(self):
        self.a = Parameter(A)

    def forward(self, z, t):
        return 2 * t * (z @ self.a)


def moving(features=2, seed=0, steps=8, trace="exact", dtype=np.float64, shake=0.3):
    """A flow whose velocity has left the zeros with which it begins."""
    rng = Generator(seed)
    model = CNF(Velocity(features, width=8, rng=rng), features, trace, steps)
    for p in model.parameters():
        p.data = p.numpy() + np.float32(shake) * rng.normal(p.shape)
    return model.to(dtype=dtype)


def jacobians(f, x):
    return np.stack([tinygen.jacobian(lambda row: f(row[None])[0], row).numpy() for row in x])


def test_along_a_linear_field_flow_and_density_are_those_of_the_matrix_exponential():
    model, x = CNF(Linear(), 3, steps=20), Generator(0).normal((5, 3), np.float64)
    z, log_det = model(x)
    np.testing.assert_allclose(z.numpy(), x @ expm(-A), atol=1e-5)
    np.testing.assert_allclose(log_det.numpy(), -np.trace(A), atol=1e-5)
    exact = MultivariateNormal(np.zeros(3), np.linalg.cholesky(expm(A).T @ expm(A))).log_prob(x)
    with tinygen.no_grad(), model.precise(1e-8):
        np.testing.assert_allclose(model.log_prob(x).numpy(), exact, atol=1e-7)
        np.testing.assert_allclose(model.inverse(x).numpy(), x @ expm(A), atol=1e-7)


@pytest.mark.parametrize("features", [1, 2, 3])
def test_the_log_determinant_is_that_of_the_engines_jacobian_of_the_whole_way(features):
    model, x = moving(features), Generator(1).normal((3, features), np.float64)
    with model.precise(1e-7):
        with tinygen.no_grad():
            z, log_det = (out.numpy() for out in model(x))
        back = np.linalg.slogdet(jacobians(model.inverse, z)).logabsdet
    np.testing.assert_allclose(log_det, -back, atol=1e-5)


def test_the_inverse_undoes_the_flow_as_far_as_the_solver_is_precise():
    model, x = moving(), 2 * Generator(2).normal((20, 2), np.float64)
    np.testing.assert_allclose(model.inverse(model(x)[0]).numpy(), x, atol=2e-3)
    for tolerance in (1e-4, 1e-7):
        with tinygen.no_grad(), model.precise(tolerance):
            np.testing.assert_allclose(model.inverse(model(x)[0]).numpy(), x, atol=100 * tolerance)


def test_hutchinsons_estimate_averages_to_the_exact_density_over_all_signs_of_its_noise():
    model, x = moving(), Generator(3).normal((10, 2), np.float64)
    signs = [np.tile(np.array(s, np.float64), (10, 1)) for s in itertools.product((-1, 1), repeat=2)]
    estimates = [model.log_prob(x, noise).numpy() for noise in signs]
    np.testing.assert_allclose(np.mean(estimates, axis=0), model.log_prob(x).numpy(), atol=1e-12)
    assert np.ptp(estimates, axis=0).max() > 1e-3


def test_the_density_integrates_to_one():
    model, x = moving(dtype=np.float32, shake=0.1), grid((-7.0, 7.0, -7.0, 7.0), 140).astype(np.float32)
    with tinygen.no_grad():
        mass = np.exp(model.log_prob(x.reshape(-1, 2)).numpy()).sum() * 0.1**2
    assert mass == pytest.approx(1, abs=2e-3)


def test_what_is_computed_with_and_without_recording_is_the_same():
    model, x = moving(dtype=np.float32), Generator(4).normal((30, 2))
    with tinygen.no_grad():
        quiet = model.log_prob(x)
    np.testing.assert_allclose(model.log_prob(x).numpy(), quiet.numpy(), atol=1e-6)
    assert quiet.dtype == np.float32 and not quiet.requires_grad


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_the_gradient_of_the_loss_is_that_of_finite_differences(trace):
    model, x, h = moving(steps=3, trace=trace), Generator(5).normal((8, 2), np.float64), 1e-5
    model.loss(x, Generator(6)).backward()
    for p in model.parameters():
        direction, start = Generator(8).normal(p.shape, np.float64), p.numpy().copy()
        losses = []
        for sign in (1, -1):
            p.data = start + sign * h * direction
            losses.append(model.loss(x, Generator(6)).item())
        p.data = start
        assert np.sum(p.grad * direction) == pytest.approx((losses[0] - losses[1]) / (2 * h), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_training_carries_noise_to_a_moved_and_slanted_normal(trace):
    rng, data = Generator(0), MultivariateNormal([1.0, -1.0], [[1.0, 0.0], [0.8, 0.6]])
    model = CNF(Velocity(2, width=16, hidden=2, rng=rng), 2, trace, steps=3)
    optimiser = optim.Adam(model.parameters(), lr=3e-2, schedule=optim.cosine(60))
    for _ in range(60):
        model.loss(data.sample(rng, (128,)).astype(np.float32), rng).backward()
        optimiser.step()
        optimiser.zero_grad()
    x = data.sample(Generator(1), (2000,)).astype(np.float32)
    with tinygen.no_grad(), model.precise():
        gap = np.mean(data.log_prob(x) - model.log_prob(x).numpy())
    assert 0 <= gap < 0.06
    drawn = model.sample(4000, rng)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(np.cov(drawn.T), [[1, 0.8], [0.8, 1]], atol=0.25)


def test_the_way_from_noise_to_data_ends_where_the_inverse_does():
    model, z = moving(dtype=np.float32), Generator(0).normal((10, 2))
    way = list(model.unfolding(z, frames=model.steps))
    assert len(way) == model.steps + 1
    np.testing.assert_allclose(way[-1], model.inverse(z).numpy(), atol=1e-6)


def test_evaluations_of_the_velocity_are_counted():
    model = moving()
    model.inverse(np.zeros((1, 2)))
    assert model.evaluations == 4 * model.steps
    with model.precise(1e-6):
        model.inverse(np.ones((1, 2)))
    assert model.evaluations > 8 * model.steps


def test_noise_of_signs_has_mean_0_and_variance_1():
    noise = rademacher((10_000, 2), Generator(0))
    assert noise.dtype == np.float32 and set(np.unique(noise)) == {-1, 1}
    np.testing.assert_allclose(noise.T @ noise / 10_000, np.eye(2), atol=0.04)


def test_a_continuous_flow_is_made_again_from_its_description_and_its_weights():
    model = CNF(Velocity(2, width=8, activation=ops.silu, rng=Generator(0)), 2, steps=4)
    again = rebuild(json.loads(json.dumps(describe(model))), weights=1000)
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(model.sample(5, Generator(1)), again.sample(5, Generator(1)))


def test_wrong_settings_are_explained():
    with pytest.raises(InputError, match='"exact" or "hutchinson"'):
        CNF(None, 2, trace="none")
    with pytest.raises(InputError, match="give the loss a generator"):
        moving(trace="hutchinson").loss(np.zeros((1, 2)))
