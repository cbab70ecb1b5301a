"""Models in words: what can be described is made again exactly, and a description can do no harm."""

import copy
import json

import numpy as np
import pytest

from tinygen import nn, ops
from tinygen.describe import NotDescribedError, describe, rebuild
from tinygen.errors import InputError
from tinygen.models import DDPM, VAE, Schedule
from tinygen.nn import Linear, Module, Sequential, initialise
from tinygen.random import Generator


def again(model, weights=10**6):
    """The model, by way of JSON text."""
    return rebuild(json.loads(json.dumps(describe(model))), weights)


def ddpm(rng):
    net = nn.ResidualMLP(2, 2, width=8, blocks=2, time=4, activation=ops.gelu, rng=rng)
    return DDPM(net, Schedule.cosine(30), shape=(2,), predicts="v")


def same(a, b):
    assert repr(a) == repr(b)
    for name, value in a.state_dict().items():
        np.testing.assert_array_equal(value, b.state_dict()[name])


def test_a_model_is_made_again_with_the_same_parts_and_the_same_draws():
    rng = Generator(7)
    rng.normal(3)
    model = ddpm(rng)
    twin = again(model)
    same(model, twin)
    assert twin.net.activation is ops.gelu and twin.shape == (2,)
    np.testing.assert_array_equal(twin.schedule.beta, model.schedule.beta)
    np.testing.assert_array_equal(twin.sample(4, Generator(0)), model.sample(4, Generator(0)))


def test_what_a_constructor_was_given_is_remembered_as_it_was_and_out_of_sight():
    sizes, rng = [2, 3], Generator(0)
    model = nn.MLP(sizes, rng=rng)
    sizes.append(4)
    rng.normal(1)
    same(model, again(model))
    assert list(vars(model)) == ["layers"] and list(vars(Linear(1, 1, rng=rng))) == ["weight", "bias"]
    same(model, again(copy.deepcopy(model)))


def test_layers_functions_and_options_are_described():
    rng = Generator(1)
    shared = Linear(2, 2, rng=rng, weight_init=initialise.glorot_uniform)
    model = Sequential(shared, ops.silu, ops.concatenate, shared, nn.Dropout(0.5, rng=rng))
    twin = again(model)
    same(model, twin)
    assert twin[0] is twin[3] and twin[1] is ops.silu and twin[2] is ops.concatenate


class Own(Module):
    def __init__(self, part=None):
        self.part = part


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Sequential(lambda x: x), "<lambda> of test_describe cannot"),
        (Sequential(Own()), "class Own is defined in test_describe"),
        (Sequential(np.zeros(10**5)), "a ndarray cannot"),
        (Sequential({1: 2}), "a dict cannot"),
        (Sequential(print), "print of builtins cannot"),
    ],
)
def test_what_cannot_be_described_is_named(model, why):
    with pytest.raises(NotDescribedError, match=why):
        describe(model)


def linear(*arguments, **options):
    rng = {"kind": "generator", "seed": 0, "counter": 0}
    kept = {"name": "tinygen.nn.linear.Linear", "arguments": list(arguments), "options": {"rng": rng}}
    return {"kind": "object", **kept, **options}


@pytest.mark.parametrize(
    ("description", "why"),
    [
        (linear(0, 3), "Linear: inputs and outputs must be at least 1"),
        (linear(2), "cannot be followed .TypeError"),
        (linear("a", "b"), "cannot be followed .TypeError"),
        (linear(None, [1]), "cannot be followed"),
        (linear(10**5, 10**5), "more weights than the file"),
        (linear(10**15, 1), "out of proportion"),
        (linear(2, 3, name="os.system"), "names the class 'os.system'"),
        (linear(2, 3, name="tinygen.nn.linear.math"), "names the class"),
        (linear(2, 3, name=["a"]), "cannot be followed"),
        (linear(2, 3, options=[]), "cannot be followed"),
        (linear(2, 3, more=1), "cannot be followed"),
        ({"kind": "object"}, "cannot be followed"),
        ({"kind": "_init__"}, "does not know"),
        ({"kind": "build", "told": 1}, "does not know"),
        ({"kind": ["op"]}, "does not know"),
        ({"op": "silu"}, "cannot be followed"),
        ({"kind": "op", "name": "eval"}, "names the op 'eval'"),
        ({"kind": "initialiser", "name": "np"}, "names the initialiser 'np'"),
        ({"kind": "again", "number": 0}, "cannot be followed"),
        ({"kind": "array", "dtype": "O", "shape": [1], "values": [1]}, "no kind of number"),
        ({"kind": "array", "dtype": "nonsense", "shape": [1], "values": [1]}, "cannot be followed"),
        ({"kind": "array", "dtype": "float32", "shape": [3], "values": [1]}, "cannot be followed"),
        ({"kind": "generator", "seed": -1, "counter": 0}, "seed must be at least 0"),
    ],
)
def test_a_description_that_cannot_be_followed_is_one_paragraph(description, why):
    with pytest.raises(InputError, match=why) as caught:
        rebuild(description, 100)
    assert "\n" not in str(caught.value)


def test_a_generator_that_a_model_keeps_draws_freely_once_it_is_made():
    made = rebuild({"kind": "generator", "seed": 5, "counter": 2}, 10)
    expected = Generator(5)
    expected.load_state_dict({"seed": 5, "counter": 2})
    np.testing.assert_array_equal(made.normal(10**5), expected.normal(10**5))
    np.testing.assert_array_equal(made.fork().uniform(3), expected.fork().uniform(3))


LAYERS = {
    "conv": lambda rng: nn.Conv2d(2, 3, 3, padding=1, rng=rng),
    "attention": lambda rng: nn.MultiHeadAttention(8, 2, rng=rng),
    "spectral norm": lambda rng: nn.SpectralNorm(nn.Linear(3, 4, rng=rng), rng=rng),
    "weight norm": lambda rng: nn.WeightNorm(nn.Linear(3, 4, rng=rng)),
    "batch norm": lambda rng: nn.BatchNorm(4),
    "fourier": lambda rng: nn.FourierFeatures(2, 8, rng=rng),
    "gpt": lambda rng: nn.GPT(5, 7, width=8, heads=2, layers=1, rng=rng),
    "u-net": lambda rng: nn.UNet(1, width=8, rng=rng),
    "vae": lambda rng: VAE(nn.MLP([4, 5, 6], rng=rng), nn.MLP([3, 5, 4], ops.relu, rng=rng), 3, beta=2.0),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer_and_model_is_made_again(name):
    rng = Generator(4)
    model = LAYERS[name](rng)
    same(model, again(model, sum(a.size for a in model.state_dict().values())))
