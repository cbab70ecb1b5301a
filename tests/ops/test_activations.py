import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.autograd import grad
from tinygen.errors import InputError


def test_gelu_is_x_times_the_normal_cdf_and_its_tanh_formula_stays_close():
    from scipy.stats import norm

    x = np.linspace(-8, 8, 1001)
    np.testing.assert_allclose(ops.gelu(x), x * norm.cdf(x), atol=1e-15)
    assert 1e-4 < np.abs(ops.gelu(x, "tanh") - ops.gelu(x)).max() < 5e-4


@pytest.mark.parametrize("approximate", [None, "tanh"])
def test_gelu_is_zero_or_the_identity_far_out_without_nan(approximate):
    x = tinygen.tensor(np.array([-1e4, 0, 1e4], np.float32), requires_grad=True)
    y = ops.gelu(x, approximate)
    g = grad(y.sum(), x, create_graph=True)
    np.testing.assert_array_equal(y.numpy(), [0, 0, 1e4])
    np.testing.assert_array_equal(g.numpy(), [0, 0.5, 1])
    assert np.isfinite(grad(g.sum(), x).numpy()).all()


def test_gelu_names_its_approximations():
    with pytest.raises(InputError, match=r"""gelu\(float64 \(1,\)\): approximate must be None or "tanh", not 'erf'"""):
        ops.gelu(np.ones(1), "erf")
