"""Module: what layers and models are. It finds its own parameters, saves and loads them, and says where an error was.

A subclass assigns what it is made of as plain attributes and writes `forward`; nothing needs to be registered, and
`super().__init__()` need not be called:

    class Model(Module):
        def __init__(self, rng):
            self.encoder = MLP([784, 256, 20], rng=rng)
            self.blocks = [Linear(20, 20, rng=rng) for _ in range(3)]
            self.scale = Parameter(np.ones(20, np.float32))  # trained, saved, moved
            self.mean = Buffer(np.zeros(20, np.float32))     # saved and moved, not trained

Whatever is asked of a Module is answered by walking its attributes, and the modules, lists, tuples and dicts among
them, in the order in which they were assigned. An entry's name is the way to it: "encoder.0.weight".
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from tinygen import arrays
from tinygen.describe import Described
from tinygen.errors import DtypeError, InputError, TinygenError
from tinygen.random import Generator
from tinygen.tensor import Parameter, Tensor, tensor


class Buffer(Tensor):
    """A Tensor that belongs to a Module's state but is not trained: running statistics, a codebook's counts."""

    __slots__ = ()

    def __init__(self, values: Any, requires_grad: bool = False):
        super().__init__(tensor(values).data, requires_grad)


class Module(Described):
    """A function with parameters; see the module's docstring for how to write one.

    What its constructor was given is remembered (see `tinygen.describe`), so that a checkpoint can say how to make it.
    """

    training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward; call one of its methods, or write one.")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`forward`; an error that passes through here learns in which module it happened."""
        try:
            return self.forward(*args, **kwargs)
        except TinygenError as error:
            error.module = error.module or _place(self)
            raise

    # -- what it is made of --------------------------------------------------------------------------------------

    def _parts(self) -> Iterable[tuple[str, Any]]:
        """What this module is made of, by name: its attributes. A container may leave out its own name for a list."""
        return vars(self).items()

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module (named "") and all those inside it, each once."""
        yield "", self
        yield from ((name, part) for name, part in _walk(self) if isinstance(part, Module))

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter, frozen ones too; one that is shared (tied weights) comes once, under its first name."""
        return ((name, part) for name, part in _walk(self) if isinstance(part, Parameter))

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        return ((name, part) for name, part in _walk(self) if isinstance(part, Buffer))

    def named_generators(self) -> Iterator[tuple[str, Generator]]:
        """The generators that modules keep as attributes, whose state a checkpoint saves too."""
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Generator):
                    yield f"{path}.{name}".lstrip("."), value

    def parameters(self) -> list[Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def buffers(self) -> list[Buffer]:
        return [buffer for _, buffer in self.named_buffers()]

    # -- training ------------------------------------------------------------------------------------------------

    def train(self, training: bool = True) -> Self:
        """Behave as in training, where that makes a difference (dropout, batch norm): sets `.training` everywhere."""
        for _, module in self.named_modules():
            module.training = training
        return self

    def eval(self) -> Self:
        """Behave as in use: the opposite of `train`."""
        return self.train(False)

    def requires_grad_(self, wanted: bool = True) -> Self:
        """Freeze (False) or unfreeze all parameters. Frozen ones are saved and moved, but skipped by optimisers."""
        for parameter in self.parameters():
            parameter.requires_grad = wanted
        return self

    def zero_grad(self) -> None:
        """Forget the accumulated gradients."""
        for parameter in self.parameters():
            if parameter.requires_grad:
                parameter.grad = None

    def to(self, device: str | None = None, dtype: Any = None) -> Self:
        """Move to a device ("cpu", "cuda"), or to another float dtype, in place; gradients are forgotten.

        Parameters keep their identity, but get new memory. Make optimisers and moving averages afterwards.
        """
        if dtype is not None and np.dtype(dtype) not in (np.float32, np.float64):
            raise DtypeError(f"to: a model is float32 or float64, not {np.dtype(dtype)}.")
        for _, part in _walk(self):
            if isinstance(part, Parameter | Buffer):
                array = part.data
                if dtype is not None and array.dtype.kind == "f":
                    array = array.astype(dtype, copy=False)
                if device is not None:
                    array = arrays.to_device(array, device)
                if array is not part.data:
                    moved = type(part)(array, part.requires_grad)
                    part._array, part.node, part.version = moved._array, moved.node, moved.version
        return self

    # -- saving --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of all parameters and buffers by name, as NumPy arrays; tied weights are saved once."""
        return {name: part.numpy().copy() for name, part in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy the arrays of `state` into the parameters and buffers of the same names.

        Raises InputError, which lists every entry that is missing, unexpected or of another shape, and then changes
        nothing.
        """
        own = self._state()
        state = matched(type(self).__name__, {name: part.data for name, part in own.items()}, state)
        for name, part in own.items():
            part.data = state[name]

    def _state(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, part in _walk(self):
            if isinstance(part, Parameter | Buffer):
                if name in found:
                    raise InputError(f'{type(self).__name__}: two entries are both called "{name}"; rename one.')
                found[name] = part
        return found

    # -- for people ----------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        """One line for each module: name, class, shapes of what it holds itself, parameters in it and below it."""
        modules = dict(self.named_modules())
        shapes: dict[str, list] = {path: [] for path in modules}
        for name, part in self._state().items():
            path = _holder(name, modules)
            shapes[path].append(f"{name[len(path) :].lstrip('.')} {tuple(part.shape)}")
        rows, indent = [], {}
        for path, module in modules.items():
            above = _holder(path, modules)
            indent[path] = indent[above] + "  " if path else ""
            label = f"{indent[path]}{path[len(above) :].lstrip('.')}: " if path else ""
            count = f"{sum(p.size for p in module.parameters()):,}"
            rows.append((f"{label}{type(module).__name__}", ", ".join(shapes[path]), count))
        wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:>{wide[2]}}" for a, b, c in rows]
        return "\n".join([f"{lines[0]} parameters", *lines[1:]])


# -- walking -----------------------------------------------------------------------------------------------------------


def _walk(owner: Any, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Names and values of the Tensors and Modules in `owner`, depth first, each once, under its first name."""
    seen = {id(owner)} if seen is None else seen
    for key, value in _entries(owner):
        if id(value) in seen or not isinstance(value, Tensor | Module | list | tuple | dict):
            continue
        seen.add(id(value))
        name = f"{prefix}{key}"
        if isinstance(value, Tensor | Module):
            yield name, value
        yield from _walk(value, f"{name}.", seen)


def _entries(owner: Any) -> Any:
    if isinstance(owner, Module):
        return owner._parts()
    if isinstance(owner, dict):
        return owner.items()
    return enumerate(owner) if isinstance(owner, list | tuple) else ()


def _holder(name: str, modules: Mapping[str, Module]) -> str:
    """The path of the innermost of `modules` that holds the entry of this name."""
    while name:
        name = name.rpartition(".")[0]
        if name in modules:
            break
    return name


MOST_FAULTS = 12  # that an error lists; another model altogether has hundreds


def matched(what: str, own: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of `state`, once its names and shapes are found to be those of `own`; InputError lists the faults."""
    given = {name: np.asarray(value) for name, value in state.items()}
    faults = [f'"{name}" is missing' for name in own if name not in given]
    faults += [f'"{name}" is unexpected' for name in given if name not in own]
    for name in [name for name in own if name in given]:
        value, shape = given[name], tuple(np.shape(own[name]))
        kinds = "fiub" if np.dtype(getattr(own[name], "dtype", float)).kind == "f" else "iub"
        if value.dtype.kind not in kinds:
            faults.append(f'"{name}" holds {value.dtype} where {"numbers" if "f" in kinds else "integers"} are needed')
        elif value.shape != shape:
            faults.append(f'"{name}" has shape {value.shape} where {shape} is needed')
    if faults:
        if len(faults) > MOST_FAULTS:
            faults[MOST_FAULTS:] = [f"and {len(faults) - MOST_FAULTS} more"]
        raise InputError(f"{what}: the state does not fit, nothing was loaded: {'; '.join(faults)}.")
    return given


# -- telling where an error was ----------------------------------------------------------------------------------------


def _place(module: Module) -> str:
    """`Linear "decoder.0"`: the module and the way to it from the outermost module at work.

    Modules do not know their owners, so that one can belong to several. Those at work stand in the calling frames, as
    `self`, also where it was a method other than `forward` that called.
    """
    owners, frame = [module], sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Module) and owner is not owners[-1]:
            owners.append(owner)
        frame = frame.f_back
    for owner in reversed(owners):
        for name, part in _walk(owner):
            if part is module:
                return f'{type(module).__name__} "{name}"'
    return type(module).__name__
