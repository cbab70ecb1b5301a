"""The kernels of convolution against the forwards they stand in for, which are the definitions."""

import hypothesis.strategies as st
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from layouts import misaligned, read_only, scattered

from tinygen import dispatch, ops
from tinygen.dispatch import definitions_only
from tinygen.kernels.cpu import convolution as kernels
from tinygen.kernels.cpu import threads
from tinygen.ops.convolution import _way_back

EPS = np.finfo(np.float32).eps


@pytest.fixture(params=[1, 2])
def thread_count(request, monkeypatch):
    """With so many threads, and small work shared out too."""
    if request.param > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("this machine or NUMBA_NUM_THREADS allows one thread only")
    monkeypatch.setattr(kernels, "WORTH_SHARING", 0)
    numba.set_num_threads(request.param)
    return request.param


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def calls(x, w, params):
    """The three ops on operands of the right shapes, as (function of two arrays, the arrays)."""
    y = normal(*ops.conv2d(x, w, **params).shape, seed=2)
    win, more = _way_back(x.shape, w.shape, *(params[name] for name in ("stride", "padding", "dilation")))
    back = params | {"padding": win.pads, "output_padding": more}
    return {
        "conv2d": (lambda x, w: ops.conv2d(x, w, **params), (x, w)),
        "conv_transpose2d": (lambda y, w: ops.conv_transpose2d(y, w, **back), (y, w)),
        "conv2d_weight_gradient": (lambda x, y: ops.conv2d_weight_gradient(x, y, w.shape[:2], **params), (x, y)),
    }


@st.composite
def problems(draw):
    """Images, a kernel and parameters that fit together; few channels and many, grouped and one by one."""
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))
    n, c, d = draw(st.integers(0, 3)), *(draw(st.sampled_from([0, 1, 1, 2, 3, 5, 17])) for _ in "cd")
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 20]))
    size, stride, dilation, more, pads = pair(1, 4), pair(1, 3), pair(1, 3), pair(0, 6), (pair(0, 3), pair(0, 3))
    image = [max(1, s * (k - 1) + 1 - sum(p)) + m for s, k, p, m in zip(dilation, size, pads, more)]
    seed = draw(st.integers(0, 2**32 - 1))
    x, w = normal(n, *image, c * groups, seed=seed), normal(*size, c, d * groups, seed=seed + 1)
    return x, w, {"stride": stride, "padding": pads, "dilation": dilation, "groups": groups}


def assert_kernels_equal_definitions(problem):
    compare(problem, tiles=False)


def assert_tiles_equal_definitions(problem):
    compare(problem, tiles=True)


def compare(problem, tiles):
    """At most four times as far from the float64 definition as the float32 definition is, whatever the layout.

    Where that happens to be exact, the kernel may still round the numbers that are added: their absolute values, added
    up, are what the op makes of absolute values. Winograd's tiles also add numbers that cancel, from under the whole
    kernel where it hangs over the edge and from beside it: as many as the kernel has places, of the greatest size.
    """
    places = problem[1].shape[0] * problem[1].shape[1] if tiles else 1
    for name, (f, operands) in calls(*problem).items():
        with definitions_only():
            exact, plain = f(*[a.astype(np.float64) for a in operands]), f(*operands)
            largest = lambda a: np.full_like(a, np.max(np.abs(a), initial=0)) if tiles else np.abs(a)
            magnitude = places * np.max(f(*map(largest, operands)), initial=0)
        error = lambda y, exact=exact: np.max(np.abs(y - exact), initial=0)
        for layout in (np.asarray, scattered, misaligned, read_only):
            fast = f(*map(layout, operands))
            assert fast.shape == exact.shape and fast.dtype == np.float32, name
            assert error(fast) <= 4 * error(plain) + 2 * EPS * magnitude, name


def test_kernels_equal_their_definitions_for_any_shape_layout_and_number_of_threads(thread_count):
    settings(max_examples=150)(given(problems())(assert_kernels_equal_definitions))()


TILED = {"_by_tiles": ([3], 1, 3), "_by_strided_tiles": ([3, 4], 2, 1)}        # sides of the kernel, stride, dilations


@st.composite
def tiled_problems(draw, sides, stride, dilations):
    """Kernels for tiles over images of any size, with margins that reach outside or leave pixels out."""
    pair = lambda choices: tuple(draw(choices) for _ in "hw")
    n, image, size = draw(st.integers(0, 3)), pair(st.integers(1, 11)), pair(st.sampled_from(sides))
    dilation = pair(st.integers(1, dilations))
    least = [max(0, d * (k - 1) + 1 - length) for d, k, length in zip(dilation, size, image)]
    pads = tuple((draw(st.integers(low, low + 4)), draw(st.integers(0, 3))) for low in least)
    c, d, groups = (draw(st.sampled_from([1, 2, 3, 17, 24])) for _ in "cdg")
    groups = min(groups, 3) if stride == 1 else 1
    seed = draw(st.integers(0, 2**32 - 1))
    x, weights = normal(n, *image, c * groups, seed=seed), normal(*size, c, d * groups, seed=seed + 1)
    return x, weights, {"stride": stride, "padding": pads, "dilation": dilation, "groups": groups}


@pytest.mark.parametrize("name", TILED)
def test_tiles_give_what_the_definition_gives(name, thread_count, monkeypatch):
    asked, (sides, stride, dilations) = [], TILED[name]

    def answer(geometry, kernel, *_):
        fits = {*kernel[:2]} <= {*sides} and geometry[8:10] == (stride, stride) and max(geometry[10:12]) <= dilations
        asked.append(fits)
        return fits

    monkeypatch.setattr(kernels, name, answer)
    settings(max_examples=100)(given(tiled_problems(*TILED[name]))(assert_tiles_equal_definitions))()
    assert any(asked)


WAYS = {
    "3x3": (3, {"padding": 1}),
    "3x3, dilated": (3, {"padding": 2, "dilation": 2}),
    "3x3, stride 2": (3, {"padding": 1, "stride": 2}),
    "4x4, stride 2": (4, {"padding": 1, "stride": 2}),
}
ways = pytest.mark.parametrize("side, params", WAYS.values(), ids=WAYS.keys())


@ways
def test_the_errors_of_tiles_are_at_most_twice_those_of_plain_sums(side, params):
    """Winograd's sums are shorter and their terms larger: root mean squares of the errors, beside the definition's."""
    x, w = normal(8, 14, 14, 64), normal(side, side, 64, 64, seed=1)
    for f, operands in calls(x, w, with_defaults(params)).values():
        with definitions_only():
            exact, plain = f(*[a.astype(np.float64) for a in operands]), f(*operands)
        assert np.sqrt(np.mean((f(*operands) - exact) ** 2)) <= 2 * np.sqrt(np.mean((plain - exact) ** 2))


@ways
def test_an_output_depends_on_the_pixels_it_sees_and_on_no_others(side, params):
    x, w = normal(8, 14, 14, 16), normal(side, side, 16, 16, seed=1)
    made = calls(x, w, with_defaults(params))
    for f, (pixels, weights) in (made["conv2d"], made["conv_transpose2d"]):
        before, changed = f(pixels, weights), pixels.copy()
        changed[:, 5, 6] = np.nan
        after = f(changed, weights)
        with definitions_only():
            seen = np.isnan(f(changed, weights))
        np.testing.assert_array_equal(np.isnan(after), seen)
        np.testing.assert_array_equal(after[~seen], before[~seen])


WIDE = {
    "3x3": (normal(5, 12, 12, 32), normal(3, 3, 32, 40), {"padding": 1}),
    "from one channel": (normal(5, 14, 14, 1), normal(3, 3, 1, 40), {"padding": 1}),
    "to one channel": (normal(5, 14, 14, 40), normal(3, 3, 40, 1), {"padding": 1}),
    "1x1": (normal(6, 10, 10, 48), normal(1, 1, 48, 32), {}),
    "strided": (normal(5, 12, 12, 32), normal(3, 3, 32, 40), {"padding": 1, "stride": 2}),
    "dilated": (normal(5, 12, 12, 32), normal(3, 3, 32, 40), {"padding": 2, "dilation": 2}),
    "4x4 strided": (normal(9, 12, 12, 32), normal(4, 4, 32, 40), {"padding": 1, "stride": 2}),
    "depthwise": (normal(5, 14, 14, 40), normal(3, 3, 1, 40), {"padding": 1, "groups": 40}),
    "in groups": (normal(5, 14, 14, 40), normal(3, 3, 10, 24), {"padding": "same", "groups": 4}),
}
wide = pytest.mark.parametrize("x, w, params", WIDE.values(), ids=WIDE.keys())


def with_defaults(params):
    return {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | params


@wide
def test_one_thread_and_two_agree_to_rounding_and_a_run_repeats_its_bits(x, w, params, monkeypatch):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("this machine or NUMBA_NUM_THREADS allows one thread only")
    monkeypatch.setattr(kernels, "WORTH_SHARING", 0)
    for f, operands in calls(x, w, with_defaults(params)).values():
        results = []
        for count in (1, 2):
            numba.set_num_threads(count)
            results.append(f(*operands))
            for _ in range(3):
                np.testing.assert_array_equal(f(*operands), results[-1])
        np.testing.assert_allclose(*results, rtol=0, atol=1e-5 * np.abs(results[0]).max())


def test_kernels_are_what_runs_in_float32_and_only_there(monkeypatch):
    ran, instead = [], dispatch.instead

    def watched(name, *operands):
        kernel = instead(name, *operands)
        return kernel and (lambda *args: (ran.append(name), kernel(*args))[1])

    monkeypatch.setattr(dispatch, "instead", watched)
    x, w = normal(2, 5, 5, 3), normal(3, 3, 3, 4)
    made = calls(x, w, with_defaults({}))
    ran.clear()
    for f, operands in made.values():
        f(*[a.astype(np.float64) for a in operands])
        with definitions_only():
            f(*operands)
    assert not ran
    for f, operands in made.values():
        f(*operands)
    assert ran == list(made)


def test_the_scratch_of_a_thread_stays_what_its_largest_convolution_needed():
    x, w = normal(4, 16, 16, 32), normal(3, 3, 32, 32)
    ops.conv2d(x, w, padding=1)
    kept = kernels._own.memory
    for _ in range(3):
        ops.conv2d(x, w, padding=1)
        ops.conv2d(x[:1], w[:1], padding=1)
    assert kernels._own.memory is kept and kept.nbytes <= 2**25
    kernels._scratch(2**24)                                            # too much to keep
    assert kernels._own.memory is kept


def test_the_blas_of_the_kernels_has_one_thread_whoever_sets_it_to_more():
    from threadpoolctl import threadpool_limits

    with threadpool_limits(2, user_api="blas"):
        ops.conv2d(normal(1, 4, 4, 2), normal(3, 3, 2, 2))
        assert [library.num_threads for library in threads._blas()] == [1]


def test_shared_work_is_done_once_each_and_errors_come_back():
    done = []
    threads.share(done.append, 50, 2)
    assert sorted(done) == list(range(50))

    def fail(number):
        raise ValueError(number)

    with pytest.raises(ValueError, match="0|1"):
        threads.share(fail, 2, 2)
    threads.share(done.append, 0, 2)
