"""Checkpoints: what they hold, what `tinygen.load` makes of them, and what is refused."""

import json

import numpy as np
import pytest

import tinygen
from tinygen import nn, ops, optim
from tinygen.checkpoint import ABOUT, Checkpoint
from tinygen.errors import InputError
from tinygen.files import read_npz, write_npz
from tinygen.models import DDPM, Schedule
from tinygen.nn import Buffer, Linear, Module, Parameter, Sequential
from tinygen.random import Generator
from tinygen.training import train


def trained(path, model, steps=4, average=True, **more):
    """Trains a network of points for a few steps and saves it to `path`; the optimiser and the average."""
    rng = Generator(1)
    adam = optim.Adam(model.parameters(), lr=1e-2)
    ema = optim.EMA(model)

    def step(i, rng):
        loss = ops.mean(ops.square(model(rng.normal((8, 2)), rng.integers(9, 8)) - 1))
        loss.backward()
        adam.step()
        adam.zero_grad()
        ema.update()
        return loss

    state = {"model": model, "optimiser": adam, **({"ema": ema} if average else {}), **more}
    train(step, steps, rng, state=state, checkpoint=path, progress=False)
    return adam, ema


class Network(Module):
    """A network of the user's own: its class is not in tinygen."""

    def __init__(self, rng):
        self.net, self.seen = nn.ResidualMLP(2, 2, width=8, blocks=1, time=4, rng=rng), Buffer(np.array(3))

    def forward(self, x, t):
        return self.net(x, t)


def network(seed=0, **options):
    return nn.ResidualMLP(2, 2, width=8, blocks=1, time=4, rng=Generator(seed), **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.npz"


def equal(a, b):
    assert set(a) == set(b)
    for name, value in a.items():
        assert np.asarray(value).dtype == np.asarray(b[name]).dtype
        np.testing.assert_array_equal(value, b[name])


# -- the file ----------------------------------------------------------------------------------------------------------


def test_any_state_of_arrays_numbers_and_text_is_kept_as_it_was(path):
    state = {
        "data": {"order": np.arange(5), "rng": {"seed": 2**64 - 1, "counter": 0}, "at": 3, "rate": 0.1, "none": None},
        "odd names": {"a/b": np.zeros(2), "a_b": np.ones(2, np.float16), "../c": [np.array(True), "text", np.inf]},
        "about": {"": np.float32(3), "sha256": np.zeros((0, 2), np.uint64)},
    }
    Checkpoint(step=2, steps=9, state=state, values={"loss": np.array([1.0, np.nan])}).write(path)
    read = Checkpoint.read(path)
    assert (read.step, read.steps, read.complete) == (2, 9, False)
    assert read.state["data"]["rng"] == state["data"]["rng"] and read.state["data"]["none"] is None
    assert (read.state["data"]["at"], read.state["data"]["rate"]) == (3, 0.1)
    equal({"o": read.state["data"]["order"]}, {"o": np.arange(5)})
    for name in ("a/b", "a_b"):
        equal({name: read.state["odd names"][name]}, {name: state["odd names"][name]})
    assert read.state["odd names"]["../c"][0].dtype == bool and read.state["odd names"]["../c"][1:] == ["text", np.inf]
    assert read.state["about"]["sha256"].shape == (0, 2) and read.state["about"][""] == 3
    equal(read.values, {"loss": np.array([1.0, np.nan])})


@pytest.mark.parametrize("value", [object(), {1: 2}, {"<array>": "a"}, b"bytes"])
def test_state_that_no_file_can_hold_is_named(path, value):
    with pytest.raises(InputError, match="cannot hold part.x"):
        Checkpoint(step=0, steps=1, state={"part": {"x": value}}).write(path)


def test_numpy_opens_a_checkpoint_and_its_names_say_what_is_in_it(path):
    trained(path, network())
    with np.load(path, allow_pickle=False) as file:
        assert {"model.first.weight", "optimiser.counts", "ema.average.last.bias", "values.loss"} <= set(file)
        about = json.loads(file["about"].item())
    assert about["step"] == 4 and about["models"]["model"]["built"]["name"] == "tinygen.nn.residual.ResidualMLP"


# -- loading a model ---------------------------------------------------------------------------------------------------


def test_a_model_is_loaded_without_its_program_with_averaged_weights_or_the_last(path):
    model = network(activation=ops.gelu)
    _, ema = trained(path, model)
    equal(tinygen.load(path, average=False).state_dict(), model.state_dict())
    loaded = tinygen.load(path)
    assert type(loaded) is nn.ResidualMLP and loaded.activation is ops.gelu and not loaded.training
    with ema.swap():
        equal(loaded.state_dict(), model.state_dict())
    assert not np.array_equal(loaded.last.weight.numpy(), model.last.weight.numpy())


def test_a_loaded_model_samples_what_the_trained_one_does(path):
    model = DDPM(network(), Schedule.cosine(25), shape=(2,))
    ema = optim.EMA(model.net)

    def step(i, rng):
        model.net.last.bias.data = rng.normal(2)
        ema.update()
        return 1.0

    train(step, 3, Generator(0), state={"model": model, "average": ema}, checkpoint=path, progress=False)
    with ema.swap():
        expected = model.sample(5, Generator(9))
    np.testing.assert_array_equal(tinygen.load(path).sample(5, Generator(9)), expected)


def test_a_model_in_float64_is_loaded_in_float64(path):
    model = Sequential(Linear(2, 2, rng=Generator(0))).to(dtype=np.float64)
    train(lambda i, rng: 1.0, 1, Generator(0), state={"model": model}, checkpoint=path, progress=False)
    equal(tinygen.load(path).state_dict(), model.state_dict())


def test_a_model_of_the_users_own_class_is_saved_and_loaded_into_one_that_is_given(path):
    model = Network(Generator(0))
    trained(path, model, average=False)
    with pytest.raises(InputError, match=r"class Network is defined in test_checkpoint.*model=my_model"):
        tinygen.load(path)
    given = Network(Generator(5))
    assert tinygen.load(path, model=given) is given
    equal(given.state_dict(), model.state_dict())


def test_a_model_that_was_changed_after_it_was_made_is_not_rebuilt_as_if_it_had_not_been(path):
    model = network()
    model.activation = ops.tanh
    trained(path, model)
    with pytest.raises(InputError, match="activation was changed after the model was made"):
        tinygen.load(path)
    model = network()
    model.blocks.append(model.blocks[0])
    model.extra = Parameter(np.zeros(3, np.float32))
    trained(path, model)
    with pytest.raises(InputError, match="extra was changed"):
        tinygen.load(path)


def test_of_several_models_one_is_named(path):
    one, two = (Sequential(Linear(2, 2, rng=Generator(seed))) for seed in (1, 2))
    state = {"generator": one, "critic": two}
    train(lambda i, rng: 1.0, 1, Generator(0), state=state, checkpoint=path, progress=False)
    equal(tinygen.load(path, name="critic").state_dict(), two.state_dict())
    with pytest.raises(InputError, match="several models: generator, critic"):
        tinygen.load(path)
    with pytest.raises(InputError, match="no model called 'model'; it holds: generator, critic"):
        tinygen.load(path, name="model")


def test_a_model_that_does_not_fit_is_refused_unchanged(path):
    trained(path, network())
    given = nn.ResidualMLP(2, 2, width=6, blocks=1, time=4, rng=Generator(0))
    before = given.state_dict()
    with pytest.raises(InputError, match=r'checkpoint.npz does not fit.*"first.weight" has shape \(2, 8\)'):
        tinygen.load(path, model=given)
    equal(given.state_dict(), before)
    with pytest.raises(InputError, match='"first.weight" holds float32 where float64'):
        tinygen.load(path, model=network().to(dtype=np.float64))


# -- files that are no checkpoints -------------------------------------------------------------------------------------


def forged(path, change):
    """The checkpoint at `path`, after `change(about, arrays)`, sealed again: damage that no checksum can tell."""
    arrays = read_npz(path)
    about = json.loads(arrays[ABOUT].item())
    change(about, arrays)
    write_npz(path, {**arrays, ABOUT: np.bytes_(json.dumps(about))})


def rename(about, arrays):
    arrays["model.first.bios"] = arrays.pop("model.first.bias")


def reshape(about, arrays):
    arrays["model.first.weight"] = arrays["model.first.weight"].reshape(4, 4)


def widen(about, arrays):
    arrays["model.first.weight"] = arrays["model.first.weight"].astype(np.float64)


def turn_into_text(about, arrays):
    arrays["model.first.weight"] = np.full((2, 8), b"x")


def turn_into_a_number(about, arrays):
    about["state"]["model"]["first.weight"] = 3
    del arrays["model.first.weight"]


def use_one_array_twice(about, arrays):
    about["state"]["model"]["first.weight"] = about["state"]["model"]["last.weight"]


def grow(about, arrays):
    about["models"]["model"]["built"]["options"]["width"] = 10**6


def shrink(about, arrays):
    about["models"]["model"]["built"]["options"]["width"] = 4


def rename_the_class(about, arrays):
    about["models"]["model"]["built"]["name"] = "subprocess.Popen"


def average_nothing(about, arrays):
    about["models"]["model"]["average"]["part"] = "optimiser"


def nest(about, arrays):
    about["settings"] = json.loads("[" * 900 + "]" * 900)


CHANGES = [
    (rename, "no checkpoint of tinygen.*'model.first.bias'"),
    (reshape, r'"first.weight" has shape \(4, 4\) where \(2, 8\)'),
    (widen, '"first.weight" holds float64 where float32'),
    (turn_into_text, "first.weight"),
    (turn_into_a_number, "first.weight|size"),
    (use_one_array_twice, "no checkpoint of tinygen"),
    (grow, "more weights than the file"),
    (shrink, "does not fit the model"),
    (rename_the_class, "names the class 'subprocess.Popen'"),
    (average_nothing, "average"),
    (nest, "recursion|settings"),
    (lambda about, arrays: about.pop("state"), "no checkpoint of tinygen"),
    (lambda about, arrays: about.update(more=1), "no checkpoint of tinygen"),
    (lambda about, arrays: about.update(format="2"), "another version of tinygen"),
    (lambda about, arrays: about.update(step="4"), "its step cannot"),
    (lambda about, arrays: about.update(step=5), "its step cannot"),
    (lambda about, arrays: about.update(models={"model": {}}), "its models cannot"),
    (lambda about, arrays: about["values"].update(loss=3), "no checkpoint of tinygen"),
    (lambda about, arrays: about["values"].update(loss=None), "no checkpoint of tinygen"),
    (lambda about, arrays: arrays.update(more=np.zeros(1)), "its arrays cannot"),
    (lambda about, arrays: arrays.update({"values.loss": np.zeros(9)}), "its values cannot"),
    (lambda about, arrays: about["models"].update(model=None), "no checkpoint of tinygen"),
    (lambda about, arrays: about["models"]["model"].update(built=[1]), "not that of a model"),
    (lambda about, arrays: about["models"]["model"].update(average=3), "TypeError"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[getattr(c, "__name__", "") for c, _ in CHANGES])
def test_a_sealed_file_with_something_wrong_in_it_is_refused_in_one_paragraph(path, change, words):
    trained(path, network(), average=change is average_nothing)
    forged(path, change)
    with pytest.raises(InputError, match=words) as caught:
        tinygen.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("about", [None, b"", b"no JSON", b"[" * 10**5, b"null", b'{"format": 1}', 3.0, [b"a", b"b"]])
def test_a_sealed_file_of_other_arrays_is_no_checkpoint(path, about):
    write_npz(path, {"a": np.zeros(3)} | ({} if about is None else {ABOUT: np.array(about)}))
    with pytest.raises(InputError, match="holds no checkpoint of tinygen") as caught:
        tinygen.load(path)
    assert "\n" not in str(caught.value)
