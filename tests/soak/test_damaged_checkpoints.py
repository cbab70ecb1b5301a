"""A damaged checkpoint is one clear error or makes no difference; a forged one is one clear error or fits."""

import copy
import json
import random
import time
from collections import Counter

import numpy as np
import pytest

import tinygen
from tinygen import nn, optim
from tinygen.checkpoint import ABOUT
from tinygen.errors import InputError
from tinygen.files import read_npz, write_npz
from tinygen.random import Generator
from tinygen.training import train

HOW_MANY = [50, pytest.param(1000, marks=pytest.mark.soak)]


def trained(**options):
    """A training of 30 steps that changes nothing, with what is usually saved."""
    rng = Generator(0)
    model = nn.ResidualMLP(2, 2, width=8, blocks=1, time=4, rng=rng)
    state = {"model": model, "adam": optim.Adam(model.parameters()), "ema": optim.EMA(model)}
    return train(lambda i, rng: float(rng.uniform()), 30, rng, state=state, progress=False, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint and the model in it."""
    path = tmp_path_factory.mktemp("whole") / "checkpoint.npz"
    trained(checkpoint=path)
    return path, tinygen.load(path).state_dict()


def damaged(data, chance):
    """The bytes of a file after something happened to them."""
    data, place = bytearray(data), chance.randrange(len(data))
    length = min(chance.choice([1, 2, 50, 512, 4096]), len(data) - place)
    noise = chance.randbytes(length)
    match chance.randrange(8):
        case 0 | 1 | 2:
            data[place] ^= 1 << chance.randrange(8)                          # a bit flipped
        case 3:
            del data[place:]                                                 # cut short
        case 4:
            del data[place : place + length]                                 # a piece lost
        case 5:
            data[place : place + length] = noise                             # a piece overwritten
        case 6:
            data[place:place] = noise                                        # a piece put in
        case 7:
            data[place : place + length] = bytes(length)                     # a block that was never written
    return bytes(data)


def tried(use, path):
    """What `use` makes of the file, or None if it was refused; anything but one clear paragraph is a failure."""
    start = time.perf_counter()
    try:
        return use(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error) and 40 < len(str(error)) < 1500, len(str(error))
    finally:
        assert time.perf_counter() - start < 10
    return None


@pytest.mark.parametrize("files", HOW_MANY)
def test_a_damaged_checkpoint_is_one_clear_error_or_a_verified_load(whole, tmp_path, files):
    data, expected = whole[0].read_bytes(), whole[1]
    path, chance, told = tmp_path / "damaged.npz", random.Random(1), Counter()
    for _ in range(files):
        path.write_bytes(damaged(data, chance))
        model = tried(tinygen.load, path)
        told["refused" if model is None else "loaded"] += 1
        if model is not None:
            np.testing.assert_equal(model.state_dict(), expected)
    print(dict(told))
    assert told["refused"] > files / 2


# -- forged: something is changed, and the checksum with it ------------------------------------------------------------

VALUES = [None, True, -1, 0, 3, 10**30, 0.5, float("nan"), "", "op", "tinygen.nn.linear.Linear", [], {}, [[1]], "model"]


def spots(value, found):
    """Every container in a JSON value with every key of it."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found.append((value, key))
        spots(value[key], found)
    return found


def forged(about, arrays, chance):
    """Changes one thing in the text, or one in the arrays."""
    owner, key = chance.choice(spots(about, []))
    name = chance.choice(sorted(arrays))
    array = arrays[name]
    match chance.randrange(7):
        case 0 | 1:
            owner[key] = copy.deepcopy(chance.choice(VALUES))
        case 2:
            owner[key] = copy.deepcopy(chance.choice(list(owner.values()) if isinstance(owner, dict) else owner))
        case 3:
            del owner[key]
        case 4:
            arrays[chance.choice([name + "x", "about2"])] = arrays.pop(name)
        case 5:
            arrays[name] = array.astype(chance.choice(["f8", "f2", "i4", "u1", "?", "S4"]))
        case 6:
            shape = chance.choice([(), (0,), (1,), (*array.shape, 1), array.shape[::-1], (3, 3)])
            arrays[name] = np.resize(array, shape)


@pytest.mark.parametrize("files", HOW_MANY)
def test_a_forged_checkpoint_is_one_clear_error_or_fits(whole, tmp_path, files):
    arrays, path = read_npz(whole[0]), tmp_path / "forged.npz"
    about = json.loads(arrays.pop(ABOUT).item())
    chance, told = random.Random(2), Counter()
    for _ in range(files):
        text, kept = copy.deepcopy(about), dict(arrays)
        forged(text, kept, chance)
        write_npz(path, {**kept, ABOUT: np.bytes_(json.dumps(text))})
        model, training = tried(tinygen.load, path), tried(lambda path: trained(resume=path), path)
        told["not loaded" if model is None else "loaded"] += 1
        told["not resumed" if training is None else "resumed"] += 1
        assert training is None or len(training.losses) == training.steps == 30
    print(dict(told))
    assert told["not loaded"] > files / 4 and told["not resumed"] > files / 2
