"""One library at work in a process of its own, as its users have it, doing what the runner asks for through a pipe.

So no library sees another one's threads, memory or settings, and those that wait for their turn sleep.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = 4  # different ones, which steps are given in turn


def serve(pipe: Any, library: str, workload: str, threads: int) -> None:
    """Answer requests (name, arguments) until the pipe closes: the answer, or the text of what went wrong."""
    try:
        worker = Worker(library, workload, threads)
        while True:
            name, *arguments = pipe.recv()
            pipe.send(getattr(worker, name)(*arguments))
    except EOFError:
        return


class Worker:
    def __init__(self, library: str, workload: str, threads: int):
        self.side = importlib.import_module(f"in_{library}")
        self.work = importlib.import_module(f"workloads.{workload}").WORKLOAD
        self.library, self.threads = library, threads
        self.step, self.weights = self.side.prepare(self.work, self.data(), threads)

    def data(self) -> list[list[np.ndarray]]:
        from tinygen.random import Generator

        draw = getattr(self.work, "batch", None) or self.work.noise
        batches = BATCHES if draw is not getattr(self.work, "noise", None) else 1
        return [[np.asarray(a) for a in draw(Generator(1 + i))] for i in range(batches)]

    def versions(self) -> dict[str, str]:
        """Of the library; of tinygen's side that of Numba, which compiles its kernels."""
        title = {"tinygen": "Numba", "torch": "PyTorch", "jax": "JAX"}[self.library]
        name = {"tinygen": "numba"}.get(self.library, self.library)
        return {title: importlib.import_module(name).__version__}

    def results(self, steps: int) -> dict[str, np.ndarray]:
        """What has to agree: the losses of that many steps and the weights after them, or samples."""
        if hasattr(self.work, "noise"):
            return {"samples": self.side.samples(self.step()[0])}
        losses = [[self.side.number(value) for value in self.step()] for _ in range(steps)]
        return {"loss": np.array(losses)} | self.weights()

    def seconds(self, calls: int) -> float:
        """For one step, on average over that many."""
        gc.collect()
        start = time.perf_counter()
        for _ in range(calls):
            self.step()
        return (time.perf_counter() - start) / calls

    def peak(self, steps: int) -> float:
        """MiB that steps take at their peak, beyond what is there before: library loaded, model, weights and data made,
        all code compiled by a step with the first two examples of a batch, and what that left given back."""
        self.side.prepare(self.work, [[a[:2] for a in batch] for batch in self.data()], self.threads)[0]()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before = _resident("VmRSS")
        for _ in range(steps):
            self.step()
        return _resident("VmHWM") - before


def _resident(what: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024
