"""What is said when a demo is done: the table of metrics, metrics.json, the list of files."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
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


def metrics_table(runs: Sequence[Run]) -> str:
    """Each metric beside its reference and bar, over all runs: mean and spread (the standard deviation over seeds)."""
    rows = [("metric", "value", "reference", "bar", "met")]
    for over_seeds in by_name(runs).values():
        reference, name = _mean(m.reference for m in over_seeds), over_seeds[0].reference_name
        met = [m.met for m in over_seeds]
        rows.append(
            (
                over_seeds[0].name,
                _spread([m.value for m in over_seeds]),
                "" if reference is None else f"{reference:.4g} {name}".rstrip(),
                _bar(over_seeds),
                "" if met[0] is None else ("yes" if met[0] else "no") if len(met) == 1 else f"{sum(met)} of {len(met)}",
            )
        )
    return table(rows, right=(1,)) if len(rows) > 1 else "This demo measured nothing."


def by_name(runs: Sequence[Run]) -> dict[str, list[Metric]]:
    """For each metric, its measurements over the runs that made it."""
    found: dict[str, list[Metric]] = {}
    for run in runs:
        for metric in run.metrics:
            found.setdefault(metric.name, []).append(metric)
    return found


def write_metrics(entry: Entry, runs: Sequence[Run], settings: dict[str, Any], seconds: float) -> None:
    """OUT/metrics.json: what was measured, under which settings, seeds and versions, in how many seconds."""
    metrics = {}
    for name, over_seeds in by_name(runs).items():
        values = [m.value for m in over_seeds]
        metrics[name] = {
            "mean": np.mean(values),
            "std": np.std(values, ddof=1) if len(values) > 1 else None,
            "values": values,
            "reference": _mean(m.reference for m in over_seeds),
            "reference_name": over_seeds[0].reference_name or None,
            "at_least": _mean(m.at_least for m in over_seeds),
            "at_most": _mean(m.at_most for m in over_seeds),
            "met": [m.met for m in over_seeds],
        }
    write_json(
        runs[0].path("metrics.json"),
        {
            "demo": entry.name,
            "settings": settings,
            "seeds": [run.seed for run in runs],
            "steps_done": [run.steps_done for run in runs],
            "out_of_time": any(run.out_of_time for run in runs),
            "seconds": round(seconds, 2),
            "metrics": metrics,
            "versions": {"python": platform.python_version(), **versions()},
            "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        },
    )


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


def _spread(values: list[float]) -> str:
    """The mean, with the standard deviation where there is one, both to its second digit or the mean's fourth."""
    mean, std = np.mean(values), np.std(values, ddof=1) if len(values) > 1 else 0.0
    if not 0 < std < np.inf:
        return f"{mean:.4g}" + (f" ± {std:.2g}" if len(values) > 1 else "")
    digits = [3 - np.floor(np.log10(abs(mean))) if mean else np.inf, 1 - np.floor(np.log10(std))]
    decimals = max(0, int(min(digits)))
    return f"{mean:.{decimals}f} ± {std:.{decimals}f}"


def _bar(over_seeds: list[Metric]) -> str:
    low, high = _mean(m.at_least for m in over_seeds), _mean(m.at_most for m in over_seeds)
    if low is not None and high is not None:
        return f"{low:.4g} to {high:.4g}"
    return f">= {low:.4g}" if low is not None else f"<= {high:.4g}" if high is not None else ""
