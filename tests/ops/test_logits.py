"""Softmax, its logarithm and cross-entropies at their edges: masks, large scores, impossible labels."""

import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.autograd import grad
from tinygen.dispatch import definitions_only
from tinygen.errors import DtypeError, InputError, ShapeError

INF = np.inf
both_ways = pytest.mark.parametrize("dtype", [np.float32, np.float64])  # by kernel, by definition


def leaf(values, dtype=np.float64):
    return tinygen.tensor(np.asarray(values, dtype), requires_grad=True)


@both_ways
def test_a_fully_masked_row_has_softmax_zero_and_gradient_zero_to_second_order(dtype):
    x = leaf([[-INF, -INF], [0, -INF]], dtype)
    y = ops.softmax(x)
    np.testing.assert_array_equal(y.numpy(), [[0, 0], [1, 0]])
    g = grad((y * np.array([[1, 2], [3, 4]], dtype)).sum(), x, create_graph=True)
    np.testing.assert_array_equal(g.numpy(), np.zeros((2, 2)))
    np.testing.assert_array_equal(grad((g * g).sum() + g.sum(), x).numpy(), np.zeros((2, 2)))


@both_ways
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_large_scores_lose_nothing(offset, dtype):
    scores = np.array([[0.0, 1.0, 2.0], [5.0, 0.0, -5.0]])
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    x, labels = leaf(scores + offset, dtype), np.array([2, 2])
    near = lambda a, b: np.testing.assert_allclose(a.numpy(), b, rtol=1e-6, atol=3e-7)
    near(ops.softmax(x), p)
    near(ops.log_softmax(x), np.log(p))
    near(ops.cross_entropy(x, labels), -np.log(p[[0, 1], labels]))
    near(grad(ops.cross_entropy(x, labels).sum(), x), p - np.eye(3)[labels])


@both_ways
def test_scores_far_apart_give_zero_and_one_without_nan(dtype):
    x = leaf([[1e4, -1e4], [0, -INF]], dtype)
    np.testing.assert_array_equal(ops.softmax(x).numpy(), [[1, 0], [1, 0]])
    np.testing.assert_array_equal(ops.log_softmax(x).numpy(), [[0, -2e4], [0, -INF]])
    loss = ops.cross_entropy(x, np.array([1, 0]))
    np.testing.assert_array_equal(loss.numpy(), [2e4, 0])
    g = grad(loss.sum(), x, create_graph=True)
    np.testing.assert_array_equal(g.numpy(), [[1, -1], [0, 0]])
    assert np.isfinite(grad((g * g).sum(), x).numpy()).all()


@both_ways
def test_an_impossible_label_costs_infinity_and_its_gradient_is_finite(dtype):
    x = leaf([[0, -INF]], dtype)
    loss = ops.cross_entropy(x, np.array([1]))
    assert loss.item() == INF
    np.testing.assert_array_equal(grad(loss, x).numpy(), [[1, -1]])


@both_ways
@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero):RuntimeWarning")
def test_where_nothing_is_possible_the_loss_is_nan_there_and_only_there(dtype):
    loss = ops.cross_entropy(np.array([[-INF, -INF], [0, 0]], dtype), np.array([0, 0]))
    np.testing.assert_allclose(loss, [np.nan, np.log(2)], rtol=1e-6)


def test_softmax_sums_to_one_over_several_axes_and_over_all():
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    np.testing.assert_allclose(ops.softmax(x, (0, 2)).sum((0, 2)), 1)
    np.testing.assert_allclose(ops.softmax(x, None).sum(), 1)
    np.testing.assert_allclose(ops.log_softmax(x, 1), np.log(ops.softmax(x, 1)))


def test_cross_entropy_takes_labels_of_any_shape_and_one_row_without_an_axis():
    x, labels = np.random.default_rng(0).normal(size=(2, 3, 4)), np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
    expected = -np.take_along_axis(ops.log_softmax(x), labels[..., None].astype(int), -1)[..., 0]
    np.testing.assert_allclose(ops.cross_entropy(x, labels), expected)
    for dtype in (np.float32, np.float64):
        np.testing.assert_allclose(ops.cross_entropy(x[0, 0].astype(dtype), 2), -ops.log_softmax(x[0, 0])[2], rtol=1e-6)
    assert ops.cross_entropy(np.zeros((0, 4)), np.zeros(0, int)).shape == (0,)


@pytest.mark.parametrize("definition", [True, False])
def test_cross_entropy_of_labels_that_do_not_fit_says_why(definition):
    x = np.zeros((2, 3), np.float32)

    def fails(kind, match, logits, labels):
        with pytest.raises(kind, match=match):
            if definition:
                with definitions_only():
                    ops.cross_entropy(logits, labels)
            ops.cross_entropy(logits, labels)

    fails(InputError, "labels run from 0 to 3, but there are 3 classes: 0 to 2", x, np.array([0, 3]))
    fails(InputError, "labels run from -1 to 0", x, np.array([-1, 0]))
    fails(InputError, "there are 0 classes", x[:, :0], np.array([0, 0]))
    fails(ShapeError, "one label for each row", x, np.array([[0], [1]]))
    fails(ShapeError, "one label for each row", np.float32(1), np.array(0))
    fails(DtypeError, "labels must be integers", x, np.array([0.0, 1.0], np.float32))


def test_binary_cross_entropy_is_exact_for_large_logits_and_its_gradient_is_the_residual():
    logits, targets = leaf([1e4, -1e4, 1e4, -1e4, 0.0]), np.array([1, 0, 0, 1, 0.5])
    loss = ops.binary_cross_entropy_with_logits(logits, targets)
    np.testing.assert_allclose(loss.numpy(), [0, 0, 1e4, 1e4, np.log(2)])
    np.testing.assert_allclose(grad(loss.sum(), logits).numpy(), [0, 0, 1, -1, 0], atol=1e-15)


def test_binary_cross_entropy_is_that_of_two_classes():
    x = np.array([-2.0, 0.3, 5.0], np.float32)
    two = np.stack([0 * x, x], -1)
    for label in (0, 1):
        one = ops.binary_cross_entropy_with_logits(leaf(x, np.float32), np.full(3, bool(label)))
        np.testing.assert_allclose(one.numpy(), ops.cross_entropy(two, np.full(3, label)), rtol=1e-5)
        assert one.dtype == np.float32
