"""Training steps of whole models and sampling from them: tinygen beside PyTorch eager and JAX under jit.

    python -m pip install torch==2.13.0 jax==0.10.2
    python tests/benchmarks/train_steps.py [--peers torch,jax] [--only 1,4] [--threads 2] [--json FILE]
    python tests/benchmarks/train_steps.py --memory             peak memory of workloads 3 and 4
    python tests/benchmarks/train_steps.py --table FILE ...     what --json wrote, as tables in Markdown

The workloads stand in `workloads/`, each with its model in the three libraries side by side. Every library starts from
the same weights, and is given the same data and noise, drawn beforehand, all in float32. A training step is forward,
backward, the optimiser and zero_grad. Before anything is timed, 20 steps are made in each library: a loss or a weight
that differs by more than 1e-3 (of 1, or of the number where that is larger) refuses the comparison; where a workload
draws samples, these must agree as closely.

Each library works in a process of its own and is held to the same cores and to as many threads as these are; while
one works, the others sleep. Each runs as it comes; tinygen inside `runtime.tuned()`, as its demos do, which asks the C
library to keep freed memory. With --keep-memory that is asked for the peers as well. They take turns in rounds, so that
a slow moment of the machine hits all of them alike. Ratios are those of a round, and the median of them is shown: above
1, tinygen is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import importlib.util
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness

harness.unpin()
harness.use_this_clone()

import numpy as np  # noqa: E402
import worker  # noqa: E402

STEPS, TOLERANCE = 20, 1e-3
WORKLOADS = {
    "1": "toy_diffusion",
    "2": "mlp_vae",
    "3": "unet",
    "4": "gpt",
    "5": "dcgan",
    "6": "wgan_gp",
    "7": "pixelcnn",
    "8a": "realnvp",
    "8b": "spline_flow",
    "9": "vqvae",
    "10a": "ddpm_sampling",
    "10b": "gpt_sampling",
    "10c": "ddim_sampling",
}
INSTALL = {"torch": "torch==2.13.0", "jax": "jax==0.10.2"}
NAMES = {"torch": "PyTorch", "jax": "JAX"}
KEEP_MEMORY = {f"MALLOC_{name}_": str(n) for name, n in (("TRIM_THRESHOLD", 2**30), ("MMAP_THRESHOLD", 2**25))}
HELD = ("3", "4")  # whose peak memory is compared


def main() -> None:
    options = asked()
    if options.table:
        print("\n\n".join(markdown([json.loads(path.read_text()) for path in options.table])))
        return
    harness.hold_to(options.threads)
    if options.keep_memory:
        os.environ |= KEEP_MEMORY
    libraries = ["tinygen", *present(options.peers)]
    save = lambda report: harness.write(options.json, merged(options.json, report)) if options.json else None
    if options.memory:
        remember(libraries, [number for number in options.only if number in HELD], options.threads, save)
    else:
        measure(libraries, options.only, options.threads, options.rounds, save)


def asked() -> argparse.Namespace:
    """The options, with peers and workloads as lists of those there are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="torch,jax", help=f"of {', '.join(INSTALL)}, with commas between")
    parser.add_argument("--only", default=",".join(WORKLOADS), help="numbers of workloads; 8 is 8a and 8b")
    parser.add_argument("--threads", type=int, default=len(harness.cores()))
    parser.add_argument("--rounds", type=int, default=15, help="fewer where a round takes long")
    parser.add_argument("--keep-memory", action="store_true", help="the peers keep freed memory too, as tinygen does")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--json", type=Path, help="also write the figures to this file, or add them to what it holds")
    parser.add_argument("--table", type=Path, nargs="+", help="only print the tables of files that --json wrote")
    options = parser.parse_args()
    options.peers = [peer for peer in options.peers.split(",") if peer]
    for peer in options.peers:
        if peer not in INSTALL:
            parser.error(f"there is no peer {peer!r}; there are {', '.join(INSTALL)}.")
    wanted = options.only.split(",")
    for number in wanted:
        if number not in WORKLOADS and number + "a" not in WORKLOADS:
            parser.error(f"there is no workload {number!r}; there are {', '.join(WORKLOADS)}.")
    options.only = [key for key in WORKLOADS if key in wanted or key.rstrip("abc") in wanted]
    return options


def present(peers: list[str]) -> list[str]:
    """Those of the peers that are installed; of the others it says how to."""
    for peer in peers:
        if importlib.util.find_spec(peer) is None:
            how = f"`python -m pip install {INSTALL[peer]}` adds it"
            print(f"{NAMES[peer]} is not installed and is left out; {how}.", flush=True)
    return [peer for peer in peers if importlib.util.find_spec(peer) is not None]


# -- time --------------------------------------------------------------------------------------------------------------


def measure(libraries: list[str], numbers: list[str], threads: int, rounds: int, save: Callable) -> None:
    """Compare the workloads one after the other; print a line for each library, and save what was found so far."""
    report = opening(threads)
    print(f"\n{'':5}{'workload':28}{'library':9}{'median':>10}{'quartiles':>22}{'over tinygen':>15}    ms")
    for number in numbers:
        with workers(libraries, WORKLOADS[number], threads) as crew:
            for pipe in crew.values():
                report["machine"] |= ask(pipe, "versions")
            title = importlib.import_module(f"workloads.{WORKLOADS[number]}").WORKLOAD.title
            disagreement = refuse_unless_equal(title, crew)
            rows = harness.summary(turns(crew, rounds), "tinygen")
        report["workloads"][number] = {"title": title, "disagreement": disagreement, "libraries": rows}
        for name, row in rows.items():
            spread = f"{row['low']:.2f} to {row['high']:.2f}"
            print(f"{number:5}{title:28}{name:9}{row['median']:10.2f}{spread:>22}{row['ratio']:15.2f}", flush=True)
        save(report)
    for peer, mean in means(report["workloads"]).items():
        print(f"\ngeometric mean of {NAMES[peer]} over tinygen: {mean:.2f}")


def opening(threads: int) -> dict[str, Any]:
    """The beginning of a report: settings and machine, which are also printed."""
    facts = harness.machine() | {"threads": threads, "date": datetime.date.today().isoformat()}
    if all(os.environ.get(name) == value for name, value in KEEP_MEMORY.items()):
        facts["freed memory"] = "kept by all"
    print(f"{harness.described(facts)}; {' and '.join(harness.PINS)} unset for all", flush=True)
    return {"machine": facts, "workloads": {}, "memory": {}}


@contextlib.contextmanager
def workers(libraries: list[str], workload: str, threads: int) -> Iterator[dict[str, Any]]:
    """A process for each library, ready to work, and the pipe to it by the library's name."""
    os.environ |= {f"{pool}_NUM_THREADS": str(threads) for pool in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    spawn, crew, processes = multiprocessing.get_context("spawn"), {}, []
    try:
        for library in libraries:
            crew[library], far = spawn.Pipe()
            processes.append(spawn.Process(target=worker.serve, args=(far, library, workload, threads), daemon=True))
            processes[-1].start()
            far.close()
        yield crew
    finally:
        for pipe in crew.values():
            pipe.close()
        for process in processes:
            process.join(10)


def ask(pipe: Any, *request: Any) -> Any:
    pipe.send(request)
    try:
        return pipe.recv()
    except EOFError:
        raise SystemExit("a library gave up; what it said stands above.") from None


def refuse_unless_equal(title: str, crew: dict[str, Any]) -> float:
    """What all libraries computed must agree with tinygen's; the largest difference."""
    found = {library: ask(pipe, "results", STEPS) for library, pipe in crew.items()}
    ours, worst = found.pop("tinygen"), 0.0
    for library, theirs in found.items():
        for key, value in ours.items():
            error = np.max(np.abs(value - theirs[key]) / np.maximum(1, np.abs(theirs[key])))
            if not error <= TOLERANCE:
                raise SystemExit(f"{title}: {key} differs by {error:.1e} from {NAMES[library]}'s: refused.")
            worst = max(worst, float(error))
    return worst


def turns(crew: dict[str, Any], rounds: int, seconds: float = 0.3) -> dict[str, list[float]]:
    """Milliseconds for one step of each library, in every round. A turn takes about `seconds`, after a step to warm up;
    a step that takes longer is a turn by itself. The order is reversed in every other round."""
    calls = {name: max(1, round(seconds / ask(pipe, "seconds", 1))) for name, pipe in crew.items()}
    warm = {name: calls[name] > 1 for name in crew}
    if not any(warm.values()):
        rounds = max(3, rounds // 3)
    times: dict[str, list[float]] = {name: [] for name in crew}
    for i in range(rounds):
        for name in list(crew) if i % 2 == 0 else reversed(list(crew)):
            if warm[name]:
                ask(crew[name], "seconds", 1)
            times[name].append(1e3 * ask(crew[name], "seconds", calls[name]))
    return times


def means(workloads: dict[str, Any]) -> dict[str, float]:
    """The geometric mean of each peer's ratios."""
    found = {}
    for peer in INSTALL:
        ratios = [row["libraries"][peer]["ratio"] for row in workloads.values() if peer in row["libraries"]]
        if ratios:
            found[peer] = float(np.exp(np.mean(np.log(ratios))))
    return found


# -- memory ------------------------------------------------------------------------------------------------------------


def remember(libraries: list[str], numbers: list[str], threads: int, save: Callable, steps: int = 4) -> None:
    """Peak memory of a few steps, in a fresh process for each library and workload."""
    report = opening(threads)
    for number in numbers:
        peaks = {}
        for library in libraries:
            with workers([library], WORKLOADS[number], threads) as crew:
                peaks[library] = ask(crew[library], "peak", steps)
                report["machine"] |= ask(crew[library], "versions")
        title = importlib.import_module(f"workloads.{WORKLOADS[number]}").WORKLOAD.title
        report["memory"][number] = {"title": title, "MiB": peaks}
        print(f"{number:5}{title:28}" + ", ".join(f"{name} {peak:.0f} MiB" for name, peak in peaks.items()), flush=True)
        save(report)


# -- reports -----------------------------------------------------------------------------------------------------------


def merged(path: Path, report: dict[str, Any]) -> dict[str, Any]:
    """The report with what the file holds already, if it was made with as many threads."""
    if not path.exists():
        return report
    before = json.loads(path.read_text())
    if before["machine"]["threads"] != report["machine"]["threads"]:
        raise SystemExit(f"{path} holds a run with {before['machine']['threads']} threads; give another file.")
    both = {kind: before[kind] | report[kind] for kind in ("machine", "workloads", "memory")}
    both["workloads"] = {number: both["workloads"][number] for number in WORKLOADS if number in both["workloads"]}
    return both


def markdown(reports: list[dict[str, Any]]) -> Iterator[str]:
    """A table for each report, with a sentence about machine and settings."""
    for report in reports:
        facts, rows = dict(report["machine"]), report["workloads"]
        peers = [peer for peer in INSTALL if any(peer in row["libraries"] for row in rows.values())]
        threads = facts.pop("threads")
        yield f"{threads} thread{'s' if threads > 1 else ''}; {harness.described(facts)}."
        heads = [f"{NAMES[peer]}, ms | ratio" for peer in peers]
        lines = [f"| | workload | tinygen, ms | {' | '.join(heads)} |", "|---" * (3 + 2 * len(peers)) + "|"]
        for number, row in rows.items():
            cells = [_time(row["libraries"]["tinygen"])]
            for peer in peers:
                theirs = row["libraries"].get(peer)
                cells += [_time(theirs), f"{theirs['ratio']:.2f}"] if theirs else ["", ""]
            lines.append(f"| {number} | {row['title']} | {' | '.join(cells)} |")
        found = means(rows)
        lines.append(f"| | geometric mean | | {' | '.join(f'| {found[peer]:.2f}' for peer in peers)} |")
        yield "\n".join(lines)
        for number, row in report["memory"].items():
            peaks = ", ".join(f"{NAMES.get(name, name)} {peak:.0f} MiB" for name, peak in row["MiB"].items())
            yield f"Peak memory of workload {number}: {peaks}."


def _time(row: dict[str, float]) -> str:
    """The median, with the quartiles' distance from it in per cent."""
    spread = 50 * (row["high"] - row["low"]) / row["median"]
    median = row["median"]
    return f"{median:,.0f} ± {spread:.0f}%" if median >= 100 else f"{median:.3g} ± {spread:.0f}%"


if __name__ == "__main__":
    main()
