"""What the runner hands to a demo: its options, its generator, its folder, and a place to put what it measured."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.errors import InputError
from tinygen.files import atomic
from tinygen.progress import bar
from tinygen.random import Generator
from tinygen.training import Stateful, Training, train

BATCH = 1000  # samples drawn at once: --sample takes the memory of so many and of the result


@dataclass(frozen=True)
class Metric:
    """A measured number and what it is held against: a reference with its name, a bar from below, above or both."""

    name: str
    value: float
    reference: float | None = None
    reference_name: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None if there is no bar. NaN meets none."""
        if self.at_least is None and self.at_most is None:
            return None
        low = -np.inf if self.at_least is None else self.at_least
        high = np.inf if self.at_most is None else self.at_most
        return bool(low <= self.value <= high)


@dataclass
class Run:
    """One run of a demo with one seed.

    seed, rng: the seed, and the generator made from it
    steps:     training steps to do
    quick:     whether to run the same path in seconds: less of everything that takes time
    out:       the folder that everything is written to
    draws:     whether to draw pictures; with --seeds only the first run does
    data:      the name given to --data, or the demo's first; None if it has no choice
    device:    "cpu"
    resume:    a checkpoint to go on from, or None
    settings:  what a checkpoint must agree in for that: the demo, the seed, ...
    """

    seed: int
    steps: int
    out: Path
    quick: bool = False
    draws: bool = True
    data: str | None = None
    device: str = "cpu"
    budget_minutes: float | None = None
    sample: int | None = None
    metrics: list[Metric] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    resume: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps_done: int = 0
    steps_resumed: int = 0
    out_of_time: bool = False

    def __post_init__(self):
        self.rng = Generator(self.seed)
        self.started = time.perf_counter()

    def path(self, name: str) -> Path:
        """Where to write the file `name`, which the list of files at the end will show."""
        path = self.out / name
        if path not in self.files:
            self.files.append(path)
        return path

    def train(
        self, step: Callable[[int, Generator], Any], state: Mapping[str, Stateful], *, name: str = "training", **options
    ) -> Training:
        """`tinygen.training.train` with this run's steps, generator, budget, log and checkpoint, unless `options` say
        otherwise. Under --resume it goes on from the checkpoint, and from a complete one at once.

        A budget covers the whole run: a second training, which needs a `name`, gets what the first has left.
        """
        label = "" if name == "training" else f"_{name.replace(' ', '_')}"
        log, checkpoint = self.path(f"log{label}.jsonl"), self.path(f"checkpoint{label}.npz")
        left = None if self.budget_minutes is None else self.budget_minutes - (time.perf_counter() - self.started) / 60
        settings = {
            "steps": self.steps,
            "rng": self.rng,
            "log": log,
            "budget_minutes": left,
            "checkpoint": checkpoint,
            "resume": self._resumed(checkpoint),
            "settings": self.settings,
        }
        training = train(step, state=state, name=name, **{**settings, **options})
        self.steps_done += training.steps
        self.steps_resumed += training.resumed
        self.out_of_time |= training.out_of_time
        return training

    def _resumed(self, checkpoint: Path) -> Path | None:
        """What a training goes on from: the first from the checkpoint of the run, a later one from its own, if any."""
        first = sum(file.name.startswith("checkpoint") for file in self.files) == 1
        if self.resume is None:
            for stale in set(self.out.glob("checkpoint_*.npz")) - set(self.files):  # left by an earlier run
                stale.unlink()
            return None
        file = self.resume if first else self.resume.with_name(checkpoint.name)
        return file if first or file.exists() else None

    def progress(self, items: Sequence, name: str, unit: str = "step") -> Iterator:
        """Goes through `items` under a bar, as training has one: for whatever else takes seconds."""
        with bar(len(items), name, unit=unit) as shown:
            for item in items:
                yield item
                shown.update()

    def metric(
        self,
        name: str,
        value: float,
        *,
        reference: float | None = None,
        reference_name: str = "",
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Notes a measured number for the table and metrics.json, beside what it is held against."""
        if any(metric.name == name for metric in self.metrics):
            raise InputError(f"metric {name!r} is measured twice in one run; give each its own name.")
        numbers = [None if x is None else float(x) for x in (value, reference, at_least, at_most)]
        self.metrics.append(Metric(name, numbers[0], numbers[1], reference_name, numbers[2], numbers[3]))

    @property
    def only_samples(self) -> bool:
        """Whether nothing but samples is wanted: --sample, with the checkpoint of a training that is complete."""
        return self.sample is not None and 0 < self.steps_done == self.steps_resumed

    def save_samples(
        self, draw: Callable[[int], np.ndarray], picture: Callable[[np.ndarray], Any] | None = None
    ) -> bool:
        """With --sample N, writes N samples to samples.npz; `draw(n)` makes n of them, and is called for a batch each.

        Returns whether that was all that is wanted, so that the demo can leave out measuring and drawing; `picture`,
        if given, is then called with the samples to draw them.
        """
        if self.sample is not None:
            state = self.rng.state_dict()
            batches = self.progress(range(0, self.sample, BATCH), "samples", unit="batch")
            samples = np.concatenate([draw(min(BATCH, self.sample - i)) for i in batches])
            self.rng.load_state_dict(state)  # what is measured next must not depend on --sample
            with atomic(self.path("samples.npz")) as temporary:
                np.savez(temporary, samples=samples)
            if self.only_samples and picture is not None:
                picture(samples)
        return self.only_samples
