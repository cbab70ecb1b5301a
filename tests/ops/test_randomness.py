import numpy as np
import pytest
from scipy.stats import binomtest

import tinygen
from tinygen import ops
from tinygen.autograd import grad
from tinygen.errors import InputError
from tinygen.random import Generator


def test_dropout_draws_the_same_elements_for_the_same_key_and_others_for_the_next():
    rng, x = Generator(0), np.ones((50, 50), np.float32)
    key = rng.key()
    y = ops.dropout(x, rate=0.5, key=key)
    np.testing.assert_array_equal(ops.dropout(x, rate=0.5, key=key), y)
    assert (ops.dropout(x, rate=0.5, key=rng.key()) != y).any()


def test_dropout_keeps_the_share_and_the_scale_that_it_promises():
    for rate in (0.1, 0.5, 0.9):
        y = ops.dropout(np.ones(100_000, np.float32), rate, Generator(1).key())
        assert binomtest(int((y == 0).sum()), y.size, rate).pvalue > 0.01
        np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)


def test_the_gradient_is_dropped_where_the_value_was_and_so_is_the_second():
    x = tinygen.tensor(np.arange(1.0, 21.0), requires_grad=True)
    y = ops.dropout(x, 0.5, (3, 4))
    g = grad((y * y).sum(), x, create_graph=True)
    np.testing.assert_allclose(g.numpy(), 2 * y.numpy() * (y.numpy() != 0) * 2)
    np.testing.assert_allclose(grad(g.sum(), x).numpy(), 8.0 * (y.numpy() != 0))


def test_rate_zero_changes_nothing_and_rate_one_leaves_zeros():
    x = tinygen.tensor(np.arange(6.0), requires_grad=True)
    np.testing.assert_array_equal(ops.dropout(x, 0, (0, 0)).numpy(), x.numpy())
    gone = ops.dropout(x, 1, (0, 0))
    assert not gone.numpy().any() and not grad(gone.sum(), x).numpy().any()
    assert not ops.dropout(np.array([np.inf]), 1.0, (0, 0)).any()


@pytest.mark.parametrize("rate", [-0.1, 1.5, np.nan])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(InputError, match="rate is a probability from 0 to 1, not"):
        ops.dropout(np.ones(3), rate, (0, 0))
