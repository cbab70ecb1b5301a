"""What importing tinygen costs: what it leaves until it is named."""

import subprocess
import sys

import pytest

import tinygen

CODE = """
import sys, tinygen
later = {"tinygen.nn", "tinygen.optim", "tinygen.checkpoint", "json", "hashlib"}
assert not later & sys.modules.keys(), later & sys.modules.keys()
import tinygen.nn, tinygen.optim, tinygen.checkpoint
assert tinygen.nn is sys.modules["tinygen.nn"] and tinygen.optim is sys.modules["tinygen.optim"]
assert tinygen.load is tinygen.checkpoint.load
"""


def test_layers_and_optimisers_are_imported_when_they_are_first_named():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_and_no_other():
    assert all(hasattr(tinygen, name) for name in tinygen.__all__)
    with pytest.raises(AttributeError, match="no attribute 'layers'"):
        getattr(tinygen, "layers")  # noqa: B009
