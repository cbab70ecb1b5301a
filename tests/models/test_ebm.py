"""Truths about energies and the chains that draw from them, shown where Z is known."""

import itertools
import json

import numpy as np
import pytest

import tinygen
from tinygen import ops, optim
from tinygen.describe import describe, rebuild
from tinygen.errors import InputError
from tinygen.models import EBM
from tinygen.models.ebm import ReplayBuffer, after
from tinygen.nn import MLP, initialise
from tinygen.plotting import grid
from tinygen.random import Generator

CELLS = grid((-6.0, 6.0, -6.0, 6.0), 120).reshape(-1, 2).astype(np.float32)


def normal(spread=1.0, **options):
    """A network that says nothing: the model is N(0, spread^2 I)."""
    net = MLP([2, 2, 1], rng=Generator(0), last_init=initialise.zeros)
    return EBM(net, 2, spread, **options)


def bumpy(seed=0, **options):
    return EBM(MLP([2, 16, 1], ops.silu, rng=Generator(seed)), 2, spread=1.5, **options)


def probabilities(model):
    with tinygen.no_grad():
        p = np.exp(-model.energy(CELLS).numpy().astype(np.float64))
    return p / p.sum()


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
def test_without_a_network_z_is_that_of_a_normal(spread):
    assert normal(spread).log_z() == pytest.approx(np.log(2 * np.pi * spread**2), abs=1e-3)


def test_a_constant_energy_changes_log_z_and_no_density():
    model = bumpy()
    before, log_p = model.log_z(), -model.energy(CELLS).numpy() - model.log_z()
    model.net[-1].bias.data = model.net[-1].bias.numpy() + np.float32(3)
    assert model.log_z() == pytest.approx(before - 3, abs=1e-4)
    np.testing.assert_allclose(-model.energy(CELLS).numpy() - model.log_z(), log_p, atol=1e-4)


@pytest.mark.parametrize("step", [0.3, 1.0])
def test_adjusted_chains_keep_the_density_at_any_step_and_unadjusted_ones_widen_it_as_theory_says(step):
    rng = Generator(1)
    for adjusted, variance in ((True, 1.0), (False, 1 / (1 - step**2 / 4))):
        start = np.float32(np.sqrt(variance)) * rng.normal((20_000, 2))
        x = after(60, normal().walk(start, step, rng, adjusted))
        assert x.dtype == np.float32
        np.testing.assert_allclose(np.cov(x.T), variance * np.eye(2), atol=0.04)


def test_chains_from_afar_come_to_draw_the_density_that_the_grid_shows():
    model = bumpy()
    x = after(250, model.walk(np.full((4000, 2), 3.0, np.float32), 0.6, Generator(2)))
    edges = np.arange(-6, 6.1, 3)
    shares = np.histogram2d(*x.T, bins=edges)[0].T / 4000
    expected = probabilities(model).reshape(4, 30, 4, 30).sum((1, 3))
    assert np.abs(shares - expected).max() < 5 * np.sqrt(0.25 / 4000)


def test_the_gradient_of_the_loss_is_that_of_the_likelihood_when_the_model_itself_is_drawn_from():
    model, data = bumpy(weight=0.0), Generator(3).normal((50, 2))
    p = probabilities(model)
    log_z = ops.logsumexp(-model.energy(CELLS)) + 2 * np.log(0.1)
    (ops.mean(model.energy(data)) + log_z).backward()
    exact = [q.grad.copy() for q in model.parameters()]
    for q in model.parameters():
        q.grad = None
    model.loss(data, CELLS[Generator(4).choice(len(p), 200_000, p)]).backward()
    for q, g in zip(model.parameters(), exact, strict=True):
        np.testing.assert_allclose(q.grad, g, atol=0.02 * max(1, np.abs(g).max()))


def test_the_weight_of_squares_draws_energies_to_zero_and_nothing_else():
    data, drawn = Generator(5).normal((20, 2)), Generator(6).normal((20, 2))
    plain, heavy = (bumpy(weight=w).loss(data, drawn).item() for w in (0.0, 2.0))
    squares = [np.mean(bumpy().energy(x).numpy() ** 2) for x in (data, drawn)]
    assert heavy - plain == pytest.approx(2 * sum(squares), rel=1e-5)


def test_training_with_a_replay_buffer_learns_two_modes_as_a_density():
    rng = Generator(7)
    data = lambda n: np.float32(0.5) * rng.normal((n, 2)) + np.float32([1.5, 0]) * (2 * rng.integers(2, (n, 1)) - 1)
    model = EBM(MLP([2, 32, 32, 1], ops.silu, rng=rng), 2, spread=2.5)
    buffer = ReplayBuffer(lambda n, rng: 2 * rng.normal((n, 2)), 256, 0.01, rng)
    optimiser = optim.Adam(model.parameters(), lr=1e-2, schedule=optim.cosine(150))
    for _ in range(150):
        model.loss(data(128).astype(np.float32), buffer.advanced(model, 128, 8, 0.4, rng)).backward()
        optimiser.step()
        optimiser.zero_grad()
    x = data(4000).astype(np.float32)
    logs = [-np.sum((x - m) ** 2, axis=1) / 0.5 - np.log(2 * np.pi * 0.25) - np.log(2) for m in ([1.5, 0], [-1.5, 0])]
    with tinygen.no_grad():
        gap = np.mean(np.logaddexp(*logs) + model.energy(x).numpy() + model.log_z())
    assert 0 <= gap < 0.2


def test_a_replay_buffer_moves_the_chains_it_lends_and_restarts_the_share_it_is_told_to():
    fresh = lambda n, rng: np.full((n, 2), 7, np.float32)
    buffer = ReplayBuffer(fresh, 1000, 0.0, Generator(0))
    x = buffer.advanced(normal(), 400, 3, 0.5, Generator(1))
    moved = np.any(buffer.places != 7, axis=1)
    assert x.shape == (400, 2) and moved.sum() == 400
    buffer = ReplayBuffer(fresh, 1000, 0.25, Generator(0))
    buffer.places[:] = 0
    near_start = buffer.advanced(normal(), 1000, 1, 0.01, Generator(1))[:, 0] > 5
    assert 0.2 < near_start.mean() < 0.3


def test_a_replay_buffer_goes_on_from_its_state():
    fresh = lambda n, rng: rng.normal((n, 2))
    first, second = (ReplayBuffer(fresh, 50, 0.1, Generator(seed)) for seed in (0, 1))
    second.load_state_dict(first.state_dict())
    drawn = [buffer.advanced(normal(), 20, 5, 0.3, Generator(2)) for buffer in (first, second)]
    np.testing.assert_array_equal(*drawn)


def test_samples_are_the_same_for_the_same_seed_and_chains_go_on_as_long_as_asked():
    model = bumpy()
    drawn = model.sample(10, Generator(3), steps=5)
    np.testing.assert_array_equal(drawn, model.sample(10, Generator(3), steps=5))
    assert len(list(itertools.islice(model.walk(drawn, 0.1, Generator(0)), 7))) == 7


def test_a_model_is_made_again_from_its_description_and_its_weights():
    model = bumpy(weight=0.1)
    again = rebuild(json.loads(json.dumps(describe(model))), weights=1000)
    again.load_state_dict(model.state_dict())
    assert again.weight == 0.1
    np.testing.assert_array_equal(model.energy(CELLS).numpy(), again.energy(CELLS).numpy())


def test_wrong_settings_are_explained():
    with pytest.raises(InputError, match="spread must be positive"):
        EBM(None, 2, spread=0)
    with pytest.raises(InputError, match="step of Langevin dynamics must be positive"):
        next(normal().walk(CELLS[:3], 0.0, Generator(0)))
    with pytest.raises(InputError, match="in 2 dimensions, not in 3"):
        EBM(None, 3).log_z()
    with pytest.raises(InputError, match="restart a share"):
        ReplayBuffer(None, 10, 2.0, Generator(0))
    with pytest.raises(InputError, match="at least 1 step"):
        normal().sample(3, Generator(0), steps=0)
