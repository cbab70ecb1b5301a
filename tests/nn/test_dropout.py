"""Dropout is noise that a seed decides, and that the state of the module carries on."""

import numpy as np
import pytest

from tinygen import arrays
from tinygen.errors import InputError
from tinygen.nn import Dropout, Linear, Sequential
from tinygen.random import Generator

ONES = np.ones((200, 500), np.float32)


def test_it_drops_its_share_and_keeps_the_mean():
    y = np.asarray(Dropout(0.3, rng=Generator(0))(ONES))
    kept = y != 0
    assert abs(kept.mean() - 0.7) < 4 * np.sqrt(0.21 / ONES.size)
    np.testing.assert_allclose(y[kept], 1 / 0.7, rtol=1e-6)


def test_each_call_drops_others_and_each_layer_its_own():
    rng = Generator(0)
    first, second = Dropout(rng=rng), Dropout(rng=rng)
    a, b, c = first(ONES), first(ONES), second(ONES)
    for other in (b, c):
        assert abs((a * other != 0).mean() - 0.25) < 0.01  # independent halves


def test_evaluation_and_rate_zero_change_nothing_and_draw_nothing():
    for layer in (Dropout(0.5, rng=Generator(0)).eval(), Dropout(0.0, rng=Generator(0))):
        before = layer.state_dict()["key"]
        assert layer(ONES) is ONES
        np.testing.assert_array_equal(layer.state_dict()["key"], before)


def test_rate_one_leaves_zeros():
    assert not np.asarray(Dropout(1.0, rng=Generator(0))(ONES)).any()


def test_a_resumed_run_drops_what_it_would_have_dropped():
    make = lambda seed: Sequential(Linear(4, 4, rng=Generator(0)), Dropout(0.5, rng=Generator(seed)))
    x = Generator(2).normal((30, 4))
    model, resumed = make(1), make(2)
    model(x), model(x)
    resumed.load_state_dict(model.state_dict())
    for _ in range(3):
        np.testing.assert_array_equal(resumed(x).numpy(), model(x).numpy())


def test_the_whole_seed_survives_saving():
    layer = Dropout(0.5, rng=Generator(0))
    layer.key.data = np.array([2**64 - 1, 2**53 + 1], np.uint64)
    layer(ONES)
    assert layer.state_dict()["key"].tolist() == [2**64 - 1, 2**53 + 2]
    assert layer.to("cpu", np.float64).key.dtype == np.uint64


def test_the_key_stays_in_the_computers_memory_when_the_module_moves_to_a_gpu(monkeypatch):
    class OnDevice:
        """What tinygen asks of an array on a GPU here: its dtype, and to be fetched."""

        def __init__(self, array):
            self.dtype, self.get = array.dtype, lambda: array

    monkeypatch.setattr(arrays, "to_device", lambda array, device: OnDevice(array))
    layer = Dropout(0.5, rng=Generator(0))
    before = layer.state_dict()["key"]
    layer.to("cuda")
    assert isinstance(layer.key.data, np.ndarray)
    np.testing.assert_array_equal(layer.key.data, before)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(InputError, match="probability"):
        Dropout(rate, rng=Generator(0))
