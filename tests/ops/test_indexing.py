"""Picking and putting against NumPy; repeated indices; order and ties."""

import hypothesis.strategies as st
import numpy as np
import pytest
from drawing import HypothesisDraw
from hypothesis import given

import tinygen
from tinygen import ops
from tinygen.errors import InputError, MutationError, ShapeError, TinygenError
from tinygen.registry import REGISTRY


def leaf(values):
    return tinygen.tensor(np.asarray(values, np.float64), requires_grad=True)


def with_tensors(index):
    """The same index with Tensors for its arrays."""
    if isinstance(index, tuple):
        return tuple(map(with_tensors, index))
    return tinygen.tensor(index) if isinstance(index, np.ndarray) else index


# -- x[index] ----------------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_indexing_is_numpys_also_with_tensors_for_indices(data):
    (x,), params = REGISTRY["getitem"].inputs(HypothesisDraw(data))
    index = params["index"]
    np.testing.assert_array_equal(tinygen.tensor(x)[index].numpy(), x[index], strict=True)
    np.testing.assert_array_equal(tinygen.tensor(x)[with_tensors(index)].numpy(), x[index], strict=True)


@given(data=st.data())
def test_put_add_adds_as_numpy_does_and_is_the_transpose_of_indexing(data):
    (g,), params = REGISTRY["put_add"].inputs(HypothesisDraw(data))
    expected = np.zeros(params["shape"])
    np.add.at(expected, params["index"], g)
    put = ops.put_add(g, params["shape"], with_tensors(params["index"]))
    np.testing.assert_allclose(put, expected, rtol=1e-14, atol=1e-14)
    x = np.cos(np.arange(put.size)).reshape(put.shape)
    np.testing.assert_allclose(np.sum(x[params["index"]] * g), np.sum(x * put), rtol=1e-10, atol=1e-10)


def test_an_element_that_is_picked_twice_gets_both_gradients():
    x = leaf([1.0, 2.0, 3.0])
    x[[2, 0, 2]].sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 0, 2])


def test_an_empty_list_and_an_empty_mask_pick_nothing():
    x = leaf(np.ones((3, 2)))
    for index in ([], np.zeros(3, bool)):
        x.zero_grad()
        assert x[index].shape == (0, 2)
        x[index].sum().backward()
        np.testing.assert_array_equal(x.grad, np.zeros((3, 2)))


def test_basic_indices_give_views_that_are_guarded_with_their_base():
    x = tinygen.tensor([1.0, 2.0, 3.0])
    part = x[1:]
    assert np.shares_memory(part.numpy(), x.numpy())
    y = part * leaf([1.0, 1.0]).astype(np.float32)
    x += 1.0
    with pytest.raises(MutationError):
        y.sum().backward()


def test_writing_to_an_index_array_later_does_not_misdirect_the_gradient():
    for index in (np.array([0, 0]), tinygen.tensor(np.array([0, 0]))):
        x = leaf([1.0, 2.0])
        y = x[index]
        index += 1
        y.sum().backward()
        np.testing.assert_array_equal(x.grad, [2, 0])


@pytest.mark.parametrize("index", [3, (0, 0), [-4], np.array([0.5]), np.zeros(2, bool), "a"])
def test_an_index_that_cannot_be_is_explained(index):
    with pytest.raises(TinygenError, match=r"getitem\(float64 \(3,\)\): ") as raised:
        leaf([1.0, 2.0, 3.0])[index]
    assert isinstance(raised.value, IndexError)


# -- along one axis ----------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_take_and_take_along_axis_are_numpys(data):
    for name in ("take", "take_along_axis"):
        (x, indices), params = REGISTRY[name].inputs(HypothesisDraw(data))
        expected = getattr(np, name)(x, indices, **params)
        for given_ in (indices, tinygen.tensor(indices), indices.tolist()):
            np.testing.assert_array_equal(getattr(ops, name)(tinygen.tensor(x), given_, **params).numpy(), expected)


@given(data=st.data())
def test_scatter_add_counts_repeated_indices_and_leaves_its_operand_alone(data):
    (x, indices, updates), params = REGISTRY["scatter_add"].inputs(HypothesisDraw(data))
    expected, before = x.copy(), x.copy()
    rows = (slice(None),) * (params["axis"] % x.ndim)
    full = np.broadcast_to(updates, x[(*rows, indices)].shape)
    for place in np.ndindex(indices.shape):  # np.add.at itself goes wrong where it has to broadcast
        expected[(*rows, indices[place])] += full[(*rows, *place)]
    np.testing.assert_allclose(ops.scatter_add(x, indices, updates, **params), expected, rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(x, before)


i, j = np.random.default_rng(0).integers(0, 8, (2, 30))


@pytest.mark.parametrize(
    "pick",
    [
        lambda x: ops.take(x, i),
        lambda x: ops.take(x, i, axis=0),
        lambda x: ops.take(x, i, axis=1),
        lambda x: ops.take_along_axis(x, i.reshape(1, 30, 1), axis=1),
        lambda x: x[i],
        lambda x: x[:, i],
        lambda x: x[i, :, j],
        lambda x: x[None, i, ..., 2:],
    ],
)
def test_many_repeated_indices_are_all_counted(pick):
    places = pick(np.arange(512).reshape(8, 8, 8))
    weights = np.arange(places.size, dtype=float).reshape(places.shape)
    x = leaf(np.zeros((8, 8, 8)))
    counted = np.bincount(places.ravel(), weights.ravel(), 512).reshape(8, 8, 8)
    np.testing.assert_array_equal(tinygen.grad(pick(x), x, weights).numpy(), counted)


def test_indices_that_are_not_there_are_explained():
    x = leaf([1.0, 2.0, 3.0])
    for call in (lambda: ops.take(x, 3), lambda: ops.take_along_axis(x, [3]), lambda: ops.scatter_add(x, [3], 1.0)):
        with pytest.raises(IndexError, match="index 3 is out of bounds"):
            call()
    with pytest.raises(TypeError, match="indices must be integers"):
        ops.take(x, np.array([0.0]))
    with pytest.raises(ShapeError, match="axis 1 is not one of an array of 1 dimensions"):
        ops.scatter_add(x, [0], 1.0, axis=1)


@given(data=st.data())
def test_one_hot_has_a_single_one_where_the_label_says(data):
    (labels,), params = REGISTRY["one_hot"].inputs(HypothesisDraw(data))
    out = ops.one_hot(tinygen.tensor(labels), params["classes"])
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out.numpy(), np.eye(params["classes"])[labels])


@pytest.mark.parametrize(
    ("labels", "message"), [([3], "labels run from 3 to 3"), ([-1], "-1"), ([0.5], "labels must be integers")]
)
def test_labels_that_are_no_classes_are_explained(labels, message):
    for given_ in (np.array(labels), tinygen.tensor(np.array(labels))):
        with pytest.raises(TinygenError, match=message):
            ops.one_hot(given_, 3)


# -- order -------------------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_sorting_is_numpys_stable_sort_also_with_ties(data):
    draw = HypothesisDraw(data)
    x = draw.integers(draw.shape(low=1), 3).astype(float)
    axis = draw.axis(x.ndim)
    np.testing.assert_array_equal(ops.sort(leaf(x), axis).numpy(), np.sort(x, axis))
    np.testing.assert_array_equal(ops.argsort(leaf(x), axis).numpy(), np.argsort(x, axis, kind="stable"))


@given(data=st.data())
def test_topk_are_the_first_of_the_sorted_and_of_equals_the_first_wins(data):
    draw = HypothesisDraw(data)
    x = draw.integers((5, 4), 3).astype(float)
    k, axis, largest = draw.integer(0, 4), draw.axis(2), draw.boolean()
    values, indices = ops.topk(leaf(x), k, axis, largest)
    best = np.argsort(-x if largest else x, axis, kind="stable").take(np.arange(k), axis)
    np.testing.assert_array_equal(indices.numpy(), best)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, best, axis))


def test_the_gradient_of_topk_goes_to_the_chosen():
    x = leaf([1.0, 3.0, 2.0])
    values, _ = ops.topk(x, 2)
    np.testing.assert_array_equal(tinygen.grad(values, x, np.array([10.0, 20.0])).numpy(), [0, 10, 20])


def test_topk_of_too_many_is_an_error():
    with pytest.raises(ShapeError, match="k = 4 of the 3 elements"):
        ops.topk(leaf([1.0, 2.0, 3.0]), 4)


@given(data=st.data())
def test_searchsorted_is_numpys_and_has_no_gradient(data):
    (edges, values), params = REGISTRY["searchsorted"].inputs(HypothesisDraw(data))
    out = ops.searchsorted(leaf(edges), leaf(values), **params)
    np.testing.assert_array_equal(out.numpy(), np.searchsorted(edges, values, **params))
    assert not out.requires_grad


def test_nothing_is_sorted_to_nothing():
    x = leaf(np.empty((2, 0)))
    for y in (ops.sort(x), ops.topk(x, 0)[0], ops.take(x, np.empty(0, int), axis=1)):
        assert y.shape == (2, 0)
        assert tinygen.grad(y, x, np.empty((2, 0))).shape == (2, 0)
    assert ops.argsort(x).shape == (2, 0)
    assert ops.one_hot(np.empty(0, int), 3).shape == (0, 3)


def test_order_wants_an_axis():
    for call in (ops.sort, ops.argsort):
        with pytest.raises(InputError, match="axis None is not one"):
            call(leaf([1.0]), None)
