"""What a person waits for before anything happens, each in fresh processes.

    python tests/benchmarks/start_up.py [--runs 11] [--json FILE]

    import       `import tinygen`, beyond NumPy's own import, with Python's byte code in place as after a first run; and
                 with none at all, neither tinygen's nor that of Python's own library, as when a folder is read-only
    cold start   the network of demos/ddpm_8gaussians.py, its loss, Adam and moving average: from the first line to the
                 end of the first training step, with an empty folder for Numba's compiled kernels
    warm start   the same, with the kernels on disk

The cold start must say that it is compiling, or the benchmark fails: a person who waits should know for what.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import harness

harness.unpin()

CLONE = Path(__file__).parents[2]
BARS = {"import": 0.05, "cold start": 15.0, "warm start": 1.0}  # seconds

IMPORT = """
import time, numpy
start = time.perf_counter()
import tinygen
print(time.perf_counter() - start)
"""

FIRST_STEP = """
import time
start = time.perf_counter()
from tinygen import nn, optim, runtime
from tinygen.models import DDPM, Schedule
from tinygen.random import Generator
with runtime.tuned():
    rng = Generator(0)
    net = nn.ResidualMLP(2, 2, width=96, blocks=2, time=32, rng=rng)
    model = DDPM(net, Schedule.cosine(100), shape=(2,), predicts="v")
    adam, ema = optim.Adam(net.parameters()), optim.EMA(net)
    model.loss(rng.normal((256, 2)), rng).backward()
    adam.step()
    adam.zero_grad()
    ema.update()
print(time.perf_counter() - start)
"""


def seconds(code: str, **environment: str) -> tuple[float, str]:
    """What the code prints, in a fresh process, and what it says on standard error."""
    env = {**os.environ, "PYTHONPATH": str(CLONE), "PYTHONDONTWRITEBYTECODE": "", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return float(done.stdout), done.stderr


def measure(runs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        byte_code = {"PYTHONPYCACHEPREFIX": f"{folder}/bytecode", "NUMBA_CACHE_DIR": f"{folder}/kernels"}
        none = {"PYTHONPYCACHEPREFIX": f"{folder}/nothing", "PYTHONDONTWRITEBYTECODE": "1"}
        seconds(IMPORT, **byte_code)
        cold, said = seconds(FIRST_STEP, **byte_code)
        if "compiling" not in said:
            raise SystemExit("The cold start compiled kernels and did not say so.")
        return {
            "import": median(seconds(IMPORT, **byte_code)[0] for _ in range(runs)),
            "import without byte code": median(seconds(IMPORT, **none)[0] for _ in range(runs)),
            "cold start": cold,
            "warm start": median(seconds(FIRST_STEP, **byte_code)[0] for _ in range(runs)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=11, help="fresh processes for each median")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    print(harness.described(harness.machine()), "\n")
    table = measure(options.runs)
    for name, value in table.items():
        print(f"{name:28}{value:8.3f} s" + (f"   (at most {BARS[name]:g})" if name in BARS else ""))
    if options.json:
        options.json.write_text(json.dumps({"machine": harness.machine(), "seconds": table}, indent=2))


if __name__ == "__main__":
    main()
