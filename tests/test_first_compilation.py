"""Kernels are compiled by whichever thread calls first; that others call at the same moment must not matter."""

import os
import subprocess
import sys

CODE = """
import threading
import numpy as np
import tinygen
from tinygen import ops

x = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
start, results = threading.Barrier(4), []

def work():
    start.wait()
    leaf = tinygen.tensor(x, requires_grad=True)
    ops.square(ops.softmax(leaf)).sum().backward()
    results.append(leaf.grad)

threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(results) == 4 and all(np.array_equal(g, results[0]) for g in results)
with tinygen.definitions_only():
    work = tinygen.tensor(x, requires_grad=True)
    ops.square(ops.softmax(work)).sum().backward()
np.testing.assert_allclose(results[0], work.grad, rtol=0, atol=1e-6)
"""


def test_several_threads_may_be_the_first_to_call_a_kernel(tmp_path):
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compiling softmax_forward" in done.stderr
