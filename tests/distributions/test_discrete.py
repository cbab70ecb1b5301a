import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

import tinygen
from tinygen.distributions import Bernoulli, Categorical
from tinygen.errors import DtypeError, InputError, ShapeError
from tinygen.random import Generator

logit_lists = st.lists(st.floats(-20, 20), min_size=1, max_size=6)


@given(logit_lists)
def test_a_bernoulli_is_that_of_scipy(logits):
    logits = np.array(logits)
    d, p, q = Bernoulli(logits), special.expit(logits), special.expit(-logits)
    for x in (0, 1):
        np.testing.assert_allclose(d.log_prob(x), special.log_expit((2 * x - 1) * logits), atol=1e-12)
    np.testing.assert_allclose(d.mean, p)
    np.testing.assert_allclose(d.variance, p * q)
    np.testing.assert_allclose(d.entropy(), special.entr(p) + special.entr(q), atol=1e-12)


@given(logit_lists)
def test_a_categorical_is_the_softmax_of_its_logits(logits):
    d, p = Categorical(np.array(logits)), special.softmax(logits)
    log_p = np.array([d.log_prob(k) for k in range(len(logits))])
    np.testing.assert_allclose(log_p, special.log_softmax(logits), atol=1e-12)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1)
    np.testing.assert_allclose(d.probs, p)
    assert d.entropy() == pytest.approx(special.entr(p).sum(), abs=1e-12)


def test_with_two_labels_a_categorical_is_a_bernoulli():
    logits = Generator(0).normal((5,), np.float64)
    two, one = Categorical(np.stack([np.zeros(5), logits], -1)), Bernoulli(logits)
    np.testing.assert_allclose(two.log_prob(np.array(1)), one.log_prob(1))
    np.testing.assert_allclose(two.entropy(), one.entropy())


def test_samples_come_as_often_as_their_probability_says():
    n = 20_000
    x = Bernoulli([-2.0, 0.0, 3.0]).sample(Generator(0), n)
    assert x.dtype == np.float32 and x.shape == (n, 3) and set(np.unique(x)) == {0, 1}
    for count, p in zip(x.sum(0), special.expit([-2, 0, 3]), strict=True):
        assert stats.binomtest(int(count), n, p).pvalue > 0.01
    d = Categorical([[0.0, 1.0, 2.0], [5.0, -np.inf, 5.0]])
    labels = d.sample(Generator(0), n)
    assert labels.dtype == np.int64 and labels.shape == (n, 2)
    counts = [np.bincount(column, minlength=3) for column in labels.T]
    assert stats.chisquare(counts[0], n * special.softmax([0, 1, 2])).pvalue > 0.01
    assert counts[1][1] == 0 and stats.binomtest(int(counts[1][0]), n).pvalue > 0.01


def test_logits_of_ten_thousand_lose_nothing():
    d = Bernoulli([1e4, -1e4])
    np.testing.assert_array_equal(d.log_prob([1, 0]), [0, 0])
    np.testing.assert_array_equal(d.log_prob([0, 1]), [-1e4, -1e4])
    np.testing.assert_array_equal(d.entropy(), [0, 0])
    np.testing.assert_array_equal(d.sample(Generator(0), 9), np.tile([1, 0], (9, 1)))
    d = Categorical([1e4, 0.0, -1e4, -np.inf])
    np.testing.assert_array_equal([d.log_prob(k) for k in range(4)], [0, -1e4, -2e4, -np.inf])
    assert d.entropy() == 0 and d.sample(Generator(0)) == 0


def test_the_gradients_are_those_of_finite_differences_and_zero_or_finite_at_the_edges():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 3)), np.array([[0, 2], [1, 1], [2, 0]])
    tinygen.gradcheck(lambda l: Bernoulli(l).log_prob(labels.T % 2), logits)
    tinygen.gradcheck(lambda l: (Bernoulli(l).entropy(), Bernoulli(l).mean, Bernoulli(l).variance), logits)
    tinygen.gradcheck(lambda l: (Categorical(l).log_prob(labels), Categorical(l).entropy()), logits)
    edge = tinygen.tensor([1e4, 0, -1e4, -np.inf], requires_grad=True)
    for out in (Categorical(edge).entropy(), Categorical(edge).log_prob(0), Bernoulli(edge[:3]).entropy().sum()):
        assert np.isfinite(tinygen.grad(out, [edge])[0].numpy()).all()


def test_labels_broadcast_with_logits():
    logits = Generator(0).normal((4, 3))
    d = Categorical(logits)
    assert d.log_prob(np.zeros((5, 4), int)).shape == (5, 4) and d.log_prob(1).shape == (4,)
    np.testing.assert_allclose(d.log_prob(np.array([[0], [1], [2]])).T, special.log_softmax(logits, -1), rtol=1e-5)


def test_an_event_of_labels_sums_over_its_axes():
    logits, labels = Generator(0).normal((2, 3, 4)), Generator(1).integers(4, (5, 2, 3))
    per_label, per_event = Categorical(logits), Categorical(logits, event=2)
    np.testing.assert_allclose(per_event.log_prob(labels), per_label.log_prob(labels).sum((1, 2)), rtol=1e-5)
    assert per_event.entropy() == pytest.approx(per_label.entropy().sum())
    x = Bernoulli(logits).sample(Generator(2), 6)
    assert Bernoulli(logits, event=3).log_prob(x).shape == (6,)


def test_float32_stays_float32():
    for d, x in [(Bernoulli([0.5, 1]), 1), (Categorical([0.5, 1]), 1)]:
        assert d.log_prob(x).dtype == d.entropy().dtype == d.probs.dtype == np.float32


def test_a_gray_level_gives_the_negative_cross_entropy():
    assert Bernoulli(2.0).log_prob(0.3) == pytest.approx(0.3 * special.log_expit(2) + 0.7 * special.log_expit(-2))


def test_they_agree_with_torch():
    torch = pytest.importorskip("torch", reason="PyTorch, with which this test compares, is not installed")
    logits, labels = np.random.default_rng(0).normal(size=(4, 3)), np.array([0, 2, 1, 1])
    for ours, theirs, x in [
        (Bernoulli(logits), torch.distributions.Bernoulli(logits=torch.tensor(logits)), labels[:, None] % 2),
        (Categorical(logits), torch.distributions.Categorical(logits=torch.tensor(logits)), labels),
    ]:
        np.testing.assert_allclose(ours.log_prob(x), theirs.log_prob(torch.tensor(x).double()).numpy())
        np.testing.assert_allclose(ours.entropy(), theirs.entropy().numpy())


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: Bernoulli([0, np.inf]), InputError, "Bernoulli: logits must be finite; inf is not"),
        (lambda: Categorical([0, np.nan]), InputError, "logits must be numbers or -inf"),
        (lambda: Categorical([0, np.inf]), InputError, "logits must be numbers or -inf"),
        (lambda: Categorical([-np.inf, -np.inf]), InputError, "not all -inf"),
        (lambda: Categorical(1.0), ShapeError, r"logits must have shape \(..., K\)"),
        (lambda: Categorical([0, 1]).log_prob(0.5), DtypeError, "labels must be integers, not float64"),
        (lambda: Categorical([0, 1]).log_prob(2), InputError, "labels"),
        (lambda: Categorical(np.zeros((2, 3))).log_prob(np.zeros(4, int)), ShapeError, "do not broadcast"),
        (lambda: Categorical([0, 1]).rsample(Generator(0)), InputError, "Categorical has no rsample"),
        (lambda: Bernoulli(0.0).rsample(Generator(0)), InputError, "Bernoulli has no rsample"),
        (lambda: Categorical([0, 1]).mean, InputError, "Categorical has no mean"),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
