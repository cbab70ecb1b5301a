"""Uniform, Normal, Laplace, Logistic, Gumbel: every one is held to the same truths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

import tinygen
from tinygen import ops
from tinygen.distributions import Gumbel, Laplace, Logistic, Mixture, Normal, Uniform
from tinygen.errors import DtypeError, InputError, ShapeError
from tinygen.random import Generator

SCIPY = {Normal: stats.norm, Laplace: stats.laplace, Logistic: stats.logistic, Gumbel: stats.gumbel_r}
SCIPY[Uniform] = lambda low, high: stats.uniform(low, high - low)
every = pytest.mark.parametrize("family", SCIPY)
stretched = pytest.mark.parametrize("family", [Normal, Laplace, Logistic, Gumbel])
locs, scales = st.floats(-3, 3), st.floats(0.1, 5)


def double(*numbers):
    return [np.array(number, np.float64) for number in numbers]


def made(family, loc, scale):
    """In float64, and what SciPy makes of the same."""
    second = loc + scale if family is Uniform else scale
    return family(*double(loc, second)), SCIPY[family](loc, second)


def kinks(d):
    """Where the density has a kink or a step."""
    return [float(d.low), float(d.high)] if isinstance(d, Uniform) else [float(d.loc)]


def expectation(d, function):
    """E[function(X)] by quadrature between extreme quantiles, piece by piece."""
    ends = [float(d.icdf(1e-14)), *kinks(d), float(d.icdf(1 - 1e-14))]
    ends = np.unique(np.concatenate([ends, d.icdf(np.linspace(0.01, 0.99, 5))]))
    integrand = lambda x: np.exp(d.log_prob(x)) * function(x)
    return sum(integrate.quad(integrand, a, b, epsabs=1e-12)[0] for a, b in zip(ends, ends[1:], strict=False))


@every
@settings(max_examples=10)
@given(loc=locs, scale=scales)
def test_density_cdf_quantile_entropy_and_moments_are_those_of_scipy(family, loc, scale):
    d, reference = made(family, loc, scale)
    u = np.array([1e-12, 1e-3, 0.3, 0.5, 0.9, 1 - 1e-9])
    x = reference.ppf(u)
    np.testing.assert_allclose(d.icdf(u), x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(d.cdf(x), u, rtol=1e-9, atol=1e-13)  # x itself is rounded
    np.testing.assert_allclose(d.log_prob(x), reference.logpdf(x), rtol=1e-9, atol=1e-9)
    moments = reference.mean(), reference.var(), reference.std(), reference.entropy()
    np.testing.assert_allclose([d.mean, d.variance, d.std, d.entropy()], moments, rtol=1e-9, atol=1e-9)


@every
@settings(max_examples=5)
@given(loc=locs, scale=scales)
def test_the_density_integrates_to_one_and_to_the_moments_and_the_entropy(family, loc, scale):
    d, _ = made(family, loc, scale)
    assert expectation(d, lambda x: 1) == pytest.approx(1, abs=1e-9)
    assert expectation(d, lambda x: x) == pytest.approx(float(d.mean), abs=1e-8)
    assert expectation(d, lambda x: (x - d.mean) ** 2) == pytest.approx(float(d.variance), rel=1e-8)
    assert expectation(d, lambda x: -d.log_prob(x)) == pytest.approx(float(d.entropy()), abs=1e-8)


@every
def test_the_cdf_is_the_integral_of_the_density(family):
    d, _ = made(family, 0.3, 1.7)
    x = np.linspace(0.4, 1.9, 7)
    pieces = [integrate.quad(lambda t: np.exp(d.log_prob(t)), a, b)[0] for a, b in zip(x, x[1:], strict=False)]
    np.testing.assert_allclose(np.diff(d.cdf(x)), pieces, rtol=1e-9)


@every
@settings(max_examples=20)
@given(loc=locs, scale=scales, u=st.floats(1e-9, 1 - 1e-9))
def test_the_quantile_inverts_the_cdf(family, loc, scale, u):
    d, _ = made(family, loc, scale)
    assert d.cdf(d.icdf(u)) == pytest.approx(u, rel=1e-6)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_follow_the_cdf(family, dtype):
    d, _ = made(family, -1.0, 2.0)
    second = dtype(1.0 if family is Uniform else 2.0)
    x = family(np.array([-1.0], dtype), second).sample(Generator(1), 20_000)
    assert type(x) is np.ndarray and x.dtype == dtype and x.shape == (20_000, 1)
    assert stats.kstest(x[:, 0], d.cdf).pvalue > 0.01
    assert x.mean() == pytest.approx(d.mean, abs=4 * d.std / 141)


@every
def test_the_gradients_of_density_cdf_quantile_and_moments_are_those_of_finite_differences(family):
    a, b = np.array([[-0.5], [0.7]]), np.array([2.1, 3.2, 4.3])
    tinygen.gradcheck(lambda a, b, x: family(a, b).log_prob(x), a, b, np.array([0.9, 1.3, 1.7]))
    tinygen.gradcheck(lambda a, b, x: family(a, b).cdf(x), a, b, np.array([0.9, 1.3, 1.7]))
    tinygen.gradcheck(lambda a, b, u: family(a, b).icdf(u), a, b, np.array([0.2, 0.6, 0.9]))
    tinygen.gradcheck(lambda a, b: (family(a, b).entropy(), family(a, b).mean, family(a, b).std), a, b)


@every
def test_the_gradient_of_an_expectation_flows_through_rsample(family):
    """d/dtheta E[x^2] = d/dtheta (Var x + (E x)^2), which is known."""
    made = lambda n: [tinygen.tensor(np.full(n, v), requires_grad=True) for v in (0.5, 2.0)]
    each, one = made(20_000), made(())
    per_draw = tinygen.grad(ops.sum(ops.square(family(*each).rsample(Generator(2)))), each)
    d = family(*one)
    exact = tinygen.grad(d.variance + ops.square(d.mean), one)
    for gradients, truth in zip(per_draw, exact, strict=True):
        assert stats.ttest_1samp(gradients.numpy(), truth.item()).pvalue > 0.01


@every
def test_a_draw_with_gradient_is_the_same_draw(family):
    d = family(0.0, tinygen.tensor([1.0, 2.0], requires_grad=True))
    x = d.rsample(Generator(0), 5)
    assert x.requires_grad
    np.testing.assert_array_equal(d.sample(Generator(0), 5), x.numpy())


@every
def test_float32_stays_float32_and_numbers_take_the_dtype_of_arrays(family):
    single, x = family(np.zeros(3, np.float32), 2), np.array([0.5, 1, 1.5], np.float32)
    results = [single.log_prob(x), single.cdf(x), single.icdf(x / 2), single.entropy(), single.mean, single.std]
    results += [single.sample(Generator(0)), family(0, 1).log_prob(0.5), family(0, 1).log_prob(np.array([1, 0]))]
    assert {r.dtype for r in results} == {np.dtype(np.float32)}
    assert family(0, np.ones(2)).log_prob(0.5).dtype == np.float64
    assert family(0, tinygen.tensor(np.ones(2))).log_prob([0.5, 1.0]).dtype == np.float64


@stretched
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_nothing_at_the_edges_is_nan(family, scale):
    d = family(tinygen.tensor([0.0], requires_grad=True), tinygen.tensor([scale], requires_grad=True))
    x = np.array([-np.inf, -1e4, -100, 0, 100, 1e4, np.inf], np.float32)
    assert not np.isnan(d.log_prob(x).numpy()).any()
    assert not np.isnan(d.cdf(x).numpy()).any()
    np.testing.assert_array_equal(d.log_prob(x).numpy()[[0, -1]], -np.inf)
    np.testing.assert_array_equal(d.cdf(x).numpy()[[0, -1]], [0, 1])
    np.testing.assert_array_equal(d.icdf([0.0, 1.0]).numpy(), [-np.inf, np.inf])
    assert np.isnan(d.icdf([-0.1, 1.1]).numpy()).all()


@stretched
def test_gradients_far_out_are_not_nan(family):
    for x in (-1e4, -100.0, 100.0, 1e4):
        parameters = [tinygen.tensor([v], requires_grad=True) for v in (0.0, 0.5)]
        d = family(*parameters)
        with np.errstate(over="ignore"):
            grads = [*tinygen.grad(d.log_prob(x), parameters), *tinygen.grad(d.cdf(x), parameters)]
        assert not np.isnan([g.numpy() for g in grads]).any()


def test_the_uniform_distribution_includes_its_ends_and_nothing_beyond():
    d = Uniform(np.float32(1), np.array([1.1], np.float32))
    low, high = d.low, d.high[0]
    inside = d.log_prob(np.array([low, high], np.float32))
    np.testing.assert_allclose(inside, -np.log(high - low))
    beyond = np.array([np.nextafter(low, np.float32(0)), np.nextafter(high, np.float32(9)), np.inf, -np.inf])
    np.testing.assert_array_equal(d.log_prob(beyond), -np.inf)
    np.testing.assert_array_equal(d.cdf(np.array([-np.inf, 0, 1.1, 5, np.inf], np.float32)), [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(d.icdf(np.array([0.0, 1.0, 1.5], np.float32)), [low, high, np.nan])
    rng = Generator(0)
    many = Uniform(rng.uniform(1000, -2, -1), rng.uniform(1000, 1, 9))  # low + (high - low) is not always high
    assert np.isfinite(many.log_prob(many.icdf(1.0))).all() and np.isfinite(many.log_prob(many.sample(rng, 100))).all()


def test_draws_are_finite_also_where_the_uniform_number_is_zero():
    class Zeros(Generator):
        def uniform(self, shape=(), low=0.0, high=1.0, dtype=np.float32):
            return np.full(shape, low, dtype)

    for family in (Laplace, Logistic, Gumbel):
        assert np.isfinite(family().sample(Zeros(0), 3)).all()


@given(n=st.integers(0, 3))
def test_an_event_sums_over_its_axes_and_leaves_the_rest_alone(n):
    rng = Generator(0)
    loc, x, scale = rng.normal((2, 3, 4)), rng.normal((5, 2, 3, 4)), np.float32(0.5)
    per_draw, per_event = Normal(loc, scale), Normal(loc, scale, event=n)
    axes = tuple(range(-n, 0))
    np.testing.assert_allclose(per_event.log_prob(x), per_draw.log_prob(x).sum(axes), rtol=1e-5)
    np.testing.assert_allclose(per_event.entropy(), per_draw.entropy().sum(axes), rtol=1e-5)
    assert per_event.entropy().shape == (2, 3, 4)[: 3 - n]
    assert per_event.sample(rng, (7,)).shape == (7, 2, 3, 4)
    np.testing.assert_array_equal(per_event.cdf(x), per_draw.cdf(x))


def test_results_have_the_shape_of_a_draw_also_if_they_depend_on_one_parameter():
    d = Normal(np.zeros((4, 1)), np.ones(3))
    assert d.shape == d.mean.shape == d.variance.shape == d.std.shape == d.entropy().shape == (4, 3)


def test_the_functions_agree_with_torch():
    torch = pytest.importorskip("torch", reason="PyTorch, with which this test compares, is not installed")
    x = np.linspace(0.1, 0.9, 5)
    for ours, theirs in [(Normal, "Normal"), (Laplace, "Laplace"), (Gumbel, "Gumbel"), (Uniform, "Uniform")]:
        d = ours(*double(0.05, 1.2))
        reference = getattr(torch.distributions, theirs)(torch.tensor(0.05).double(), torch.tensor(1.2).double())
        for method in ("log_prob", "cdf", "icdf"):
            expected = getattr(reference, method)(torch.tensor(x)).numpy()
            np.testing.assert_allclose(getattr(d, method)(x), expected, rtol=1e-6, err_msg=f"{theirs}.{method}")
        assert d.entropy() == pytest.approx(reference.entropy().item(), rel=1e-6)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Normal(0, 0), InputError, "Normal: scale must be positive and finite; 0 is not"),
        (lambda: Laplace(0, [1, -2]), InputError, "scale must be positive and finite; -2 is not"),
        (lambda: Gumbel(0, np.nan), InputError, "scale must be positive"),
        (lambda: Logistic(np.array([0, np.inf]), 1), InputError, "loc must be finite; inf is not"),
        (lambda: Uniform(1, 1), InputError, "high - low must be positive"),
        (lambda: Normal("here", 1), InputError, "expected numbers, an array or a Tensor, not 'here'"),
        (lambda: Normal(np.zeros(2), np.ones(3)), ShapeError, r"shapes \(2,\) and \(3,\) do not broadcast"),
        (lambda: Normal(np.zeros(2), 1).log_prob(np.zeros(3)), ShapeError, r"shapes \(3,\) and \(2,\)"),
        (lambda: Normal(event=-1), InputError, "event counts the axes of one event"),
        (lambda: Normal(event=1).entropy(), ShapeError, "event=1 asks to sum over more axes"),
        (lambda: Normal(event=1).log_prob(0.5), ShapeError, "event=1 asks to sum over more axes"),
        (lambda: Normal(np.array([1j])), InputError, "complex"),
        (lambda: Normal(tinygen.tensor([0.0]), 1).log_prob(np.zeros(1)), DtypeError, "two float widths"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_paragraph(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_tensors_are_not_checked():
    assert np.isnan(Normal(0, tinygen.tensor([-1.0])).entropy().numpy()).all()


def test_what_a_distribution_does_not_have_it_says():
    mixture = Mixture(np.zeros(2), Normal(np.zeros(2), 1))
    for method, call in {"rsample": lambda: mixture.rsample(Generator(0)), "entropy": mixture.entropy}.items():
        with pytest.raises(InputError, match=f"Mixture has no {method}"):
            call()
    with pytest.raises(InputError, match="Mixture has no icdf"):
        mixture.icdf(0.5)
