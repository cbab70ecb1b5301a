"""Every kernel in the tables of `tinygen.dispatch`, also one that is added later: whatever shape, layout and numbers it
is given, the definition's result, and nothing written beside its arrays; any number of threads, and after a fork.

How exact the kernels are is the subject of tests/test_fused.py and of the files beside this one.
"""

import contextlib
import functools
import importlib
import math
import os
import pkgutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import hypothesis.strategies as st
import numba
import numpy as np
import pytest
from drawing import HypothesisDraw
from hypothesis import assume, given, settings
from layouts import LAYOUTS, read_only, repeated

import tinygen.kernels.cpu
from tinygen import dispatch, kernels, launch, ops, optim
from tinygen.autograd import grad, no_grad
from tinygen.dispatch import FORWARDS, KERNELS, UPDATES, definitions_only
from tinygen.domains import DrawTools, RandomDraw
from tinygen.registry import REGISTRY

TABLES = (KERNELS, FORWARDS, UPDATES)
FUSED, FORWARD, RULES = ([name for name, library in table if library == "numpy"] for table in TABLES)
OF_OP = {  # kernels that have not the name of the op that they serve
    "add_rows": "scatter_add",
    **dict.fromkeys(("sum_pool2d", "sum_pool2d_transpose"), "avg_pool2d"),
}
every_op = pytest.mark.parametrize("name", sorted({*FUSED, *FORWARD}))
every_rule = pytest.mark.parametrize("name", RULES)
every_kernel = pytest.mark.parametrize("name", sorted({*FUSED, *FORWARD, *RULES}))
two_threads = pytest.mark.skipif(
    numba.config.NUMBA_NUM_THREADS < 2, reason="this machine, or NUMBA_NUM_THREADS, has one thread only"
)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # means of nothing, logarithms of zero

THRESHOLDS = {"SHARED": 0, "WORTH_SHARING": 0, "PIECE": 32, "_MATRICES": 1, "_VECTORS": 1, "_OUTER": 1, "_LARGE": 1}


@contextlib.contextmanager
def small_work_too():
    """Goes to the kernels, and is shared out in small pieces. Yields what the pool of threads is handed."""
    from tinygen.kernels.cpu import threads

    packages = [pkgutil.iter_modules(room.__path__, f"{room.__name__}.") for room in (ops, launch, kernels.cpu)]
    handed, pool = [], threads._pool()
    submit = lambda work: (handed.append(work), type(pool).submit(pool, work))[1]
    with contextlib.ExitStack() as changes:
        for module in [importlib.import_module(module.name) for package in packages for module in package]:
            for name in THRESHOLDS.keys() & vars(module).keys():
                changes.enter_context(mock.patch.object(module, name, THRESHOLDS[name]))
        changes.enter_context(mock.patch.object(pool, "submit", submit))
        yield handed


@pytest.fixture(autouse=True)
def handed_out():
    with small_work_too() as handed:
        yield handed


@contextlib.contextmanager
def thread_count(count):
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


# -- what kernels are given ----------------------------------------------------------------------------------------


class KernelSizes(DrawTools):
    """Sides from 0 to beyond the width of a vector register."""

    def sizes(self, n, high=4):
        return [self.choice([self.integer(0, 3), self.integer(4, 20)]) for _ in range(n)]


class KernelDraw(KernelSizes, HypothesisDraw):
    def integers(self, shape, high, low=0):
        assume(high > low)
        return super().integers(shape, high, low)


class RandomKernelDraw(KernelSizes, RandomDraw):
    """The same without hypothesis."""


def is_float(x):
    return x is not None and x.dtype.kind == "f"


def several(y):
    return y if type(y) is tuple else (y,)


def problem(name, draw):
    """Operands in float32, parameters, and a weight for each number of the outputs."""
    op = REGISTRY[OF_OP.get(name, name)]
    operands, params = op.inputs(draw)
    if name in FUSED and type(params.get("axis", -1)) is not int and operands[0].ndim:
        params["axis"] = -1  # these run along one axis
    operands = [np.asarray(x, np.float32) if is_float(x) else x for x in operands]
    with definitions_only(), no_grad():
        outs = [y for y in several(op(*operands, **params)) if is_float(y)]
    return op, operands, params, [np.asarray(draw.array(np.shape(y)), np.float32) for y in outs]


def problems(name, count):
    """`count` of them with something in every array, always the same."""
    draw, found = RandomKernelDraw(np.random.default_rng(0)), []
    while len(found) < count:
        with contextlib.suppress(ValueError, IndexError, ZeroDivisionError):  # where one cannot draw from nothing
            case = problem(name, draw)
            if all(x is None or x.size for x in case[1]) and case[1][0].ndim:
                found.append(case)
    return found


def run(op, operands, params, weights, dtype=np.float32, layout=np.asarray):
    """The outputs of floats, and the gradients of their sum under `weights`."""
    convert = lambda x: layout(x.astype(dtype) if is_float(x) else x)
    args = [x if not isinstance(x, np.ndarray) else tinygen.Tensor(convert(x), is_float(x)) for x in operands]
    ys = [y for y in several(op(*args, **params)) if is_float(y)]
    asked = [x for x in args if isinstance(x, tinygen.Tensor) and x.requires_grad]
    grads = grad(ys, asked, [tinygen.Tensor(convert(w)) for w in weights], allow_unused=True)
    return [y.numpy() for y in ys], [g.numpy() for g in grads]


RULE = {  # how many arrays a job has, and what is done to jobs
    "adam_step": (4, lambda jobs: dispatch.update("adam_step", optim.adam_step, jobs, *ADAM)),
    "move_average": (2, lambda jobs: dispatch.update("move_average", optim.move_average, jobs, 0.3)),
    "clip": (1, lambda jobs: optim.clip_grad_norm([SimpleNamespace(grad=g) for (g,) in jobs], 2.0)),
}
ADAM = (0.01, 0.9, 0.999, 1e-8, 0.1, 0.001, 0.02)  # lr, beta1, beta2, eps, 1 - beta1^t, 1 - beta2^t, weight decay


def jobs_for(name, draw):
    """Arrays for some parameters, those of one parameter of one shape."""
    shapes = [tuple(draw.sizes(draw.integer(0, 3))) for _ in range(draw.integer(1, 20))]
    arrays = [[np.asarray(draw.array(shape), np.float32) for _ in range(RULE[name][0])] for shape in shapes]
    return [(*job[:3], *map(np.abs, job[3:])) for job in arrays]  # Adam's v holds squares


def apply_rule(name, jobs, dtype=np.float32, layout=np.asarray):
    """What becomes of copies of the arrays; nothing is differentiated."""
    jobs = [tuple([layout(x.astype(dtype)) for x in job]) for job in jobs]
    RULE[name][1](jobs)
    return [x for job in jobs for x in job], []


def calls(name, count):
    """`count` calls of a kernel, forward and backward, as functions that take a layout at most."""
    if name not in RULES:
        return [functools.partial(run, *case) for case in problems(name, count)]
    draw = RandomKernelDraw(np.random.default_rng(0))
    return [functools.partial(apply_rule, name, jobs_for(name, draw)) for _ in range(count)]


@contextlib.contextmanager
def launches():
    """The names of the kernels that are found while this is open."""
    found, find, instead = set(), dispatch.find, dispatch.instead

    def seen(look, name, *args):
        kernel = look(name, *args)
        if kernel is not None:
            found.add(name)
        return kernel

    looks = {"find": functools.partial(seen, find), "instead": functools.partial(seen, instead)}
    with mock.patch.multiple(dispatch, **looks):
        yield found


def assert_close(found, expected, scale=0.0):
    """To float32's rounding, of sums of numbers as large as `scale`; NaN and infinities where they are expected."""
    for f, e in zip(sum(found, []), sum(expected, []), strict=True):
        assert f.shape == e.shape and f.dtype == np.float32
        np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-7 + 1e-4 * max(size(e), scale))


def assert_same_bits(found, expected):
    for f, e in zip(sum(found, []), sum(expected, []), strict=True):
        np.testing.assert_array_equal(f, e)


def size(*xs):
    return max([np.max(np.abs(x), initial=0, where=np.isfinite(x)) for x in xs], default=0)


# -- the definition's result ---------------------------------------------------------------------------------------


@every_op
def test_every_kernel_takes_every_shape_and_every_layout(name):
    launched = set()

    @settings(max_examples=40)
    @given(data=st.data())
    def compare(data):
        draw = KernelDraw(data)
        op, operands, params, weights = problem(name, draw)
        for x in operands:
            if is_float(x) and x.ndim and draw.integer(0, 3) == 0:
                x[...] = x[:1]  # which `repeated` makes an array with stride 0 of
        with definitions_only():
            expected = run(op, operands, params, weights, np.float64)
        with launches() as found:
            by_kernel = run(op, operands, params, weights, layout=lambda x: draw.choice(LAYOUTS)(x))
        assert_close(by_kernel, expected, size(*weights) * max(1, size(*filter(is_float, operands))))
        launched.update(found)

    compare()
    assert name in launched


@every_rule
@given(data=st.data())
def test_every_update_rule_takes_every_shape_and_every_layout_that_can_be_written_to(name, data):
    draw, ways = KernelDraw(data), [layout for layout in LAYOUTS if layout not in (read_only, repeated)]
    jobs = jobs_for(name, draw)
    with definitions_only():
        expected = apply_rule(name, jobs, np.float64)
    assert_close(apply_rule(name, jobs, layout=lambda x: draw.choice(ways)(x)), expected)


ZEROS_LEFT_OUT = {  # one of definition and kernel leaves out products with zeros, which would be NaN:
    **dict.fromkeys(("conv2d", "conv_transpose2d", "conv2d_weight_gradient"), "those of the padding"),
    "nade": "those with pixels that are off",
}
IN_GRADIENTS = {**ZEROS_LEFT_OUT, "rational_quadratic": "those of the slopes of bins where x lies in none"}


@every_op
def test_nan_and_infinity_come_out_where_the_definition_has_them(name):
    """In the output. A gradient of the kernel may be NaN in more places, but hides none."""
    rng = np.random.default_rng(0)
    for op, operands, params, weights in problems(name, 30):
        floats = [x for x in operands if is_float(x)]
        x = floats[rng.integers(len(floats))]
        x.flat[rng.integers(x.size)] = rng.choice([np.nan, np.inf, -np.inf])
        with definitions_only():
            expected = run(op, operands, params, weights)
        found = run(op, operands, params, weights)
        if name not in ZEROS_LEFT_OUT:
            for f, e in zip(found[0], expected[0], strict=True):
                np.testing.assert_array_equal(np.isfinite(f), np.isfinite(e))
        if name not in IN_GRADIENTS:
            assert not any(np.any(np.isfinite(f) & ~np.isfinite(e)) for f, e in zip(found[1], expected[1]))
        for f, e in zip(found[0], expected[0], strict=True):
            both = np.isfinite(f) & np.isfinite(e)
            np.testing.assert_allclose(f[both], e[both], rtol=1e-4, atol=1e-7 + 1e-4 * size(e[both]))


# -- memory --------------------------------------------------------------------------------------------------------


class GuardedMemory:
    """Stands in for NumPy's ways to make an array: each lies between zones that nobody may write to, and holds NaN (or
    -1) until it is written."""

    zone = 64  # numbers on either side

    def __init__(self):
        self.blocks = []

    def empty(self, shape, dtype=float, *args, **kwargs):
        shape, dtype = tuple(np.atleast_1d(shape).astype(int)), np.dtype(dtype)
        if not dtype.itemsize:  # np.broadcast_shapes makes arrays of nothing
            return np.ndarray(shape, dtype)
        length = math.prod(shape)
        block = np.frombuffer(bytearray(b"\xff") * ((length + 2 * self.zone) * dtype.itemsize), dtype)
        self.blocks.append((block, length))
        return block[self.zone : self.zone + length].reshape(shape)

    def filled(self, shape, value, dtype=float):
        made = self.empty(shape, dtype)
        made[...] = value
        return made

    @contextlib.contextmanager
    def in_use(self):
        ways = {
            "empty": self.empty,
            "zeros": lambda shape, dtype=float, *args, **kwargs: self.filled(shape, 0, dtype),
            "ones": lambda shape, dtype=float, *args, **kwargs: self.filled(shape, 1, dtype),
            "empty_like": lambda x, dtype=None, *args, **kwargs: self.empty(np.shape(x), dtype or x.dtype),
            "zeros_like": lambda x, dtype=None, *args, **kwargs: self.filled(np.shape(x), 0, dtype or x.dtype),
        }
        with mock.patch.multiple(np, **ways):
            yield

    def is_whole(self):
        zones = [part for block, length in self.blocks for part in (block[: self.zone], block[self.zone + length :])]
        return all(np.all(zone.view(np.uint8) == 0xFF) for zone in zones)


def in_a_new_thread(f):
    """f() where no thread has kept scratch memory from before."""
    found = []
    thread = threading.Thread(target=lambda: found.append(f()))
    thread.start()
    thread.join()
    return found[0]


@every_kernel
def test_kernels_write_nothing_beside_their_arrays_and_read_nothing_that_was_not_written(name):
    def guarded_call(call, memory):
        with thread_count(1):
            return call(layout=lambda x: x if x is None else memory.filled(x.shape, x, x.dtype))

    for call in calls(name, 15):
        expected = call()  # and compiled by now: Numba must not meet the guards
        memory = GuardedMemory()
        with memory.in_use():
            found = in_a_new_thread(functools.partial(guarded_call, call, memory))
        assert memory.is_whole()
        assert_close(found, expected)


def test_a_write_beside_an_array_is_noticed_and_so_is_a_number_that_was_never_written():
    memory = GuardedMemory()
    with memory.in_use():
        x = np.empty((2, 3), np.float32)
    assert memory.is_whole() and np.all(np.isnan(x))
    memory.blocks[0][0][memory.zone + x.size] = 0
    assert not memory.is_whole()


# -- threads and processes -----------------------------------------------------------------------------------------

ONE_THREAD = {"add_rows", "cross_entropy", "nade"}  # kernels that are not shared among threads


@two_threads
@every_kernel
def test_one_thread_and_two_agree_to_rounding_and_the_same_number_gives_the_same_bits(name, handed_out):
    for call in calls(name, 15):
        found = []
        for count in (1, 2, 2, 2):
            with thread_count(count):
                found.append(call())
        one, two, *others = found
        assert_close(one, two)
        for other in others:
            assert_same_bits(other, two)
    assert handed_out or name in ONE_THREAD


def call_everything():
    with thread_count(2):
        return [call() for name in (*FUSED, *FORWARD, *RULES) for call in calls(name, 2)]


@two_threads
def test_several_python_threads_may_launch_every_kernel_at_once():
    start, results = threading.Barrier(4), {}

    def work(i):
        start.wait()
        results[i] = call_everything()

    expected = call_everything()
    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    for found in results.values():
        for f, e in zip(found, expected, strict=True):
            assert_same_bits(f, e)


AFTER_A_FORK = """
import os
from test_every_kernel import assert_same_bits, call_everything, small_work_too

with small_work_too():
    before = call_everything()
    child = os.fork()
    status = 1
    try:
        for found, expected in zip(call_everything(), before, strict=True):
            assert_same_bits(found, expected)
        status = 0
    finally:
        if child == 0:
            os._exit(status)
assert os.waitpid(child, 0)[1] == 0
"""


@two_threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_every_kernel_runs_in_a_forked_process_and_goes_on_in_the_first():
    paths = [Path(__file__).parent, Path(__file__).parents[1], Path(__file__).parents[2]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run([sys.executable, "-c", AFTER_A_FORK], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
