"""Settings of the whole suite: no windows for pictures, no deadlines for hypothesis (first calls compile), and bounds
checks that are on where they are asked for."""

import os

import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile("tinygen", deadline=None, max_examples=50)
settings.register_profile("ci", parent=settings.get_profile("tinygen"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "tinygen")


def pytest_configure(config):
    """With NUMBA_BOUNDSCHECK=1 no test runs before a planted overrun was caught, in every process of the run."""
    if os.environ.get("NUMBA_BOUNDSCHECK", "0") == "0":
        return
    import overrun

    if not hasattr(config, "workerinput") and not overrun.empty_cache():  # workers may find what others compiled
        pytest.exit("NUMBA_BOUNDSCHECK: name an empty folder as NUMBA_CACHE_DIR; cached kernels are not checked", 1)
    if complaint := overrun.complaint():
        pytest.exit(f"NUMBA_BOUNDSCHECK: {complaint}", 1)
