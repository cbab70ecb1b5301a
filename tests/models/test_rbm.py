"""Truths about restricted Boltzmann machines so small that every state can be gone through."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen import grad, optim
from tinygen.describe import describe, rebuild
from tinygen.errors import InputError, ShapeError
from tinygen.models import RBM
from tinygen.models.rbm import (
    Chains,
    annealed_log_z,
    exact_log_z,
    exact_samples,
    log_odds,
    reverse_log_z,
    sample,
    temperatures,
)
from tinygen.random import Generator

BITS, HIDDEN, CLASSES = 7, 4, 3
ALL = np.array(list(itertools.product([0.0, 1.0], repeat=BITS)), np.float32)
STATES = np.array(list(itertools.product([0.0, 1.0], repeat=HIDDEN)))
seeds = st.integers(0, 2**32)


def machine(seed=0, classes=0, scale=0.8):
    rng = Generator(seed)
    model = RBM(BITS, HIDDEN, classes, rng=rng)
    for p in model.parameters():
        p.data = p.numpy() + np.float32(scale) * rng.normal(p.shape)
    return model


def visible(model):
    """Every visible vector there is."""
    if not model.classes:
        return ALL
    return np.concatenate([model.with_labels(ALL, np.full(len(ALL), y)) for y in range(model.classes)])


def energies(model, v, h):
    W, b, c = (p.numpy().astype(np.float64) for p in (model.W, model.b, model.c))
    return -(v @ b)[:, None] - h @ c - v @ W @ h.T


def probabilities(model):
    """p(v) of every visible vector, from the energies alone."""
    weights = np.exp(-energies(model, visible(model), STATES)).sum(1)
    return weights / weights.sum()


def chi_squared(v, model, p):
    """How far the counts of the rows of v are from n p, in standard deviations of that."""
    code = lambda x: (x @ 2.0 ** np.arange(x.shape[1])).astype(int)
    place = {c: i for i, c in enumerate(code(visible(model)))}
    counts = np.bincount([place[c] for c in code(v)], minlength=len(p))
    often = len(v) * p > 8
    counts, p = np.append(counts[often], counts[~often].sum()), np.append(p[often], p[~often].sum())
    return (np.sum((counts - len(v) * p) ** 2 / (len(v) * p)) - len(p)) / np.sqrt(2 * len(p))


# -- energies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [0, CLASSES])
@settings(max_examples=10)
@given(seed=seeds)
def test_the_free_energy_sums_the_energies_over_all_hidden_states(classes, seed):
    model = machine(seed, classes)
    v = visible(model)
    expected = -np.logaddexp.reduce(-energies(model, v, STATES), axis=1)
    np.testing.assert_allclose(model.free_energy(v).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("classes", [0, CLASSES])
@settings(max_examples=10)
@given(seed=seeds)
def test_with_the_exact_z_the_probabilities_of_all_images_sum_to_one(classes, seed):
    model = machine(seed, classes)
    log_z = exact_log_z(model)
    assert log_z == pytest.approx(np.logaddexp.reduce(-energies(model, visible(model), STATES), axis=None), abs=1e-10)
    assert np.exp(model.log_prob(ALL, log_z)).sum() == pytest.approx(1, abs=1e-10)


def test_labels_are_classified_by_the_exact_conditional():
    model = machine(classes=CLASSES)
    p = probabilities(model).reshape(CLASSES, -1).T
    scores = np.exp(-model.free_energies(ALL))
    np.testing.assert_allclose(scores / scores.sum(1, keepdims=True), p / p.sum(1, keepdims=True), rtol=1e-9)


# -- the gradient ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [0, CLASSES])
@settings(max_examples=10)
@given(seed=seeds)
def test_the_gradient_of_the_loss_is_the_difference_of_outer_products(classes, seed):
    """<v h> of the data less <v h> of what was made up: the formula that the engine never saw."""
    model, rng = machine(seed, classes).to(dtype=np.float64), Generator(seed)
    every = visible(model).astype(np.float64)
    data, made_up = (every[rng.integers(len(every), 20)] for _ in range(2))
    found = grad(model.loss(data, made_up), [model.W, model.b, model.c])
    W, b, c = (p.numpy() for p in (model.W, model.b, model.c))
    hidden = lambda v: 1 / (1 + np.exp(-(v @ W + c)))
    by_w = (made_up.T @ hidden(made_up) - data.T @ hidden(data)) / 20
    expected = [by_w, made_up.mean(0) - data.mean(0), hidden(made_up).mean(0) - hidden(data).mean(0)]
    for a, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), e, atol=1e-12)


def test_against_exact_draws_the_loss_has_the_gradient_of_the_likelihood():
    """Weighted by their exact probabilities, what is made up gives d log Z: held against differences of it."""
    model, step = machine(3), 1e-2
    data, rng = ALL[[5, 17, 80]], Generator(0)
    made_up = exact_samples(model, 200_000, rng)
    found = [g.numpy() for g in grad(model.loss(data, made_up), [model.W, model.b, model.c])]
    for p, g in zip((model.W, model.b, model.c), found, strict=True):
        direction, start = rng.normal(p.shape), p.numpy().copy()
        losses = []
        for sign in (1, -1):
            p.data = start + np.float32(sign * step) * direction
            losses.append(-model.log_prob(data, exact_log_z(model)).mean())
        p.data = start
        assert np.sum(g * direction) == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=0.02)


@settings(max_examples=10)
@given(seed=seeds)
def test_centred_gradients_are_those_in_the_centred_parameters_carried_over(seed):
    """A small step along them is, for the model, the step along the plain gradient in the parameters of
    E = -(v - mu).b' - (h - lam).c' - (v - mu) W (h - lam)."""
    model, rng = machine(seed), Generator(seed)
    data, made_up = (ALL[rng.integers(len(ALL), 30)] for _ in range(2))
    model.loss(data, made_up).backward()
    model.centre_gradients(data)
    mu, lam, W, c = (x.numpy() for x in (model.mu, model.lam, model.W, model.c))
    hidden = lambda v: 1 / (1 + np.exp(-(v @ W + c)))
    by_w = sum(s * (v - mu).T @ (hidden(v) - lam) / 30 for s, v in ((-1, data), (1, made_up)))
    by_b, by_c = made_up.mean(0) - data.mean(0), hidden(made_up).mean(0) - hidden(data).mean(0)
    # b = b' - W lam and c = c' - W^T mu, so a step of b' and W moves b by both
    for found, expected in ((model.W, by_w), (model.b, by_b - by_w @ lam), (model.c, by_c - mu @ by_w)):
        np.testing.assert_allclose(found.grad, expected, atol=2e-5)


# -- chains ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_a_long_chain_draws_from_the_model(classes):
    model = machine(1, classes, scale=0.5)
    rng = Generator(0)
    v = visible(model)[rng.integers(len(visible(model)), 20_000)]
    assert chi_squared(v, model, probabilities(model)) > 20  # where it begins is elsewhere
    assert abs(chi_squared(model.gibbs(v, 40, rng), model, probabilities(model))) < 5


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_exact_draws_are_exact(classes):
    model = machine(2, classes)
    assert abs(chi_squared(exact_samples(model, 20_000, Generator(0)), model, probabilities(model))) < 5


def test_with_its_label_held_a_chain_draws_images_of_that_class():
    model, n = machine(1, CLASSES, scale=0.5), 20_000
    x = sample(model, n, 40, Generator(0), np.full(n, 2))
    p = probabilities(model).reshape(CLASSES, -1)[2]
    mean = (p / p.sum()) @ ALL
    np.testing.assert_array_less(np.abs(x.mean(0) - mean), 5 * np.sqrt(mean * (1 - mean) / n))


def test_persistent_chains_go_on_where_they_were_saved():
    model, chains = machine(), Chains(ALL[:10])
    chains.step(model, 2, Generator(0))
    again = Chains(ALL[:10])
    again.load_state_dict(chains.state_dict())
    np.testing.assert_array_equal(chains.step(model, 1, Generator(1)), again.step(model, 1, Generator(1)))
    with pytest.raises(InputError, match=r"chains of shape \(3, 7\)"):
        chains.load_state_dict({"v": ALL[:3]})


# -- the partition function --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [0, CLASSES])
@pytest.mark.parametrize("seed", range(3))
def test_annealing_meets_the_enumerated_partition_function_from_both_sides(classes, seed):
    model, rng = machine(seed, classes, scale=1.5), Generator(seed)
    base, betas = np.zeros(BITS + classes, np.float32), temperatures(290)
    exact = exact_log_z(model)
    for found in (
        annealed_log_z(model, base, betas, 400, rng),
        reverse_log_z(model, base, betas, exact_samples(model, 400, rng), rng),
    ):
        assert abs(found.log_z - exact) < 5 * found.error + 1e-3
        assert found.error < 0.1 and 50 < found.effective <= 400


def test_with_few_temperatures_the_two_estimates_lie_on_either_side_of_the_truth():
    model, rng = machine(4, scale=3), Generator(0)
    base, betas, exact = np.zeros(BITS, np.float32), np.linspace(0, 1, 3), exact_log_z(model)
    below = [annealed_log_z(model, base, betas, 1, rng).log_z for _ in range(300)]
    above = [reverse_log_z(model, base, betas, exact_samples(model, 1, rng), rng).log_z for _ in range(300)]
    assert np.mean(below) + 1 < exact < np.mean(above) - 1


def test_without_temperatures_in_between_the_estimate_is_importance_sampling():
    model = machine(5)
    found = annealed_log_z(model, np.zeros(BITS, np.float32), np.array([0.0, 1.0]), 50_000, Generator(0))
    assert abs(found.log_z - exact_log_z(model)) < 5 * found.error and found.error < 0.1


def test_temperatures_rise_from_zero_to_one():
    for n in (1, 29, 100, 14_500):
        betas = temperatures(n)
        assert len(betas) == n + 1 and betas[0] == 0 and betas[-1] == 1 and np.all(np.diff(betas) > 0)
    assert temperatures(14_500)[[500, 4500]].tolist() == [0.5, 0.9]


# -- learning, files, faults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("persistent", [False, True])
def test_learning_raises_the_likelihood_nearly_to_that_of_the_data(persistent):
    """Two images and their negatives, equally likely: log 4 nats."""
    data = ALL[[0b1010101, 0b0101010, 0b1110000, 0b0001111]]
    rng = Generator(0)
    model = RBM(BITS, 8, rng=rng)
    chains, optimiser = Chains(data[rng.integers(4, 100)]), optim.SGD(model.parameters(), lr=0.2)
    for _ in range(600):
        v = data[rng.integers(4, 100)]
        loss = model.loss(v, chains.step(model, 1, rng) if persistent else model.gibbs(v, 5, rng))
        loss.backward()
        model.centre_gradients(v)
        optimiser.step()
        optimiser.zero_grad()
    nats = -model.log_prob(data, exact_log_z(model)).mean()
    assert np.log(4) < nats < np.log(4) + 0.5  # 7 log 2 = 4.9 to begin with


def test_visible_biases_begin_at_the_brightness_of_the_data():
    odds = log_odds(np.array([[1, 0, 1], [1, 0, 0]], np.float32))
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), [3 / 4, 1 / 4, 1 / 2], rtol=1e-6)


def test_a_machine_is_made_again_from_its_description_and_its_weights():
    model = machine(classes=CLASSES)
    again = rebuild(json.loads(json.dumps(describe(model))), weights=1000)
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(sample(model, 5, 3, Generator(0)), sample(again, 5, 3, Generator(0)))


def test_impossible_settings_are_explained():
    with pytest.raises(InputError, match="needs visible and hidden units, not 0 and 3"):
        RBM(0, 3, rng=Generator(0))
    with pytest.raises(InputError, match="21 hidden units have too many states"):
        exact_log_z(RBM(3, 21, rng=Generator(0)))
    with pytest.raises(ShapeError, match=r"base must have the shape of the visible biases, \(7,\)"):
        reverse_log_z(machine(), np.zeros(3, np.float32), temperatures(30), ALL[:4], Generator(0))
