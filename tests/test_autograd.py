"""The engine's contracts, one test each."""

import gc
import threading
import weakref

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import tinygen
from tinygen import ops
from tinygen.autograd import detect_anomaly, grad, graphviz, hvp, jacobian, jvp, no_grad, stop_gradient, vjp
from tinygen.domains import arrays, real
from tinygen.errors import DtypeError, GraphError, InputError, MutationError, NonFiniteError, ShapeError, TinygenError
from tinygen.registry import REGISTRY, op


def leaf(values, dtype=np.float64):
    return tinygen.tensor(np.array(values, dtype), requires_grad=True)


# -- backward and .grad ----------------------------------------------------------------------------------------------


def test_grad_accumulates_as_a_plain_array_until_it_is_cleared():
    x = leaf([1.0, 2.0])
    for times in (1, 2):
        (x * x).sum().backward()
        assert type(x.grad) is np.ndarray
        np.testing.assert_array_equal(x.grad, times * 2 * x.numpy())
    x.zero_grad()
    assert x.grad is None


def test_a_0_d_gradient_stays_an_array_when_it_accumulates():
    x = leaf(2.0)
    for total in (4.0, 8.0):
        (x * x).backward()
        assert type(x.grad) is np.ndarray and x.grad == total


def test_no_two_gradients_share_memory_and_each_may_be_written_to():
    x, y, weight = leaf([1.0]), leaf([2.0]), np.ones(1)
    (x + y).backward(weight)
    x.grad += 1
    gx, gy = grad(x + y, [x, y], weight)
    gx += 1
    whole = grad((x + y).sum(), x)
    whole += 1
    assert y.grad == gy.item() == weight == 1


def test_broadcasting_is_undone_and_the_gradient_takes_the_leafs_shape():
    x, y = leaf(np.ones((3, 1))), leaf(np.ones(4))
    (x * y).sum().backward()
    assert x.grad.shape == (3, 1) and y.grad.shape == (4,)
    np.testing.assert_array_equal(x.grad, np.full((3, 1), 4.0))


def test_the_gradient_takes_the_leafs_dtype_even_if_a_vjp_widens():
    x = leaf([1.0, 2.0], np.float32)
    (x.astype(np.float64) * np.array([3.0, 4.0])).sum().backward()
    assert x.grad.dtype == np.float32


def chain(x, length=100_000):
    for _ in range(length // 2):
        x = -(x + 1.0)
    return x


def test_a_chain_of_100_000_ops_differentiates_and_is_freed():
    x = leaf(1.0)
    y = chain(x)
    y.backward(retain_graph=True)
    assert x.grad == 1.0
    del y


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_chain_of_100_000_ops_is_freed_without_overflowing_the_stack(create_graph):
    """Freed in a thread with a small stack: one C frame per node would need far more."""

    def build():
        x = leaf(1.0)
        y = ops.square(chain(x))
        g = grad(y, x, create_graph=create_graph, retain_graph=True)
        held = weakref.ref(y)
        del y
        assert held() is None
        assert g.item() == 2.0
        if create_graph:
            assert grad(g, x).item() == 2.0
            g = grad(ops.square(chain(x)), x, create_graph=True)  # freed from the gradient's side, unvisited
        done.append(True)

    done, before = [], threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=build)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert done == [True]


def test_a_released_graph_raises_and_retain_graph_keeps_it():
    x = leaf([2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad, [8.0])
    with pytest.raises(GraphError, match="released by an earlier backward"):
        y.backward()


def test_a_gradient_that_would_have_to_pass_a_released_part_raises_instead_of_leaving_it_out():
    x = leaf([1.0, 2.0])
    y = ops.exp(x)
    grad(y.sum(), x)
    with pytest.raises(GraphError, match="exp: this part of the graph was released"):
        grad((y * x).sum(), x)
    with pytest.raises(GraphError, match="exp: this part of the graph was released"):
        grad((y * 3).sum(), x, allow_unused=True)


def test_what_was_released_may_be_used_where_no_target_lies_behind_it():
    y = ops.exp(leaf([1.0, 2.0]))
    y.sum().backward()
    younger = leaf([3.0, 4.0])
    np.testing.assert_array_equal(grad((y * younger).sum(), younger).numpy(), y.numpy())
    np.testing.assert_array_equal(grad((y * younger).sum(), y).numpy(), younger.numpy())


def test_two_losses_over_one_graph_need_retain_graph():
    x = leaf([2.0])
    shared = ops.exp(x)
    first, second = (shared * 2).sum(), (shared * 3).sum()
    first.backward(retain_graph=True)
    second.backward()
    np.testing.assert_allclose(x.grad, 5 * np.exp([2.0]))


def test_backward_releases_what_it_visited_while_the_output_lives():
    x = leaf(np.ones(10))
    big = ops.exp(x)
    held = weakref.ref(big.numpy())
    y = (big * big).sum()
    del big
    assert held() is not None
    y.backward()
    assert held() is None


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_graph_is_freed_by_reference_counting_alone(create_graph):
    x = leaf(np.ones(10))

    def step():
        y = ops.tanh(x * x).sum()
        g = grad(y, x, create_graph=create_graph)
        if create_graph:
            grad((g * g).sum(), x)
        return [weakref.ref(t) for t in (y, g)]

    step()
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(20):
            assert all(ref() is None for ref in step())
        assert len(gc.get_objects()) - before < 20
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_what_no_vjp_reads_is_not_kept_alive():
    x = leaf(np.ones(5))
    middle = x + 1.0
    held = weakref.ref(middle.numpy())
    y = middle.sum()
    del middle
    assert held() is None
    y.backward()


def test_an_untracked_operands_side_of_a_product_is_not_kept_alive():
    x, constant = leaf(np.ones(5)), tinygen.tensor(np.ones(5))
    y = (x + 0.0) * constant
    assert sum(saved is not None for saved in y.node.saved) == 1


ALONG = [ops.softmax, ops.log_softmax, *[lambda x, f=f: f(x, 0) for f in (ops.sum, ops.prod, ops.cumprod, ops.cumsum)]]


@pytest.mark.parametrize("f", ALONG)
def test_a_0_d_array_may_have_an_axis_as_in_numpy(f):
    x = leaf(2.0)
    assert grad(f(x), x).shape == ()


def test_every_output_is_a_tensor_if_one_operand_is():
    y, mean, var = ops.batch_norm(np.ones((2, 3), np.float32), leaf(np.ones(3), np.float32))
    assert y.requires_grad and isinstance(mean, tinygen.Tensor) and isinstance(var, tinygen.Tensor)


def test_gradients_of_several_outputs_are_summed():
    x = leaf([1.0, 2.0])
    g = grad([x.sum(), (x * x).sum()], x)
    np.testing.assert_array_equal(g.numpy(), 1 + 2 * x.numpy())


def test_grad_with_respect_to_an_intermediate_value():
    x = leaf([1.0, 2.0])
    y = ops.exp(x)
    z = (y * y).sum()
    gy, gx = grad(z, [y, x])
    np.testing.assert_allclose(gy.numpy(), 2 * y.numpy())
    np.testing.assert_allclose(gx.numpy(), 2 * y.numpy() ** 2)
    assert x.grad is None


def test_an_unconnected_input_raises_unless_allowed():
    x, y = leaf([1.0]), leaf([1.0])
    with pytest.raises(GraphError, match="no output depends on input 1"):
        grad((x * 2).sum(), [x, y])
    assert grad((x * 2).sum(), [x, y], allow_unused=True)[1] is None


def test_stop_gradient_and_no_grad_cut_the_graph():
    x = leaf([3.0])
    np.testing.assert_array_equal(grad((x * stop_gradient(x)).sum(), x).numpy(), [3.0])
    with no_grad():
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_a_non_scalar_output_needs_weights():
    x = leaf([1.0, 2.0])
    with pytest.raises(ShapeError, match="single number"):
        (x * 2).backward()
    (x * 2).backward(np.array([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad, [2.0, 20.0])
    with pytest.raises(ShapeError, match="given gradient has shape"):
        (x * 2).backward(np.ones(3))


# -- higher orders ---------------------------------------------------------------------------------------------------


def test_the_fourth_derivative_of_tanh_is_its_closed_form():
    x = leaf(0.3)
    y = ops.tanh(x)
    for _ in range(4):
        y = grad(y, x, create_graph=True)
    t = np.tanh(0.3)
    np.testing.assert_allclose(y.item(), 8 * t * (1 - t**2) * (2 - 3 * t**2), rtol=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_jvp_hvp_and_jacobian_agree_with_one_another(seed):
    rng = np.random.default_rng(seed)
    x, v = rng.uniform(0.5, 2.0, 3), rng.standard_normal(3)
    f = lambda x: ops.exp(x) * ops.log(x * x)
    j = jacobian(f, x).numpy()
    y, tangent = jvp(f, [x], [v])
    np.testing.assert_allclose(tangent.numpy(), j @ v, rtol=1e-10)
    np.testing.assert_allclose(y.numpy(), f(x))
    _, pull = vjp(f, x)
    np.testing.assert_allclose(pull(v)[0].numpy(), v @ j, rtol=1e-10)
    hessian = jacobian(lambda x: grad(ops.exp(x * x).sum(), x, create_graph=True), x).numpy()
    (product,) = hvp(lambda x: ops.exp(x * x).sum(), [x], [v])
    np.testing.assert_allclose(product.numpy(), hessian @ v, rtol=1e-10)


def test_hvp_of_a_linear_function_is_zero_and_not_an_error():
    (product,) = hvp(lambda x: (x * 3.0).sum(), [np.ones(2)], [np.ones(2)])
    np.testing.assert_array_equal(product.numpy(), 0)


def test_vjp_and_jvp_of_several_outputs_take_and_return_one_for_each():
    a, b = np.array([1.0, 2.0]), np.array(3.0)
    f = lambda a, b: (a * b, (a * a).sum())
    _, pull = vjp(f, a, b)
    da, db = pull((np.array([1.0, 10.0]), 1.0))
    np.testing.assert_array_equal(da.numpy(), np.array([1.0, 10.0]) * b + 2 * a)
    assert db.item() == 21.0
    (first, second), (along_first, along_second) = jvp(f, [a, b], [np.ones(2), 1.0])
    np.testing.assert_array_equal(first.numpy(), a * b)
    np.testing.assert_array_equal(along_first.numpy(), a + b)
    assert second.item() == 5.0 and along_second.item() == 6.0


def test_hvp_of_several_inputs_is_the_whole_hessian_times_the_vectors():
    a, b = np.array([1.0, 2.0]), np.array(3.0)
    da, db = hvp(lambda a, b: (a * a * b).sum(), [a, b], [np.ones(2), 1.0])
    np.testing.assert_array_equal(da.numpy(), 2 * b + 2 * a)
    assert db.item() == 6.0  # 2 sum(a), and nothing from d2/db2


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_a_jacobian_has_the_outputs_axes_and_then_the_inputs(shape):
    x = np.arange(1.0, 1 + np.prod(shape, dtype=int)).reshape(shape)
    full = jacobian(ops.square, x).numpy()
    assert full.shape == shape + shape
    np.testing.assert_array_equal(full.reshape(x.size, x.size), np.diag(2 * x.ravel()))
    np.testing.assert_array_equal(jacobian(lambda x: (x * x).sum(), x).numpy(), 2 * x)
    assert jacobian(lambda x: ops.stack([x.sum(), x.sum()]), x).shape == (2, *shape)
    assert not jacobian(lambda x: tinygen.tensor(np.ones(2)), x).numpy().any()


WRONG_CALLS = {
    "vjp: the function returned float; it must": lambda: vjp(lambda x: 3.0, np.ones(2)),
    "jvp: the function returned a Tensor of int64": lambda: jvp(ops.argmax, [np.ones(2)], [np.ones(2)]),
    "jvp: the tangents are 0, but 1 are needed": lambda: jvp(ops.exp, [np.ones(2)], []),
    r"jvp: the tangent 0 has shape \(3,\), not \(2,\)": lambda: jvp(ops.exp, [np.ones(2)], [np.ones(3)]),
    r"vjp: the cotangent 0 has shape \(3,\)": lambda: vjp(ops.exp, np.ones(2))[1](np.ones(3)),
    "hvp: the vectors are 2, but 1 are needed": lambda: hvp(ops.sum, [np.ones(2)], [1.0, 2.0]),
    "single number": lambda: hvp(ops.exp, [np.ones(2)], [np.ones(2)]),
    "jacobian: the function returned 2 outputs": lambda: jacobian(lambda x: (x, x), np.ones(2)),
    "backward: ndarray is not a Tensor": lambda: tinygen.backward(np.ones(2)),
    "backward: str given for float64": lambda: leaf([1.0]).backward("one"),
    "grad: input 0 is ndarray, not a Tensor": lambda: grad(leaf(1.0), np.ones(2)),
    "grad: an output is float": lambda: grad(1.0, leaf([1.0])),
    "graphviz: this ndarray has no history": lambda: graphviz(np.ones(2)),
}


@pytest.mark.parametrize("rule", WRONG_CALLS)
def test_a_wrong_call_is_explained(rule):
    with pytest.raises(TinygenError, match=rule):
        WRONG_CALLS[rule]()


def test_inputs_may_come_from_any_iterable():
    x, y = leaf([1.0]), leaf([2.0])
    assert [g.item() for g in grad(x * y, (t for t in [x, y]))] == [2.0, 1.0]


def test_backward_through_a_recorded_gradient_reaches_the_leaves():
    x = leaf([1.0, 2.0])
    g = grad((x * x * x).sum(), x, create_graph=True)
    (g * g).sum().backward()
    np.testing.assert_allclose(x.grad, 36 * x.numpy() ** 3)


# -- mutation --------------------------------------------------------------------------------------------------------


def _writes():
    return {
        "an in-place operator": lambda x: x.__iadd__(1.0),
        "assignment to an element": lambda x: x.__setitem__(0, 5.0),
        "assignment to .data": lambda x: setattr(x, "data", np.zeros(3)),
        "a view": lambda x: x.reshape(3, 1).__setitem__(0, 5.0),
        "what it views": lambda x: x.detach().__imul__(2.0),
        "touch, as an optimiser does": lambda x: x.touch(),
    }


@pytest.mark.parametrize("how", _writes())
def test_a_write_to_what_backward_needs_is_noticed(how):
    x, w = tinygen.tensor(np.ones(3)), leaf(np.ones(3))
    y = (x * w).sum()
    with no_grad():
        _writes()[how](x)
    with pytest.raises(MutationError, match="multiply: a, which its gradient needs, was written to"):
        y.backward()


def test_a_write_to_a_saved_output_is_noticed():
    x = leaf(np.ones(3))
    y = ops.exp(x)
    z = y.sum()
    y += 1.0
    with pytest.raises(MutationError, match="exp: out"):
        z.backward()


def test_a_write_before_the_second_backward_of_a_recorded_gradient_is_noticed():
    x, w = leaf(np.ones(3)), tinygen.tensor(np.ones(3))
    g = grad((ops.square(x * w)).sum(), x, create_graph=True)
    w[0] = 7.0
    with pytest.raises(MutationError):
        grad(g.sum(), x)


def test_writing_to_what_no_gradient_needs_is_allowed():
    x, w = tinygen.tensor(np.ones(3)), leaf(np.ones(3))
    y = (ops.concatenate([x, w])[3:] + x + w).sum() / 2
    x += 1.0
    y.backward()
    np.testing.assert_array_equal(w.grad, np.ones(3))


def test_an_in_place_operator_on_a_computed_tensor_is_recorded():
    x = leaf([1.0, 2.0])
    y = x * 1.0
    y += x * x
    y *= tinygen.tensor(np.array([2.0, 3.0]))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [2 * 3, 3 * 5])


def test_outputs_that_are_no_views_have_memory_of_their_own():
    x = leaf([3.0, 1.0, 2.0]) * 1.0
    values, indices = ops.topk(x, 2)
    values += 1.0
    indices[0] = 7
    x += values.sum()
    assert x.numpy().tolist() == [10.0, 8.0, 9.0]


def test_an_in_place_operator_on_a_leaf_or_beside_a_view_is_refused():
    x = leaf(np.ones(3))
    with pytest.raises(GraphError, match="no_grad"):
        x += 1.0
    y = x * 2.0
    view = y.reshape(3, 1)
    with pytest.raises(GraphError, match="shares its memory"):
        y += 1.0
    with pytest.raises(GraphError, match="shares its memory"):
        view += 1.0
    with pytest.raises(GraphError, match="cannot be recorded"):
        y[0] = 1.0


def test_a_silent_write_into_the_array_is_caught_under_detect_anomaly():
    constant, w = np.ones(3), leaf(np.ones(3))
    with detect_anomaly():
        y = (constant * w).sum()
        constant[1] = 5.0
        with pytest.raises(MutationError, match="recorded at .*test_autograd.py"):
            y.backward()


# -- anomalies and errors ----------------------------------------------------------------------------------------------


def test_detect_anomaly_names_the_op_whose_forward_made_a_nan():
    x = leaf([-1.0, 1.0])
    with detect_anomaly(), np.errstate(invalid="ignore"):
        with pytest.raises(NonFiniteError, match=r"log\(float64 \(2,\)\): .*operands were finite.*test_autograd.py"):
            ops.log(x)
        with pytest.raises(NonFiniteError, match="operand 1 already held one"):
            x * np.array([np.nan, 1.0])


def test_detect_anomaly_names_the_op_whose_vjp_made_an_infinity():
    x = leaf([0.0, 1.0])
    with detect_anomaly(), np.errstate(divide="ignore"):
        y = ops.sqrt(x).sum()
        with pytest.raises(NonFiniteError, match="sqrt recorded at .*test_autograd.py"):
            y.backward()


def test_detect_anomaly_around_backward_alone_checks_the_vjps():
    y = ops.sqrt(leaf([0.0, 1.0])).sum()
    with detect_anomaly(), np.errstate(divide="ignore"), pytest.raises(NonFiniteError, match="sqrt: the gradient of"):
        y.backward()


def test_detect_anomaly_sees_through_ops_of_several_outputs_and_of_any_number_of_operands():
    x = leaf([[2.0, 0.0], [0.0, 0.0]])
    with detect_anomaly(), np.errstate(divide="ignore"):
        with pytest.raises(NonFiniteError, match=r"slogdet\(float64 \(2, 2\)\): .*operands were finite"):
            ops.slogdet(x)
        with pytest.raises(NonFiniteError, match=r"concatenate\(.*operand 1 already held one"):
            ops.concatenate([x, np.full((1, 2), np.nan)])
        values, _ = ops.topk(x, 1)
        y = ops.stack([ops.log(values + 1.0), values])
        with pytest.raises(NonFiniteError, match=r"stack recorded at .*autograd.py:\d+: the gradient of operand 0"):
            y.backward(np.full(y.shape, np.inf))
        loss = (ops.topk(x, 2)[0] * 1.0).sum()
        x.numpy()[0, 0] = 1.0  # read by no vjp on the way: indices are enough
        loss.backward()


def test_an_error_names_the_op_the_shapes_the_dtypes_and_the_line():
    with pytest.raises(InputError, match=r"add\(float64 \(3,\), float64 \(4,\)\): .*\(.*test_autograd.py:\d+\)"):
        leaf(np.ones(3)) + leaf(np.ones(4))


def test_two_float_widths_in_one_op_raise():
    with pytest.raises(DtypeError, match="two float widths"):
        leaf([1.0], np.float32) * leaf([1.0], np.float64)
    with pytest.raises(DtypeError, match="two float widths"):
        leaf([1.0], np.float32) * np.ones(1)


def test_an_op_without_a_description_or_with_a_taken_name_cannot_be_registered():
    with pytest.raises(InputError, match="describe its valid inputs"):
        op("undescribed", forward=np.exp, vjp=lambda g, out: g * out, inputs=None)
    with pytest.raises(InputError, match="there is an op of this name"):
        op("exp", forward=np.exp, vjp=lambda g, out: g * out, inputs=arrays(real))


def test_an_unknown_or_missing_parameter_is_explained():
    with pytest.raises(InputError, match="unknown parameter 'axes'.*did you mean axis"):
        ops.sum(leaf([1.0]), axes=0)
    with pytest.raises(InputError, match="shape missing"):
        ops.reshape(leaf([1.0]))


@pytest.fixture
def scratch_op():
    """Registers ops that are gone after the test."""
    before = set(REGISTRY)
    yield op
    for name in set(REGISTRY) - before:
        del REGISTRY[name]


def test_a_missing_gradient_is_never_silent(scratch_op):
    broken = scratch_op("broken", forward=np.exp, vjp=lambda g: None, inputs=arrays(real))
    with pytest.raises(GraphError, match="broken: its vjp returned no gradient"):
        broken(leaf([1.0])).sum().backward()
    misshapen = scratch_op("misshapen", forward=np.exp, vjp=lambda g: ops.reshape(g, (1, 2)), inputs=arrays(real))
    misshapen(leaf([1.0, 2.0])).sum().backward()  # a leading 1 is broadcasting, undone on the edge
    wrong = scratch_op("wrong", forward=np.exp, vjp=lambda g: g.reshape(2, 1), inputs=arrays(real))
    with pytest.raises(ShapeError, match=r"wrong: its vjp returned a gradient of shape \(2, 1\)"):
        wrong(leaf([1.0, 2.0])).sum().backward()
    underived = scratch_op("underived", forward=np.exp, inputs=arrays(real))
    with pytest.raises(GraphError, match="underived has no derivative"):
        underived(leaf([1.0]))


def test_several_outputs_with_a_residual_and_any_number_of_operands_differentiate_twice(scratch_op):
    @scratch_op("exps", inputs=arrays(real), residual=True)
    def exps(*xs):
        return tuple([np.exp(x) for x in xs]), 2.0

    @exps.vjp
    def _(g, xs, out, residual):
        return [gi * y * (residual - 1.0) + 0.0 * x for gi, x, y in zip(g, xs, out, strict=True)]

    x, y = leaf([0.5, 1.0]), leaf([2.0])
    a, b = exps(x, y)
    gx, gy = grad((a * a).sum() + b.sum(), [x, y], create_graph=True)
    np.testing.assert_allclose(gx.numpy(), 2 * np.exp(2 * x.numpy()))
    np.testing.assert_allclose(grad(gx.sum(), x, retain_graph=True).numpy(), 4 * np.exp(2 * x.numpy()))
    np.testing.assert_allclose(gy.numpy(), np.exp(y.numpy()))
    b.data = np.zeros(1)
    with pytest.raises(MutationError, match="exps"):
        grad(a.sum(), x)


def test_an_op_whose_outputs_are_all_integers_needs_no_vjp(scratch_op):
    both = scratch_op("extremes", forward=lambda x: (x.argmin(), x.argmax()), inputs=arrays(real))
    assert [i.item() for i in both(leaf([2.0, 1.0, 3.0]))] == [1, 2]


def test_a_forward_that_returns_no_array_is_explained(scratch_op):
    item = scratch_op("item", forward=lambda x: x.sum().item(), vjp=lambda g: g, inputs=arrays(real))
    with pytest.raises(InputError, match="item: its forward returned float, not an array"):
        item(leaf([1.0]))


def test_a_vjp_that_fails_is_named(scratch_op):
    clumsy = scratch_op("clumsy", forward=np.exp, vjp=lambda g: g.reshape(7), inputs=arrays(real))
    with pytest.raises(GraphError, match=r"clumsy: its vjp failed \(ValueError: cannot reshape"):
        clumsy(leaf([1.0, 2.0])).sum().backward()
    with pytest.raises(InputError, match="reshape"):  # recorded, the op inside tells it
        x = leaf([1.0, 2.0])
        grad(clumsy(x).sum(), x, create_graph=True)


def test_needs_is_for_vjps_of_several_operands(scratch_op):
    with pytest.raises(InputError, match="has no `needs`"):
        scratch_op("needy", forward=np.exp, vjp=lambda g, out, needs: g * out, inputs=arrays(real))


def test_a_vjp_is_told_what_is_needed_and_computes_no_more(scratch_op):
    asked = []

    @scratch_op("probe", inputs=arrays(real, real))
    def probe(a, b, /):
        return a * b

    @probe.vjp
    def _(g, a, b, needs):
        asked.append(tuple(needs))
        return g * b, g * a

    x, y = leaf([1.0]), leaf([2.0])
    probe(x, 3.0).sum().backward()
    grad(probe(x, y).sum(), y)
    assert asked == [(True, False), (False, True)]


# -- threads and drawings ----------------------------------------------------------------------------------------------


def test_the_recording_flag_belongs_to_its_thread():
    x, seen = leaf([1.0]), []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append((x * 2).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]


def test_threads_may_differentiate_shared_leaves_at_once():
    x, results = leaf(np.linspace(0.1, 1.0, 50)), []

    def work():
        for _ in range(50):
            results.append(grad(ops.exp(ops.sin(x) * x).sum(), x).numpy())

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(np.array_equal(r, results[0]) for r in results) and len(results) == 200


def test_threads_that_share_a_leaf_lose_no_contribution():
    x = leaf(np.zeros(20_000))  # large enough for NumPy to let other threads run while it adds
    work = lambda: [(x * 1.0).sum().backward() for _ in range(200)]
    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert x.grad.min() == x.grad.max() == 800.0


def test_graphviz_draws_leaves_and_ops():
    x = leaf([1.0, 2.0])
    text = graphviz(ops.exp(x * 2).sum())
    assert text.startswith("digraph {") and text.count("->") == 3
    assert 'label="exp\\n(2,)"' in text and "shape=box" in text


def test_a_gradient_lies_row_by_row_in_memory_however_the_vjp_laid_it():
    w = tinygen.tensor(np.ones((3, 4), np.float32), requires_grad=True)
    (w.T * np.arange(12, dtype=np.float32).reshape(4, 3)).sum().backward()
    assert w.grad.flags.c_contiguous
    np.testing.assert_array_equal(w.grad, np.arange(12).reshape(4, 3).T)
