import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

import tinygen
from tinygen.distributions import (
    Bernoulli,
    Categorical,
    Gumbel,
    Laplace,
    Logistic,
    MultivariateNormal,
    Normal,
    Uniform,
    kl,
)
from tinygen.errors import InputError, ShapeError
from tinygen.random import Generator

parameters = st.tuples(st.floats(-2, 2), st.floats(0.3, 3))


def pair(seed, family):
    """The arguments of two distributions of the family, float64 and unlike one another."""
    rng = np.random.default_rng(seed)
    draw = {
        Normal: lambda: (rng.normal(size=3), rng.uniform(0.3, 3, 3)),
        Bernoulli: lambda: (rng.normal(size=3),),
        Categorical: lambda: (rng.normal(size=(3, 4)),),
        MultivariateNormal: lambda: (rng.normal(size=(3, 2)), np.tril(rng.normal(size=(3, 2, 2)), -1) + np.eye(2)),
        Uniform: lambda: (rng.uniform(-1, 0, 3), rng.uniform(1, 2, 3)),
    }
    p, q = (draw.get(family, draw[Normal])() for _ in range(2))
    return (p, (q[0] - 1, q[1] + 1)) if family is Uniform else (p, q)


every = pytest.mark.parametrize(
    "family", [Normal, Laplace, Gumbel, Uniform, Bernoulli, Categorical, MultivariateNormal]
)


@pytest.mark.parametrize("family", [Normal, Laplace, Gumbel])
@settings(max_examples=15)
@given(first=parameters, second=parameters)
def test_it_is_the_integral_of_p_log_p_over_q(family, first, second):
    p, q = (family(*map(np.array, each)) for each in (first, second))

    def integrand(x):
        return np.exp(p.log_prob(x)) * (p.log_prob(x) - q.log_prob(x))

    edges = np.unique([*p.icdf(np.array([1e-15, 0.01, 0.5, 0.99, 1 - 1e-15])), float(p.loc), float(q.loc)])
    exact = sum(integrate.quad(integrand, a, b, epsabs=1e-11)[0] for a, b in zip(edges, edges[1:], strict=False))
    assert kl(p, q) == pytest.approx(exact, rel=1e-5, abs=1e-8)


def test_of_discrete_distributions_it_is_the_sum():
    for family, outcomes in [(Bernoulli, 2), (Categorical, 4)]:
        p, q = (family(*each) for each in pair(0, family))
        terms = [np.exp(p.log_prob(k)) * (p.log_prob(k) - q.log_prob(k)) for k in range(outcomes)]
        np.testing.assert_allclose(kl(p, q), sum(terms))


def test_of_multivariate_normals_it_is_the_textbook_formula_and_that_of_independent_axes():
    (m, a), (n, b) = pair(0, MultivariateNormal)
    inverse, s = np.linalg.inv(b @ b.swapaxes(-1, -2)), a @ a.swapaxes(-1, -2)
    quadratic = np.einsum("ki,kij,kj->k", n - m, inverse, n - m)
    log_ratio = np.linalg.slogdet(s)[1] + np.linalg.slogdet(inverse)[1]
    expected = 0.5 * (np.trace(inverse @ s, axis1=1, axis2=2) + quadratic - 2 - log_ratio)
    np.testing.assert_allclose(kl(MultivariateNormal(m, a), MultivariateNormal(n, b)), expected)
    x, y = pair(1, Normal)
    diagonal = lambda loc, scale: MultivariateNormal(loc, np.diag(scale))
    assert kl(diagonal(*x), diagonal(*y)) == pytest.approx(kl(Normal(*x, event=1), Normal(*y, event=1)))


def test_of_uniforms_it_is_the_log_ratio_of_widths_and_infinite_if_q_leaves_something_out():
    p = Uniform(0.0, np.array([1.0, 2.0]))
    np.testing.assert_allclose(kl(p, Uniform(-1, 2)), [np.log(3), np.log(1.5)])
    np.testing.assert_array_equal(kl(p, Uniform(0.5, 3)), np.inf)


@every
@settings(max_examples=10)
@given(seed=st.integers(0, 999), step=st.sampled_from([1e-7, 1e-3, 1.0]))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_never_negative_zero_of_equals_and_positive_of_others(family, seed, step, dtype):
    p, q = pair(seed, family)
    near = [(1 - step) * a + step * b for a, b in zip(p, q, strict=True)]
    p, near, q = (family(*[a.astype(dtype) for a in each]) for each in (p, near, q))
    np.testing.assert_array_equal(kl(p, p), 0)
    assert (kl(p, near) >= -4 * np.finfo(dtype).eps).all() and (kl(p, q) > 0).all()
    if family in (Normal, Laplace, Uniform):
        assert (kl(p, near) >= 0).all()


@every
def test_the_gradients_are_those_of_finite_differences(family):
    p, q = pair(2, family)
    n = len(p)
    tinygen.gradcheck(lambda *each: kl(family(*each[:n]), family(*each[n:])), *p, *q)


@every
def test_it_agrees_with_torch(family):
    torch = pytest.importorskip("torch", reason="PyTorch, with which this test compares, is not installed")
    p, q = pair(3, family)
    theirs = getattr(torch.distributions, family.__name__)
    key = {Bernoulli: ["logits"], Categorical: ["logits"], MultivariateNormal: ["loc", "scale_tril"]}.get(family)
    make = lambda each: theirs(**dict(zip(key, map(torch.tensor, each)))) if key else theirs(*map(torch.tensor, each))
    expected = torch.distributions.kl_divergence(make(p), make(q)).numpy()
    np.testing.assert_allclose(kl(family(*p), family(*q)), expected, rtol=1e-9)


def test_against_a_prior_made_of_numbers_it_sums_over_the_axes_of_an_event():
    mu, sigma = Generator(0).normal((5, 3)), np.exp(Generator(1).normal((5, 3)))
    per_event = kl(Normal(mu, sigma, event=1), Normal(0, 1, event=1))
    np.testing.assert_allclose(per_event, 0.5 * (sigma**2 + mu**2 - 1 - 2 * np.log(sigma)).sum(1), rtol=1e-4)
    assert per_event.dtype == np.float32
    posterior = Normal(tinygen.tensor(mu.astype(np.float64)), 1, event=1)
    assert kl(posterior, Normal(0, 1, event=1)).dtype == np.float64


def test_at_the_edges_it_is_zero_finite_or_infinite_but_not_nan():
    a, b = Bernoulli([1e4, -1e4]), Bernoulli([-1e4, 1e4])
    np.testing.assert_array_equal([kl(a, a), kl(a, b)], [[0, 0], [1e4, 1e4]])
    excluded = tinygen.tensor([0.0, 0.0, -np.inf], requires_grad=True)
    p, q = Categorical(excluded), Categorical([1e4, 0, 0])
    assert kl(p, p).item() == 0 and kl(p, q).item() == pytest.approx(5e3 - np.log(2)) and kl(q, p).item() < np.inf
    assert kl(Categorical([0.0, 0.0]), Categorical([0.0, -np.inf])) == np.inf
    assert np.isfinite(tinygen.grad(kl(p, q), [excluded])[0].numpy()).all()
    for family in (Normal, Laplace):
        assert np.isfinite(kl(family(0, 1e-30), family(0, 1))) and kl(family(0, 1), family(9e9, 1e-30)) == np.inf


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: kl(Normal(), Laplace()), InputError, "no closed form here for Normal.* and Laplace"),
        (lambda: kl(Logistic(), Logistic()), InputError, "mean of p.log_prob"),
        (lambda: kl(Normal(event=1), Normal()), InputError, "same number of event axes"),
        (lambda: kl(Normal(np.zeros(2)), Normal(np.zeros(3))), ShapeError, "do not broadcast"),
        (lambda: kl(Categorical([0, 1]), Categorical([0, 1, 2])), InputError, "2 labels against 3"),
        (lambda: kl(Normal(event=1), Normal(event=1)), ShapeError, "event=1 asks to sum over more axes"),
    ],
)
def test_a_pair_that_has_no_divergence_here_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
