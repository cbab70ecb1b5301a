"""One pool of threads owns the cores."""

import os
import subprocess
import sys

import pytest

CODE = """
import time
import numpy as np
from tinygen import ops

def cpu_seconds_of_a_pause():
    begin = time.process_time()
    time.sleep(0.03)
    return time.process_time() - begin

x, w = np.ones((64, 14, 14, 32), np.float32), np.ones((3, 3, 32, 32), np.float32)
a = np.ones((64 * 14 * 14, 32), np.float32)
for _ in range(2):
    y = ops.conv2d(x, w, padding=1)
    z = ops.matmul(y.reshape(-1, 32), w[0, 0])
    grad = ops.matmul(a.T, z)
    ops.conv2d(z.reshape(x.shape), w, padding=1)
    ours = cpu_seconds_of_a_pause()
numpys = 0
for _ in range(3):
    np.matmul(a.T, z)
    numpys = max(numpys, cpu_seconds_of_a_pause())
print(ours, numpys)
"""


def test_nothing_spins_after_convolutions_and_large_products():
    """A thread that spins while everybody waits uses CPU time in a pause; NumPy's do so after one product."""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, numpys = map(float, done.stdout.split())
    if numpys < 0.002:
        pytest.skip("NumPy's BLAS has one thread here, or does not spin: nothing to keep asleep")
    assert ours < 0.2 * numpys
