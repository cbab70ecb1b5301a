import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import tinygen
from tinygen import ops
from tinygen.distributions import MultivariateNormal, Normal
from tinygen.errors import InputError, ShapeError
from tinygen.random import Generator


def drawn(seed, *batch, d=3):
    """Means and triangular factors, float64."""
    rng = np.random.default_rng(seed)
    lower = np.tril(rng.normal(size=(*batch, d, d)), -1)
    return rng.normal(size=(*batch, d)), lower + rng.uniform(0.3, 2, (*batch, d))[..., None] * np.eye(d)


@settings(max_examples=25)
@given(seed=st.integers(0, 99), d=st.integers(1, 4))
def test_density_entropy_and_moments_are_those_of_scipy_by_factor_and_by_covariance(seed, d):
    loc, factor = drawn(seed, d=d)
    x = np.random.default_rng(seed).normal(size=(5, d))
    reference = stats.multivariate_normal(loc, factor @ factor.T)
    for q in (MultivariateNormal(loc, factor), MultivariateNormal(loc, covariance=factor @ factor.T)):
        np.testing.assert_allclose(q.log_prob(x).reshape(5), reference.logpdf(x))
        np.testing.assert_allclose(q.entropy(), reference.entropy())
        np.testing.assert_allclose(q.covariance, factor @ factor.T)
        np.testing.assert_allclose(q.mean, loc)
        np.testing.assert_allclose(q.variance, np.diag(factor @ factor.T))


def test_every_distribution_of_a_batch_is_its_own():
    loc, factor = drawn(0, 2, 4)
    x = np.random.default_rng(1).normal(size=(6, 2, 4, 3))
    batch = MultivariateNormal(loc, factor)
    assert batch.log_prob(x).shape == (6, 2, 4) and batch.entropy().shape == (2, 4)
    for i, j in np.ndindex(2, 4):
        alone = MultivariateNormal(loc[i, j], factor[i, j])
        np.testing.assert_allclose(batch.log_prob(x)[:, i, j], alone.log_prob(x[:, i, j]))
    for means, factors in [(loc, factor[:1, :1]), (loc[0, 0], factor), (loc[:, :1], factor[0])]:
        m, f = np.broadcast_to(means, loc.shape), np.broadcast_to(factors, factor.shape)
        full = MultivariateNormal(m, f)
        np.testing.assert_allclose(MultivariateNormal(means, factors).log_prob(x), full.log_prob(x))
    one = MultivariateNormal(loc, factor, event=1)
    np.testing.assert_allclose(one.log_prob(x), batch.log_prob(x).sum(-1))
    np.testing.assert_allclose(one.entropy(), batch.entropy().sum(-1))


def test_with_a_diagonal_factor_it_is_independent_normals():
    x = Generator(0).normal((5, 3))
    scale = np.array([0.5, 1, 2], np.float32)
    ours, theirs = MultivariateNormal(np.ones(3, np.float32), np.diag(scale)), Normal(1, scale, event=1)
    np.testing.assert_allclose(ours.log_prob(x), theirs.log_prob(x), rtol=1e-5)
    assert ours.entropy() == pytest.approx(theirs.entropy())


def test_whitened_samples_are_standard_normal():
    loc, factor = drawn(3)
    x = MultivariateNormal(loc, factor).sample(Generator(0), 20_000)
    z = np.linalg.solve(factor, (x - loc).T)
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01
    np.testing.assert_allclose(np.corrcoef(z), np.eye(3), atol=0.03)


def test_a_draw_is_loc_plus_factor_times_noise_and_so_are_its_gradients():
    loc, factor = drawn(4, 2)
    tinygen.gradcheck(lambda m, f: MultivariateNormal(m, f).rsample(Generator(0), 2), loc, factor)
    assert MultivariateNormal(loc, factor).rsample(Generator(0), 2).shape == (2, 2, 3)


def test_the_gradients_of_density_and_entropy_are_those_of_finite_differences():
    loc, factor = drawn(5, 2, d=2)
    x = np.random.default_rng(0).normal(size=(3, 2, 2))
    tinygen.gradcheck(lambda m, f, x: MultivariateNormal(m, f).log_prob(x), loc, factor, x)
    by_covariance = lambda m, c: MultivariateNormal(m, covariance=c)
    covariance = factor @ factor.swapaxes(-1, -2)
    tinygen.gradcheck(lambda m, c, x: by_covariance(m, c).log_prob(x), loc, covariance, x)
    tinygen.gradcheck(lambda m, c: by_covariance(m, c).entropy(), loc, covariance)


def test_float32_stays_float32():
    loc, factor = [a.astype(np.float32) for a in drawn(6)]
    q = MultivariateNormal(loc, factor)
    results = [q.log_prob([0.0, 1.0, 2.0]), q.entropy(), q.mean, q.std, q.sample(Generator(0)), q.covariance]
    assert {r.dtype for r in results} == {np.dtype(np.float32)}
    assert MultivariateNormal([0, 1], np.eye(2)).sample(Generator(0)).dtype == np.float64


def test_it_agrees_with_torch():
    torch = pytest.importorskip("torch", reason="PyTorch, with which this test compares, is not installed")
    loc, factor = drawn(7, 2)
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    reference = torch.distributions.MultivariateNormal(torch.tensor(loc), scale_tril=torch.tensor(factor))
    q = MultivariateNormal(loc, factor)
    np.testing.assert_allclose(q.log_prob(x), reference.log_prob(torch.tensor(x)).numpy())
    np.testing.assert_allclose(q.entropy(), reference.entropy().numpy())


def test_a_tiny_factor_gives_minus_infinity_off_the_mean_and_a_finite_peak():
    q = MultivariateNormal(np.zeros(2, np.float32), 1e-20 * np.eye(2, dtype=np.float32))
    log_p = q.log_prob(np.array([[0, 0], [1e10, 0]], np.float32))
    assert log_p[0] == pytest.approx(40 * np.log(10) - np.log(2 * np.pi)) and log_p[1] == -np.inf


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({}, InputError, "give either cholesky or covariance"),
        ({"cholesky": np.eye(2), "covariance": np.eye(2)}, InputError, "give either"),
        ({"cholesky": np.eye(3)}, ShapeError, r"must have the shapes \(..., d\) and"),
        ({"cholesky": np.diag([1.0, 0.0])}, InputError, "diagonal of cholesky must be positive; 0 is not"),
        ({"covariance": np.array([[1.0, 0.5], [0.0, 1.0]])}, InputError, "covariance must be symmetric; .* 0.5"),
        ({"covariance": np.array([[1.0, 2.0], [2.0, 1.0]])}, InputError, "cholesky.*positive definite"),
    ],
)
def test_a_matrix_that_makes_no_sense_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        MultivariateNormal(np.zeros(2), **arguments)


def test_only_the_lower_triangle_is_read():
    loc, factor = drawn(8)
    full = factor + np.triu(np.ones((3, 3)), 1)
    np.testing.assert_allclose(MultivariateNormal(loc, full).covariance, factor @ factor.T)
    grad = tinygen.grad(ops.sum(MultivariateNormal(loc, f := tinygen.tensor(full, requires_grad=True)).variance), [f])
    np.testing.assert_array_equal(np.triu(grad[0].numpy(), 1), 0)
