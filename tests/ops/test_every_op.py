"""Every op of the registry against finite differences and against the engine's contracts, at inputs that hypothesis
draws from the op's own description."""

import gc
import re
import warnings
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from drawing import HypothesisDraw
from hypothesis import assume, given, settings
from layouts import scattered

import tinygen
from tinygen import autograd
from tinygen.domains import RandomDraw
from tinygen.errors import GradientError, TinygenError
from tinygen.finite_differences import Kink, check_op
from tinygen.registry import REGISTRY

OPS = sorted(REGISTRY)
every_op = pytest.mark.parametrize("name", OPS)


def _tensors(operands, dtype=np.float64):
    """Operands as leaves where they are floats."""
    convert = lambda x: tinygen.tensor(x.astype(dtype), requires_grad=True) if _is_float(x) else x
    return [convert(x) for x in operands]


def _is_float(x):
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def _floats(out):
    return [y for y in (out if isinstance(out, tuple) else (out,)) if y.dtype.kind == "f"]


def _tracked(out):
    """Those of the outputs that a gradient flows to."""
    return [y for y in _floats(out) if isinstance(y, tinygen.Tensor) and y.requires_grad]


def _draws(n):
    rng = np.random.default_rng(0)
    return (RandomDraw(rng) for _ in range(n))


@every_op
@settings(max_examples=25)
@given(data=st.data())
def test_first_and_second_derivatives_agree_with_finite_differences(name, data):
    try:
        check_op(REGISTRY[name], HypothesisDraw(data))
    except Kink:
        assume(False)


@every_op
@settings(max_examples=10)
@given(data=st.data())
def test_the_vjp_is_the_same_on_arrays_and_on_tensors(name, data):
    operands, params = REGISTRY[name].inputs(HypothesisDraw(data))
    leaves = _tensors(operands)
    asked = [x for x in leaves if isinstance(x, tinygen.Tensor)]
    if not asked:  # one_hot and the like, which no gradient flows through
        return
    outs = [y for y in _floats(REGISTRY[name](*leaves, **params)) if y.requires_grad]
    if not outs:
        return
    weights = [np.cos(np.arange(y.size)).reshape(y.shape) for y in outs]
    on_tensors = autograd.grad(outs, asked, weights, create_graph=True, allow_unused=True)
    on_arrays = autograd.grad(outs, asked, weights, allow_unused=True)
    for a, b in zip(on_arrays, on_tensors, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-14)


@every_op
@settings(max_examples=10)
@given(data=st.data())
def test_float32_stays_float32_and_inputs_are_not_touched(name, data):
    operands, params = REGISTRY[name].inputs(HypothesisDraw(data))
    if "dtype" in params:
        params = {**params, "dtype": np.float32}
    leaves = _tensors(operands, np.float32)
    before = [x.numpy().copy() for x in leaves if isinstance(x, tinygen.Tensor)]
    asked = [x for x in leaves if isinstance(x, tinygen.Tensor)]
    if not asked:  # one_hot and the like, which no gradient flows through
        return
    outs = _floats(REGISTRY[name](*leaves, **params))
    assert all(y.dtype == np.float32 and type(y.numpy()) is np.ndarray for y in outs)
    outs = [y for y in outs if y.requires_grad]
    if outs:
        grads = autograd.grad(outs, asked, [np.ones(y.shape, np.float32) for y in outs], allow_unused=True)
        pairs = [(g, x) for g, x in zip(grads, asked, strict=True) if g is not None]
        assert all(g.dtype == np.float32 and g.shape == x.shape for g, x in pairs)
    for x, old in zip(asked, before, strict=True):
        np.testing.assert_array_equal(x.numpy(), old)


@every_op
@settings(max_examples=10)
@given(data=st.data())
def test_arrays_in_give_the_same_as_tensors_and_memory_order_does_not_matter(name, data):
    operands, params = REGISTRY[name].inputs(HypothesisDraw(data))
    strided = [scattered(x) if isinstance(x, np.ndarray) else x for x in operands]
    plain = REGISTRY[name](*operands, **params)
    tracked = REGISTRY[name](*_tensors(operands), **params)
    strewn = REGISTRY[name](*strided, **params)
    outs = [out if isinstance(out, tuple) else (out,) for out in (plain, tracked, strewn)]
    for a, b, c in zip(*outs, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-12)
        np.testing.assert_allclose(np.asarray(a), np.asarray(c), rtol=1e-12)


@every_op
@settings(max_examples=5)
@given(data=st.data())
def test_no_vjp_widens_what_the_edge_would_have_to_narrow(name, data):
    """Backward would restore float32 without a word, after float64 had cost twice the time."""
    operands, params = REGISTRY[name].inputs(HypothesisDraw(data))
    if "dtype" in params:
        params = {**params, "dtype": np.float32}
    outs = _tracked(REGISTRY[name](*_tensors(operands, np.float32), **params))
    fit = autograd._fit

    def strict(gradient, parent, node):
        assert gradient.dtype == parent.dtype, f"the vjp of {node.op.name} made {gradient.dtype}"
        return fit(gradient, parent, node)

    with mock.patch.object(autograd, "_fit", strict):
        for y in outs:
            y.backward(np.ones(y.shape, np.float32), retain_graph=True)


VIEWS_ONLY = ("concatenate", "stack")  # their vjp cuts views, which cost nothing


@pytest.mark.parametrize("name", [n for n in OPS if getattr(REGISTRY[n], "joint", None) and n not in VIEWS_ONLY])
def test_a_joint_vjp_computes_no_gradient_that_nobody_needs(name):
    op = REGISTRY[name]
    for draw in _draws(5):
        operands, params = op.inputs(draw)
        for place, wanted in enumerate(operands):
            if not _is_float(wanted):
                continue
            outs = op(*[tinygen.Tensor(x, i == place) if _is_float(x) else x for i, x in enumerate(operands)], **params)
            y = _tracked(outs)[0]
            node = y.node.parents[0] if isinstance(outs, tuple) else y.node
            g = tuple(np.ones(out.shape) for out in outs) if isinstance(outs, tuple) else np.ones(y.shape)
            needs = [parent is not None for parent in node.parents]
            pulled = op.pull_back(g, node.saved, needs)
            if len(pulled) != len(needs):
                needs = [needs[i] for i in op.differentiable]
            assert [gradient is not None for gradient in pulled] == needs


@every_op
def test_outputs_that_view_an_operand_share_its_version_and_no_others_do(name):
    for draw in _draws(5):
        operands, params = REGISTRY[name].inputs(draw)
        leaves = _tensors(operands)
        out = REGISTRY[name](*leaves, **params)
        for y in out if isinstance(out, tuple) else (out,):
            for x in leaves:
                if isinstance(x, tinygen.Tensor) and y.size:
                    assert np.shares_memory(x.numpy(), y.numpy()) == (x.version is y.version)


@every_op
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_graphs_of_first_and_second_order_leave_nothing_to_the_garbage_collector(name, dtype):
    def twice(draw):
        operands, params = REGISTRY[name].inputs(draw)
        leaves = _tensors(operands, dtype)
        asked = [x for x in leaves if isinstance(x, tinygen.Tensor)]
        outs = _tracked(REGISTRY[name](*leaves, **params))
        for _ in range(2):
            weights = [np.ones(y.shape, y.dtype) for y in outs]
            grads = autograd.grad(outs, asked, weights, create_graph=True, allow_unused=True)
            outs = [g for g in grads if g is not None and g.requires_grad]

    for draw in _draws(3):
        twice(draw)  # fills the caches
    gc.collect()
    gc.freeze()  # what is there already need not be looked through
    gc.disable()
    try:
        for draw in _draws(3):
            twice(draw)
        del draw
        assert gc.collect() == 0
    finally:
        gc.enable()
        gc.unfreeze()


class EmptyDraw(RandomDraw):
    """Half of all sides are 0."""

    def sizes(self, n, high=4):
        return [self.integer(0, 1) * self.integer(1, high) for _ in range(n)]


REFUSES_EMPTY = {  # what cannot be said of nothing, in NumPy's words or in ours
    **dict.fromkeys(("argmax", "argmin", "max", "min"), "empty sequence|zero-size array"),
    "getitem": "out of bounds",
    "group_norm": "do not divide into 0 groups",
    "scaled_dot_product_attention": "negative power",  # the scale of no features
}


@every_op
def test_empty_arrays_are_taken_and_so_are_their_derivatives(name):
    rng = np.random.default_rng(0)
    for _ in range(30):
        try:
            operands, params = REGISTRY[name].inputs(EmptyDraw(rng))
        except (ValueError, IndexError, ZeroDivisionError):  # the description cannot draw from nothing
            continue
        leaves = _tensors(operands)
        asked = [x for x in leaves if isinstance(x, tinygen.Tensor)]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # mean of an empty slice
                outs = _tracked(REGISTRY[name](*leaves, **params))
                grads = autograd.grad(outs, asked, [np.ones(y.shape) for y in outs], True, True, allow_unused=True)
                pairs = [(g, x) for g, x in zip(grads, asked, strict=True) if g is not None]
                assert all(g.shape == x.shape and g.dtype == x.dtype for g, x in pairs)
                again = [g for g, _ in pairs if g.requires_grad]
                autograd.grad(again, asked, [np.ones(g.shape) for g in again], allow_unused=True)
        except TinygenError as error:
            assert name in REFUSES_EMPTY and re.search(REFUSES_EMPTY[name], str(error)), error


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
@pytest.mark.parametrize("name", [name for name in OPS if hasattr(REGISTRY[name].inputs, "operands")])
def test_elementwise_ops_take_empty_arrays(name, shape):
    leaves = [tinygen.tensor(np.zeros(shape), requires_grad=True) for _ in range(REGISTRY[name].inputs.operands)]
    out = REGISTRY[name](*leaves)
    assert out.shape == shape
    if out.requires_grad:
        grads = autograd.grad(out, leaves, np.zeros(shape))
        assert all(g.shape == shape for g in grads)


@every_op
def test_no_output_is_its_operand(name):
    """An output that were the operand's own array, not a view of it, would escape the versions that guard memory."""
    operands, params = REGISTRY[name].inputs(RandomDraw(np.random.default_rng(0)))
    leaves = _tensors(operands)
    out = REGISTRY[name](*leaves, **params)
    for y in out if isinstance(out, tuple) else (out,):
        assert not any(isinstance(x, tinygen.Tensor) and y.numpy() is x.numpy() for x in leaves)


@pytest.mark.parametrize("name", [name for name in OPS if getattr(REGISTRY[name], "derived", False)])
def test_one_percent_planted_in_a_vjp_is_caught(name, monkeypatch):
    """The harness itself: each operand's gradient in turn is made 1 % too large (or .01 where it is zero)."""
    op = REGISTRY[name]
    true_pull = op.pull_back
    rng = np.random.default_rng(1)
    places = op.differentiable if not op.variadic else [0]
    for k, place in enumerate(places):

        def wrong(g, saved, needs, k=k, place=place):
            pulled = list(true_pull(g, saved, needs))
            i = place if len(pulled) == len(needs) else k
            if pulled[i] is not None:
                zero = not np.any(np.asarray(pulled[i]))
                pulled[i] = pulled[i] + 0.01 if zero else pulled[i] * 1.01
            return pulled

        monkeypatch.setattr(op, "pull_back", wrong)
        caught = 0
        for _ in range(25):
            try:
                check_op(op, RandomDraw(rng))
            except GradientError:
                caught += 1
                break
            except Kink:
                continue
        assert caught, f"an error of 1 % in the gradient of operand {place} of {name} went unseen"
