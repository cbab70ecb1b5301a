"""What a Module is made of, how it is saved and moved, and how it says where an error was."""

import copy

import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.errors import DeviceError, DtypeError, InputError
from tinygen.nn import Buffer, Linear, Module, Parameter, Sequential
from tinygen.random import Generator


class Scale(Module):
    def __init__(self, n):
        self.factor = Parameter(np.ones(n, np.float32))
        self.seen = Buffer(np.zeros((), np.float32))

    def forward(self, x):
        return x * self.factor


class Model(Module):
    """Parameters in every kind of place, one of them in two."""

    def __init__(self, rng):
        self.first = Linear(2, 3, rng=rng)
        self.parts = [Scale(3), {"deep": (Linear(3, 3, bias=False, rng=rng), Parameter(np.zeros(2)))}]
        self.tied = self.first.weight
        self.notes = "neither here", 3, None
        self.constant = tinygen.tensor([1.0])
        self.decoder = Sequential(ops.silu, Linear(3, 2, rng=rng))

    def forward(self, x):
        return self.decoder(self.parts[0](self.first(x)))

    def loss(self, x):
        return ops.square(self.decoder(x)).sum()


NAMES = [
    "first.weight",
    "first.bias",
    "parts.0.factor",
    "parts.1.deep.0.weight",
    "parts.1.deep.1",
    "decoder.1.weight",
    "decoder.1.bias",
]


@pytest.fixture
def model():
    return Model(Generator(0))


# -- what it is made of ------------------------------------------------------------------------------------------------


def test_parameters_are_found_in_order_wherever_they_are_and_once(model):
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert model.parameters()[0] is model.tied
    assert [name for name, _ in model.named_buffers()] == ["parts.0.seen"]
    modules = [name for name, _ in model.named_modules()]
    assert modules == ["", "first", "parts.0", "parts.1.deep.0", "decoder", "decoder.1"]


def test_a_module_that_knows_its_owner_is_walked_all_the_same(model):
    model.first.owner = model
    model.parts.append(model.parts)
    assert [name for name, _ in model.named_parameters()] == NAMES


def test_train_and_eval_reach_every_module(model):
    model.eval()
    assert not any(module.training for _, module in model.named_modules())
    model.train()
    assert all(module.training for _, module in model.named_modules())


def test_zero_grad_clears_and_freezing_keeps_the_state(model):
    saved = set(model.state_dict())
    for p in model.parameters():
        p.grad = np.ones_like(p.numpy())
    model.first.requires_grad_(False)
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    assert set(model.state_dict()) == saved and not model.tied.requires_grad
    assert model.first.requires_grad_().weight.requires_grad


def test_a_copy_has_parameters_of_its_own_and_keeps_ties_and_buffers(model):
    twin = copy.deepcopy(model)
    assert twin.tied is twin.first.weight and twin.tied is not model.tied
    assert type(twin.tied) is Parameter and type(twin.parts[0].seen) is Buffer
    twin.tied.data = np.zeros((2, 3))
    assert model.tied.numpy().any()


# -- saving and moving -------------------------------------------------------------------------------------------------


def test_state_goes_through_npz_and_back(model, tmp_path):
    model.parts[0].seen.data = 7.0
    np.savez(tmp_path / "model.npz", **model.state_dict())
    other = Model(Generator(1))
    tied = other.tied
    with np.load(tmp_path / "model.npz") as state:
        assert sorted(state) == sorted([*NAMES, "parts.0.seen"])
        other.load_state_dict(state)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], value)
    assert other.tied is tied is other.first.weight


def test_the_state_is_a_copy(model):
    state = model.state_dict()
    state["first.bias"] += 1
    assert not np.array_equal(model.first.bias.numpy(), state["first.bias"])


def test_a_state_that_does_not_fit_is_refused_whole_with_every_fault_listed(model):
    model.count = Buffer(np.array(3))
    state = {**model.state_dict(), "count": np.array(3.5)}
    before = model.state_dict()
    del state["first.bias"]
    state["extra"] = np.zeros(1)
    state["parts.0.factor"] = np.zeros((4, 1))
    state["parts.1.deep.1"] = np.array(["a", "b"])
    state["first.weight"] = state["first.weight"] + 1
    with pytest.raises(InputError) as caught:
        model.load_state_dict(state)
    for fault in (
        '"first.bias" is missing',
        '"extra" is unexpected',
        '"parts.0.factor" has shape (4, 1) where (3,) is needed',
        '"parts.1.deep.1" holds <U1 where numbers are needed',
        '"count" holds float64 where integers are needed',
    ):
        assert fault in str(caught.value)
    assert "first.weight" not in str(caught.value)
    for name, value in before.items():
        np.testing.assert_array_equal(model.state_dict()[name], value)


def test_of_hundreds_of_faults_the_first_dozen_is_listed(model):
    with pytest.raises(InputError, match=r'"x3" is unexpected; and 5 more\.$'):
        model.load_state_dict({f"x{i}": np.zeros(1) for i in range(9)})


def test_generators_that_modules_keep_are_found_by_name(model):
    model.rng, model.decoder[1].noise = Generator(1), Generator(2)
    assert list(model.named_generators()) == [("rng", model.rng), ("decoder.1.noise", model.decoder[1].noise)]


def test_two_entries_of_one_name_are_refused():
    class Ambiguous(Module):
        def __init__(self):
            self.table = {"0": Parameter(np.zeros(1)), 0: Parameter(np.ones(1))}

    with pytest.raises(InputError, match='"table.0"'):
        Ambiguous().state_dict()


def test_to_changes_dtype_in_place_and_keeps_identity_ties_and_frozen_ones(model):
    model.first.bias.requires_grad = False
    before = model.parameters()
    model.to(dtype=np.float64)
    after = model.parameters()
    assert all(p is q for p, q in zip(before, after, strict=True)) and model.tied is model.first.weight
    assert {p.dtype for p in [*after, *model.buffers()]} == {np.dtype(np.float64)}
    assert not model.first.bias.requires_grad
    out = model(np.ones((4, 2))).sum()
    out.backward()
    assert out.dtype == model.tied.grad.dtype == np.float64
    assert model.to("cpu") is model


def test_a_device_or_dtype_that_is_not_there_is_explained(model):
    with pytest.raises(DtypeError, match="float32 or float64"):
        model.to(dtype=np.float16)
    with pytest.raises(DeviceError, match="unknown"):
        model.to("gpu")


# -- for people --------------------------------------------------------------------------------------------------------


def test_repr_shows_the_tree_with_shapes_and_counts(model):
    assert repr(model).splitlines() == [
        "Model                     parts.1.deep.1 (2,)       31 parameters",
        "  first: Linear           weight (2, 3), bias (3,)   9",
        "  parts.0: Scale          factor (3,), seen ()       3",
        "  parts.1.deep.0: Linear  weight (3, 3)              9",
        "  decoder: Sequential                                8",
        "    1: Linear             weight (3, 2), bias (2,)   8",
    ]


def test_an_error_names_the_line_and_the_innermost_module_by_its_path(model):
    with pytest.raises(InputError, match=r"matmul.*\(nn/test_module.py:\d+, Linear \"first\"\)$"):
        model(np.ones((4, 5), np.float32))
    model.parts[0] = ops.identity
    model.first = Linear(2, 5, rng=Generator(0))
    with pytest.raises(InputError, match=r'Linear "decoder.1"\)$'):
        model(np.ones((4, 2), np.float32))


def test_the_path_begins_at_the_outermost_module_also_when_a_method_called(model):
    with pytest.raises(InputError, match=r'Linear "decoder.1"\)$'):
        model.loss(np.ones((4, 5), np.float32))
    with pytest.raises(InputError, match=r'Linear "1"\)$'):
        model.decoder(np.ones((4, 5), np.float32))
    with pytest.raises(InputError, match=r"Linear\)$"):
        model.first(np.ones((4, 5), np.float32))


def test_a_module_without_forward_says_so():
    class Empty(Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty has no forward"):
        Empty()(1)
