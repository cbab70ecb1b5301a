"""Optimisers against PyTorch and against their definitions; schedules, clipping, the moving average; saving."""

import contextlib
import gc
import os

import hypothesis.strategies as st
import numba
import numpy as np
import pytest
from hypothesis import given

import tinygen
from tinygen import dispatch, nn, ops, optim
from tinygen.errors import DtypeError, GraphError, InputError, MutationError
from tinygen.kernels.cpu import adam, clip
from tinygen.launch import updates
from tinygen.random import Generator

SHAPES = [(3, 4), (4,), (), (2, 1, 3)]


def parameters(seed=0, dtype=np.float64):
    rng = Generator(seed)
    return [tinygen.Parameter(rng.normal(shape, dtype=dtype)) for shape in SHAPES]


def set_gradients(params, seed):
    rng = Generator(seed)
    for p in params:
        p.grad = np.asarray(rng.normal(p.shape, dtype=p.dtype))


def run(optimiser, steps, seed=1):
    for k in range(steps):
        set_gradients(optimiser.params, seed + 1000 * k)
        optimiser.step()


def values(params):
    return [p.numpy().copy() for p in params]


def assert_same(xs, ys):
    for x, y in zip(xs, ys, strict=True):
        np.testing.assert_array_equal(x, y)


OPTIMISERS = {
    "sgd": (optim.SGD, "SGD", {"lr": 0.1}),
    "sgd with momentum": (optim.SGD, "SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.02}),
    "sgd with nesterov": (optim.SGD, "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "rmsprop": (optim.RMSprop, "RMSprop", {"lr": 0.01}),
    "adam": (optim.Adam, "Adam", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6}),
    "adamw": (optim.AdamW, "AdamW", {"lr": 0.01, "weight_decay": 0.1}),
}
needs_kernels = pytest.mark.skipif(
    os.environ.get("TINYGEN_KERNELS") == "off", reason="TINYGEN_KERNELS=off in the environment"
)
each_optimiser = pytest.mark.parametrize("name", OPTIMISERS)


# -- the update rules --------------------------------------------------------------------------------------------------


@each_optimiser
def test_each_optimiser_equals_pytorch_over_100_steps(name):
    torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs torch, which is not installed")
    ours, theirs, options = OPTIMISERS[name]
    params = parameters()
    twins = [torch.tensor(p.numpy().copy(), requires_grad=True) for p in params]
    mine, other = ours(params, **options), getattr(torch.optim, theirs)(twins, **options)
    for k in range(100):
        set_gradients(params, k)
        if k < 10 or k % 7 == 0:  # one that starts late and takes part now and then
            params[1].grad = None
        for p, twin in zip(params, twins, strict=True):
            twin.grad = None if p.grad is None else torch.tensor(p.grad)
        mine.step()
        other.step()
    for p, twin in zip(params, twins, strict=True):
        np.testing.assert_allclose(p.numpy(), twin.detach().numpy(), rtol=1e-9, atol=0)


@needs_kernels
@given(st.integers(0, 10**6), st.integers(1, 3000), st.floats(0, 0.5), st.floats(1e-10, 1e-3))
def test_adam_kernel_is_as_close_to_float64_as_its_definition(seed, t, weight_decay, eps):
    rng = Generator(seed)
    exact = [rng.normal((5, 7), dtype=np.float64) for _ in range(3)]
    exact.append(rng.uniform((5, 7), dtype=np.float64) ** 2)
    exact = [a.astype(np.float32).astype(np.float64) for a in exact]
    defined, kernel = ([a.astype(np.float32) for a in exact] for _ in range(2))
    numbers = (0.01, 0.9, 0.999, eps, 1 - 0.9**t, 1 - 0.999**t, weight_decay)
    optim.adam_step(*exact, *numbers)
    optim.adam_step(*defined, *numbers)
    dispatch.update("adam_step", refused, [tuple(kernel)], *numbers)
    for e, d, k in zip(exact, defined, kernel, strict=True):
        ulp = np.abs(e).max() * np.finfo(np.float32).eps
        assert np.abs(k - e).max() <= 4 * np.abs(d - e).max() + ulp


def refused(*job):
    raise AssertionError("the definition ran, not the kernel")


@needs_kernels
def test_kernels_take_contiguous_float32_and_definitions_everything_else():
    by_definition = []
    rule = lambda average, theta, rate: by_definition.append(average)
    ones, wide = np.ones((3, 4), np.float32), np.ones((3, 8), np.float32)
    locked = ones.copy()
    locked.flags.writeable = False
    others = np.ones((4, 3), np.float32).T, np.ones((2, 6), np.float32), ones.astype(np.float64)
    strange = [*others, wide[:, ::2], locked]
    average = np.zeros((3, 4), np.float32)
    jobs = [(average.copy(), theta) for theta in (ones, *strange, ones)]
    dispatch.update("move_average", rule, jobs, 0.5)
    assert [id(a) for a in by_definition] == [id(average) for average, _ in jobs[1:-1]]
    assert np.all(jobs[0][0] == 0.5) and np.all(jobs[-1][0] == 0.5)
    assert dispatch.together("clip", [(ones,), (locked,)]) is None
    with dispatch.definitions_only():
        dispatch.update("move_average", rule, jobs, 0.5)
        assert len(by_definition) == len(strange) + len(jobs)
        assert dispatch.together("clip", [(ones,)]) is None


@needs_kernels
@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.integers(1, 50), st.sampled_from([1, 2]))
def test_one_pass_over_many_arrays_is_a_pass_over_each(sizes, piece, count):
    count = min(count, numba.config.NUMBA_NUM_THREADS)
    rng, numbers = Generator(len(sizes)), (0.01, 0.9, 0.999, 1e-8, 0.1, 0.001, 0.02)
    alone = [tuple(rng.uniform(size) for _ in range(4)) for size in sizes]
    jobs = [tuple(a.copy() for a in job) for job in alone]
    with pytest.MonkeyPatch.context() as patch, threads(count):
        patch.setattr(updates, "PIECE", piece)  # so that pieces begin and end inside arrays
        patch.setattr(updates, "WORTH_SHARING", 0)
        squares = updates.in_one_pass(clip.sums_of_squares, [(theta,) for theta, *_ in jobs])
        updates.adam_step(jobs, *numbers)
    exact = sum(np.sum(np.square(theta, dtype=np.float64)) for theta, *_ in alone)
    assert sum(squares) == pytest.approx(exact, rel=1e-12)
    for job, together in zip(alone, jobs, strict=True):
        adam.adam_step(*job, *numbers)
        for a, b in zip(job, together, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


@contextlib.contextmanager
def threads(count):
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@needs_kernels
def test_every_number_of_threads_gives_the_same_bits_also_of_the_norm():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("this machine, or NUMBA_NUM_THREADS, has one thread only")
    results = []
    for count in (1, 2, 2):
        rng = Generator(5)
        params = [tinygen.Parameter(rng.normal((side, 700))) for side in (3, 800, 1, 1)]
        for p in params:
            p.grad = rng.normal(p.shape)
        with threads(count):
            norm, adam_, ema = optim.clip_grad_norm(params, 1.0), optim.Adam(params), optim.EMA(params)
            adam_.step()
            ema.update()
        results.append([norm, *values(params), *[p.grad for p in params], *ema.averages])
    for other in results[1:]:
        assert_same(results[0], other)


def test_a_gradient_in_another_memory_order_gives_the_same_step():
    results = []
    for order in "CF":
        (p, *_) = params = parameters(dtype=np.float32)[:1]
        adam = optim.Adam(params)
        p.grad = np.asarray(Generator(3).normal(p.shape), order=order)
        adam.step()
        results.append(p.numpy())
    np.testing.assert_allclose(*results, rtol=1e-6)


@each_optimiser
def test_a_parameter_without_a_gradient_is_left_alone(name):
    kind, _, options = OPTIMISERS[name]
    params = parameters()
    frozen = params[2]
    frozen.requires_grad = False
    before = values(params)
    optimiser = kind(params, **options)
    for p in params[1:]:
        if p.requires_grad:
            p.grad = np.ones(p.shape)
    optimiser.step()
    optimiser.zero_grad()
    changed = [not np.array_equal(p.numpy(), b) for p, b in zip(params, before, strict=True)]
    assert changed == [False, True, False, True]


@each_optimiser
def test_float32_stays_float32(name):
    kind, _, options = OPTIMISERS[name]
    params = parameters(dtype=np.float32)
    optimiser = kind(params, **options)
    run(optimiser, 2)
    assert all(p.dtype == np.float32 for p in params)
    assert all(a.dtype in (np.float32, np.int64) for a in optimiser.state_dict().values() if isinstance(a, np.ndarray))


def test_a_step_between_forward_and_backward_is_noticed():
    w = tinygen.Parameter(np.ones(3, np.float32))
    loss = (w * w).sum()
    w.grad = np.ones(3, np.float32)
    optim.SGD([w], lr=0.1).step()
    with pytest.raises(MutationError):
        loss.backward()


def test_training_with_the_garbage_collector_off_keeps_no_objects():
    net = nn.ResidualMLP(2, 2, width=8, blocks=2, time=4, rng=Generator(0))
    adam = optim.Adam(net.parameters(), schedule=optim.cosine(100, warmup=10))
    ema = optim.EMA(net)
    x, t = Generator(1).normal((5, 2)), np.arange(5)

    def step():
        ops.square(net(x, t) - x).mean().backward()
        optim.clip_grad_norm(adam.params, 1.0)
        adam.step()
        adam.zero_grad()
        ema.update()

    for _ in range(5):
        step()
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(50):
            step()
        grown = len(gc.get_objects()) - before
        assert grown < 50, "an object a step; fewer are those of other tests' threads"
        assert gc.collect() == 0
    finally:
        gc.enable()


# -- saving ------------------------------------------------------------------------------------------------------------


@each_optimiser
def test_a_saved_optimiser_resumes_bit_for_bit(name, tmp_path):
    kind, _, options = OPTIMISERS[name]
    params = parameters(dtype=np.float32)
    optimiser = kind(params, **options, schedule=optim.warmup(20))
    run(optimiser, 5)
    optimiser.lr *= 0.5
    np.savez(tmp_path / "state.npz", **optimiser.state_dict())
    resumed_params = [tinygen.Parameter(v) for v in values(params)]
    run(optimiser, 5, seed=2)

    resumed = kind(resumed_params, **options, schedule=optim.warmup(20))
    with np.load(tmp_path / "state.npz") as state:
        resumed.load_state_dict(state)
    run(resumed, 5, seed=2)
    assert_same(values(params), values(resumed_params))
    assert resumed.steps == 10


def test_the_state_of_other_parameters_is_refused_whole():
    adam = optim.Adam(parameters())
    run(adam, 1)
    before = adam.state_dict()
    other = optim.Adam(parameters()[:3])
    with pytest.raises(InputError, match=r'"m.3" is missing; "v.3" is missing; "counts" has shape \(3,\)'):
        adam.load_state_dict(other.state_dict())
    assert_same(before.values(), adam.state_dict().values())


def test_a_model_moved_under_its_optimiser_is_noticed():
    model = nn.Linear(2, 3, rng=Generator(0))
    adam = optim.Adam(model.parameters())
    model.to(dtype=np.float64)
    set_gradients(model.parameters(), 0)
    with pytest.raises(InputError, match="Move the model first"):
        adam.step()


# -- schedules ---------------------------------------------------------------------------------------------------------


@each_optimiser
def test_the_learning_rate_of_a_step_is_lr_times_the_schedule(name):
    kind, _, options = OPTIMISERS[name]
    factors = [0.0, 1.0, 0.0]
    params = parameters()
    optimiser = kind(params, **options, schedule=lambda k: factors[k])
    snapshots = [values(params)]
    for _ in factors:
        set_gradients(params, 5)
        optimiser.step()
        snapshots.append(values(params))
    moved = [not np.array_equal(a[0], b[0]) for a, b in zip(snapshots, snapshots[1:], strict=False)]
    assert moved == [False, True, False]


@given(st.integers(2, 500), st.floats(0, 1), st.data())
def test_cosine_rises_to_one_then_falls_to_its_final_factor(total, final, data):
    warm = data.draw(st.integers(0, total - 1))
    factor = optim.cosine(total, warmup=warm, final=final)
    assert factor(warm) == 1
    assert factor(total) == pytest.approx(final) and factor(10 * total) == pytest.approx(final)
    assert factor((warm + total) / 2) == pytest.approx((1 + final) / 2)
    curve = [factor(k) for k in range(total + 1)]
    assert all(0 < f <= 1 for f in curve[:warm])
    assert np.all(np.diff(curve[:warm]) > 0) and np.all(np.diff(curve[warm:]) <= 1e-12)


def test_warmup_is_a_line_and_stepwise_a_staircase():
    assert [optim.warmup(4)(k) for k in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [optim.stepwise(2, 0.5)(k) for k in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert optim.constant(7) == 1


# -- clipping ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_clipping_bounds_the_joint_norm_and_keeps_the_direction(seed, max_norm):
    params = parameters()
    set_gradients(params, seed)
    flat = np.concatenate([p.grad.ravel() for p in params])
    norm = optim.clip_grad_norm(params, max_norm)
    clipped = np.concatenate([p.grad.ravel() for p in params])
    assert type(norm) is np.ndarray and norm.shape == ()
    np.testing.assert_allclose(norm, np.linalg.norm(flat), rtol=1e-12)
    np.testing.assert_allclose(clipped, flat * min(1, max_norm / np.linalg.norm(flat)), rtol=1e-12)


@needs_kernels
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_clipping_by_kernel_is_as_close_to_float64_as_its_definition(seed, max_norm):
    exact, defined, fast = parameters(), parameters(dtype=np.float32), parameters(dtype=np.float32)
    set_gradients(fast, seed)
    for p, q, e in zip(fast, defined, exact, strict=True):
        q.grad, e.grad = p.grad.copy(), p.grad.astype(np.float64)
    norm = optim.clip_grad_norm(exact, max_norm)
    with dispatch.definitions_only():
        optim.clip_grad_norm(defined, max_norm)
    got = optim.clip_grad_norm(fast, max_norm)
    assert got.dtype == np.float32 and got.shape == ()
    np.testing.assert_allclose(got, norm, rtol=1e-7)
    for p, q, e in zip(fast, defined, exact, strict=True):
        ulp = np.abs(e.grad).max() * np.finfo(np.float32).eps
        assert np.abs(p.grad - e.grad).max() <= 4 * np.abs(q.grad - e.grad).max() + ulp


@needs_kernels
def test_clipping_bears_gradients_whose_squares_overflow():
    (p, *_) = params = parameters(dtype=np.float32)[:1]
    p.grad = np.full(p.shape, 1e25, np.float32)
    assert optim.clip_grad_norm(params, 1.0) == pytest.approx(1e25 * 12**0.5, rel=1e-6)
    np.testing.assert_allclose(p.grad, 12**-0.5, rtol=1e-6)


def test_clipping_leaves_zeros_alone_and_lets_a_nan_through():
    (p, q, *_) = parameters(dtype=np.float32)
    p.grad, q.grad = np.zeros(p.shape, np.float32), np.zeros(q.shape, np.float32)
    assert optim.clip_grad_norm([p, q], 1.0) == 0 and not p.grad.any()
    p.grad[0, 0] = np.nan
    assert np.isnan(optim.clip_grad_norm([p, q], 1.0)) and np.isnan(q.grad).all()
    assert p.grad.dtype == np.float32


# -- the moving average ------------------------------------------------------------------------------------------------


def test_ema_is_the_weighted_sum_of_all_it_saw():
    (p,) = params = [tinygen.Parameter(np.zeros(3))]
    seen = Generator(0).normal((50, 3), dtype=np.float64)
    p.data = seen[0]
    ema = optim.EMA(params, decay=0.8)
    for x in seen[1:]:
        p.data = x
        ema.update()
    d = np.minimum(0.8, (1 + np.arange(49)) / (10 + np.arange(49)))
    weights = np.append(1.0, 1 - d) * np.append(np.cumprod(d[::-1])[::-1], 1.0)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(ema.averages[0], weights @ seen, rtol=1e-12)


def test_swap_samples_with_the_averages_and_gives_the_weights_back_also_after_an_error():
    model = nn.Linear(2, 3, rng=Generator(0))
    ema = optim.EMA(model)
    first = values(model.parameters())
    for p in model.parameters():
        p.data = p.numpy() + 1
    trained = values(model.parameters())
    with pytest.raises(ZeroDivisionError):
        with ema.swap():
            assert_same(first, values(model.parameters()))
            with pytest.raises(GraphError, match="inside swap"):
                ema.update()
            with pytest.raises(GraphError, match="inside swap"):
                with ema.swap():
                    pass
            raise ZeroDivisionError
    assert_same(trained, values(model.parameters()))
    other = nn.Linear(2, 3, rng=Generator(1))
    ema.copy_to(other.parameters())
    assert_same(first, values(other.parameters()))


def test_a_saved_average_resumes_bit_for_bit(tmp_path):
    model = nn.Linear(2, 3, rng=Generator(0))
    ema, twin = optim.EMA(model), optim.EMA(model)
    for k in range(6):
        for p in model.parameters():
            p.data = Generator(k).normal(p.shape)
        ema.update()
        if k == 2:
            np.savez(tmp_path / "ema.npz", **ema.state_dict())
            with np.load(tmp_path / "ema.npz") as state:
                assert set(state) == {"updates", "average.weight", "average.bias"}
                twin.load_state_dict(state)
        elif k > 2:
            twin.update()
    assert_same(ema.averages, twin.averages)
    with pytest.raises(InputError, match='"average.weight" is missing'):
        ema.load_state_dict({"updates": 3, "average.bias": np.zeros(3)})


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_wrong_parameters_are_explained():
    p = tinygen.Parameter(np.ones(3))
    model = nn.Linear(2, 3, rng=Generator(0))
    wrong = {
        "empty": [],
        "parameter 1 is a ndarray": [p, np.ones(3)],
        "parameter 1 is parameter 0 again": [p, p],
        "not a Linear itself": model,
        "not a Parameter itself": p,
    }
    for message, params in wrong.items():
        with pytest.raises(InputError, match=message):
            optim.Adam(params)
    with pytest.raises(GraphError, match="computed"):
        optim.EMA([ops.exp(p)])
    with pytest.raises(DtypeError, match="int64"):
        optim.SGD([tinygen.tensor(np.arange(3))], lr=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.Adam(p, lr=-1),
        lambda p: optim.Adam(p, lr=float("nan")),
        lambda p: optim.Adam(p, betas=(0.9, 1.0)),
        lambda p: optim.AdamW(p, weight_decay=-0.1),
        lambda p: optim.SGD(p, lr=0.1, nesterov=True),
        lambda p: optim.RMSprop(p, decay=1.5),
        lambda p: optim.EMA(p, decay=1),
        lambda p: optim.clip_grad_norm(p, 0),
        lambda p: optim.cosine(10, warmup=10),
        lambda p: optim.warmup(0),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(InputError):
        make(parameters())


def test_clipping_without_gradients_says_when_to_call_it():
    with pytest.raises(GraphError, match="between backward"):
        optim.clip_grad_norm(parameters(), 1.0)


def test_an_optimiser_says_what_it_trains():
    assert repr(optim.Adam(parameters(), lr=0.01)) == "Adam(23 parameters in 4 tensors, lr=0.01, step 0)"
