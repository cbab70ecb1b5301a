"""Each normalisation leaves mean 0 and variance 1 over its own axes, and constant numbers cost no NaN."""

import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.autograd import grad
from tinygen.errors import InputError, ShapeError

RNG = np.random.default_rng(0)
GAIN, BIAS = RNG.normal(size=(2, 4))


def leaf(values):
    return tinygen.tensor(np.asarray(values, np.float64), requires_grad=True)


def groups_of(x, groups):
    return x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)


CASES = {
    "layer": (lambda x, *v: ops.layer_norm(x, *v, eps=0.0), lambda x: (x, -1)),
    "group": (lambda x, *v: ops.group_norm(x, *v, groups=2, eps=0.0), lambda x: (groups_of(x, 2), (1, 3))),
    "instance": (lambda x, *v: ops.group_norm(x, *v, groups=4, eps=0.0), lambda x: (x, (1, 2))),
    "batch": (lambda x, *v: ops.batch_norm(x, *v, eps=0.0)[0], lambda x: (x, (0, 1, 2))),
}


@pytest.mark.parametrize("norm, over", CASES.values(), ids=CASES.keys())
def test_mean_zero_variance_one_then_gain_and_bias(norm, over):
    x = RNG.normal(3.0, 5.0, size=(3, 5, 2, 4))
    y = norm(x)
    values, axes = over(y)
    np.testing.assert_allclose(values.mean(axes), 0, atol=1e-12)
    np.testing.assert_allclose(values.var(axes), 1)
    np.testing.assert_allclose(norm(x, GAIN, BIAS), y * GAIN + BIAS)
    np.testing.assert_allclose(norm(x, GAIN), y * GAIN)
    np.testing.assert_allclose(norm(x, None, BIAS), y + BIAS)
    np.testing.assert_allclose(norm(7 * x - 2), y)  # scale and offset do not matter


def test_rms_norm_leaves_a_mean_square_of_one_and_the_direction():
    x = RNG.normal(size=(3, 4))
    y = ops.rms_norm(x, eps=0.0)
    np.testing.assert_allclose((y**2).mean(-1), 1)
    np.testing.assert_allclose(y / x, np.repeat((y / x)[:, :1], 4, 1))
    np.testing.assert_allclose(ops.rms_norm(x, GAIN, eps=0.0), y * GAIN)


CONSTANT = {
    "layer": lambda x: ops.layer_norm(x),
    "layer of one feature": lambda x: ops.layer_norm(x[..., :1]),
    "rms": lambda x: ops.rms_norm(x),
    "group": lambda x: ops.group_norm(x, groups=2),
    "groups of one number": lambda x: ops.group_norm(x[:, 0, :], groups=4),
    "batch": lambda x: ops.batch_norm(x)[0],
    "batch of one": lambda x: ops.batch_norm(x[:1, 0])[0],
}


@pytest.mark.parametrize("norm", CONSTANT.values(), ids=CONSTANT.keys())
@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_equal_numbers_give_zero_and_finite_derivatives(norm, value):
    x = leaf(np.full((2, 3, 4), value))
    y = norm(x)
    if norm is not CONSTANT["rms"]:
        np.testing.assert_array_equal(y.numpy(), 0)
    g = grad((y * RNG.normal(size=y.shape)).sum(), x, create_graph=True)
    h = grad((g * RNG.normal(size=g.shape)).sum(), x)
    assert all(np.isfinite(a.numpy()).all() for a in (y, g, h))


def test_batch_norm_returns_the_statistics_with_which_inference_repeats_it():
    x = RNG.normal(size=(5, 3, 4))
    y, mean, var = ops.batch_norm(x, GAIN, BIAS)
    np.testing.assert_allclose(mean, x.mean((0, 1)))
    np.testing.assert_allclose(var, x.var((0, 1)))
    np.testing.assert_allclose(ops.batch_norm_inference(x, mean, var, GAIN, BIAS), y)
    np.testing.assert_allclose(ops.batch_norm_inference(x, mean, var), ops.batch_norm(x)[0])


def test_vectors_and_groups_that_do_not_fit_the_features_say_so():
    x = np.zeros((2, 4))
    for call in (
        lambda v: ops.layer_norm(x, v),
        lambda v: ops.layer_norm(x, None, v),
        lambda v: ops.rms_norm(x, v),
        lambda v: ops.group_norm(x, v, groups=2),
        lambda v: ops.batch_norm(x, v),
        lambda v: ops.batch_norm_inference(x, v, np.ones(4)),
    ):
        for wrong in (np.ones(3), np.ones(1), np.ones((1, 4))):
            with pytest.raises(ShapeError, match=r"each of the 4 features is needed, in shape \(4,\)"):
                call(wrong)
    for groups in (0, 3, 8):
        with pytest.raises(ShapeError, match=f"the 4 features do not divide into {groups} groups"):
            ops.group_norm(x, groups=groups)
    with pytest.raises(InputError, match="groups missing"):
        ops.group_norm(x)
    with pytest.raises(ShapeError, match="at least one axis"):
        ops.layer_norm(np.float64(1))
    with pytest.raises(ShapeError, match="at least two axes"):
        ops.group_norm(np.zeros(4), groups=2)
