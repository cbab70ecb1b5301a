"""The loop that every demo trains with: a progress bar, a log, a time budget, checkpoints to go on from, and an
explanation when the loss is lost.

The loop knows no model. It calls `step(i, rng)`, which does one optimiser step and returns its loss. It reads losses
only once every few steps, since reading a value from a GPU waits for all the work before it. At each reading it keeps a
copy of everything that changes (`state`), and three things follow from that copy:

- it is what a checkpoint holds, so that a training that was killed goes on bit for bit as if it had not been;
- on Ctrl-C, which may come in the middle of a step, it is the last moment at which everything fitted together;
- should a loss turn NaN or infinite, the steps since then run again under `detect_anomaly`, which names the op where it
  began.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.checkpoint import Checkpoint, Stateful, models_in, restore
from tinygen.errors import InputError, TinygenError
from tinygen.files import OutputError, explained, make_folder, plain, remove_leftovers, write_text
from tinygen.nn import Module
from tinygen.progress import bar as progress_bar
from tinygen.random import Generator

__all__ = ["Interrupted", "Stateful", "Training", "TrainingError", "accumulate", "train"]


class TrainingError(TinygenError):
    """Training cannot go on: the loss is no longer a finite number."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended training; `checkpoint` is the file to go on from, and holds the first `step` steps."""

    def __init__(self, checkpoint: Path, step: int):
        super().__init__(f"Stopped by Ctrl-C; {checkpoint} holds the first {step} steps, to go on from.")
        self.checkpoint, self.step = checkpoint, step


@dataclass(frozen=True)
class Training:
    """What a call of `train` did.

    steps:       how many steps are done, those of the checkpoint included
    resumed:     how many of them were in the checkpoint
    seconds:     how long they took, compilation included
    values:      (steps,) float64 arrays, one for each scalar that the step function returns; "loss" is the first
    out_of_time: whether the budget ended it before all steps were done
    """

    steps: int
    resumed: int
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
    checkpoint: str | os.PathLike | None = None,
    save_every: float = 20.0,
    save_every_steps: int | None = None,
    resume: str | os.PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Training:
    """Calls `step(i, rng)` for i = 0, 1, ..., steps - 1.

    step:             one optimiser step; returns the loss, a scalar (Tensor, array or number), or a dict of scalars,
                      the loss first. Whatever is random in it comes from `rng`.
    state:            by name, whatever else the steps change: model, optimiser, moving average, place in the data
    log:              a file for the values: one JSON object a line, with the means over `read_every` steps
    budget_minutes:   training ends after the step during which this time is up; schedules stay those of `steps`
    progress:         whether to show a bar (on standard error) with the loss, the speed and the time left
    checkpoint:       a file to save everything to, about every `save_every` seconds (or `save_every_steps` steps),
                      at the end, and on Ctrl-C, which is then raised as Interrupted
    resume:           a checkpoint to go on from. The state becomes that of the checkpoint and the log is written again
                      up to there; training ends as if it had never stopped, bit for bit, whatever stopped it.
    settings:         plain values that must be the same in the checkpoint for that to be true: the seed, the data

    Raises TrainingError, which names the step and, from running it again, the op, when a loss is NaN or infinite;
    OutputError when a file cannot be written, in which case the last checkpoint stays; InputError for a checkpoint that
    is not sound or is one of another training.
    """
    if steps < 1 or read_every < 1:
        raise InputError(f"train: steps and read_every must be at least 1, not {steps} and {read_every}.")
    state = _everything(state or {}, rng)
    settings = plain({"name": name, **(settings or {}), "steps": steps, "read_every": read_every})
    start = time.perf_counter()
    deadline = math.inf if budget_minutes is None else start + 60 * budget_minutes
    record = _Record()
    if resume is not None:
        start -= _resume(resume, state, settings, record)
    done = resumed = record.steps
    if done == steps:  # there is nothing to do, so nothing is written
        return Training(steps, steps, time.perf_counter() - start, record.arrays(), out_of_time=False)
    saver = _Saver(checkpoint, resume, steps, settings, state, record, start)
    with record.logged_to(log, start), progress_bar(steps, name, done=done, shown=progress) as bar:
        before, ended = _Moment(state, record), False
        try:
            while not ended:
                first, until = done, min(done - done % read_every + read_every, steps)
                for i in range(first, until):
                    record.add(step(i, rng))
                    bar.update()
                    done = i + 1
                    if time.perf_counter() >= deadline:
                        break
                ended = done == steps or time.perf_counter() >= deadline
                loss = record.read(whole=done == until)
                if not np.all(np.isfinite(loss)):
                    raise _explained(step, rng, state, before.state, first, loss)
                bar.set_postfix_str(f"loss {np.mean(loss):.4g}", refresh=False)
                before = _Moment(state, record)
                if ended or saver.due(save_every, save_every_steps):
                    saver.save(before, last=ended)
        except OutputError as error:
            raise OutputError(f"Training stopped after step {record.steps}. {saver.there()}{error}") from error
        except KeyboardInterrupt:
            if before.step:
                saver.save(before)
            if saver.saved:
                raise Interrupted(saver.path, saver.saved) from None
            raise
    return Training(done, resumed, time.perf_counter() - start, record.arrays(), out_of_time=done < steps)


def accumulate(loss: Callable[[int], Any], parts: int) -> Any:
    """Backward through the mean of loss(0), ..., loss(parts - 1), one after the other; returns that mean, detached.

    The gradients add up to those of one large batch, in the memory of a small one: `loss(j)` is the mean loss of the
    j-th of `parts` batches of equal size.
    """
    if parts < 1:
        raise InputError(f"accumulate: parts must be at least 1, not {parts}.")
    total: Any = 0.0
    for j in range(parts):
        part = loss(j) / parts
        part.backward()
        total = total + part.detach()
    return total


def _everything(state: Mapping[str, Stateful], rng: Generator) -> dict[str, Stateful]:
    """All that the steps may change: the parts, the generators that modules keep, and `rng`."""
    kept = {}
    for name, part in state.items():
        if isinstance(part, Module):
            kept |= {f"{name}.{path}": generator for path, generator in part.named_generators()}
    return {"rng": rng, **state, **kept}


class _Moment:
    """A copy of everything that changes, and how far the record was then."""

    def __init__(self, state: Mapping[str, Stateful], record: _Record):
        self.state = {name: copy.deepcopy(dict(part.state_dict())) for name, part in state.items()}
        self.step, self.lines = record.steps, len(record.lines)


# -- checkpoints -------------------------------------------------------------------------------------------------------


class _Saver:
    """Writes the checkpoint, and knows when it last did. Without a path it does nothing."""

    def __init__(self, path, resumed_from, steps, settings, state, record, start):
        self.path = None if path is None else Path(path)
        self.steps, self.settings, self.record, self.start = steps, settings, record, start
        self.saved_at, self.saved = time.perf_counter(), None
        if self.path is None:
            return
        if resumed_from is not None and self.path.absolute() == Path(resumed_from).absolute():
            self.saved = record.steps
        self.models = models_in(state)
        self.weights = {name: [n for n, _ in state[name].named_parameters()] for name in self.models}
        make_folder(self.path.parent)
        remove_leftovers(self.path)

    def due(self, seconds: float, steps: int | None) -> bool:
        if steps is not None:
            return self.record.steps - (self.saved or 0) >= steps
        return time.perf_counter() - self.saved_at >= seconds

    def save(self, moment: _Moment, last: bool = False) -> None:
        """Writes what was copied. Weights that are not finite are not worth keeping: the checkpoint before them is, and
        the next loss will tell; after the `last` step, TrainingError does."""
        if self.path is None or moment.step == self.saved:
            return
        arrays = [moment.state[name][weight] for name, weights in self.weights.items() for weight in weights]
        if not all(np.all(np.isfinite(array)) for array in arrays):
            if last:
                raise TrainingError(f"Step {moment.step - 1} left weights that are NaN or infinite. {self.there()}")
            return
        record = self.record
        checkpoint = Checkpoint(
            step=moment.step,
            steps=self.steps,
            state=moment.state,
            settings=self.settings,
            models=self.models,
            values={name: values[: moment.step] for name, values in record.arrays().items()},
            lines=np.array(record.lines[: moment.lines], np.float64).reshape(-1, 2),
            seconds=time.perf_counter() - self.start,
        )
        checkpoint.write(self.path)
        self.saved, self.saved_at = moment.step, time.perf_counter()

    def there(self) -> str:
        """Where the last good checkpoint is, as a sentence."""
        return f"{self.path} holds the first {self.saved} steps, to go on from. " if self.saved else ""


def _resume(path, state: Mapping[str, Stateful], settings: Mapping[str, Any], record: _Record) -> float:
    """Makes everything as it was when the checkpoint was written; how many seconds training had taken by then."""
    path = os.fspath(path)
    checkpoint = Checkpoint.read(path)
    differ = [
        f"{name} is {settings.get(name, 'not set')!r} here and {checkpoint.settings.get(name, 'not set')!r} there"
        for name in {**checkpoint.settings, **settings}
        if settings.get(name) != checkpoint.settings.get(name)
    ]
    if differ:
        raise InputError(f"{path} is the checkpoint of another training: {'; '.join(differ)}.")
    if set(state) != set(checkpoint.state):
        raise InputError(
            f"{path} is the checkpoint of another training: it holds the state of {', '.join(checkpoint.state)}, while "
            f"that of {', '.join(state)} is needed."
        )
    before = _Moment(state, record)
    try:
        for name, part in state.items():
            restore(part, checkpoint.state[name], f"{path} does not fit {name}")
    except InputError:
        for name, part in state.items():
            part.load_state_dict(before.state[name])
        raise
    record.go_on_from(checkpoint)
    return checkpoint.seconds


# -- telling what went wrong -------------------------------------------------------------------------------------------


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


# -- the record --------------------------------------------------------------------------------------------------------


class _Record:
    """The scalars of all steps, and the log of their means; those not read yet may still be on a device.

    A line of the log is the mean over the steps since the line before it, and is written at every whole reading. When
    training ends early the steps since then get a line as well, which is gone again when training goes on.
    """

    def __init__(self):
        self.values: dict[str, list[float]] = {}
        self.steps, self.unread, self.file = 0, [], None
        self.lines: list[tuple[int, float]] = []  # the step and the seconds of each

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        self.values, self.steps = {name: values.tolist() for name, values in checkpoint.values.items()}, checkpoint.step
        self.lines = [(int(step), seconds) for step, seconds in checkpoint.lines.tolist()]

    @contextlib.contextmanager
    def logged_to(self, path: str | os.PathLike | None, start: float) -> Iterator[None]:
        """Within this context lines go to the file `path`, which begins with those there are already."""
        self.path, self.start = path, start
        if path is None:
            yield
            return
        make_folder(Path(path).parent)
        remove_leftovers(path)
        write_text(path, "".join(self._line(i) for i in range(len(self.lines))))
        with explained(path):
            self.file = open(path, "a", encoding="utf-8", buffering=1)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # if the disk is full, what failed in the block has told
                if self.steps > (self.lines[-1][0] if self.lines else 0):
                    self.file.write(self._line(len(self.lines), time.perf_counter() - start))
                self.file.close()

    def add(self, value: Any) -> None:
        """Keeps the scalars of one step, detached, or each would keep the graph of its step alive."""
        values = value if isinstance(value, Mapping) else {"loss": value}
        self.unread.append({name: v.detach() if hasattr(v, "detach") else v for name, v in values.items()})

    def read(self, whole: bool) -> np.ndarray:
        """The losses added since the last reading; a `whole` one writes a line to the log."""
        names = list(self.values or self.unread[0])
        for values in self.unread:
            if list(values) != names:
                raise InputError(f"train: the step function returned {', '.join(values)} after {', '.join(names)}.")
        new = {name: [_number(values[name], name) for values in self.unread] for name in names}
        for name, values in new.items():
            self.values.setdefault(name, []).extend(values)
        self.steps += len(self.unread)
        self.unread = []
        if whole:
            self.lines.append((self.steps, round(time.perf_counter() - self.start, 3)))
            if self.file is not None:
                with explained(self.path):
                    self.file.write(self._line(len(self.lines) - 1))
        return np.array(next(iter(new.values())))

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.array(values) for name, values in self.values.items()}

    def _line(self, i: int, seconds: float = 0.0) -> str:
        """Line i of the log; one more than there are is that of the steps left over."""
        step, seconds = self.lines[i] if i < len(self.lines) else (self.steps, round(seconds, 3))
        first = self.lines[i - 1][0] if i else 0
        means = {name: float(np.mean(values[first:step])) for name, values in self.values.items()}
        return json.dumps(plain({"step": step, "seconds": seconds, **means})) + "\n"


def _number(value: Any, name: str) -> float:
    if getattr(value, "size", 1) != 1:
        raise InputError(f"train: the step function returned {name} of shape {value.shape}; a scalar is needed.")
    return float(value.item() if hasattr(value, "item") else value)
