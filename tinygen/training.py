"""The loop that every demo trains with: a progress bar, a log, a time budget, and an explanation when the loss is lost.

The loop knows no model. It calls `step(i, rng)`, which does one optimiser step and returns its loss. It reads losses
only once every few steps, since reading a value from a GPU waits for all the work before it. At each reading it keeps a
copy of everything that changes (`state`); should a loss turn NaN or infinite, it goes back to that copy and runs the
same steps again under `detect_anomaly`, which names the op where it began. The copy is what a checkpoint would hold.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tinygen.errors import InputError, TinygenError
from tinygen.files import make_folder, plain
from tinygen.random import Generator

__all__ = ["Stateful", "Training", "TrainingError", "train"]


class TrainingError(TinygenError):
    """Training cannot go on: the loss is no longer a finite number."""


class Stateful(Protocol):
    """What training changes: a model, an optimiser, a moving average, a generator."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Training:
    """What a call of `train` did.

    steps:      how many steps were done
    seconds:    how long they took, compilation included
    values:     (steps,) float64 arrays, one for each scalar that the step function returns; "loss" is the first of them
    out_of_time: whether the budget ended it before all steps were done
    """

    steps: int
    seconds: float
    values: dict[str, np.ndarray]
    out_of_time: bool

    @property
    def losses(self) -> np.ndarray:
        """(steps,) float64: the loss of each step."""
        return next(iter(self.values.values()))


def train(
    step: Callable[[int, Generator], Any],
    steps: int,
    rng: Generator,
    *,
    state: Mapping[str, Stateful] | None = None,
    log: str | os.PathLike | None = None,
    budget_minutes: float | None = None,
    read_every: int = 20,
    progress: bool = True,
    name: str = "training",
) -> Training:
    """Calls `step(i, rng)` for i = 0, 1, ..., steps - 1.

    step:           one optimiser step; returns the loss, a scalar (Tensor, array or number), or a dict of scalars, the
                    loss first. Whatever is random in it comes from `rng`.
    state:          by name, whatever else the steps change: model, optimiser, moving average
    log:            a file for the values: one JSON object a line, with the means over `read_every` steps
    budget_minutes: training ends after the step during which this time is up; schedules stay those of `steps`
    progress:       whether to show a bar (on standard error) with the loss, the speed and the time left

    Raises TrainingError, which names the step and, from running it again, the op, when a loss is NaN or infinite.
    """
    if steps < 1 or read_every < 1:
        raise InputError(f"train: steps and read_every must be at least 1, not {steps} and {read_every}.")
    state = {"rng": rng, **(state or {})}
    start = time.perf_counter()
    deadline = math.inf if budget_minutes is None else start + 60 * budget_minutes
    done = 0
    with _Record(log, start) as record, _bar(steps, name, progress) as bar:
        while done < steps and (done == 0 or time.perf_counter() < deadline):
            before, first = _copy_of(state), done
            for i in range(first, min(first + read_every, steps)):
                record.add(step(i, rng))
                bar.update()
                done = i + 1
                if time.perf_counter() >= deadline:
                    break
            loss = record.read()
            if not np.all(np.isfinite(loss)):
                raise _explained(step, rng, state, before, first, loss)
            bar.set_postfix_str(f"loss {np.mean(loss):.4g}", refresh=False)
    return Training(done, time.perf_counter() - start, record.arrays(), out_of_time=done < steps)


def _copy_of(state: Mapping[str, Stateful]) -> dict[str, Any]:
    return {name: copy.deepcopy(part.state_dict()) for name, part in state.items()}


def _explained(step, rng, state, before, first, loss) -> TrainingError:
    """Runs the steps from `first` to the one that lost its loss again, under `detect_anomaly`; the error to raise."""
    from tinygen.autograd import detect_anomaly

    lost = int(np.flatnonzero(~np.isfinite(loss))[0])
    what = f"The loss is {loss[lost]} at step {first + lost}."
    for name, part in state.items():
        part.load_state_dict(before[name])
    try:
        with detect_anomaly():
            for i in range(first, first + lost + 1):
                at = i
                step(i, rng)
    except TinygenError as error:
        found = TrainingError(f"{what} Running the steps again under detect_anomaly() found this at step {at}: {error}")
        found.__cause__ = error
        return found
    return TrainingError(
        f"{what} Running the steps again from step {first} under detect_anomaly() met no NaN or infinity in any op: "
        "look for something that the step changes and `state` does not list, or draws from elsewhere than `rng`."
    )


class _Record:
    """The scalars of all steps; those not read yet may still be on a device. Each reading writes a line to the log."""

    def __init__(self, log: str | os.PathLike | None, start: float):
        self.log, self.start = log, start
        self.steps, self.unread, self.read_so_far = 0, [], []
        self.file = None

    def __enter__(self) -> _Record:
        if self.log is not None:
            make_folder(Path(self.log).parent)
            self.file = open(self.log, "w", encoding="utf-8")
        return self

    def __exit__(self, *_) -> None:
        if self.file is not None:
            self.file.close()

    def add(self, value: Any) -> None:
        """Keeps the scalars of one step, detached, or each would keep the graph of its step alive."""
        values = value if isinstance(value, Mapping) else {"loss": value}
        self.unread.append({name: v.detach() if hasattr(v, "detach") else v for name, v in values.items()})

    def read(self) -> np.ndarray:
        """The losses added since the last reading."""
        new = {name: np.array([_number(values[name], name) for values in self.unread]) for name in self.unread[0]}
        self.steps += len(self.unread)
        self.unread = []
        self.read_so_far.append(new)
        if self.file is not None:
            means = {name: float(np.mean(values)) for name, values in new.items()}
            line = {"step": self.steps, "seconds": round(time.perf_counter() - self.start, 3), **means}
            self.file.write(json.dumps(plain(line)) + "\n")
        return next(iter(new.values()))

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate([values[name] for values in self.read_so_far]) for name in self.read_so_far[0]}


def _number(value: Any, name: str) -> float:
    if getattr(value, "size", 1) != 1:
        raise InputError(f"train: the step function returned {name} of shape {value.shape}; a scalar is needed.")
    return float(value.item() if hasattr(value, "item") else value)


@contextlib.contextmanager
def _bar(steps: int, name: str, progress: bool) -> Iterator[Any]:
    """A tqdm bar; log messages (a kernel being compiled, say) appear above it rather than through it."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    interval = 0.1 if sys.stderr.isatty() else 5.0                          # seconds between two drawings
    with logging_redirect_tqdm() if progress else contextlib.nullcontext():
        with tqdm(total=steps, desc=name, unit="step", mininterval=interval, disable=not progress) as bar:
            yield bar
