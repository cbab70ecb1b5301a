"""Proofs by name: second derivatives of what other frameworks have got wrong, and a fourth one in closed form."""

import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.autograd import grad, hvp, jvp


def hessian_vector_product_by_differences(f, x, v, h=1e-4):
    """d/de grad f(x + e v) at e = 0 by central differences, extrapolated from h and h / 2."""

    def slope(h):
        at = lambda e: grad(f(t := tinygen.tensor(x + e * v, requires_grad=True)), t).numpy()
        return (at(h) - at(-h)) / (2 * h)

    return (4 * slope(h / 2) - slope(h)) / 3


WEIGHT = np.random.default_rng(0).normal(size=(4, 3))
SECOND = {
    "softmax": lambda x: (ops.softmax(x) * WEIGHT).sum(),
    "batch_norm": lambda x: (ops.batch_norm(x, np.array([1.0, -2.0, 0.5]))[0] ** 3 * WEIGHT).sum(),
    "batch_norm through its statistics": lambda x: (ops.batch_norm(x)[1] * ops.batch_norm(x)[2]).sum(),
    "attention of x with itself": lambda x: (ops.scaled_dot_product_attention(x, x, x) * WEIGHT).sum(),
    "causal attention": lambda x: (ops.scaled_dot_product_attention(x, 2 * x, x * x, causal=True) * WEIGHT).sum(),
}


@pytest.mark.parametrize("f", SECOND.values(), ids=SECOND.keys())
def test_second_derivatives_agree_with_finite_differences(f):
    x, v = np.random.default_rng(1).normal(size=(2, 4, 3))
    (product,) = hvp(f, [x], [v])
    expected = hessian_vector_product_by_differences(f, x, v)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(product.numpy(), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("f", SECOND.values(), ids=SECOND.keys())
def test_and_so_do_third_derivatives(f):
    tinygen.gradcheck(f, np.random.default_rng(2).normal(size=(4, 3)), order=3)


def test_the_fourth_derivative_of_tanh_is_its_closed_form():
    x = tinygen.tensor(np.linspace(-3, 3, 61), requires_grad=True)
    y = ops.tanh(x)
    for _ in range(4):
        y = grad(y.sum(), x, create_graph=True)
    t = np.tanh(x.numpy())
    np.testing.assert_allclose(y.numpy(), 8 * t * (1 - t**2) * (2 - 3 * t**2), rtol=1e-10, atol=1e-12)


def test_a_vjp_is_linear_in_its_cotangent_also_at_zero():
    """A jvp differentiates a vjp at cotangent 0: a vjp that treats a gradient of 0 apart would answer 0."""
    _, tangent = jvp(ops.sqrt, [np.array([4.0])], [np.array([1.0])])
    assert tangent.item() == 0.25
