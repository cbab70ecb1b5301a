import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinygen.data import eight_gaussians
from tinygen.errors import InputError
from tinygen.metrics import beside_floor, random_directions, sliced_wasserstein2, wasserstein2
from tinygen.random import Generator

sizes = st.tuples(st.integers(1, 6), st.integers(1, 3))
pairs = sizes.flatmap(lambda shape: st.tuples(*[arrays(np.float64, shape, elements=st.floats(-10, 10))] * 2))


def sliced(x, y):
    return sliced_wasserstein2(x, y, Generator(0), 32)


both = pytest.mark.parametrize("distance", [wasserstein2, sliced])


@given(pairs)
def test_w2_is_the_best_of_all_pairings(pair):
    x, y = pair
    best = min(np.square(x - y[list(order)]).sum(1).mean() for order in itertools.permutations(range(len(x))))
    assert wasserstein2(x, y) == pytest.approx(np.sqrt(best), abs=1e-12)


@both
@given(pairs, st.randoms())
def test_a_distance_is_symmetric_and_blind_to_the_order_of_the_points(distance, pair, random):
    x, y = pair
    shuffled = y[random.sample(range(len(y)), len(y))]
    assert distance(x, y) == pytest.approx(distance(shuffled, x), abs=1e-9)
    assert distance(y, shuffled) == pytest.approx(0, abs=1e-9)


@both
@given(pairs, st.floats(0.1, 10), st.floats(-5, 5))
def test_a_distance_scales_with_the_data_and_ignores_a_common_shift(distance, pair, scale, shift):
    x, y = pair
    assert distance(scale * x + shift, scale * y + shift) == pytest.approx(scale * distance(x, y), abs=1e-9)


@both
@given(sizes.flatmap(lambda shape: st.tuples(*[arrays(np.float64, shape, elements=st.floats(-10, 10))] * 3)))
def test_the_triangle_inequality_holds(distance, three):
    x, y, z = three
    assert distance(x, z) <= distance(x, y) + distance(y, z) + 1e-9


@given(pairs)
def test_no_slice_is_further_apart_than_the_clouds(pair):
    assert sliced(*pair) <= wasserstein2(*pair) + 1e-9


@given(pairs, st.data())
def test_w2_does_not_change_under_rotation(pair, data):
    x, y = pair
    d = x.shape[1]
    frame = data.draw(arrays(np.float64, (d, d), elements=st.floats(-1, 1)))
    assume(abs(np.linalg.det(frame)) > 0.05)
    rotation = np.linalg.qr(frame)[0]
    assert wasserstein2(x @ rotation, y @ rotation) == pytest.approx(wasserstein2(x, y), abs=1e-9)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_sliced_w2_of_shifted_and_scaled_gaussians_is_its_closed_form(d):
    # along theta: W2^2(N(0, 1), N(m theta, s^2)) = (m theta)^2 + (s - 1)^2
    rng = Generator(0)
    shift, directions = np.linspace(3, 4, d), random_directions(200, d, rng)
    x, y = rng.normal((10_000, d)), 1.5 * rng.normal((10_000, d)) + shift
    exact = np.sqrt(np.mean((directions @ shift) ** 2) + 0.5**2)
    assert sliced_wasserstein2(x, y, directions=directions) == pytest.approx(exact, rel=0.02)


def test_sliced_w2_along_given_directions_is_the_distance_of_the_sorted_shadows():
    x, y = [[0.0, 5.0], [1.0, 7.0]], [[4.0, 0.0], [2.0, 0.0]]
    assert sliced_wasserstein2(x, y, directions=[[3.0, 0.0]]) == pytest.approx(np.sqrt((2**2 + 3**2) / 2))


def test_random_directions_have_unit_length_and_no_preference():
    theta = random_directions(20_000, 3, Generator(0))
    np.testing.assert_allclose(np.linalg.norm(theta, axis=1), 1)
    np.testing.assert_allclose(theta.T @ theta / len(theta), np.eye(3) / 3, atol=0.01)


@pytest.mark.parametrize("distance, n", [(wasserstein2, 100), (sliced, 500)])
def test_real_data_lie_at_the_floor_and_shifted_data_above_it(distance, n):
    data = eight_gaussians().sample
    real = beside_floor(distance, data, data, n, Generator(0), pairs=20)
    assert abs(real.value - real.floor) < 3 * np.hypot(real.value_error, real.floor_error)
    assert 0.8 < real.ratio < 1.25
    assert f"data against data: {real.floor:.4g} +- " in str(real)
    shifted = beside_floor(distance, lambda n, rng: data(n, rng) + 3, data, n, Generator(0), pairs=3)
    assert shifted.ratio > 3
    assert shifted.value == pytest.approx(3 * np.sqrt(2) if distance is wasserstein2 else 3, rel=0.2)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: wasserstein2(np.zeros((3, 2)), np.zeros((4, 2))), "draw as many points"),
        (lambda: wasserstein2(np.zeros(3), np.zeros(3)), r"shape \(n, d\)"),
        (lambda: wasserstein2(np.zeros((0, 2)), np.zeros((0, 2))), "at least one"),
        (lambda: wasserstein2([[0.0], [np.nan]], [[0.0], [1.0]]), "x: 1 of 2 points hold NaN.* row 1"),
        (lambda: sliced_wasserstein2([[0.0]], [[1.0]]), "pass rng"),
        (lambda: sliced_wasserstein2([[0.0]], [[1.0]], Generator(0), 0), "0 directions"),
        (lambda: sliced_wasserstein2([[0.0]], [[1.0]], directions=[[1.0, 0.0]]), r"\(L, 1\), not \(1, 2\)"),
        (lambda: sliced_wasserstein2([[0.0]], [[1.0]], directions=[[0.0]]), "points nowhere"),
        (lambda: beside_floor(wasserstein2, None, None, 5, Generator(0), pairs=1), "at least 2"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
