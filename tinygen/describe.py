"""Models in words: how an object was made, as JSON, and the object made again from that.

A saved model is its arrays and the network around them. The arrays are in its state; the network is what its
constructor builds from its arguments. So an object that is `Described` keeps those arguments, `describe` writes them
down, and `rebuild` calls the constructor again:

    describe(nn.Linear(2, 3, rng=rng)) == {
        "kind": "object", "name": "tinygen.nn.linear.Linear", "arguments": [2, 3],
        "options": {"rng": {"kind": "generator", "seed": 0, "counter": 0}},
    }

A generator is kept as it stood when it was handed over, so that whatever a constructor draws comes out the same again.

A description may come out of a file that nobody need trust. So names in it are looked up, never imported: classes among
those of `tinygen.nn` and `tinygen.models`, functions among the ops and the initialisers. A description may ask for no
more weights than are in the file, and whatever a constructor has against its arguments is told in one paragraph.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinygen.errors import InputError
from tinygen.files import in_words
from tinygen.random import Generator

HOMES = ("tinygen.nn.", "tinygen.models.")  # the packages whose classes can be described
LARGEST_ARRAY = 2**16  # values in an array that is an argument
LARGEST_NUMBER = 10**7  # of a size in a description, unless the file holds as many weights

KINDS = ("tuple", "dict", "array", "generator", "op", "initialiser", "again", "object")

REGISTRY: dict[str, type] = {}


class Described:
    """Remembers what it was made with, out of the way of its attributes: subclasses need do nothing."""

    __slots__ = ("_made_with",)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__.startswith(HOMES):
            REGISTRY[_name(cls)] = cls

    def __new__(cls, /, *args: Any, **kwargs: Any):
        self = super().__new__(cls)
        self._made_with = [_as_given(a) for a in args], {name: _as_given(a) for name, a in kwargs.items()}
        return self


class NotDescribedError(InputError):
    """An object that cannot be made again from a description."""


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _as_given(value: Any) -> Any:
    """An argument as it is now: generators and containers change later."""
    if isinstance(value, Generator):
        return copy.copy(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_as_given, value)) if type(value) in (list, tuple) else value
    return {k: _as_given(v) for k, v in value.items()} if type(value) is dict else value


# -- writing down ------------------------------------------------------------------------------------------------------


def describe(value: Any, seen: dict[int, int] | None = None) -> Any:
    """`value` in words that JSON holds. Raises NotDescribedError, which says what cannot be put so."""
    seen = {} if seen is None else seen
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is list:
        return [describe(item, seen) for item in value]
    if type(value) is tuple:
        return {"kind": "tuple", "items": [describe(item, seen) for item in value]}
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"kind": "dict", "items": {key: describe(item, seen) for key, item in value.items()}}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.size <= LARGEST_ARRAY:
        values = value.ravel().tolist()
        return {"kind": "array", "dtype": value.dtype.name, "shape": list(value.shape), "values": values}
    if isinstance(value, Generator):
        return {"kind": "generator", **value.state_dict()}
    if isinstance(value, Described):
        return _described(value, seen)
    for kind, functions in _functions().items():
        for name, function in functions.items():
            if function is value:
                return {"kind": kind, "name": name}
    raise NotDescribedError(f"{_called(value)} cannot be put into a file")


def _described(value: Described, seen: dict[int, int]) -> dict[str, Any]:
    """An object by its class and arguments; one that comes again, by its number."""
    if id(value) in seen:
        return {"kind": "again", "number": seen[id(value)]}
    name = _name(type(value))
    if REGISTRY.get(name) is not type(value):
        raise NotDescribedError(f"the class {type(value).__name__} is defined in {type(value).__module__}, not tinygen")
    args, kwargs = value._made_with
    told = {
        "kind": "object",
        "name": name,
        "arguments": [describe(a, seen) for a in args],
        "options": {key: describe(a, seen) for key, a in kwargs.items()},
    }
    seen[id(value)] = len(seen)  # after its arguments, which are made first
    return told


def _functions() -> dict[str, dict[str, Callable]]:
    """The functions that can be arguments, by name: all ops, and the initialisers."""
    from tinygen import ops
    from tinygen.nn import initialise
    from tinygen.registry import REGISTRY as OPS

    plain = {name: getattr(ops, name) for name in ops.__all__}
    own = {n: f for n, f in vars(initialise).items() if inspect.isfunction(f) and f.__module__ == initialise.__name__}
    return {"op": {**OPS, **plain}, "initialiser": {n: f for n, f in own.items() if not n.startswith("_")}}


def _called(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    return f"{name} of {value.__module__}" if name else f"a {type(value).__name__}"


# -- making again ------------------------------------------------------------------------------------------------------


def rebuild(description: Any, weights: int) -> Any:
    """What `describe` described. It may draw about as many random numbers as the file has `weights`.

    Raises InputError for a description that names what is not there, or that a constructor will not have.
    """
    import tinygen.models  # noqa: F401  (its classes become known, whatever the program has imported)

    builder = _Builder(weights)
    built = builder.build(description)
    builder.budget[0] = math.inf  # generators that were kept draw freely from now on
    return built


class _Builder:
    """The objects made so far, and how many random numbers may still be drawn."""

    def __init__(self, weights: int):
        self.made: list[Any] = []
        self.largest = max(weights, LARGEST_NUMBER)
        self.budget: list[float] = [2 * weights + LARGEST_ARRAY]

    def build(self, told: Any) -> Any:
        if isinstance(told, int) and abs(told) > self.largest:
            raise InputError(f"the description of the model asks for a size of {told}, out of proportion to the file")
        if isinstance(told, list):
            return [self.build(item) for item in told]
        if not isinstance(told, Mapping):
            return told
        try:
            build = getattr(self, f"_{told['kind']}") if told["kind"] in KINDS else self._unknown
            return build(**{k: v for k, v in told.items() if k != "kind"})
        except InputError:
            raise
        except Exception as error:  # whatever the file or a constructor had in it
            what, told = str(told.get("name") or told.get("kind"))[:80], f"{type(error).__name__}: {in_words(error)}"
            raise InputError(f"the description of {what} cannot be followed ({told})") from None

    def _unknown(self, **_: Any) -> Any:
        raise InputError("the description of the model holds something that this version of tinygen does not know")

    def _tuple(self, items: list) -> tuple:
        return tuple(self.build(item) for item in items)

    def _dict(self, items: Mapping) -> dict:
        return {key: self.build(item) for key, item in items.items()}

    def _array(self, dtype: str, shape: list, values: list) -> np.ndarray:
        if np.dtype(dtype).kind not in "fiub":
            raise InputError(f"the description of the model holds an array of {dtype}, which is no kind of number")
        return np.array(values, dtype).reshape(shape)

    def _generator(self, seed: int, counter: int) -> Generator:
        rng = _Rationed(seed, self.budget)
        rng.load_state_dict({"seed": seed, "counter": counter})
        return rng

    def _op(self, name: str) -> Callable:
        return _looked_up(name, _functions()["op"], "op")

    def _initialiser(self, name: str) -> Callable:
        return _looked_up(name, _functions()["initialiser"], "initialiser")

    def _again(self, number: int) -> Any:
        return self.made[number]

    def _object(self, name: str, arguments: list, options: Mapping) -> Any:
        cls = _looked_up(name, REGISTRY, "class")
        args = [self.build(a) for a in arguments]
        kwargs = {key: self.build(a) for key, a in options.items()}
        self.made.append(cls(*args, **kwargs))
        return self.made[-1]


def _looked_up(name: str, known: Mapping[str, Any], what: str) -> Any:
    if name not in known:
        raise InputError(f"the description of the model names the {what} {name[:80]!r}, which tinygen does not have")
    return known[name]


class _Rationed(Generator):
    """A generator that ends in an error when a description makes it draw more than the file can want."""

    def __init__(self, seed: int, budget: list[float]):
        super().__init__(seed)
        self._budget = budget

    def _spend(self, shape: Any) -> None:
        self._budget[0] -= math.prod(shape) if isinstance(shape, tuple | list) else shape
        if self._budget[0] < 0:
            raise InputError("the model that it describes has more weights than the file")

    def normal(self, shape: Any = (), *args: Any, **kwargs: Any) -> np.ndarray:
        self._spend(shape)
        return super().normal(shape, *args, **kwargs)

    def uniform(self, shape: Any = (), *args: Any, **kwargs: Any) -> np.ndarray:
        self._spend(shape)
        return super().uniform(shape, *args, **kwargs)

    def integers(self, high: int, shape: Any = ()) -> np.ndarray:
        self._spend(shape)
        return super().integers(high, shape)

    def permutation(self, n: int) -> np.ndarray:
        self._spend(n)
        return super().permutation(n)

    def fork(self) -> Generator:
        child = _Rationed(0, self._budget)
        child.load_state_dict(super().fork().state_dict())
        return child
