"""What an op costs beyond its arithmetic: tinygen beside NumPy, PyTorch and HIPS autograd, in one run.

    python -m pip install torch==2.13.0 autograd
    python tests/benchmarks/op_overhead.py [--json FILE]

Two tables. The first: a tracked elementwise op on (16, 16) float32, less the NumPy call that it wraps. The second:
forward and backward through a mixed graph of 1,000 small ops, the same one in each library; its gradients must agree.
The libraries take turns, round by round, and medians over the rounds are printed, so that a slow moment of the machine
hits all of them alike. A library that is not installed is left out, and the table says so.
"""

import argparse
import gc
import importlib
import json
import os
import platform
import sys
import timeit
from pathlib import Path
from statistics import median

PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
if any(pin in os.environ for pin in PINS):  # they would take away the BLAS kernels that users have
    print(f"({' and '.join(PINS)} unset for this run)", flush=True)
    os.execve(sys.executable, [sys.executable, *sys.argv], {k: v for k, v in os.environ.items() if k not in PINS})

import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2]))
import tinygen  # noqa: E402
from tinygen import ops  # noqa: E402

SIDE = 16
BLOCKS = 100  # of ten ops each


def values(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return tuple(rng.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in [(SIDE, SIDE), (SIDE, SIDE), (SIDE,)])


def mixed(x, w, b, m):
    """A thousand ops of ten kinds; `m` is the library's module of functions."""
    h = x
    for _ in range(BLOCKS):
        h = m.tanh(h @ w + b)
        s = m.exp(-h * 0.5)
        h = h * s - x / (s + 2.0)
        h = h.reshape(SIDE, SIDE)
    return h.sum()


# -- the libraries -----------------------------------------------------------------------------------------------------


def with_tinygen():
    x, w, b = [tinygen.tensor(a, requires_grad=True) for a in values()]

    def run():
        for leaf in (x, w, b):
            leaf.grad = None
        mixed(x, w, b, ops).backward()
        return [leaf.grad for leaf in (x, w, b)]

    return run


def with_torch():
    torch = importlib.import_module("torch")
    x, w, b = [torch.tensor(a, requires_grad=True) for a in values()]

    def run():
        for leaf in (x, w, b):
            leaf.grad = None
        mixed(x, w, b, torch).backward()
        return [leaf.grad.numpy() for leaf in (x, w, b)]

    return run


def with_autograd():
    autograd = importlib.import_module("autograd")
    functions = importlib.import_module("autograd.numpy")
    arguments = values()
    gradient = autograd.grad(lambda leaves: mixed(*leaves, functions))
    return lambda: list(gradient(arguments))


def libraries() -> dict:
    runs = {}
    for name, make in [("tinygen", with_tinygen), ("PyTorch", with_torch), ("HIPS autograd", with_autograd)]:
        try:
            runs[name] = make()
        except ImportError:
            print(f"{name} is not installed: left out.")
    return runs


# -- the two measurements ----------------------------------------------------------------------------------------------


def overhead(rounds: int, calls: int) -> dict[str, dict[str, float]]:
    """Microseconds per call: the NumPy call, the tracked op, and the median of their differences round by round."""
    a, c, _ = values()
    x, y = (tinygen.tensor(v, requires_grad=True) for v in (a, c))
    cases = {
        "x + y": (lambda: np.add(a, c), lambda: x + y),
        "x * y": (lambda: np.multiply(a, c), lambda: x * y),
        "x * 2.0": (lambda: np.multiply(a, 2.0), lambda: x * 2.0),
        "-x": (lambda: np.negative(a), lambda: -x),
        "exp(x)": (lambda: np.exp(a), lambda: ops.exp(x)),
        "tanh(x)": (lambda: np.tanh(a), lambda: ops.tanh(x)),
        "maximum(x, y)": (lambda: np.maximum(a, c), lambda: ops.maximum(x, y)),
    }
    table = {}
    for name, (plain, tracked) in cases.items():
        pairs = [[timeit.timeit(f, number=calls) / calls * 1e6 for f in (plain, tracked)] for _ in range(rounds)]
        table[name] = {
            "numpy": median(p for p, _ in pairs),
            "tinygen": median(t for _, t in pairs),
            "python": median(t - p for p, t in pairs),
        }
    return table


def graph(rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds for forward and backward through the mixed graph, per library."""
    runs = libraries()
    reference = runs["tinygen"]()
    for name, run in runs.items():
        for ours, theirs in zip(reference, run(), strict=True):
            if not np.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(ours).max()):
                raise SystemExit(f"{name} computes other gradients: the comparison is refused.")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()
            times[name].append(timeit.timeit(run, number=3) / 3 * 1e3)
    best = {name: {"median": median(t), "min": min(t), "max": max(t)} for name, t in times.items()}
    for name in runs:
        ratios = [other / ours for other, ours in zip(times[name], times["tinygen"], strict=True)]
        best[name]["ratio"] = median(ratios)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {os.cpu_count()} cores\n")
    ops_table = overhead(options.rounds, options.calls)
    print(f"{'tracked op':16}{'NumPy call':>12}{'tinygen':>12}{'beyond NumPy':>15}   microseconds; bar: 1.5")
    for name, row in ops_table.items():
        print(f"{name:16}{row['numpy']:12.2f}{row['tinygen']:12.2f}{row['python']:15.2f}")
    graph_table = graph(options.rounds)
    print(f"\n{'1,000 mixed ops':16}{'median':>12}{'min':>12}{'max':>12}{'over tinygen':>15}   ms, forward + backward")
    for name, row in graph_table.items():
        print(f"{name:16}{row['median']:12.2f}{row['min']:12.2f}{row['max']:12.2f}{row['ratio']:15.2f}")
    if options.json:
        options.json.write_text(json.dumps({"ops": ops_table, "graph": graph_table}, indent=2))


if __name__ == "__main__":
    main()
