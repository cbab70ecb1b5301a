"""What the benchmarks share: the settings that users have, a line about the machine, and rounds in which libraries take
turns, so that a slow moment of the machine hits all of them alike."""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # they would take away the BLAS kernels that users have


def unpin() -> None:
    """Start this program again without the settings that pin OpenBLAS. Call it before NumPy is imported."""
    if any(pin in os.environ for pin in PINS):
        print(f"({' and '.join(PINS)} unset for this run)", flush=True)
        env = {k: v for k, v in os.environ.items() if k not in PINS}
        os.execve(sys.executable, [sys.executable, *sys.argv], env)


def use_this_clone() -> None:
    """Import tinygen from the clone that holds this file."""
    sys.path.insert(0, str(Path(__file__).parents[2]))


def limit_threads(threads: int) -> None:
    """The same number of threads for every BLAS, OpenMP and Numba pool there is in this process so far."""
    import numba
    import threadpoolctl

    threadpoolctl.threadpool_limits(threads)
    numba.set_num_threads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def cores() -> set[int]:
    """The cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def hold_to(threads: int) -> None:
    """Keep this process, and all that it starts, to as many cores as there are threads: the one limit that every
    library obeys, JAX too, which takes as many threads as it finds cores."""
    if threads > len(cores()):
        raise SystemExit(f"{threads} threads do not fit on {len(cores())} cores.")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(cores())[:threads]))


def write(path: Path, facts: Any) -> None:
    """As JSON, all or nothing."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(facts, indent=2))
    unfinished.replace(path)


def machine() -> dict[str, Any]:
    """Processor, cores, and versions of what is compared."""
    import numpy as np

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    versions = {name: getattr(sys.modules.get(name), "__version__", None) for name in ("numba", "torch", "jax")}
    return {
        "processor": named[0] if named else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
    } | {name: version for name, version in versions.items() if version}


def described(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def take_turns(runs: Mapping[str, Callable[[], Any]], rounds: int, seconds: float = 0.2) -> dict[str, list[float]]:
    """Milliseconds for one call of each run, in every round; each turn takes about `seconds`, after one call to warm
    the caches again. The order is reversed in every other round."""
    calls = {}
    for name, run in runs.items():
        run()
        calls[name] = max(1, round(seconds / max(_time(run, 1), 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds):
        for name in list(runs) if i % 2 == 0 else reversed(list(runs)):
            gc.collect()
            runs[name]()
            times[name].append(1e3 * _time(runs[name], calls[name]))
    return times


def _time(run: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def summary(times: Mapping[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    """Median, quartiles, and how many times as long as the reference: the median over the rounds of the ratio."""
    table = {}
    for name, values in times.items():
        ordered = sorted(values)
        ratios = [value / ours for value, ours in zip(values, times[reference], strict=True)]
        low, high = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
        table[name] = {"median": median(values), "low": low, "high": high, "ratio": median(ratios)}
    return table
