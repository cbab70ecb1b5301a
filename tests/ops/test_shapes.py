"""Rearranging against NumPy, joining, splitting, and arrays without elements."""

import hypothesis.strategies as st
import numpy as np
import pytest
from drawing import HypothesisDraw
from hypothesis import given, settings

import tinygen
from tinygen import ops
from tinygen.errors import InputError
from tinygen.registry import REGISTRY

SAME_AS_NUMPY = (
    "reshape squeeze expand_dims transpose moveaxis swapaxes flip roll repeat tile diagonal tril triu split".split()
)


@pytest.mark.parametrize("name", SAME_AS_NUMPY)
@settings(max_examples=20)
@given(data=st.data())
def test_values_and_shapes_are_numpys(name, data):
    (x,), params = REGISTRY[name].inputs(HypothesisDraw(data))
    ours, theirs = getattr(ops, name)(tinygen.tensor(x), **params), getattr(np, name)(x, **params)
    for a, b in zip(ours, theirs, strict=True) if name == "split" else [(ours, theirs)]:
        np.testing.assert_array_equal(a.numpy(), b, strict=True)


@given(data=st.data())
def test_padding_is_numpys_with_a_constant(data):
    (x,), params = REGISTRY["pad"].inputs(HypothesisDraw(data))
    expected = np.pad(x, params["pad_width"], constant_values=params["value"])
    np.testing.assert_array_equal(ops.pad(x, **params), expected, strict=True)


@pytest.mark.parametrize("name", ["concatenate", "stack"])
@given(data=st.data())
def test_joining_is_numpys_for_lists_and_tuples_of_arrays_and_tensors(name, data):
    arrays, params = REGISTRY[name].inputs(HypothesisDraw(data))
    expected = getattr(np, name)(arrays, **params)
    mixed = [tinygen.tensor(arrays[0]), *arrays[1:]]
    for given_ in (mixed, tuple(mixed)):
        np.testing.assert_array_equal(getattr(ops, name)(given_, **params).numpy(), expected, strict=True)


def test_joining_one_tensor_joins_its_rows():
    x = np.arange(6.0).reshape(3, 2)
    for join, numpys in ((ops.concatenate, np.concatenate), (ops.stack, np.stack)):
        np.testing.assert_array_equal(join(tinygen.tensor(x)).numpy(), numpys(x))


@given(data=st.data())
def test_concatenating_undoes_splitting(data):
    (x,), params = REGISTRY["split"].inputs(HypothesisDraw(data))
    np.testing.assert_array_equal(ops.concatenate(ops.split(x, **params), params["axis"]), x)


def test_the_pieces_of_a_split_that_nobody_used_get_gradient_zero():
    x = tinygen.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    _, second = ops.split(x, 2)
    second.sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 0, 1, 1])


@pytest.mark.parametrize("indexing", ["xy", "ij"])
@pytest.mark.parametrize("sides", [(), (3,), (2, 3), (2, 3, 4)])
def test_meshgrid_is_numpys(sides, indexing):
    axes = [np.arange(float(side)) for side in sides]
    ours = ops.meshgrid(*map(tinygen.tensor, axes), indexing=indexing)
    for a, b in zip(ours, np.meshgrid(*axes, indexing=indexing), strict=True):
        np.testing.assert_array_equal(a.numpy(), b, strict=True)


@pytest.mark.parametrize(
    "rearrange",
    [
        ops.ravel,
        ops.transpose,
        ops.flip,
        ops.triu,
        lambda x: ops.reshape(x, (2, 3, 0)),
        lambda x: ops.roll(x, 2, 0),
        lambda x: ops.repeat(x, 2, 0),
        lambda x: ops.tile(x, 2),
        lambda x: ops.pad(x, 1),
        lambda x: ops.diagonal(x),
        lambda x: ops.concatenate([x, x]),
        lambda x: ops.stack([x, x]),
        lambda x: ops.split(x, 3)[1],
        lambda x: ops.split(x, 2, axis=1)[1],
    ],
)
def test_arrays_without_elements_are_rearranged_and_differentiated(rearrange):
    x = tinygen.tensor(np.empty((3, 0)), requires_grad=True)
    rearrange(x).sum().backward()
    assert x.grad.shape == (3, 0)


def test_rearranging_without_copying_shares_memory():
    x = tinygen.tensor(np.arange(6.0).reshape(2, 3))
    for view in (ops.ravel(x), x.T, ops.flip(x), ops.split(x, 2)[1], ops.diagonal(x), ops.expand_dims(x, 0)):
        assert np.shares_memory(view.numpy(), x.numpy())
        assert view.version is x.version


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.split(x, 4), "axis 0 of length 3 does not divide into 4 equal pieces"),
        (lambda x: ops.split(x, [2, 1]), r"\[2, 1\] do not ascend"),
        (lambda x: ops.split(x, 3, axis=2), "axis 2 is not one of an array of 1 dimensions"),
        (lambda x: ops.pad(x, -1), "pad_width -1 is negative"),
        (lambda x: ops.tril(x), "at least two axes"),
        (lambda x: ops.concatenate([x, x], axis=1), "axis 1 is not one of an array of 1 dimensions"),
        (lambda x: ops.meshgrid(x, indexing="yx"), "must be"),
    ],
)
def test_what_does_not_fit_is_explained(call, message):
    with pytest.raises(InputError, match=message):
        call(tinygen.tensor([1.0, 2.0, 3.0]))


def test_joining_nothing_is_an_error():
    for join in (ops.concatenate, ops.stack):
        with pytest.raises(InputError, match="need at least one array"):
            join([])


def test_the_one_axis_of_a_vector_may_be_given_as_a_number():
    x = tinygen.tensor([1.0, 2.0], requires_grad=True)
    assert tinygen.grad((ops.transpose(x, -1) * [3, 4]).sum(), x).tolist() == [3.0, 4.0]
