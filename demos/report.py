"""What a demo measured: the table that is printed, and metrics.json, which the learning path is made of."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demos.catalogue import Entry
from demos.run import Metric, Run
from tinygen.files import write_json

LIBRARIES = ("tinygen", "numpy", "numba", "scipy", "matplotlib")


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns under a header (the first row), those listed in `right` aligned to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        return "  ".join(cells).rstrip()

    return "\n".join([line(rows[0]), "  ".join("-" * w for w in widths), *(line(row) for row in rows[1:])])


def summary(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """For each metric, its values over the runs that measured it, beside its reference and its bar."""
    found: dict[str, list[Metric]] = {}
    for run in runs:
        for metric in run.metrics:
            found.setdefault(metric.name, []).append(metric)
    return {name: _over_seeds(metrics) for name, metrics in found.items()}


def _over_seeds(metrics: Sequence[Metric]) -> dict[str, Any]:
    values = [m.value for m in metrics]
    return {
        "mean": np.mean(values),
        "std": np.std(values, ddof=1) if len(values) > 1 else None,
        "values": values,
        "reference": _mean(m.reference for m in metrics),
        "reference_name": metrics[0].reference_name or None,
        "at_least": _mean(m.at_least for m in metrics),
        "at_most": _mean(m.at_most for m in metrics),
        "met": [m.met for m in metrics],
    }


def in_words(metrics: dict[str, dict[str, Any]]) -> list[tuple[str, str, str, str, str]]:
    """Rows of a `summary`, or of metrics.json: name, value, reference, bar, and whether that is met.

    A value is the mean over seeds with its spread, the standard deviation.
    """
    return [
        (name, _spread(m["values"]), _reference(m), _bar(m["at_least"], m["at_most"]), _met(m["met"]))
        for name, m in metrics.items()
    ]


def metrics_table(runs: Sequence[Run]) -> str:
    """What is printed at the end of a run."""
    rows = [("metric", "value", "reference", "bar", "met"), *in_words(summary(runs))]
    return table(rows, right=(1,)) if len(rows) > 1 else "This demo measured nothing."


def write_metrics(
    entry: Entry, runs: Sequence[Run], settings: dict[str, Any], seconds: float, cpu_seconds: float
) -> None:
    """OUT/metrics.json: what was measured, under which settings, seeds and versions, when, where, and in what time."""
    write_json(
        runs[0].path("metrics.json"),
        {
            "demo": entry.name,
            "settings": settings,
            "seeds": [run.seed for run in runs],
            "steps_done": [run.steps_done for run in runs],
            "steps_resumed": [run.steps_resumed for run in runs],
            "out_of_time": any(run.out_of_time for run in runs),
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu_seconds, 2),
            "date": datetime.date.today().isoformat(),
            "metrics": summary(runs),
            "versions": {"python": platform.python_version(), **versions()},
            "machine": {"system": platform.system(), "processor": processor(), "cores": os.cpu_count()},
        },
    )


def processor() -> str:
    """What the system calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()  # Linux; elsewhere there is no such file
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The versions of the libraries that are installed (tinygen itself also runs from a clone that is not)."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def _mean(values) -> float | None:
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else None


def _spread(values: Sequence[float | None]) -> str:
    """The mean, with the standard deviation where there is one, both to its second digit or the mean's fourth.

    None is what JSON has in place of NaN.
    """
    values = [np.nan if value is None else value for value in values]
    mean, std = np.mean(values), np.std(values, ddof=1) if len(values) > 1 else 0.0
    if not 0 < std < np.inf:
        return f"{mean:.4g}" + (f" ± {std:.2g}" if len(values) > 1 else "")
    digits = [3 - np.floor(np.log10(abs(mean))) if mean else np.inf, 1 - np.floor(np.log10(std))]
    decimals = max(0, int(min(digits)))
    if decimals > 8:
        return f"{mean:.2g} ± {std:.2g}"
    return f"{mean:.{decimals}f} ± {std:.{decimals}f}"


def _reference(m: dict[str, Any]) -> str:
    return "" if m["reference"] is None else f"{m['reference']:.4g} {m['reference_name'] or ''}".rstrip()


def _bar(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{low:.4g} to {high:.4g}" if low != high else f"{low:.4g}"
    return f">= {low:.4g}" if low is not None else f"<= {high:.4g}" if high is not None else ""


def _met(met: list[bool | None]) -> str:
    if met[0] is None:
        return ""
    return f"{sum(met)} of {len(met)}" if len(met) > 1 else "yes" if met[0] else "no"
