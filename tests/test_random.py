import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tinygen.errors import InputError
from tinygen.random import Generator, normal_at, uniform_at

words = st.integers(0, 2**64 - 1)
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def draws(rng):
    return [
        rng.normal((3, 2)),
        rng.uniform(4),
        rng.integers(10, 5),
        rng.permutation(6),
        rng.choice(3, 7, p=[0.2, 0.3, 0.5]),
        rng.fork().normal(2),
    ]


def same(xs, ys):
    return all(np.array_equal(x, y) for x, y in zip(xs, ys, strict=True))


@given(words)
def test_the_seed_alone_sets_the_stream(seed):
    assert same(draws(Generator(seed)), draws(Generator(seed)))


@given(words, shapes, st.sampled_from([np.float32, np.float64]))
def test_a_key_redraws_what_the_generator_drew(seed, shape, dtype):
    rng, twin = Generator(seed), Generator(seed)
    key = twin.key()
    assert np.array_equal(rng.normal(shape, dtype), normal_at(key, shape, dtype))
    key = twin.key()
    assert np.array_equal(rng.uniform(shape, -1, 3, dtype), uniform_at(key, shape, -1, 3, dtype))


@given(words, st.integers(0, 20))
def test_a_state_saved_without_pickle_resumes_bit_for_bit(seed, steps):
    rng = Generator(seed)
    for _ in range(steps):
        rng.normal(3)
    file = io.BytesIO()
    np.savez(file, **rng.state_dict())
    file.seek(0)
    resumed = Generator(0)
    with np.load(file, allow_pickle=False) as saved:
        resumed.load_state_dict(saved)
    assert same(draws(rng), draws(resumed))


def test_no_two_of_a_thousand_forks_and_draws_agree():
    rng = Generator(0)
    streams = [rng, *(rng.fork() for _ in range(30)), rng.fork().fork(), Generator(1)]
    numbers = np.concatenate([stream.uniform(1, dtype=np.float64) for stream in streams for _ in range(30)])
    assert len(np.unique(numbers)) == len(numbers)


def test_neither_the_size_nor_the_kind_of_a_draw_changes_the_next():
    a, b = Generator(5), Generator(5)
    a.normal(1000), b.permutation(3)
    assert np.array_equal(a.uniform(4), b.uniform(4))


def test_a_child_does_not_disturb_its_parent():
    a, b = Generator(5), Generator(5)
    a.fork().normal(1000), b.fork()
    assert np.array_equal(a.normal(4), b.normal(4))


def test_draws_of_forks_pooled_together_are_normal_and_uniform():
    rng = Generator(0)
    forks = [rng.fork() for _ in range(50)]
    assert stats.kstest(np.concatenate([fork.normal(400) for fork in forks]), "norm").pvalue > 0.01
    assert stats.kstest(np.concatenate([fork.uniform(400) for fork in forks]), "uniform").pvalue > 0.01
    assert abs(np.corrcoef([fork.normal(400) for fork in forks])[np.triu_indices(50, 1)]).max() < 0.25  # 5 sigma


def test_choice_follows_its_probabilities():
    p = np.array([0.5, 0.0, 0.3, 0.2])
    counts = np.bincount(Generator(0).choice(4, 20_000, p), minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[p > 0], 20_000 * p[p > 0]).pvalue > 0.01
    assert stats.chisquare(np.bincount(Generator(1).choice(4, 20_000))).pvalue > 0.01


def test_draws_have_the_promised_type_shape_and_range():
    rng = Generator(0)
    assert rng.normal((2, 3)).dtype == rng.uniform(4).dtype == np.float32
    assert rng.normal().shape == rng.uniform().shape == rng.integers(3).shape == rng.choice(2, p=[0.5, 0.5]).shape == ()
    assert rng.integers(3, 100).dtype == rng.permutation(3).dtype == rng.choice(2, 4, [0.5, 0.5]).dtype == np.int64
    assert set(rng.integers(3, 100)) == {0, 1, 2}
    assert sorted(rng.permutation(50)) == list(range(50))
    assert rng.uniform(2**20, 1, 1.0001).max() < np.float32(1.0001)  # plain float32 arithmetic rounds up to `high`


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, None, "0", np.nan])
def test_a_seed_that_is_not_a_64_bit_word_is_refused(seed):
    with pytest.raises(InputError, match="seed must"):
        Generator(seed)


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda rng: rng.normal((2, -1)), "at least 0, not -1"),
        (lambda rng: rng.normal(2.0), "must be an integer, not 2.0"),
        (lambda rng: rng.normal(2, np.int32), "float32 or float64, not int32"),
        (lambda rng: rng.uniform(2, 1, 1), "low < high"),
        (lambda rng: rng.uniform(2, 0, np.inf), "finite"),
        (lambda rng: rng.uniform(2, 1, 1 + 1e-12), "also in float32"),
        (lambda rng: rng.integers(0), "high must be at least 1"),
        (lambda rng: rng.choice(3, 2, [0.5, 0.5]), "3 probabilities"),
        (lambda rng: rng.choice(2, 2, [0.5, 0.6]), "sums to 1.1"),
        (lambda rng: rng.choice(2, 2, [0.5, np.nan]), "sums to nan"),
        (lambda rng: rng.load_state_dict({"seed": 1}), '"seed" and "counter"'),
        (lambda rng: rng.load_state_dict({"seed": 1, "counter": -1}), "counter must"),
    ],
)
def test_a_bad_argument_is_named(draw, message):
    with pytest.raises(InputError, match=message):
        draw(Generator(0))
