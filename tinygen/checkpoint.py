"""Checkpoints: everything that a training has changed, in one .npz file, and models loaded from it for use.

A checkpoint is a dictionary of arrays with plain names (`model.net.first.weight`, `optimiser.m.0`), beside one entry
`about`, JSON text that says the rest: the step, the settings, how the arrays make up the state of each part, and how
the models were built. NumPy opens it: `np.load("checkpoint.npz")["about"].item()`.

    model = tinygen.load("out/ddpm_8gaussians/checkpoint.npz")
    points = model.sample(1000, rng)

Reading trusts nothing: see `read_npz` for the file, `rebuild` for the models. Whatever is wrong is one InputError.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tinygen import arrays
from tinygen.describe import describe, rebuild
from tinygen.errors import InputError, TinygenError
from tinygen.files import in_words, read_npz, write_npz
from tinygen.nn import Module
from tinygen.optim import EMA
from tinygen.registry import Op
from tinygen.tensor import Tensor

FORMAT = "tinygen checkpoint 1"
ABOUT = "about"
ABOUT_MODEL = {"built", "why", "average"}
ARRAY = "<array>"  # {"<array>": name} stands in `about` for the array of that name

# what code that was written for sound values raises when it is given others
UNSOUND = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError)


class Stateful(Protocol):
    """What training changes: a model, an optimiser, a moving average, a generator, a place in the data."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any: ...


@dataclass
class Checkpoint:
    """A training as it stood after `step` of `steps` steps.

    state:    by part, what its `state_dict` said
    settings: what must be the same for the training to go on as if never interrupted
    models:   for each part that is a Module, how it was built, and which of the arrays are its averaged weights
    values:   (step,) float64 arrays: the loss, and what else the step function returned
    lines:    (n, 2): for each line of the log, its step and its seconds
    seconds:  how long the training took so far
    """

    step: int
    steps: int
    state: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    models: dict[str, Any] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    lines: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        return self.step == self.steps

    def write(self, path: str | os.PathLike) -> None:
        """Writes the file, atomically. Raises OutputError when that fails, and leaves what was there before."""
        packed: dict[str, np.ndarray] = {}
        about = {"format": FORMAT}
        for name, value in vars(self).items():
            about[name] = _packed(value, "" if name == "state" else name, packed)
        write_npz(path, {**packed, ABOUT: np.bytes_(json.dumps(about))})

    @classmethod
    def read(cls, path: str | os.PathLike) -> Checkpoint:
        """The checkpoint in a file. Raises InputError for any that is damaged, incomplete, or something else."""
        found = read_npz(path)
        try:
            about = json.loads(found.pop(ABOUT).item())
            if about.pop("format") != FORMAT:
                raise InputError("it was written by another version of tinygen")
            checkpoint = cls(**{name: _unpacked(value, found) for name, value in about.items()})
            checkpoint._check(found)
            return checkpoint
        except (TinygenError, *UNSOUND) as error:
            why = _why(error)
        raise InputError(f"{path} holds no checkpoint of tinygen, or not a whole one: {why}. Take another copy.")

    def _check(self, unused: Mapping[str, Any]) -> None:
        """Whether the fields are what they are said to be."""
        values, lines = list(self.values.values()), self.lines
        finite = lambda: lines.dtype == float and lines.ndim == 2 and lines.shape[1] == 2 and np.all(np.isfinite(lines))
        rising = lambda: np.all(np.diff(lines[:, 0], prepend=0) >= 1) and np.all(lines[:, 0] <= self.step)
        sound = {
            "step": lambda: type(self.step) is int and type(self.steps) is int and 0 <= self.step <= self.steps,
            "state": lambda: all(isinstance(part, dict) for part in self.state.values()),
            "settings": lambda: isinstance(self.settings, dict),
            "models": lambda: all(name in self.state and set(m) == ABOUT_MODEL for name, m in self.models.items()),
            "values": lambda: all(v.shape == (self.step,) and v.dtype == float for v in values),
            "losses": lambda: values or not self.step,
            "lines": lambda: finite() and rising(),
            "seconds": lambda: isinstance(self.seconds, int | float) and 0 <= self.seconds < math.inf,
            "arrays": lambda: not unused,
        }
        for name, good in sound.items():
            if not good():
                raise InputError(f"its {name} cannot be right")


# -- state and arrays --------------------------------------------------------------------------------------------------


def _packed(value: Any, name: str, into: dict[str, np.ndarray]) -> Any:
    """`value` as JSON, with its arrays put `into` a dictionary under names made of the way to them."""
    if isinstance(value, Tensor):
        value = value.data
    if isinstance(value, np.generic):
        value = value.item()
    if arrays.is_array(value):
        base = key = re.sub(r"[^\w.-]", "_", name).strip(".") or "array"
        while key in into or key == ABOUT:
            key = f"{base}_{len(into)}"
        into[key] = arrays.to_numpy(value)
        return {ARRAY: key}
    if isinstance(value, Mapping) and all(isinstance(key, str) and key != ARRAY for key in value):
        return {key: _packed(item, f"{name}.{key}".lstrip("."), into) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(item, f"{name}.{i}", into) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        f"A checkpoint cannot hold {name}, which is a {type(value).__name__}: the state of each part must consist of "
        "arrays, numbers, text, None, and lists and dicts (with text as keys) of them."
    )


def _unpacked(value: Any, found: dict[str, np.ndarray]) -> Any:
    """What `_packed` was given; each array is taken out of `found`."""
    if isinstance(value, dict):
        if set(value) == {ARRAY}:
            return found.pop(value[ARRAY])
        return {key: _unpacked(item, found) for key, item in value.items()}
    return [_unpacked(item, found) for item in value] if isinstance(value, list) else value


def restore(part: Stateful, state: Mapping[str, Any], what: str) -> None:
    """Loads `state` into `part`; whatever is wrong with it, dtypes included, is an InputError after `what`."""
    try:
        own = part.state_dict()
        faults = [
            f'"{name}" holds {state[name].dtype} where {np.asarray(own[name]).dtype} is needed'
            for name in own
            if isinstance(own[name], np.ndarray) and isinstance(state.get(name), np.ndarray)
            if state[name].dtype != own[name].dtype
        ]
        if faults:
            raise InputError(f"nothing was loaded: {'; '.join(faults)}.")
        part.load_state_dict(state)
        return
    except (TinygenError, *UNSOUND) as error:
        why = _why(error)
    raise InputError(f"{what}: {why}")


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, TinygenError) else f"{type(error).__name__}: {in_words(error)}"


# -- models ------------------------------------------------------------------------------------------------------------


def models_in(state: Mapping[str, Stateful]) -> dict[str, Any]:
    """For each Module among the parts: how it was built (or why that cannot be told), and its averaged weights."""
    return {name: _about_model(part, state) for name, part in state.items() if isinstance(part, Module)}


def _about_model(model: Module, state: Mapping[str, Stateful]) -> dict[str, Any]:
    built, why = None, None
    try:
        built = describe(model)
        changed = _difference(model, rebuild(built, sum(a.size for a in model.state_dict().values())))
        if changed:
            built, why = None, f"{changed} was changed after the model was made"
    except InputError as error:
        built, why = None, str(error)
    names = {id(p): name for name, p in model.named_parameters()}
    average = None
    for part, ema in state.items():
        if isinstance(ema, EMA) and any(id(p) in names for p in ema.params):
            entries = {names[id(p)]: f"average.{n}" for n, p in zip(ema.names, ema.params) if id(p) in names}
            average = {"part": part, "entries": entries}
    return {"built": built, "why": why, "average": average}


def _difference(model: Module, other: Module) -> str | None:
    """Where two models are not built alike, apart from the values of their weights."""
    ours, theirs = _outline(model), _outline(other)
    for name in {**ours, **theirs}:
        if name not in ours or name not in theirs or not _same(ours[name], theirs[name]):
            return name
    return None


def _outline(model: Module) -> dict[str, Any]:
    """The class and plain attributes of every module, and the shapes of their weights, by name."""
    found: dict[str, Any] = {name: array.shape for name, array in model.state_dict().items()}
    for path, module in model.named_modules():
        found[f"the class of {path or 'the model'}"] = type(module)
        for name, value in vars(module).items():
            if inspect.isroutine(value) or isinstance(value, Op):
                value = value.__name__
            if isinstance(value, bool | int | float | str | np.ndarray | None):
                found[f"{path}.{name}".lstrip(".")] = value
    return {name: value for name, value in found.items() if name.rpartition(".")[2] != "training"}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b, equal_nan=True)
    return type(a) is type(b) and a == b


def load(
    path: str | os.PathLike, model: Stateful | None = None, *, name: str | None = None, average: bool = True
) -> Any:
    """The trained model of a checkpoint, ready for use, without the program that trained it.

    Where training kept a moving average of the weights (`optim.EMA`), the model has the averaged ones, from which
    generative models are meant to sample; `average=False` gives those of the last step. It is in evaluation mode
    (`model.train()` undoes that), on the CPU.

    model: one built by you, to be loaded; needed where it holds a class or a function of your own, which no file can
           bring along
    name:  of the model among several, as the training program called it; needed unless one is called "model" or there
           is only one

    Raises InputError, one paragraph, for a file that is no sound checkpoint or does not fit. Nothing in it is executed.
    """
    checkpoint = Checkpoint.read(path)
    name = _chosen(path, checkpoint, name, model is not None)
    try:
        about = checkpoint.models.get(name, {"average": None})
        state = _weights(checkpoint, name, about["average"] if average else None)
        if model is None:
            model = _built(path, about, state)
    except (TinygenError, *UNSOUND) as error:
        raise InputError(f"{path}: {_why(error).rstrip('.')}.") from None
    restore(model, state, f"{path} does not fit the model")
    return model.eval() if isinstance(model, Module) else model


def _chosen(path: Any, checkpoint: Checkpoint, name: str | None, given: bool) -> str:
    names = list(checkpoint.state if given else checkpoint.models)
    if name is None:
        name = "model" if "model" in names else next(iter(checkpoint.models), "model")
        if name != "model" and len(checkpoint.models) > 1:
            raise InputError(f"{path} holds several models: {', '.join(names)}. Choose one: load(path, name=...).")
    if name not in names:
        raise InputError(f"{path} holds no model called {name!r}; it holds: {', '.join(names) or 'none'}.")
    return name


def _weights(checkpoint: Checkpoint, name: str, average: dict[str, Any] | None) -> dict[str, Any]:
    """The state of a model, with averaged weights in the place of those that have one."""
    state = dict(checkpoint.state[name])
    if average is not None:
        averages = checkpoint.state[average["part"]]
        state.update({weight: averages[entry] for weight, entry in average["entries"].items()})
    return state


def _built(path: Any, about: dict[str, Any], state: dict[str, Any]) -> Module:
    """The model that the file describes, in the precision of its weights."""
    if about["built"] is None:
        raise InputError(
            f"the checkpoint does not say how to build its model: {about['why']}. Build it as the program did that "
            f"trained it, and give it: tinygen.load({os.fspath(path)!r}, model=my_model)"
        )
    model = rebuild(about["built"], sum(array.size for array in state.values()))
    if not isinstance(model, Module):
        raise InputError("the description of the model is not that of a model")
    floats = {array.dtype for array in state.values() if array.dtype.kind == "f"}
    own = {array.dtype for array in model.state_dict().values() if array.dtype.kind == "f"}
    return model.to(dtype=floats.pop()) if floats != own and len(floats) == 1 else model
