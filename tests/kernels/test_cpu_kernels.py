"""The Numba kernels against the same formulas in float64 NumPy, and the way they are compiled."""

import os
import re
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.special import expit

from tinygen.kernels.cpu.adam import adam_step
from tinygen.kernels.cpu.compiling import kernel
from tinygen.kernels.cpu.cross_entropy import cross_entropy_backward, cross_entropy_forward
from tinygen.kernels.cpu.elementary import exp_nonpositive, sigmoid, softplus
from tinygen.kernels.cpu.ema import move_average
from tinygen.kernels.cpu.rows import shift
from tinygen.kernels.cpu.softmax import softmax_backward, softmax_forward

EPS = np.finfo(np.float32).eps
INF, NAN = np.inf, np.nan

shapes = array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40)
moderate = st.floats(-30, 30, width=32)


def logits(elements=moderate):
    return arrays(np.float32, shapes, elements=elements)


def softmax(x):
    """In float64, as the textbook has it."""
    x = x.astype(np.float64)
    e = np.exp(x - np.max(x, axis=-1, keepdims=True, initial=-INF))
    return e / np.sum(e, axis=-1, keepdims=True)


def run_softmax(x):
    out = np.full_like(x, 7)
    softmax_forward(x, out)
    return out


def run_cross_entropy(x, labels, g):
    loss, row_max, log_sum, dx = *np.full((3, len(x)), 7, np.float32), np.full_like(x, 7)
    cross_entropy_forward(x, labels, loss, row_max, log_sum)
    cross_entropy_backward(g, x, labels, row_max, log_sum, dx)
    return loss, row_max, log_sum, dx


@kernel
def along(f, x, out):
    for i in range(x.size):
        out[i] = f(x[i])


EVERYWHERE = np.linspace(-87, 0, 400_001).astype(np.float32), -np.geomspace(1e-30, 87, 100_001).astype(np.float32)
X = np.concatenate([*EVERYWHERE, -EVERYWHERE[0], -EVERYWHERE[1]])
ELEMENTARY = {  # function, where it is defined, the same in float64, largest error in units in the last place
    "exp": (exp_nonpositive, X[X <= 0], np.exp, 1),
    "sigmoid": (sigmoid, X, expit, 3),
    "softplus": (softplus, X, lambda x: np.logaddexp(0, x), 4),
}


@pytest.mark.parametrize("f, x, exact, units", ELEMENTARY.values(), ids=ELEMENTARY.keys())
def test_elementary_functions_are_within_a_few_units_in_the_last_place(f, x, exact, units):
    out, exact = np.empty_like(x), exact(x.astype(np.float64))
    along(f, x, out)
    assert np.max(np.abs(out - exact) / np.spacing(exact.astype(np.float32))) <= units


def test_exp_far_below_zero_is_zero_and_of_nan_is_nan():
    assert all(exp_nonpositive(np.float32(x)) == 0 for x in (-88, -1e30, -INF))
    assert np.isnan(exp_nonpositive(np.float32(NAN)))


@given(arrays(np.float32, st.integers(1, 70), elements=st.floats(width=32, allow_nan=False)))
def test_shift_is_the_maximum_of_any_numbers_or_zero_in_a_masked_row(row):
    assert shift(row) == (0 if row.max() == -INF else row.max())


@given(logits())
def test_softmax_equals_its_formula_in_float64(x):
    assert np.allclose(run_softmax(x), softmax(x), rtol=40 * EPS, atol=1e-37)


@given(logits(), st.data())
def test_softmax_gradient_equals_its_formula_in_float64(x, data):
    y, g = run_softmax(x), data.draw(arrays(np.float32, x.shape, elements=moderate))
    out = np.full_like(x, 7)
    softmax_backward(g, y, out)
    y, g = y.astype(np.float64), g.astype(np.float64)
    assert np.allclose(out, y * (g - np.sum(g * y, axis=-1, keepdims=True)), rtol=0, atol=30 * 8 * EPS)


@given(logits(), st.data())
def test_cross_entropy_and_its_gradient_equal_their_formulas_in_float64(x, data):
    x = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1)                    # at least one class
    labels = data.draw(arrays(np.int64, len(x), elements=st.integers(0, x.shape[1] - 1)))
    g = data.draw(arrays(np.float32, len(x), elements=moderate))
    loss, row_max, log_sum, dx = run_cross_entropy(x, labels, g)
    lse = np.log(np.sum(np.exp(x.astype(np.float64)), axis=1))
    rows = np.arange(len(x))
    assert np.allclose(row_max.astype(np.float64) + log_sum, lse, rtol=0, atol=16 * EPS)
    assert np.allclose(loss, lse - x[rows, labels], rtol=4 * EPS, atol=16 * EPS)
    onehot = np.arange(x.shape[1]) == labels[:, None]
    assert np.allclose(dx, g[:, None] * (softmax(x) - onehot), rtol=40 * EPS, atol=30 * 4 * EPS)


@pytest.mark.parametrize("offset", [1e4, -1e4, 1e6])
def test_large_logits_cost_softmax_and_cross_entropy_no_digits(offset):
    x = (np.arange(12, dtype=np.float32).reshape(3, 4) % 5) + np.float32(offset)          # exact in float32
    labels, g = np.array([0, 3, 2]), np.ones(3, np.float32)
    loss, _, _, dx = run_cross_entropy(x, labels, g)
    exact = softmax(x)
    assert np.allclose(run_softmax(x), exact, rtol=8 * EPS, atol=0)
    assert np.allclose(loss, -np.log(exact[np.arange(3), labels]), rtol=8 * EPS, atol=0)
    assert np.allclose(dx, exact - (np.arange(4) == labels[:, None]), rtol=0, atol=4 * EPS)


@pytest.mark.parametrize("columns", [1, 3, 16, 33])
def test_a_fully_masked_row_has_softmax_zero_and_gradient_zero(columns):
    x = np.full((2, columns), -INF, np.float32)
    y, g, dx = run_softmax(x), np.ones_like(x), np.full_like(x, 7)
    softmax_backward(g, y, dx)
    assert np.all(y == 0) and np.all(dx == 0)


def test_masked_entries_are_exactly_zero_and_the_rest_sums_to_one():
    y = run_softmax(np.array([[0.5, -INF, 2.0, -INF], [-INF, -INF, -INF, -3.0]], np.float32))
    assert y[0, 1] == y[0, 3] == 0 and np.array_equal(y[1], [0, 0, 0, 1])
    assert np.isclose(y[0].sum(), 1, atol=2 * EPS)


@given(st.integers(1, 40), st.data())
def test_a_row_with_nan_or_plus_infinity_becomes_nan_and_its_neighbours_do_not(columns, data):
    bad, at = data.draw(st.sampled_from([NAN, -NAN, INF])), data.draw(st.integers(0, columns - 1))
    rest = data.draw(st.sampled_from([0.0, -INF, -1e30]))
    x = np.full((3, columns), rest, np.float32)
    x[0] = x[2] = 0
    x[1, at] = bad
    loss, _, _, dx = run_cross_entropy(x, np.zeros(3, np.int64), np.ones(3, np.float32))
    for result in (run_softmax(x), dx, loss):
        assert np.all(np.isnan(result[1])) and np.all(np.isfinite(result[[0, 2]]))


def test_an_impossible_label_costs_infinity_with_a_finite_gradient():
    loss, _, _, dx = run_cross_entropy(np.array([[0, -INF]], np.float32), np.array([1]), np.ones(1, np.float32))
    assert loss[0] == INF and np.array_equal(dx, [[1, -1]])


@given(st.integers(0, 40), st.integers(1, 10_000), st.sampled_from([0.0, 0.1]), st.integers(0, 2**32 - 1))
def test_adam_equals_algorithm_1_in_float64(size, t, weight_decay, seed):
    rng = np.random.default_rng(seed)
    param, grad, m = rng.normal(size=(3, size)).astype(np.float32)
    v = rng.uniform(0, 2, size).astype(np.float32)
    lr, beta1, beta2, eps = 0.01, 0.9, 0.999, 1e-8
    theta, g, m64, v64 = (a.astype(np.float64) for a in (param, grad, m, v))
    adam_step(param, grad, m, v, lr, beta1, beta2, eps, 1 - beta1**t, 1 - beta2**t, weight_decay)
    m64 = beta1 * m64 + (1 - beta1) * g
    v64 = beta2 * v64 + (1 - beta2) * g**2
    step = lr * (m64 / (1 - beta1**t)) / (np.sqrt(v64 / (1 - beta2**t)) + eps)
    assert np.allclose(m, m64, rtol=4 * EPS, atol=4 * EPS) and np.allclose(v, v64, rtol=4 * EPS, atol=0)
    assert np.allclose(param, theta - lr * weight_decay * theta - step, rtol=4 * EPS, atol=4 * EPS)


def test_adam_leaves_a_parameter_with_zero_gradient_and_history_alone():
    param, zero = np.ones(5, np.float32), np.zeros(5, np.float32)
    adam_step(param, zero, zero.copy(), zero.copy(), 1e-3, 0.9, 0.999, 1e-8, 0.1, 0.001, 0.0)
    assert np.array_equal(param, np.ones(5))


def test_kernels_divide_by_zero_as_numpy_does():
    @kernel
    def reciprocal(x):
        return np.float32(1) / x

    assert reciprocal(np.float32(0)) == INF


def test_a_kernel_whose_binary_cannot_be_kept_runs_and_says_so(caplog):
    names = {}
    exec(compile("def twice(x):\n    return x + x\n", "no_such_file.py", "exec"), names)
    assert kernel(names["twice"])(2) == 4
    assert "compiling twice for this machine (again in each run" in caplog.text


def test_compiling_is_announced_once_and_an_edit_to_a_part_recompiles_what_calls_it(tmp_path):
    """Numba itself looks only at the file of the kernel: a student's edit elsewhere would change nothing."""
    head = "from tinygen.kernels.cpu.compiling import kernel\n"
    part, whole = tmp_path / "part.py", tmp_path / "whole.py"
    part.write_text(head + "@kernel\ndef f(x): return x + 1\n")
    whole.write_text(head + "from part import f\n@kernel\ndef h(x): return f(x)\nprint(h(1), h(2))\n")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])

    def run():
        options = {"env": {**os.environ, "PYTHONPATH": path}, "capture_output": True, "text": True, "check": True}
        return subprocess.run([sys.executable, "-B", whole], **options)

    first, again = run(), run()
    assert first.stdout == again.stdout == "2 3\n"
    assert re.findall("compiling (\\w+)", first.stderr) == ["h"] and again.stderr == ""        # f is a part of h
    part.write_text(part.read_text().replace("x + 1", "x + 10"))
    assert run().stdout == "11 12\n"


@given(st.integers(0, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_moving_average_equals_its_formula_in_float64(size, rate, seed):
    average, theta = np.random.default_rng(seed).normal(size=(2, size)).astype(np.float32)
    expected = average + rate * (theta.astype(np.float64) - average)
    move_average(average, theta, rate)
    assert np.allclose(average, expected, rtol=0, atol=16 * EPS)
