"""Definition and kernel: one op, two ways to run it, the same derivatives of every order."""

import gc
import os
import subprocess
import sys
import threading
import weakref

import hypothesis.strategies as st
import numpy as np
import pytest
from drawing import HypothesisDraw
from hypothesis import assume, given, settings

import tinygen
from tinygen import dispatch, ops
from tinygen.autograd import detect_anomaly, grad, graphviz, jvp, no_grad
from tinygen.dispatch import KERNELS, Kernel, definitions_only
from tinygen.domains import RandomDraw, arrays, real
from tinygen.errors import DtypeError, GraphError, InputError, MutationError, NonFiniteError, ShapeError
from tinygen.fused import Fused, fused
from tinygen.registry import REGISTRY

EPS = np.finfo(np.float32).eps
ULPS = 2  # what a kernel may round where the definition happens to be exact
KERNELLED = sorted(name for name, library in KERNELS if library == "numpy")
every_kernel = pytest.mark.parametrize("name", KERNELLED)


def leaf(values, dtype=np.float32):
    return tinygen.tensor(np.asarray(values, dtype), requires_grad=True)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# -- every kernel equals its definition ----------------------------------------------------------------------------


class KernelDraw(HypothesisDraw):
    """Draws for kernels: sides from 0 to beyond the width of a vector register."""

    def sizes(self, n, high=4):
        return [self.choice([self.integer(0, 3), self.integer(4, 40)]) for _ in range(n)]

    def integers(self, shape, high, low=0):
        assume(high > low)
        return super().integers(shape, high, low)


def scatter(x):
    """The same values in memory that is neither contiguous nor in row-major order."""
    room = np.zeros(tuple(2 * side for side in x.shape[::-1]), x.dtype)
    view = room[(..., *[slice(None, None, 2) for _ in x.shape])].T
    view[...] = x
    return view


def run(name, operands, params, weights, dtype, layout=np.asarray):
    """The outputs, the gradients of their sum weighted by `weights`, and whether a kernel computed them."""
    convert = lambda x: layout(x.astype(dtype)) if x.dtype.kind == "f" else layout(x)
    args = [x if not isinstance(x, np.ndarray) else tinygen.Tensor(convert(x), x.dtype.kind == "f") for x in operands]
    ys = several(REGISTRY[name](*args, **params))
    asked = [x for x in args if isinstance(x, tinygen.Tensor) and x.requires_grad]
    op = ys[0].node.op or ys[0].node.parents[0].op  # one of several outputs has a node that leads to the op's
    grads = grad(ys, asked, [tinygen.Tensor(layout(w.astype(dtype))) for w in weights], allow_unused=True)
    return [*[y.numpy() for y in ys], *[g.numpy() for g in grads]], op is REGISTRY[name]


def several(y):
    return y if type(y) is tuple else (y,)


def size(*xs):
    return max(np.max(np.abs(x), initial=0, where=~np.isnan(x)) for x in xs)


def nudge(x, seed):
    """Each number moved by one unit in its last place, up or down; float32 before and after."""
    if x is None or x.dtype.kind != "f":
        return x
    moved = x * (1 + EPS * np.random.default_rng(seed).choice([-1, 1], np.shape(x)))
    return moved.astype(np.float32)


def assert_kernel_equals_definition(name, draw):
    """Forward and backward: at most four times as far from the float64 definition as the float32 definition is.

    Where that happens to be exact, as single numbers often are, the kernel may still round: as far as the definitions
    do next to it, where operands are one float32 unit away, and as far as that moves them; and gradients are
    differences of numbers as large as `weight` times an operand.
    """
    operands, params = REGISTRY[name].inputs(draw)
    if "axis" in params and type(params["axis"]) is not int:
        params["axis"] = -1  # kernels run along one axis
    scale = draw.choice([0.1, 1.0, 10.0])
    operands = [x if x is None or x.dtype.kind != "f" else (scale * x).astype(np.float32) for x in operands]
    if not operands[0].ndim:
        return
    with definitions_only(), no_grad():
        ys = several(REGISTRY[name](*operands, **params))
        weights = [draw.array(np.shape(y)).astype(np.float32) for y in ys]
    with definitions_only():
        exact, by_kernel_64 = run(name, operands, params, weights, np.float64)
        plain, by_kernel_32 = run(name, operands, params, weights, np.float32)
        nearby = [([nudge(x, k) for x in operands], [nudge(w, k) for w in weights]) for k in range(3)]
        moved = [[run(name, xs, params, w, t)[0] for t in (np.float64, np.float32)] for xs, w in nearby]
    assert not by_kernel_64 and not by_kernel_32
    for layout in (np.asarray, scatter):
        fast, by_kernel = run(name, operands, params, weights, np.float32, layout)
        assert by_kernel
        for k, (e, p, f) in enumerate(zip(exact, plain, fast, strict=True)):
            assert f.shape == e.shape and f.dtype == np.float32
            error = lambda x, y=e: np.max(np.abs(x - y), initial=0, where=~(np.isnan(x) & np.isnan(y)))
            near = [max(error(there[k]), error(float32[k], there[k])) for there, float32 in moved]
            floats = [x for x in operands if x is not None and x.dtype.kind == "f"]
            terms = size(*weights) * (max(1, size(*floats)) if k >= len(ys) else 1)
            assert error(f) <= 4 * max(error(p), *near) + ULPS * EPS * size(e, terms)


@every_kernel
@settings(max_examples=60)
@given(data=st.data())
def test_every_kernel_equals_its_definition(name, data):
    assert_kernel_equals_definition(name, KernelDraw(data))


@every_kernel
@pytest.mark.parametrize("part", ["forward", "backward"])
def test_a_hundredth_of_a_percent_planted_in_a_kernel_is_caught(name, part, monkeypatch):
    true = KERNELS[name, "numpy"]
    grown = lambda x: x * np.float32(1.0001) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
    more = lambda x: tuple(map(grown, x)) if type(x) is tuple else grown(x)
    forward = lambda *a: (more(true.forward(*a)[0]), true.forward(*a)[1])
    backward = lambda *a: tuple(map(more, true.backward(*a)))
    wrong = {"forward": true._replace(forward=forward), "backward": true._replace(backward=backward)}[part]
    monkeypatch.setitem(KERNELS, (name, "numpy"), wrong)
    draw = RandomDraw(np.random.default_rng(0))
    with pytest.raises(AssertionError):
        for _ in range(25):
            assert_kernel_equals_definition(name, draw)


def test_a_kernel_runs_along_every_axis_and_over_axes_of_length_zero():
    for shape in [(2, 3, 4), (0, 3), (3, 0), (1, 1), (0,)]:
        x = normal(*shape).astype(np.float32)
        for axis in range(-len(shape), len(shape)):
            y = ops.softmax(leaf(x), axis)
            with definitions_only():
                np.testing.assert_allclose(y.numpy(), ops.softmax(x, axis), rtol=1e-6)
            assert y.shape == shape and y.node.op is ops.softmax


# -- one node, and what it keeps -----------------------------------------------------------------------------------


def test_a_kernel_records_exactly_one_node_and_a_definition_its_primitives():
    x = leaf(normal(3, 4))
    y = ops.softmax(x)
    assert y.node.op is ops.softmax and y.node.parents == [x.node]
    assert graphviz(y).count("ellipse") == 1
    with definitions_only():
        z = ops.softmax(x)
    assert z.node.op is ops.divide and "softmax" not in graphviz(z)


def test_the_backward_of_a_kernel_is_one_node_under_create_graph():
    x = leaf(normal(3, 4))
    (g,) = grad(ops.softmax(x), [x], np.ones((3, 4), np.float32), create_graph=True)
    assert [node.split('"')[1] for node in graphviz(g).splitlines() if "ellipse" in node] == [
        "softmax_gradient\\n((3, 4),)",
        "output\\n(3, 4)",
    ]
    assert "softmax_gradient" in repr(g)


def test_float64_runs_definitions():
    assert ops.softmax(leaf(normal(3), np.float64)).node.op is ops.divide


def test_plain_arrays_go_through_kernels_and_record_nothing(monkeypatch):
    calls = []
    true = KERNELS["softmax", "numpy"]
    monkeypatch.setitem(
        KERNELS, ("softmax", "numpy"), true._replace(forward=lambda *a: calls.append(1) or true.forward(*a))
    )
    assert type(ops.softmax(np.ones((2, 2), np.float32))) is np.ndarray and calls == [1]
    with no_grad():
        assert not ops.softmax(leaf([1.0])).requires_grad and calls == [1, 1]
    assert not ops.softmax(tinygen.tensor([1.0])).requires_grad


@pytest.mark.parametrize("name", ["x", "out"])
def test_writing_to_what_a_kernel_saved_raises(name):
    x = leaf(normal(3, 4)) * 1
    y = ops.softmax(x)
    {"x": x, "out": y}[name].data = np.zeros((3, 4), np.float32)
    with pytest.raises(MutationError, match=f"softmax: {name}, which its gradient needs, was written to"):
        y.sum().backward()


def test_labels_written_to_after_the_call_raise_or_change_nothing_but_never_leave_the_array():
    x, labels = leaf(normal(3, 4)), np.array([0, 3, 1])
    expected = grad(ops.cross_entropy(x, labels).sum(), x).numpy()
    loss = ops.cross_entropy(x, labels).sum()
    labels[:] = 10**9
    np.testing.assert_array_equal(grad(loss, x).numpy(), expected)
    guarded = tinygen.tensor(np.array([0, 3, 1]))
    loss = ops.cross_entropy(x, guarded).sum()
    guarded[0] = 2
    with pytest.raises(MutationError, match="cross_entropy: labels, which"):
        loss.backward()


def test_writing_between_a_recorded_backward_and_its_derivative_raises():
    x = leaf(normal(3, 4))
    g = grad((ops.softmax(x) ** 2).sum(), x, create_graph=True)
    x.data = np.zeros((3, 4), np.float32)
    with pytest.raises(MutationError, match="x, which its gradient needs"):
        grad(g.sum(), x)


def test_a_released_kernel_node_says_so():
    x = leaf(normal(3, 4))
    y = ops.softmax(x)
    y.sum().backward()
    with pytest.raises(GraphError, match="softmax: this part of the graph was released"):
        y.sum().backward()


def test_kernels_and_their_replay_leave_nothing_to_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        x = leaf(normal(3, 4))
        y = ops.softmax(x)
        g = grad((y * y).sum(), x, create_graph=True)
        h = grad((g * g).sum(), x, create_graph=True)
        seen = [weakref.ref(a.numpy()) for a in (y, g, h)]
        del y, g, h
        assert [ref() for ref in seen] == [None] * 3
    finally:
        gc.enable()


# -- derivatives of higher order -----------------------------------------------------------------------------------

LABELS = np.array([1, 0, 2])
SHARING = {
    "softmax": lambda x: ops.softmax(x),
    "softmax of x, times x": lambda x: ops.softmax(x) * x,
    "softmax along the other axis": lambda x: ops.softmax(x, 0) * ops.softmax(x),
    "softmax of softmax": lambda x: ops.softmax(3 * ops.softmax(x) + x),
    "cross-entropy": lambda x: ops.cross_entropy(x, LABELS),
    "cross-entropy of x times its softmax": lambda x: ops.cross_entropy(x * ops.softmax(x), LABELS),
    "softmax of one of several outputs": lambda x: ops.softmax(ops.topk(x, 2)[0]) * x[:, :2],
    "batch norm and its statistics": lambda x: x * ops.batch_norm(x)[2] + ops.batch_norm(x)[0] * ops.batch_norm(x)[1],
    "a layer whose weights are its input": lambda x: ops.affine(x, x, x[0], activation="silu"),
    "attention of x with itself": lambda x: ops.scaled_dot_product_attention(x, x, x),
}


def derivatives(f, values, order):
    """f(x), its gradient, the gradient of <weights, gradient>, ... as arrays."""
    x = leaf(values)
    y = f(x)
    found = [y]
    for k in range(order):
        y = (y * normal(*y.shape, seed=k).astype(np.float32)).sum()
        y = grad(y, x, create_graph=True)
        found.append(y)
    return [y.numpy() for y in found]


@pytest.mark.parametrize("f", SHARING.values(), ids=SHARING.keys())
def test_derivatives_of_orders_one_to_three_are_the_same_through_kernels(f):
    values = normal(3, 3, seed=9)
    by_kernel = derivatives(f, values, 3)
    with definitions_only():
        by_definition = derivatives(f, values, 3)
    for k, d in zip(by_kernel, by_definition, strict=True):
        np.testing.assert_allclose(k, d, rtol=0, atol=2e-5 * np.abs(d).max())


def test_a_jvp_through_a_kernel_is_that_of_the_definition():
    x, v = normal(3, 4).astype(np.float32), normal(3, 4, seed=1).astype(np.float32)
    _, by_kernel = jvp(ops.softmax, [x], [v])
    with definitions_only():
        _, by_definition = jvp(ops.softmax, [x], [v])
    np.testing.assert_allclose(by_kernel.numpy(), by_definition.numpy(), atol=1e-6)


@pytest.fixture
def squared_times(monkeypatch):
    """a^2 b as a fused op with a kernel of two operands, c of a third that may be left out."""

    def definition(a, b, c=None, /):
        y = ops.square(a) * b
        return y if c is None else y + c

    def backward(g, operands, out, residual, params, needs):
        a, b, _ = operands
        return [d if need else None for d, need in zip((2 * g * a * b, g * a * a, g), needs, strict=True)]

    total = lambda a, b, c: a * a * b if c is None else a * a * b + c
    kernel = Kernel(lambda values, _: values[0].dtype == np.float32, lambda values, _: (total(*values), None), backward)
    monkeypatch.setitem(KERNELS, ("squared_times", "numpy"), kernel)
    return Fused("squared_times", definition, arrays(real, real))


def test_operands_that_share_history_are_not_counted_twice(squared_times):
    f, x = squared_times, leaf([0.5, -2.0])
    v = x.numpy()
    paths = {  # the operands, and x^3 or x^5 up to a factor in closed form
        "the same Tensor": (lambda: f(x, x), 1, 3),
        "one computed from the other": (lambda: f(x, 2 * x), 2, 3),
        "both computed": (lambda: f(x * x, 3 * x), 3, 5),
        "one is the output of the same op": (lambda: f(x, f(x, x)), 1, 5),
        "a third operand": (lambda: f(x, x, x * x * x), 2, 3),
    }
    for name, (build, factor, power) in paths.items():
        y = build()
        assert y.node.op is f
        for k in range(1, 4):
            y = grad(y.sum(), x, create_graph=True)
            factor, power = factor * power, power - 1
            np.testing.assert_allclose(y.numpy(), factor * v**power, rtol=1e-5, err_msg=f"{name}, derivative {k}")


def test_a_kernel_answers_only_for_the_operands_that_need_a_gradient(squared_times):
    a, b = leaf([3.0]), tinygen.tensor([5.0])
    (g,) = grad(squared_times(a, b), [a], create_graph=True)
    assert g.item() == 30 and grad(g, a).item() == 10
    c = leaf([1.0])
    assert [g.item() for g in grad(squared_times(b, a, c), [a, c])] == [25, 1]


# -- switching ------------------------------------------------------------------------------------------------------


def test_with_kernels_off_in_the_environment_everything_runs_from_definitions():
    code = "import tinygen; x = tinygen.tensor([1.], requires_grad=True); print(tinygen.ops.softmax(x).node.op.name)"
    for setting, name in [("off", "divide"), ("on", "softmax")]:
        env = {**os.environ, "TINYGEN_KERNELS": setting}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == name


def test_several_threads_run_kernels_at_once():
    x = normal(8, 200, 50).astype(np.float32)
    labels = np.arange(200) % 50
    start, results = threading.Barrier(8), {}

    def work(i):
        start.wait()
        for _ in range(5):
            t = leaf(x[i])
            ops.cross_entropy(ops.softmax(t), labels).sum().backward()
            results[i] = t.grad

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        t = leaf(x[i])
        ops.cross_entropy(ops.softmax(t), labels).sum().backward()
        np.testing.assert_array_equal(results[i], t.grad)


def test_the_switch_is_each_threads_own():
    seen = []
    with definitions_only():
        thread = threading.Thread(target=lambda: seen.append(ops.softmax(leaf([1.0])).node.op.name))
        thread.start()
        thread.join()
        seen.append(ops.softmax(leaf([1.0])).node.op.name)
    assert seen == ["softmax", "divide"]


# -- what goes wrong ------------------------------------------------------------------------------------------------

WRONG_LABELS = {
    "too large": ([0, 4], InputError, "labels run from 0 to 4, but there are 4 classes: 0 to 3"),
    "negative": ([-1, 0], InputError, "labels run from -1 to 0"),
    "too many": ([0, 1, 2], ShapeError, "give one label for each row of the logits"),
    "floats": (np.array([0.0, 1.0]), DtypeError, "labels must be integers or booleans, not float64"),
    "booleans": ([True, False], DtypeError, "labels must be integers, not bool"),
}


@pytest.mark.parametrize("labels, kind, rule", WRONG_LABELS.values(), ids=WRONG_LABELS.keys())
@pytest.mark.parametrize("wrap", [np.asarray, leaf])
def test_wrong_labels_are_told_with_the_op_the_shapes_and_the_line(labels, kind, rule, wrap):
    for dtype in (np.float32, np.float64):
        with pytest.raises(kind, match=rule) as caught:
            ops.cross_entropy(wrap(np.zeros((2, 4), dtype)), labels)
        message = str(caught.value)
        assert message.startswith("cross_entropy(float") and "(2, 4), " in message and "test_fused.py:" in message


def test_an_error_inside_a_definition_is_told_under_the_op_that_was_called():
    x = np.zeros((3, 4), np.float32)
    with pytest.raises(DtypeError, match=r"layer_norm\(float32 \(3, 4\), float64 \(4,\), None\): multiply\(") as caught:
        ops.layer_norm(leaf(x), np.ones(4))
    assert caught.value.line.startswith("tests/test_fused.py:")
    with pytest.raises(InputError, match=r"^softmax\(float32 \(3, 4\)\): max\(float32 \(3, 4\)\): axis 2 is out of"):
        ops.softmax(leaf(x), 2)
    with pytest.raises(DtypeError, match=r"^softmax\('scores'\): it takes arrays"):
        ops.softmax("scores")


def test_detect_anomaly_names_the_op_whose_kernel_met_a_nan_and_finds_silent_writes():
    with detect_anomaly():
        with pytest.raises(NonFiniteError, match=r"^softmax\(float32 \(2,\)\): .*operand 0 already held one"):
            ops.softmax(leaf([np.nan, 1.0]))
        x = leaf(normal(3, 4))
        y = ops.softmax(x)
        g = grad((y * y).sum(), x, create_graph=True)
        grad(g.sum(), x, retain_graph=True)
        x.numpy()[0, 0] = 7
        with pytest.raises(MutationError, match=r"softmax.*It was recorded at tests/test_fused.py:"):
            y.sum().backward()
        with pytest.raises(MutationError, match=r"softmax_gradient.*It was recorded at tests/test_fused.py:"):
            grad(g.sum(), x)


def test_detect_anomaly_passes_over_operands_that_were_left_out(squared_times):
    with detect_anomaly(), pytest.raises(NonFiniteError, match=r"float32 \(1,\), None\): .*operand 1 already held one"):
        squared_times(leaf([1.0]), leaf([np.inf]))


def test_detect_anomaly_names_the_op_whose_backward_kernel_gave_a_nan(monkeypatch):
    nan = lambda g, operands, *rest: (operands[0] * np.float32(np.nan),)
    monkeypatch.setitem(KERNELS, ("softmax", "numpy"), KERNELS["softmax", "numpy"]._replace(backward=nan))
    with detect_anomaly(), pytest.raises(NonFiniteError, match="softmax recorded at tests/test_fused.py:"):
        ops.softmax(leaf([1.0, 2.0])).sum().backward()


def test_a_second_op_of_the_same_name_is_refused():
    with pytest.raises(InputError, match="op softmax: there is an op of this name already"):

        @fused(inputs=arrays(real))
        def softmax(x):
            return x + 0


def test_operands_of_a_fused_op_may_be_lists():
    np.testing.assert_allclose(ops.softmax([0.0, 0.0]), [0.5, 0.5])
    assert ops.softmax([0, 0]).dtype == np.float32
    assert ops.cross_entropy(leaf([[0.0, 0.0]]), [1]).item() == pytest.approx(np.log(2))


def test_without_numba_definitions_run(monkeypatch):
    monkeypatch.setattr(dispatch, "_have_numba", lambda: False)
    assert ops.softmax(leaf([1.0])).node.op is ops.divide
