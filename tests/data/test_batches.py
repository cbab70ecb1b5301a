import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.data import Batches
from tinygen.errors import InputError
from tinygen.random import Generator
from tinygen.training import train

settings_of_batches = st.fixed_dictionaries(
    {"size": st.integers(1, 12), "drop_last": st.booleans(), "rng": st.integers(0, 2**64 - 1).map(Generator)}
)


def epoch(batches):
    return [next(batches) for _ in range(batches.per_epoch)]


@given(st.integers(1, 30), settings_of_batches)
def test_every_example_comes_once_in_an_epoch_but_for_those_that_fill_no_batch(n, options):
    batches = Batches(np.arange(n), **options)
    size = options["size"]
    for _ in range(3):
        seen = np.concatenate(epoch(batches))
        assert len(set(seen)) == len(seen)
        assert len(seen) == (n - n % size if options["drop_last"] and n >= size else n)


@given(st.integers(1, 30), settings_of_batches, st.integers(0, 40), st.integers(0, 40))
def test_a_loaded_state_goes_on_bit_for_bit(n, options, before, since):
    """From anywhere in an epoch, whatever the other iterator did until then."""
    one, two = (Batches(np.arange(n), **options) for _ in range(2))
    for batches, steps in ((one, before), (two, since)):
        for _ in range(steps):
            next(batches)
    two.load_state_dict({name: np.array(value, np.uint64) for name, value in one.state_dict().items()})
    for _ in range(20):
        np.testing.assert_array_equal(next(one), next(two))


@given(settings_of_batches)
def test_arrays_stay_in_step(options):
    numbers = np.arange(20)
    for x, y in epoch(Batches(numbers, 2.0 * np.stack([numbers, -numbers], 1), **options)):
        np.testing.assert_array_equal(y, np.stack([2 * x, -2 * x], 1))


def test_each_epoch_has_an_order_of_its_own_and_each_seed_too():
    one, two = (Batches(np.arange(100), size=100, rng=Generator(seed)) for seed in (0, 1))
    orders = [next(one).tolist(), next(one).tolist(), next(two).tolist()]
    assert len({tuple(order) for order in orders}) == 3


def test_the_order_does_not_depend_on_what_else_draws_from_the_generator():
    rng = Generator(0)
    disturbed = Batches(np.arange(10), size=3, rng=rng)
    alone = Batches(np.arange(10), size=3, rng=Generator(0))
    for _ in range(10):
        rng.normal(5)
        np.testing.assert_array_equal(next(disturbed), next(alone))


def test_all_places_of_an_example_are_equally_likely():
    batches = Batches(np.arange(5), size=5, rng=Generator(0))
    counts = sum(np.eye(5)[next(batches)] for _ in range(5000))
    assert np.all(np.abs(counts - 1000) < 4 * np.sqrt(5000 * 0.2 * 0.8))


def test_a_step_that_is_run_again_gets_its_batch_again():
    """`train` goes back to the state before a lost loss; the batch that lost it comes once more."""
    batches, seen = Batches(np.arange(50), size=4, rng=Generator(0)), []

    def step(i, rng):
        seen.append(next(batches).tolist())
        return float("nan") if i == 7 else 1.0

    with pytest.raises(Exception, match="The loss is nan at step 7"):
        train(step, 10, Generator(1), state={"data": batches}, read_every=10, progress=False)
    assert len(seen) == 18 and seen[10:] == seen[:8]


def test_batches_are_copies():
    x = np.zeros((4, 2))
    next(Batches(x, size=2, rng=Generator(0)))[:] = 1
    assert not x.any()


@pytest.mark.parametrize(
    "arrays, size, message",
    [
        ([], 2, "got none"),
        ([np.zeros(0)], 2, r"got \(0,\)"),
        ([np.float32(1)], 2, r"got \(\)"),
        ([np.zeros(3), np.zeros((4, 2))], 2, r"got \(3,\), \(4, 2\)"),
        ([np.zeros(3)], 0, "size must be at least 1, not 0"),
    ],
)
def test_arrays_and_sizes_that_make_no_batches_are_refused(arrays, size, message):
    with pytest.raises(InputError, match=message):
        Batches(*arrays, size=size, rng=Generator(0))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"examples": 11}, "batches of 3 from 11 examples, not of 3 from 10"),
        ({"size": 4}, "batches of 4 from 10"),
        ({"position": 11}, "position 11"),
        ({"other": 1}, "must hold"),
        ({"counter": -1}, "counter must be at least 0"),
        ({"position": 1.5}, "position must be an integer"),
    ],
)
def test_a_state_of_other_batches_is_refused_and_changes_nothing(change, message):
    one, two = (Batches(np.arange(10), size=3, rng=Generator(0)) for _ in range(2))
    with pytest.raises(InputError, match=message):
        one.load_state_dict(one.state_dict() | change)
    np.testing.assert_array_equal(next(one), next(two))
