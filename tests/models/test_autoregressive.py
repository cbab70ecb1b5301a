"""Truths about FVSBN, NADE and MADE, shown on vectors so short that all of them can be gone through."""

import itertools
import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinygen
from tinygen import no_grad, ops, optim
from tinygen.describe import describe, rebuild
from tinygen.errors import InputError
from tinygen.models import FVSBN, MADE, NADE
from tinygen.models.autoregressive import Autoregressive
from tinygen.random import Generator

BITS = 12
ALL = np.array(list(itertools.product([0.0, 1.0], repeat=BITS)))
KINDS = {
    "FVSBN": lambda rng, **options: FVSBN(BITS, rng=rng, **options),
    "NADE": lambda rng, **options: NADE(BITS, 7, rng=rng, **options),
    "MADE": lambda rng, **options: MADE(BITS, (9,), rng=rng, **options),
    "MADE, two layers": lambda rng, **options: MADE(BITS, (9, 8), rng=rng, **options),
    "MADE, three masks": lambda rng, **options: MADE(BITS, (9,), masks=3, rng=rng, **options),
    "MADE, three orders": lambda rng, **options: MADE(BITS, (9, 8), masks=3, orders=True, rng=rng, **options),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def made(kind, seed=0, dtype=np.float64, **options):
    """A model whose every weight is away from zero."""
    rng = Generator(seed)
    model = KINDS[kind](rng, **options)
    for p in model.parameters():
        p.data = p.numpy() + np.float32(0.7) * rng.normal(p.shape)
    return model.to(dtype=dtype)


def probabilities(model, labels=None):
    with no_grad():
        return np.exp(model.log_prob(ALL.astype(next(iter(model.parameters())).dtype), labels).numpy())


# -- the density -------------------------------------------------------------------------------------------------------


@every_kind
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), order=st.permutations(range(BITS)), label=st.sampled_from([None, 0, 2]))
def test_the_probabilities_of_all_12_bit_strings_sum_to_one_in_every_order(kind, seed, order, label):
    model = made(kind, seed, order=order, classes=0 if label is None else 3)
    p = probabilities(model, None if label is None else np.full(len(ALL), label))
    assert abs(p.sum() - 1) < 1e-12 and p.std() > 1e-5


@every_kind
def test_each_component_of_a_mixture_and_each_conditional_sums_to_one_by_itself(kind):
    model = made(kind)
    for k in range(getattr(model, "masks", 1)):
        logits = model.logits(ALL, k=k) if isinstance(model, MADE) else model.logits(ALL)
        log_p = -ops.sum(ops.binary_cross_entropy_with_logits(logits, ALL), axis=1).numpy()
        assert abs(np.exp(log_p).sum() - 1) < 1e-12


@every_kind
@pytest.mark.parametrize("backwards", [False, True])
def test_a_value_is_told_of_those_before_it_in_the_order_and_of_no_other(kind, backwards):
    order = Generator(5).permutation(BITS)[:: -1 if backwards else 1]
    model, x = made(kind, order=order), tinygen.tensor(ALL[1234][None], requires_grad=True)
    for k in range(getattr(model, "masks", 1)):
        place = np.argsort(model.order_of(k))
        logits = model.logits(x, k=k) if isinstance(model, MADE) else model.logits(x)
        for i in range(BITS):
            seen = tinygen.grad(logits[0, i], x, retain_graph=True)[0].numpy() != 0
            assert not seen[place >= place[i]].any()
            assert seen[place < place[i]].all()  # by the direct way at least


def test_nade_is_the_recursion_of_its_paper_written_as_loops():
    model = made("NADE", order=Generator(3).permutation(BITS))
    W, V, c, b = (p.numpy() for p in (model.W, model.V, model.c, model.b))
    for x in ALL[::511]:
        a, log_p = c.copy(), 0.0
        for place, i in enumerate(model.order):
            p = 1 / (1 + np.exp(-(b[i] + V[place] @ (1 / (1 + np.exp(-a))))))
            log_p += np.log(p if x[i] else 1 - p)
            a += x[i] * W[place]
        assert model.log_prob(x[None]).item() == pytest.approx(log_p, abs=1e-12)


def test_a_mixture_of_masks_is_at_least_as_likely_as_its_components_on_average():
    model = made("MADE, three orders")
    losses = [model.loss(ALL, Generator(seed)).item() for seed in range(40)]
    assert len({round(loss, 9) for loss in losses}) == 3  # one for each component
    assert -model.log_prob(ALL).numpy().mean() <= np.mean(losses)
    assert {tuple(model.order_of(k)) for k in range(3)} != {tuple(range(BITS))}


def test_masks_of_one_draw_are_the_same_whenever_they_are_asked_for():
    model = made("MADE, three orders")
    first = [[m.copy() for m in model.connections(k)] for k in range(3)]
    for k in (2, 0, 1):
        for a, b in zip(first[k], model.connections(k), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0][0], first[1][0])


# -- sampling ----------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("label", [None, 1])
def test_samples_come_as_often_as_their_probability_says(kind, label):
    model, n = made(kind, 1, np.float32, classes=0 if label is None else 3), 20_000
    labels = lambda count: None if label is None else np.full(count, label)
    x = model.sample(n, Generator(0), labels(n))
    assert x.shape == (n, BITS) and x.dtype == np.float32 and set(np.unique(x)) == {0, 1}
    counts = np.bincount((x @ 2 ** np.arange(BITS - 1, -1, -1)).astype(int), minlength=2**BITS)
    expected = n * probabilities(model, labels(len(ALL)))
    often = expected > 8
    counts, expected = (np.append(c[often], c[~often].sum()) for c in (counts, expected))
    excess = np.sum((counts - expected) ** 2 / expected) - len(counts)
    assert abs(excess) < 5 * np.sqrt(2 * len(counts))  # chi-squared


@every_kind
def test_what_is_given_stays_and_the_rest_follows_the_conditional_distribution(kind):
    if "orders" in kind:
        with pytest.raises(InputError, match="orders of their own, so no values come first"):
            made(kind).sample(2, Generator(0), given=np.zeros((2, BITS)), start=3)
        return
    order, start, n = Generator(2).permutation(BITS), 5, 20_000
    model = made(kind, 3, np.float32, order=order)
    begun = ALL[2721]
    x = model.sample(n, Generator(1), given=np.broadcast_to(begun, (n, BITS)), start=start)
    kept = order[:start]
    np.testing.assert_array_equal(x[:, kept], np.broadcast_to(begun[kept], (n, start)))
    p = probabilities(model) * (ALL[:, kept] == begun[kept]).all(1)
    mean = (p / p.sum()) @ ALL
    np.testing.assert_array_less(np.abs(x.mean(0) - mean), 5 * np.sqrt(mean * np.abs(1 - mean) / n) + 1e-4)


@every_kind
def test_values_are_drawn_in_the_order_that_the_component_has(kind):
    model = made(kind, dtype=np.float32)
    for k in range(getattr(model, "masks", 1)):
        assert list(model.filling(np.zeros((2, BITS), np.float32), Generator(0), k=k)) == list(model.order_of(k))


# -- learning, files, faults -------------------------------------------------------------------------------------------


@every_kind
def test_training_finds_a_rule_that_holds_among_the_bits(kind):
    """The last six bits repeat the first six, which are fair coins: 6 log 2 nats."""
    rng = Generator(0)
    model = KINDS[kind](rng)
    optimiser = optim.Adam(model.parameters(), lr=5e-2)
    for _ in range(300):
        half = (rng.uniform((64, BITS // 2)) < 0.5).astype(np.float32)
        loss = model.loss(np.concatenate([half, half], axis=1), rng)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    half = ALL[:64, 6:]
    nats = -model.log_prob(np.concatenate([half, half], axis=1).astype(np.float32)).numpy().mean()
    assert 6 * np.log(2) - 1e-3 < nats < 6 * np.log(2) + 0.5


@every_kind
def test_a_model_is_made_again_from_its_description_and_its_weights(kind):
    model = made(kind, dtype=np.float32, classes=3)
    again = rebuild(json.loads(json.dumps(describe(model))), weights=10_000)
    again.load_state_dict(model.state_dict())
    labels = np.arange(20) % 3
    np.testing.assert_array_equal(model.sample(20, Generator(1), labels), again.sample(20, Generator(1), labels))


def test_impossible_settings_are_explained():
    with pytest.raises(InputError, match=r"order must hold each of 0 ... 3 once"):
        FVSBN(4, order=[0, 1, 2, 2], rng=Generator(0))
    with pytest.raises(InputError, match="a hidden layer and a mask at least"):
        MADE(4, (), rng=Generator(0))
    with pytest.raises(InputError, match="needs labels, of 3 classes"):
        made("NADE", classes=3).log_prob(ALL[:2])
    with pytest.raises(InputError, match="needs no labels"):
        made("MADE").log_prob(ALL[:2], np.zeros(2, int))
    with pytest.raises(NotImplementedError, match="write logits"):
        Autoregressive(3).log_prob(ALL[:, :3])
