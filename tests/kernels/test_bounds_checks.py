"""Runs of the kernel tests with bounds checks (see `.ci/run`) check something: the checks are on, and everywhere."""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher

import tinygen.kernels.cpu
from tinygen.kernels.cpu import compiling

TESTS = Path(__file__).parents[1]


def run(tmp_path, *command, **environment):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(TESTS.parent), **environment}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)


def test_a_planted_overrun_is_stopped_by_bounds_checks_and_told_without_them_even_from_the_cache(tmp_path):
    script = TESTS / "overrun.py"
    assert run(tmp_path / "new", script, NUMBA_BOUNDSCHECK="1").returncode == 0
    for checks in ("0", "1"):  # the second finds what the first compiled
        done = run(tmp_path, script, NUMBA_BOUNDSCHECK=checks)
        assert done.returncode == 1 and "one element too far was not stopped" in done.stderr


def test_a_run_with_bounds_checks_refuses_a_cache_that_holds_kernels(tmp_path):
    (tmp_path / "kernel.nbc").touch()
    done = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS / "test_files.py", NUMBA_BOUNDSCHECK="1")
    assert done.returncode == 1 and "name an empty folder as NUMBA_CACHE_DIR" in done.stdout + done.stderr


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(tinygen.kernels.cpu.__path__)])
def test_every_kernel_is_compiled_by_the_one_decorator_and_serially_where_checks_apply(name):
    module = importlib.import_module(f"tinygen.kernels.cpu.{name}")
    for found in vars(module).values():
        if isinstance(found, Dispatcher):
            assert found in compiling._kernels
            assert not found.targetoptions.get("parallel") and found.targetoptions.get("boundscheck") is None
