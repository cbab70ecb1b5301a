import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

import tinygen
from tinygen import ops
from tinygen.distributions import GumbelSoftmax, straight_through
from tinygen.errors import InputError, ShapeError
from tinygen.random import Generator


@settings(max_examples=10)
@given(st.floats(-2, 2), st.floats(0.5, 2))
def test_the_density_of_two_classes_integrates_to_one(logit, temperature):
    d = GumbelSoftmax(np.array([logit, 0.0]), np.array(temperature))
    z = lambda t: special.expit(t)  # on the line, where the density has no singular ends
    density = lambda t: np.exp(d.log_prob(np.array([z(t), z(-t)]))) * z(t) * z(-t)
    assert integrate.quad(density, -60, 60, points=[logit], limit=200)[0] == pytest.approx(1, abs=1e-6)


def test_samples_of_two_classes_follow_the_density():
    """The log-odds of the point are those of a logistic variable, scaled by the temperature."""
    x = GumbelSoftmax(np.array([0.7, -0.2]), 0.6).sample(Generator(0), 20_000)
    assert x.shape == (20_000, 2)
    assert stats.kstest(special.logit(x[:, 0]), stats.logistic(0.9 / 0.6, 1 / 0.6).cdf).pvalue > 0.01


@pytest.mark.parametrize("temperature", [1e-3, 0.5, 100.0])
def test_draws_lie_on_the_simplex_and_the_largest_is_a_draw_of_the_categorical(temperature):
    logits = [1.0, 0.0, -1.0, -np.inf]
    x = GumbelSoftmax(logits, temperature).sample(Generator(0), 20_000)
    np.testing.assert_allclose(x.sum(-1), 1, rtol=1e-5)
    assert x.min() == 0 and x.dtype == np.float32
    counts = np.bincount(x.argmax(-1), minlength=4)
    assert counts[3] == 0 and stats.chisquare(counts[:3], 20_000 * special.softmax(logits[:3])).pvalue > 0.01


def test_hard_draws_are_one_hot_to_the_bit_with_the_gradient_of_the_soft_ones():
    weights = Generator(1).normal((50, 4))
    grads = []
    for hard in (False, True):
        logits = tinygen.tensor([0.5, 1.0, -1.0, 0.0], requires_grad=True)
        x = GumbelSoftmax(logits, 0.7).rsample(Generator(0), 50, hard=hard)
        grads.append(tinygen.grad(ops.sum(x * weights), [logits])[0].numpy())
        one_hot = np.eye(4)[x.numpy().argmax(-1)]
        assert np.array_equal(x.numpy(), one_hot) == hard
    np.testing.assert_allclose(*grads, rtol=1e-6)
    assert np.abs(grads[0]).min() > 1e-3


def test_straight_through_has_the_values_of_one_and_the_gradient_of_the_other():
    x = tinygen.tensor(Generator(0).normal(1000), requires_grad=True)
    y = straight_through(ops.sin(x), 1000 * x)
    np.testing.assert_array_equal(y.numpy(), np.sin(x.numpy()))
    np.testing.assert_array_equal(tinygen.grad(ops.sum(y), [x])[0].numpy(), 1000)


def test_the_gradients_of_draws_and_density_are_those_of_finite_differences():
    logits, temperature = np.array([[0.5, -0.3, 0.1], [0.0, 1.0, 0.4]]), np.array(0.8)
    made = lambda l, t: GumbelSoftmax(l, t)
    tinygen.gradcheck(lambda l, t: made(l, t).rsample(Generator(0), 2), logits, temperature)
    x = np.array([0.2, 0.5, 0.3])
    tinygen.gradcheck(lambda l, t, x: made(l, t).log_prob(x), logits, temperature, x)


def test_the_density_agrees_with_torch():
    torch = pytest.importorskip("torch", reason="PyTorch, with which this test compares, is not installed")
    logits = np.random.default_rng(0).normal(size=(4, 3))
    x = special.softmax(np.random.default_rng(1).normal(size=(4, 3)), -1)
    theirs = torch.distributions.RelaxedOneHotCategorical(torch.tensor(0.7).double(), logits=torch.tensor(logits))
    ours = GumbelSoftmax(logits, 0.7)
    np.testing.assert_allclose(ours.log_prob(x), theirs.log_prob(torch.tensor(x)).numpy(), rtol=1e-6)
    assert GumbelSoftmax(logits, 0.7, event=1).log_prob(x) == pytest.approx(ours.log_prob(x).sum())


def test_at_a_corner_the_density_is_not_nan():
    log_p = GumbelSoftmax([0.0, 0.0, 0.0], 0.1).log_prob([1.0, 0.0, 0.0])
    assert np.isfinite(log_p) and log_p.dtype == np.float32


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (([0.0], 1), ShapeError, "K at least 2"),
        (([0.0, 1.0], [1.0, 2.0]), ShapeError, "temperature must be one number"),
        (([0.0, 1.0], 0), InputError, "temperature must be positive and finite; 0 is not"),
        (([0.0, np.nan], 1), InputError, "logits must be numbers or -inf"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        GumbelSoftmax(*arguments)
